//! The store of the native engine without a build.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use pyo3::prelude::*;

use super::run::{Caller, Work};
use super::{CancelHandle, convert, flag, run, sandbox};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::sandbox::Sandboxes;
use crate::store::{Policy, Store, parse_age, parse_size};

/// Opens the user's store and does something with it, on a thread for blocking work.
async fn with<T: Send + 'static>(
    given: Work,
    remover: Option<Sandboxes>,
    work: impl FnOnce(&Store, Work) -> Result<T> + Send + 'static,
) -> Result<(Store, T)> {
    let blocking = move || {
        let store = Store::of_user(&Environment::of_process())?;
        let store = match remover {
            Some(remover) => store.with_remover(Arc::new(remover)),
            None => store,
        };
        let result = work(&store, given)?;
        Ok((store, result))
    };
    tokio::task::spawn_blocking(blocking).await.unwrap_or_else(|failed| run::joined(Err(failed)))
}

/// What the user's store holds: `path`, `limit`, `kinds` and `total`.
#[pyfunction]
#[pyo3(signature = (*, cancel=None))]
pub(super) fn store_usage<'py>(
    py: Python<'py>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let look = |store: &Store, given: Work| store.usage(&given.job.cancel);
    let (store, usage) = run::run(py, &caller, |given| with(given, None, look))?;
    about(&store, convert::object(py, &usage)?)
}

/// Makes the user's store smaller: `path`, `limit`, and what was `removed` and `kept`. Without sizes and ages, all goes that
/// no build is using.
#[pyfunction]
#[pyo3(signature = (*, keep_storage=None, older_than=None, cancel=None))]
pub(super) fn store_prune<'py>(
    py: Python<'py>,
    keep_storage: Option<&str>,
    older_than: Option<&str>,
    cancel: Option<&Bound<'py, CancelHandle>>,
) -> PyResult<Bound<'py, PyAny>> {
    let caller = Caller { cancel: flag(cancel), ..Caller::default() };
    let policy = policy(keep_storage, older_than);
    // Unpacked layers may belong to ids that only a process in their namespace can act for.
    let remover = sandbox::helper(py).map(Sandboxes::new);
    let prune = move |store: &Store, given: Work| store.prune(&policy?, &given.job.cancel);
    let (store, pruned) = run::run(py, &caller, |given| with(given, remover, prune))?;
    about(&store, convert::object(py, &pruned)?)
}

fn policy(keep_storage: Option<&str>, older_than: Option<&str>) -> Result<Policy> {
    let keep_bytes = keep_storage.map(|text| {
        parse_size(text)
            .ok_or_else(|| invalid("keep-storage", text, "size; write bytes, or a number with k, m, g or t"))
    });
    let older_than = older_than.map(|text| {
        parse_age(text).ok_or_else(|| invalid("older-than", text, "age; write a number with s, m, h, d or w"))
    });
    let keep_bytes = if keep_bytes.is_none() && older_than.is_none() { Some(0) } else { keep_bytes.transpose()? };
    Ok(Policy { keep_bytes, older_than: older_than.transpose()? })
}

fn invalid(name: &str, text: &str, what: &str) -> Error {
    Error::InvalidOption { name: name.into(), reason: format!("`{text}` is no {what}") }
}

fn about<'py>(store: &Store, result: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    result.set_item("path", convert::path(result.py(), store.path().as_os_str().as_bytes())?)?;
    result.set_item("limit", store.limit())?;
    Ok(result)
}
