//! Build contexts without a build.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::run::{Caller, Work};
use super::{CancelHandle, convert, error, flag, run};
use crate::context::{Context, Entry, Kind};
use crate::error::{Error, Result};
use crate::request::{ContextSpec, DockerfileSpec};

/// Opens a context and does something with it, on a thread for blocking work.
async fn with<T: Send + 'static>(
    (spec, dockerfile): (ContextSpec, DockerfileSpec),
    given: Work,
    work: impl FnOnce(&Context, Work) -> Result<T> + Send + 'static,
) -> Result<T> {
    let blocking = move || work(&Context::open(&spec, &dockerfile, &given.job.cancel)?, given);
    tokio::task::spawn_blocking(blocking).await.unwrap_or_else(|failed| run::joined(Err(failed)))
}

/// The entries of a context, in the order in which they are sent.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, cancel=None))]
pub(super) fn context_list<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyList>> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let entries = run::run(py, &caller, |given| with(specs, given, |context, _| Ok(context.entries().to_vec())))?;
    let list = PyList::empty(py);
    for entry in &entries {
        list.append(dict(py, &entries, entry)?)?;
    }
    Ok(list)
}

fn dict<'py>(py: Python<'py>, entries: &[Entry], entry: &Entry) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("path", convert::path(py, &entry.path)?)?;
    dict.set_item("kind", kind(&entry.kind))?;
    dict.set_item("size", entry.size())?;
    dict.set_item("mode", entry.mode)?;
    let target = match &entry.kind {
        Kind::Symlink { target } => Some(target),
        Kind::Hardlink { first } => Some(
            &entries
                .get(*first)
                .ok_or_else(|| error::raise(py, &Error::internal("a hard link to an entry that is not there")))?
                .path,
        ),
        _ => None,
    };
    dict.set_item("target", target.map(|target| convert::path(py, target)).transpose()?)?;
    Ok(dict)
}

const fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Dir => "dir",
        Kind::Symlink { .. } => "symlink",
        Kind::Hardlink { .. } => "hardlink",
        Kind::Fifo => "fifo",
        Kind::CharDevice { .. } => "char_device",
        Kind::BlockDevice { .. } => "block_device",
    }
}
