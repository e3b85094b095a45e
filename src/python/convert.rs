//! Python objects to requests, and results to Python objects. Nothing beyond this file reads a dict.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pyo3::prelude::*;
use pyo3::types::PyString;
use serde::{Deserialize, Serialize};

use super::error;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::options::{self, Outputs, Value};
use crate::reference::Reference;
use crate::request::{BuildOptions, BuildRequest, ContextSpec, Credential, DockerfileSpec};

/// Reads any object as far as `Value` goes; `name` says what it is when it is something else.
fn value(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Value> {
    pythonize::depythonize(object).map_err(|failed| {
        error::raise(object.py(), &Error::InvalidOption { name: name.into(), reason: failed.to_string() })
    })
}

/// Typed data out of a value.
fn typed<T: for<'de> Deserialize<'de>>(value: Value, name: &str) -> Result<T> {
    T::deserialize(value).map_err(|failed| Error::InvalidOption { name: name.into(), reason: failed.to_string() })
}

/// A request. `options` and `outputs` in it are as users write them, see [`crate::options`]; `default_options` are those that
/// hold where the user gave none.
pub(super) fn request(object: &Bound<'_, PyAny>) -> PyResult<BuildRequest> {
    let parsed = parse(value(object, "request")?);
    parsed.map_err(|failed| error::raise(object.py(), &failed))
}

fn parse(mut value: Value) -> Result<BuildRequest> {
    let options = value.take("options").unwrap_or(Value::Null);
    let defaults = value.take("default_options").unwrap_or(Value::Null);
    let outputs = options::outputs(value.take("outputs").unwrap_or(Value::Null))?;
    // Serde has one kind of error; here a bad name keeps its own.
    if let Some(Value::List(tags)) = value.get("tags") {
        for tag in tags {
            if let Value::Text(tag) = tag {
                tag.parse::<Reference>()?;
            }
        }
    }
    let mut request: BuildRequest = typed(value, "request")?;
    request.options = options::normalize_with_defaults(options, defaults)?;
    request.push |= outputs.push;
    request.outputs = outputs.outputs;
    request.validate()?;
    Ok(request)
}

/// Where an image goes, as its user wrote it.
pub(super) fn outputs(object: &Bound<'_, PyAny>) -> PyResult<Outputs> {
    options::outputs(value(object, "output")?).map_err(|failed| error::raise(object.py(), &failed))
}

/// Build options as their user wrote them.
pub(super) fn options(object: &Bound<'_, PyAny>) -> PyResult<BuildOptions> {
    options::normalize(value(object, "options")?).map_err(|failed| error::raise(object.py(), &failed))
}

/// A context, and a Dockerfile within or beside it.
pub(super) fn context(
    context: &Bound<'_, PyAny>,
    dockerfile: Option<&Bound<'_, PyAny>>,
) -> PyResult<(ContextSpec, DockerfileSpec)> {
    let py = context.py();
    let raise = |failed| error::raise(py, &failed);
    let spec = typed(value(context, "context")?, "context").map_err(raise)?;
    let dockerfile = match dockerfile {
        Some(object) => typed(value(object, "dockerfile")?, "dockerfile").map_err(raise)?,
        None => DockerfileSpec::default(),
    };
    Ok((spec, dockerfile))
}

/// Typed data out of one argument.
pub(super) fn argument<T: for<'de> Deserialize<'de>>(object: &Bound<'_, PyAny>, name: &str) -> PyResult<T> {
    typed(value(object, name)?, name).map_err(|failed| error::raise(object.py(), &failed))
}

/// Asks the caller for a registry's credential. The answer is never part of an error.
pub(super) fn ask(function: &Bound<'_, PyAny>, registry: &str, refresh: bool) -> PyResult<Option<Credential>> {
    let answer = function.call1((registry, refresh))?;
    let py = answer.py();
    let wrong = || {
        let reason = "`credentials` returns None, {\"username\", \"password\"} or {\"identity_token\"}".to_owned();
        error::raise(py, &Error::Credentials { registry: registry.to_owned(), reason })
    };
    let value: Value = pythonize::depythonize(&answer).map_err(|_| wrong())?;
    Option::<Credential>::deserialize(value).map_err(|_| wrong())
}

/// An event as a dict with a `type`.
pub(super) fn event<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyAny>> {
    object(py, event)
}

/// Anything that can be serialized, as dicts, lists and plain values.
pub(super) fn object<'py, T: Serialize + ?Sized>(py: Python<'py>, data: &T) -> PyResult<Bound<'py, PyAny>> {
    Ok(pythonize::pythonize(py, data)?)
}

/// A path as `os.fsdecode` makes it: bytes that are no UTF-8 become surrogates, and survive a round trip.
pub(super) fn path<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    Ok(OsStr::from_bytes(bytes).into_pyobject(py)?)
}
