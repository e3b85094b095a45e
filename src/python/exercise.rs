//! Work for the gate that needs no daemon: the boundary tests run it in place of a build.

use std::io::Write;
use std::time::Duration;

use pyo3::prelude::*;
use serde::Deserialize;

use super::run::{Caller, Work};
use super::{CancelHandle, aio, convert, flag, run};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::outcome::{Outcome, Totals};
use crate::request::Job;

/// What to do, in this order.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Plan {
    /// Send so many notices.
    events: usize,
    /// Ask for a registry's credential, and tell the user name in a notice.
    ask: Option<String>,
    /// Write so many bytes.
    write: usize,
    /// Panic.
    panic: bool,
    /// Then wait so long.
    seconds: f64,
    /// Take so long to stop when cancelled.
    stop_seconds: f64,
}

async fn follow(plan: &Plan, job: &Job) -> Result<()> {
    for number in 0..plan.events {
        job.cancel.check()?;
        job.events.send(Event::Notice { message: number.to_string() }).await;
    }
    if let Some(registry) = &plan.ask {
        let answer = job.cancel.guard(job.credentials.get(registry, false)).await?;
        let user = answer.map_or_else(|| "anonymous".to_owned(), |credential| credential.username);
        job.events.send(Event::Notice { message: format!("user: {user}") }).await;
    }
    assert!(!plan.panic, "the plan says so");
    let waited = job.cancel.guard(async {
        tokio::time::sleep(Duration::from_secs_f64(plan.seconds)).await;
        Ok(())
    });
    let result = waited.await;
    if result.is_err() {
        tokio::time::sleep(Duration::from_secs_f64(plan.stop_seconds)).await;
    }
    result
}

fn outcome(started: tokio::time::Instant) -> Outcome {
    Outcome {
        image: "exercise".into(),
        tags: Vec::new(),
        digest: None,
        config_digest: None,
        engine: "exercise".into(),
        builder: "none".into(),
        steps: Vec::new(),
        totals: Totals { seconds: started.elapsed().as_secs_f64(), ..Totals::default() },
    }
}

async fn work(plan: Plan, mut given: Work) -> Result<Outcome> {
    let started = tokio::time::Instant::now();
    if plan.write > 0 {
        let (bytes, cancel) = (plan.write, given.job.cancel.clone());
        let writing = move || {
            let block = [b'x'; 1000];
            let mut left = bytes;
            while left > 0 {
                cancel.check()?;
                let part = left.min(block.len());
                given.output.write_all(&block[..part]).map_err(|source| Error::ContextWrite { source })?;
                left -= part;
            }
            given.output.flush().map_err(|source| Error::ContextWrite { source })
        };
        tokio::task::spawn_blocking(writing).await.map_err(|failed| Error::internal(failed.to_string()))??;
    }
    follow(&plan, &given.job).await?;
    Ok(outcome(started))
}

#[pyfunction]
#[pyo3(signature = (plan, *, on_event=None, credentials=None, output=None, cancel=None))]
pub(super) fn _exercise_for_test<'py>(
    py: Python<'py>,
    plan: &Bound<'py, PyAny>,
    on_event: Option<Bound<'py, PyAny>>,
    credentials: Option<Bound<'py, PyAny>>,
    output: Option<Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let plan: Plan = convert::argument(plan, "plan")?;
    let caller = Caller { on_event, credentials, output, cancel: flag(cancel) };
    let outcome = run::run(py, &caller, |given| work(plan, given))?;
    convert::object(py, &outcome)
}

#[pyfunction]
#[pyo3(signature = (plan, *, on_event=None, credentials=None, cancel=None))]
pub(super) fn _exercise_async_for_test<'py>(
    py: Python<'py>,
    plan: &Bound<'py, PyAny>,
    on_event: Option<Py<PyAny>>,
    credentials: Option<Py<PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let plan: Plan = convert::argument(plan, "plan")?;
    aio::start(py, aio::Functions { on_event, credentials }, flag(cancel), |job| async move {
        let started = tokio::time::Instant::now();
        follow(&plan, &job).await?;
        Ok(outcome(started))
    })
}
