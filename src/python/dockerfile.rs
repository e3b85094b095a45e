//! Dockerfiles without a build.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::{convert, error};
use crate::check;
use crate::dockerfile::Report;
use crate::environment::Environment;

/// Checks the Dockerfile of a request. What is wrong in it is in the result: `findings`, and `error`, the exception that a
/// build would raise.
#[pyfunction]
pub(super) fn dockerfile_check<'py>(py: Python<'py>, request: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let request = convert::request(request)?;
    let environment = Environment::of_process();
    let checked = py.detach(|| check::check_request(&request, &environment));
    let report = checked.map_err(|failed| error::raise(py, &failed))?;
    dict(py, &report)
}

fn dict<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let findings = PyList::empty(py);
    for finding in &report.findings {
        let object = convert::object(py, finding)?;
        object.set_item("description", finding.rule.description())?;
        object.set_item("frame", finding.location.frame())?;
        findings.append(object)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("findings", findings)?;
    dict.set_item("findings_are_errors", report.findings_are_errors)?;
    dict.set_item("error", report.error.as_ref().map(|failed| error::raise(py, failed).into_value(py)))?;
    Ok(dict)
}
