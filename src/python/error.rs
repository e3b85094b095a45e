//! Errors as Python exceptions: the one place that chooses a class of `zenml_cooper.exceptions`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error::{Error, Location, StepFailure};

/// The exception for an error.
pub(super) fn raise(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        // The package is broken (an import failed): its own exception says more than ours could.
        Err(broken) => broken,
    }
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let class = py.import("zenml_cooper.exceptions")?.getattr(class(error))?;
    let arguments = PyDict::new(py);
    arguments.set_item("code", error.code())?;
    arguments.set_item("hint", error.hint())?;
    arguments.set_item("frame", error.location().map(Location::frame))?;
    arguments.set_item("fields", fields(py, error)?)?;
    class.call((error.to_string(),), Some(&arguments))
}

/// The class for a kind of error.
const fn class(error: &Error) -> &'static str {
    match error {
        Error::InvalidReference { .. }
        | Error::InvalidDigest { .. }
        | Error::InvalidPlatform { .. }
        | Error::UnknownOption { .. }
        | Error::InvalidOption { .. }
        | Error::SecretUnavailable { .. }
        | Error::SshUnavailable { .. } => "OptionError",
        Error::Unsupported { .. } => "UnsupportedError",
        Error::ContextRoot { .. }
        | Error::ContextRead { .. }
        | Error::ContextChanged { .. }
        | Error::ContextWrite { .. }
        | Error::ContextPath { .. }
        | Error::IgnoreFile { .. }
        | Error::IgnorePattern { .. } => "ContextError",
        Error::DockerfileMissing { .. }
        | Error::Dockerfile { .. }
        | Error::DockerfileSyntax { .. }
        | Error::DockerfileVariable { .. }
        | Error::DockerfileValue { .. }
        | Error::DockerfileStage { .. }
        | Error::DockerfileFrontend { .. } => "DockerfileError",
        Error::StepFailed(_) => "StepFailed",
        Error::BaseMissing { .. }
        | Error::BuildFailed { .. }
        | Error::ImageInvalid { .. }
        | Error::PlatformMissing { .. }
        | Error::CopyFailed { .. }
        | Error::FetchFailed { .. }
        | Error::StepUnsupported { .. }
        | Error::Sandbox { .. }
        | Error::OutputFailed { .. } => "BuildError",
        Error::Store { .. } | Error::StoreDamaged { .. } => "StoreError",
        Error::DaemonUnreachable { .. }
        | Error::DaemonDenied { .. }
        | Error::DaemonRefused { .. }
        | Error::DaemonProtocol { .. }
        | Error::DaemonConfig { .. }
        | Error::WorkerUnreachable { .. }
        | Error::WorkerLost { .. }
        | Error::NoSpace { .. } => "DaemonError",
        Error::RegistryDenied { .. }
        | Error::RegistryUnreachable { .. }
        | Error::RegistryRefused { .. }
        | Error::PushFailed { .. }
        | Error::DigestMismatch { .. }
        | Error::Credentials { .. } => "RegistryError",
        Error::Interrupted => "CooperCancelled",
        Error::TimedOut { .. } => "TimedOut",
        Error::Internal { .. } => "InternalError",
    }
}

/// The fields of a variant, under their names, and those of its place in a text.
fn fields<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    macro_rules! set {
        ($($name:ident),+) => {{ $(fields.set_item(stringify!($name), $name)?;)+ }};
    }
    match error {
        Error::InvalidReference { input, reason } => set!(input, reason),
        Error::InvalidDigest { input } | Error::InvalidPlatform { input } => set!(input),
        Error::UnknownOption { name, suggestion } => set!(name, suggestion),
        Error::InvalidOption { name, reason } => set!(name, reason),
        Error::Unsupported { engine, feature, reason } => set!(engine, feature, reason),
        Error::SecretUnavailable { id, reason } | Error::SshUnavailable { id, reason } => set!(id, reason),
        Error::ContextRoot { path, source }
        | Error::ContextRead { path, source }
        | Error::IgnoreFile { path, source }
        | Error::OutputFailed { path, source } => {
            fields.set_item("path", path.as_os_str())?;
            fields.set_item("errno", source.raw_os_error())?;
        }
        Error::ContextChanged { path, expected, found } => {
            fields.set_item("path", path.as_os_str())?;
            set!(expected, found);
        }
        Error::ContextWrite { source } => fields.set_item("errno", source.raw_os_error())?,
        Error::ContextPath { path, reason } => set!(path, reason),
        Error::IgnorePattern { location: _, reason } => set!(reason),
        Error::DockerfileMissing { path } => set!(path),
        Error::Dockerfile { location: _, message }
        | Error::DockerfileFrontend { location: _, message }
        | Error::StepUnsupported { location: _, message }
        | Error::BuildFailed { message }
        | Error::NoSpace { message }
        | Error::Internal { message } => set!(message),
        Error::DockerfileSyntax { location: _, message, suggestion }
        | Error::DockerfileVariable { location: _, message, suggestion }
        | Error::DockerfileValue { location: _, message, suggestion }
        | Error::DockerfileStage { location: _, message, suggestion }
        | Error::CopyFailed { location: _, message, suggestion } => set!(message, suggestion),
        Error::StepFailed(step) => step_fields(&fields, step)?,
        Error::BaseMissing { reference, location: _, message } | Error::PushFailed { reference, message } => {
            set!(reference, message);
        }
        Error::DaemonUnreachable { endpoint, reason }
        | Error::WorkerUnreachable { endpoint, reason }
        | Error::WorkerLost { endpoint, reason } => set!(endpoint, reason),
        Error::DaemonDenied { endpoint } => set!(endpoint),
        Error::DaemonRefused { action, status, message } => set!(action, status, message),
        Error::DaemonProtocol { action, reason } | Error::Sandbox { action, reason } => set!(action, reason),
        Error::DaemonConfig { setting, reason } => set!(setting, reason),
        Error::RegistryDenied { registry, reference, message, had_credentials } => {
            set!(registry, reference, message, had_credentials);
        }
        Error::RegistryUnreachable { registry, reason } | Error::Credentials { registry, reason } => {
            set!(registry, reason);
        }
        Error::DigestMismatch { reference, expected, found } => set!(reference, expected, found),
        Error::ImageInvalid { what, reason } => set!(what, reason),
        Error::PlatformMissing { reference, platform, available } => set!(reference, platform, available),
        Error::RegistryRefused { registry, action, status, message } => set!(registry, action, status, message),
        Error::Store { path, action, source } => {
            fields.set_item("path", path.as_os_str())?;
            set!(action);
            fields.set_item("errno", source.raw_os_error())?;
        }
        Error::StoreDamaged { path, reason } => {
            fields.set_item("path", path.as_os_str())?;
            set!(reason);
        }
        Error::FetchFailed { location: _, url, reason } => set!(url, reason),
        Error::Interrupted => {}
        Error::TimedOut { action, after } => {
            set!(action);
            fields.set_item("seconds", after.as_secs_f64())?;
        }
    }
    if let Some(location) = error.location() {
        fields.set_item("file", &location.file)?;
        fields.set_item("line", location.line)?;
        fields.set_item("column", location.column)?;
    }
    Ok(fields)
}

fn step_fields(fields: &Bound<'_, PyDict>, step: &StepFailure) -> PyResult<()> {
    fields.set_item("instruction", &step.instruction)?;
    fields.set_item("exit_code", step.exit_code)?;
    fields.set_item("message", &step.message)?;
    fields.set_item("tail", PyList::new(fields.py(), &step.tail)?)
}
