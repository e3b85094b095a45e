//! Build contexts without a build.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::run::{Caller, Work};
use super::{CancelHandle, convert, error, flag, run};
use crate::context::{Context, Entry, Format, Kind, PackOptions};
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

/// Writes a context as an archive. `output` is a path, where the archive appears when it is complete, or an object with
/// `write`, which is called on this thread.
#[pyfunction]
#[pyo3(signature = (context, output, format="tar", *, dockerfile=None, level=None, source_date_epoch=None, cancel=None))]
#[allow(clippy::too_many_arguments, reason = "they are keyword arguments of Python")]
pub(super) fn context_pack<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    output: Bound<'py, PyAny>,
    format: &str,
    dockerfile: Option<&Bound<'py, PyAny>>,
    level: Option<i32>,
    source_date_epoch: Option<u64>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let format = Format::from_str(format).map_err(|failed| error::raise(py, &failed))?;
    let mut options = PackOptions { level, ..format.into() };
    options.mtime = source_date_epoch.unwrap_or(options.mtime);
    let mut caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let path = if output.hasattr("write")? {
        caller.output = Some(output);
        None
    } else if let Ok(descriptor) = output.extract::<i32>() {
        caller.output = Some(unbuffered(py, descriptor)?);
        None
    } else {
        Some(output.extract::<PathBuf>()?)
    };
    let packed = run::run(py, &caller, |given| {
        with(specs, given, move |context, mut given| {
            let cancel = given.job.cancel.clone();
            match path {
                Some(path) => context.pack_to_path(options, &path, &cancel),
                None => context.pack(options, &mut given.output, &cancel),
            }
        })
    })?;
    let result = convert::object(py, &packed)?;
    add_messages(&result.get_item("notices")?, &packed.notices)?;
    Ok(result)
}

/// A file object for a descriptor, which stays open when the object goes.
fn unbuffered(py: Python<'_>, descriptor: i32) -> PyResult<Bound<'_, PyAny>> {
    let arguments = PyDict::new(py);
    arguments.set_item("mode", "wb")?;
    arguments.set_item("buffering", 0)?;
    arguments.set_item("closefd", false)?;
    py.import("os")?.getattr("fdopen")?.call((descriptor,), Some(&arguments))
}

/// A digest of the content: equal for equal paths, modes and bytes.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, cancel=None))]
pub(super) fn context_digest<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<String> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let digest = run::run(py, &caller, |given| with(specs, given, |context, given| context.digest(&given.job.cancel)))?;
    Ok(digest.to_string())
}

/// What is in a context, what takes up the space, and what should perhaps not be there.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, cancel=None))]
pub(super) fn context_report<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let report = run::run(py, &caller, |given| with(specs, given, |context, _| Ok(context.report())))?;
    let result = convert::object(py, &report)?;
    add_messages(&result.get_item("warnings")?, &report.warnings)?;
    add_messages(&result.get_item("notices")?, &report.notices)?;
    Ok(result)
}

/// Gives each of these dicts what it says to people.
fn add_messages<T: Display>(dicts: &Bound<'_, PyAny>, items: &[T]) -> PyResult<()> {
    for (index, item) in items.iter().enumerate() {
        dicts.get_item(index)?.set_item("message", item.to_string())?;
    }
    Ok(())
}
