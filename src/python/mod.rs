//! The Python module `zenml_cooper._core`: all of the boundary between Python and the core.
//!
//! [`convert`] makes typed requests of dicts, [`run`] is the gate that every long call goes through, [`aio`] the same gate
//! for asyncio, [`error`] makes exceptions. `python/zenml_cooper/_core.pyi` describes the functions for type checkers.

mod aio;
mod build;
mod context;
mod convert;
mod dockerfile;
mod error;
mod exercise;
mod file;
mod run;
mod samples;
mod sandbox;
mod store;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::error::Error;
use crate::options::Arguments;
use crate::reference::Reference;

/// Stops the calls that it was given to, from any thread. Cannot be set back.
#[pyclass(frozen, module = "zenml_cooper._core")]
#[derive(Default)]
struct CancelHandle(Cancel);

#[pymethods]
impl CancelHandle {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Stops these calls; they raise `CooperCancelled`.
    fn cancel(&self) {
        self.0.cancel();
    }

    /// A handle that is stopped with this one, and that can be stopped alone.
    fn child(&self) -> Self {
        Self(self.0.child())
    }

    /// Whether `cancel` was called.
    #[getter]
    fn cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// The flag of one call. It is set with the handle's, not the other way round: an exception in one call does not stop others
/// that share its handle.
fn flag(handle: Option<&Bound<'_, CancelHandle>>) -> Cancel {
    handle.map_or_else(Cancel::new, |handle| handle.get().0.child())
}

/// The code of every error.
#[pyfunction]
fn error_codes() -> Vec<&'static str> {
    Error::CODES.to_vec()
}

/// Every build option: the Docker CLI's name -> the other names that are taken for it.
#[pyfunction]
fn build_option_names() -> std::collections::BTreeMap<&'static str, &'static [&'static str]> {
    crate::options::names()
}

/// Build options as arguments of `program` (`kaniko`, `codebuild`, `cloudbuild`), and what was left out of them.
#[pyfunction]
fn build_arguments<'py>(options: &Bound<'py, PyAny>, program: &str) -> PyResult<Bound<'py, PyAny>> {
    let py = options.py();
    let options = convert::options(options)?;
    let arguments = program.parse().and_then(|program| Arguments::of(program, &options, &Environment::of_process()));
    convert::object(py, &arguments.map_err(|failed| error::raise(py, &failed))?)
}

/// Where an image goes: `push`, whether into its registry, and `outputs`, where else, each a dict with a `type`.
#[pyfunction]
fn build_outputs<'py>(outputs: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    convert::object(outputs.py(), &convert::outputs(outputs)?)
}

/// The parts of an image's name: `name` without tag and digest, `registry`, `repository`, `tag` and `digest`.
#[pyfunction]
fn image_reference<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyDict>> {
    let reference: Reference = text.parse().map_err(|failed| error::raise(py, &failed))?;
    let parts = PyDict::new(py);
    parts.set_item("name", reference.name())?;
    parts.set_item("registry", reference.registry())?;
    parts.set_item("repository", reference.repository())?;
    parts.set_item("tag", reference.tag())?;
    parts.set_item("digest", reference.digest().map(ToString::to_string))?;
    Ok(parts)
}

/// Checks a request as far as that is possible without a daemon or a file; raises what `build` would raise.
#[pyfunction]
fn check_request(request: &Bound<'_, PyAny>) -> PyResult<()> {
    convert::request(request).map(drop)
}

/// Raises the exception for a code, made from a sample error.
#[pyfunction]
fn _raise_for_test(py: Python<'_>, code: &str) -> PyResult<()> {
    let sample = samples::errors().into_iter().find(|sample| sample.code() == code);
    let failed = sample.unwrap_or_else(|| Error::internal(format!("no sample has the code `{code}`")));
    Err(error::raise(py, &failed))
}

/// One of every event, as dicts.
#[pyfunction]
fn _events_for_test(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyAny>>> {
    samples::events().iter().map(|event| convert::event(py, event)).collect()
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let wait = wrap_pyfunction!(aio::_wait_for_threads, module)?;
    module.py().import("atexit")?.call_method1("register", (wait,))?;
    module.add("version", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<CancelHandle>()?;
    module.add_class::<context::ContextList>()?;
    module.add_function(wrap_pyfunction!(error_codes, module)?)?;
    module.add_function(wrap_pyfunction!(build_option_names, module)?)?;
    module.add_function(wrap_pyfunction!(build_arguments, module)?)?;
    module.add_function(wrap_pyfunction!(build_outputs, module)?)?;
    module.add_function(wrap_pyfunction!(image_reference, module)?)?;
    module.add_function(wrap_pyfunction!(check_request, module)?)?;
    module.add_function(wrap_pyfunction!(build::build, module)?)?;
    module.add_function(wrap_pyfunction!(build::build_async, module)?)?;
    module.add_function(wrap_pyfunction!(build::doctor, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_list, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_pack, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_digest, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_write_list, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_report, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_why, module)?)?;
    module.add_function(wrap_pyfunction!(context::context_suggest, module)?)?;
    module.add_function(wrap_pyfunction!(dockerfile::dockerfile_check, module)?)?;
    module.add_function(wrap_pyfunction!(store::store_usage, module)?)?;
    module.add_function(wrap_pyfunction!(store::store_prune, module)?)?;
    module.add_function(wrap_pyfunction!(sandbox::_serve_sandbox, module)?)?;
    module.add_function(wrap_pyfunction!(_raise_for_test, module)?)?;
    module.add_function(wrap_pyfunction!(_events_for_test, module)?)?;
    module.add_function(wrap_pyfunction!(exercise::_exercise_for_test, module)?)?;
    module.add_function(wrap_pyfunction!(exercise::_exercise_async_for_test, module)?)
}
