//! The process that runs commands: Python itself, with nothing but this module in it.

use pyo3::intern;
use pyo3::prelude::*;

use crate::request::Helper;
use crate::sandbox;

/// How that process is started: `python -I -S -B _sandbox.py _core.abi3.so`. `None` where this interpreter is part of a program
/// that is none.
pub(super) fn helper(py: Python<'_>) -> Option<Helper> {
    let find = || -> PyResult<Option<Helper>> {
        let program: Option<std::path::PathBuf> = py.import("sys")?.getattr(intern!(py, "executable"))?.extract()?;
        let core: std::path::PathBuf = py.import("zenml_cooper._core")?.getattr(intern!(py, "__file__"))?.extract()?;
        let script = core.with_file_name("_sandbox.py");
        let Some(program) = program.filter(|program| program.is_file() && script.is_file()) else { return Ok(None) };
        let flags = ["-I", "-S", "-B"].map(Into::into);
        let arguments = flags.into_iter().chain([script.into_os_string(), core.into_os_string()]).collect();
        Ok(Some(Helper { program, arguments }))
    };
    find().unwrap_or_default()
}

/// Runs commands for whoever started this process, until they want no more. For `_sandbox.py` alone: it changes the process.
#[pyfunction]
pub(super) fn _serve_sandbox() {
    sandbox::serve();
}
