//! Build contexts without a build.

use std::fmt::Display;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::file::PlainFile;
use super::run::{Caller, Work};
use super::{CancelHandle, convert, error, flag, run};
use crate::context::{Context, Entry, EntryId, Format, Index, Kind, PackOptions, Style};
use crate::environment::Environment;
use crate::error::Result;
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

/// The entries of a context, in the order in which they are sent. A dict is made of an entry when it is asked for: dicts of
/// a million entries would take most of a gigabyte.
#[pyclass(frozen, module = "zenml_cooper._core")]
pub(super) struct ContextList {
    context: Context,
    ids: Vec<EntryId>,
}

#[pymethods]
impl ContextList {
    fn __len__(&self) -> usize {
        self.ids.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: isize) -> PyResult<Bound<'py, PyDict>> {
        let at = if index < 0 { self.ids.len().checked_add_signed(index) } else { usize::try_from(index).ok() };
        let id = at.and_then(|at| self.ids.get(at)).ok_or_else(|| PyIndexError::new_err("no such entry"))?;
        dict(py, &self.context.entry(*id))
    }

    fn __iter__(list: Py<Self>) -> ContextIterator {
        ContextIterator { list, next: AtomicUsize::new(0) }
    }
}

/// An iterator over the entries of a context.
#[pyclass(frozen, module = "zenml_cooper._core")]
pub(super) struct ContextIterator {
    list: Py<ContextList>,
    next: AtomicUsize,
}

#[pymethods]
impl ContextIterator {
    const fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let list = self.list.get();
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        list.ids.get(at).map(|id| dict(py, &list.context.entry(*id))).transpose()
    }
}

/// The entries of a context.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, cancel=None))]
pub(super) fn context_list(
    py: Python<'_>,
    context: &Bound<'_, PyAny>,
    dockerfile: Option<&Bound<'_, PyAny>>,
    cancel: Option<&Bound<'_, CancelHandle>>,
) -> PyResult<ContextList> {
    let (spec, dockerfile) = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    run::run(py, &caller, |given| async move {
        let open = move || {
            let context = Context::open(&spec, &dockerfile, &given.job.cancel)?;
            let ids = context.entries().map(|entry| entry.id()).collect();
            Ok(ContextList { context, ids })
        };
        tokio::task::spawn_blocking(open).await.unwrap_or_else(|failed| run::joined(Err(failed)))
    })
}

fn dict<'py>(py: Python<'py>, entry: &Entry) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("path", convert::path(py, &entry.path)?)?;
    dict.set_item("kind", entry.kind.name())?;
    dict.set_item("size", entry.size())?;
    dict.set_item("mode", entry.mode)?;
    let target = match &entry.kind {
        Kind::Symlink { target } | Kind::Hardlink { first: target, .. } => Some(target),
        _ => None,
    };
    dict.set_item("target", target.map(|target| convert::path(py, target)).transpose()?)?;
    Ok(dict)
}

/// Writes a context as an archive. `output` is a path, where the archive appears when it is complete, or an object with
/// `write`, which is called on this thread unless it is a file on disk.
#[pyfunction]
#[pyo3(signature = (
    context, output, format="tar", *, dockerfile=None, level=None, source_date_epoch=None, digest=true, cancel=None
))]
#[allow(clippy::too_many_arguments, reason = "they are keyword arguments of Python")]
pub(super) fn context_pack<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    output: &Bound<'py, PyAny>,
    format: &str,
    dockerfile: Option<&Bound<'py, PyAny>>,
    level: Option<i32>,
    source_date_epoch: Option<u64>,
    digest: bool,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let format = Format::from_str(format).map_err(|failed| error::raise(py, &failed))?;
    let mut options = PackOptions { level, digest, ..format.into() };
    options.mtime = source_date_epoch.unwrap_or(options.mtime);
    let mut caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let object = if output.hasattr("write")? {
        Some(output.clone())
    } else if let Ok(descriptor) = output.extract::<i32>() {
        Some(unbuffered(py, descriptor)?)
    } else {
        None
    };
    let (mut target, mut plain) = (Target::Object, None);
    match object {
        None => target = Target::Path(output.extract()?),
        Some(object) => match PlainFile::of(&object)? {
            Some((found, file)) => (target, plain) = (Target::File(file), Some(found)),
            None => caller.output = Some(object),
        },
    }
    let (packed, overview) = run::run(py, &caller, |given| {
        with(specs, given, move |context, mut given| {
            let cancel = given.job.cancel.clone();
            let packed = match target {
                Target::Path(path) => context.pack_to_path(options, &path, &cancel),
                Target::File(file) => context.pack_to_file(options, &file, &cancel),
                Target::Object => context.pack(options, &mut given.output, &cancel),
            }?;
            Ok((packed, context.overview(&cancel)?))
        })
    })?;
    if let Some(plain) = plain {
        plain.advance(packed.bytes_out)?;
    }
    let result = convert::object(py, &packed)?;
    add_messages(&result.get_item("notices")?, &packed.notices)?;
    result.set_item("context", convert::object(py, &overview)?)?;
    add_messages(&result.get_item("context")?.get_item("warnings")?, &overview.warnings)?;
    Ok(result)
}

/// Where an archive goes.
enum Target {
    /// There, when it is complete.
    Path(PathBuf),
    /// Into it.
    File(File),
    /// To the calling thread, which writes it.
    Object,
}

/// A file object for a descriptor, which stays open when the object goes.
fn unbuffered(py: Python<'_>, descriptor: i32) -> PyResult<Bound<'_, PyAny>> {
    let arguments = PyDict::new(py);
    arguments.set_item("mode", "wb")?;
    arguments.set_item("buffering", 0)?;
    arguments.set_item("closefd", false)?;
    py.import("os")?.getattr("fdopen")?.call((descriptor,), Some(&arguments))
}

/// A digest of the content, equal for equal paths, modes and bytes, and how much was read for it. Without `index`, all is.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, index=true, cancel=None))]
pub(super) fn context_digest<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    index: bool,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let index = if index { Index::of_user(&Environment::of_process()) } else { None };
    let digest = run::run(py, &caller, |given| {
        with(specs, given, move |context, given| context.digest(index.as_ref(), &given.job.cancel))
    })?;
    convert::object(py, &digest)
}

/// Writes what is in a context as text, in one of several styles, to an object with `write`.
#[pyfunction]
#[pyo3(signature = (context, output, style="names", *, dockerfile=None, cancel=None))]
pub(super) fn context_write_list<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    output: Bound<'py, PyAny>,
    style: &str,
    dockerfile: Option<&Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<()> {
    let specs = convert::context(context, dockerfile)?;
    let style = Style::from_str(style).map_err(|failed| error::raise(py, &failed))?;
    let caller = Caller { cancel: flag(cancel), output: Some(output), ..Caller::default() };
    let list = move |context: &Context, mut given: Work| {
        let cancel = given.job.cancel.clone();
        context.list(style, &mut given.output, &cancel)
    };
    run::run(py, &caller, |given| with(specs, given, list))
}

/// What is in a context, what takes up the space, and what should perhaps not be there. With `excluded`, what the ignore
/// file excludes is looked at as well.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, excluded=false, cancel=None))]
pub(super) fn context_report<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    excluded: bool,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let look = move |context: &Context, given: Work| context.report(excluded, &given.job.cancel);
    let report = run::run(py, &caller, |given| with(specs, given, look))?;
    let result = convert::object(py, &report)?;
    add_messages(&result.get_item("warnings")?, &report.warnings)?;
    add_messages(&result.get_item("notices")?, &report.notices)?;
    Ok(result)
}

/// Why each of these paths is in a context, or is not. They are relative to the root.
#[pyfunction]
#[pyo3(signature = (context, paths, *, dockerfile=None, cancel=None))]
pub(super) fn context_why<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    paths: Vec<PathBuf>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let explain = move |context: &Context, given: Work| {
        let why = |path: &PathBuf| context.why(path.as_os_str().as_bytes(), &given.job.cancel);
        paths.iter().map(why).collect::<Result<Vec<_>>>()
    };
    let found = run::run(py, &caller, |given| with(specs, given, explain))?;
    let result = convert::object(py, &found)?;
    add_messages(&result, &found)?;
    Ok(result)
}

/// What the ignore file could exclude besides, as lines for it.
#[pyfunction]
#[pyo3(signature = (context, *, dockerfile=None, cancel=None))]
pub(super) fn context_suggest<'py>(
    py: Python<'py>,
    context: &Bound<'py, PyAny>,
    dockerfile: Option<&Bound<'py, PyAny>>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let specs = convert::context(context, dockerfile)?;
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let suggest = |context: &Context, given: Work| context.suggest(&given.job.cancel);
    let found = run::run(py, &caller, |given| with(specs, given, suggest))?;
    convert::object(py, &found)
}

/// Gives each of these dicts what it says to people.
fn add_messages<T: Display>(dicts: &Bound<'_, PyAny>, items: &[T]) -> PyResult<()> {
    for (index, item) in items.iter().enumerate() {
        dicts.get_item(index)?.set_item("message", item.to_string())?;
    }
    Ok(())
}
