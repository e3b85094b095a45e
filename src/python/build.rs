//! Builds, and the question whether one could work here.

use std::str::FromStr;

use pyo3::prelude::*;

use super::run::Caller;
use super::{CancelHandle, aio, convert, error, flag, run, sandbox};
use crate::engine::{auto, buildkit, docker, native, select};
use crate::environment::Environment;
use crate::error::Result;
use crate::outcome::Outcome;
use crate::reference::Reference;
use crate::request::{BuildRequest, EngineKind, EngineSpec, Job};

async fn work(request: BuildRequest, job: Job) -> Result<Outcome> {
    let engine = select(&request.engine, Environment::of_process());
    engine.build(&request, &job).await
}

/// A request with the way to start processes that run commands.
fn with_helper(py: Python<'_>, mut request: BuildRequest) -> BuildRequest {
    request.engine.helper = sandbox::helper(py);
    request
}

/// Builds an image, and pushes it if the request says so.
#[pyfunction]
#[pyo3(signature = (request, *, on_event=None, credentials=None, cancel=None))]
pub(super) fn build<'py>(
    py: Python<'py>,
    request: &Bound<'py, PyAny>,
    on_event: Option<Bound<'py, PyAny>>,
    credentials: Option<Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let request = with_helper(py, convert::request(request)?);
    let caller = Caller { on_event, credentials, cancel: flag(cancel), ..Caller::default() };
    let outcome = run::run(py, &caller, |given| work(request, given.job))?;
    convert::object(py, &outcome)
}

/// The same as an awaitable; `zenml_cooper.aio.build` has the rest that asyncio wants.
#[pyfunction]
#[pyo3(signature = (request, *, on_event=None, credentials=None, cancel=None))]
pub(super) fn build_async<'py>(
    py: Python<'py>,
    request: &Bound<'py, PyAny>,
    on_event: Option<Py<PyAny>>,
    credentials: Option<Py<PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let request = with_helper(py, convert::request(request)?);
    aio::start(py, aio::Functions { on_event, credentials }, flag(cancel), |job| work(request, job))
}

/// What this machine has for builds, and what to do about what is missing.
#[pyfunction]
#[pyo3(signature = (engine=None, *, registry=None, credentials=None, cancel=None))]
pub(super) fn doctor<'py>(
    py: Python<'py>,
    engine: Option<&Bound<'py, PyAny>>,
    registry: Option<&str>,
    credentials: Option<Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut spec: EngineSpec =
        engine.map(|engine| convert::argument(engine, "engine")).transpose()?.unwrap_or_default();
    spec.helper = sandbox::helper(py);
    let registry =
        registry.map(|name| Reference::from_str(name).map_err(|failed| error::raise(py, &failed))).transpose()?;
    let caller = Caller { credentials, cancel: flag(cancel), ..Caller::default() };
    let report = run::run(py, &caller, |given| async move {
        let environment = Environment::of_process();
        match spec.kind {
            EngineKind::Buildkit => buildkit::doctor::examine(&spec, registry.as_ref(), environment, &given.job).await,
            EngineKind::Native => native::doctor::examine(&spec, registry.as_ref(), environment, &given.job).await,
            EngineKind::Docker => docker::doctor::examine(&spec, registry.as_ref(), environment, &given.job).await,
            EngineKind::Auto => auto::examine(&spec, registry.as_ref(), environment, &given.job).await,
        }
    })?;
    let result = convert::object(py, &report)?;
    result.set_item("status", convert::object(py, &report.status())?)?;
    Ok(result)
}
