//! Python files that are files on disk and nothing else: they are written to without the interpreter.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};

use pyo3::prelude::*;

/// The classes whose `write` does nothing but write.
const CLASSES: [&str; 3] = ["FileIO", "BufferedWriter", "BufferedRandom"];

/// Such a file, and where its next byte goes. Two copies of each byte are saved, and waiting for the interpreter.
pub(super) struct PlainFile<'py> {
    object: Bound<'py, PyAny>,
    start: u64,
}

impl<'py> PlainFile<'py> {
    /// The file behind `output`, opened once more at the same place. `None` for whatever is something else: a pipe, a file in
    /// memory, a class of the caller's, a file that is open for reading or for appending, a system without `/proc`.
    pub(super) fn of(output: &Bound<'py, PyAny>) -> PyResult<Option<(Self, File)>> {
        let object = unwrapped(output)?;
        if !is_plain(&object)? {
            return Ok(None);
        }
        object.call_method0("flush")?;
        let descriptor: i32 = object.call_method0("fileno")?.extract()?;
        if !object.call_method0("writable")?.is_truthy()? || appends(object.py(), descriptor)? {
            return Ok(None);
        }
        // A place of its own: the object's is set when all has been written.
        let Ok(mut file) = OpenOptions::new().write(true).open(format!("/proc/self/fd/{descriptor}")) else {
            return Ok(None);
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        let start = object.call_method0("tell")?.extract()?;
        Ok(file.seek(SeekFrom::Start(start)).ok().map(|_| (Self { object, start }, file)))
    }

    /// Tells the object that so many bytes were written.
    pub(super) fn advance(&self, bytes: u64) -> PyResult<()> {
        self.object.call_method1("seek", (self.start + bytes,)).map(drop)
    }
}

/// What a temporary file of Python's wraps, or the object itself.
fn unwrapped<'py>(output: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let Ok(wrapper) = output.py().import("tempfile")?.getattr("_TemporaryFileWrapper") else {
        return Ok(output.clone());
    };
    if output.get_type().is(&wrapper) { output.getattr("file") } else { Ok(output.clone()) }
}

fn is_plain(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let io = object.py().import("io")?;
    for class in CLASSES {
        if object.get_type().is(&io.getattr(class)?) {
            // A buffer may be around something else than a file.
            let raw = object.getattr_opt("raw")?;
            return Ok(raw.is_none_or(|raw| io.getattr("FileIO").is_ok_and(|file| raw.get_type().is(&file))));
        }
    }
    Ok(false)
}

/// Whether each write goes to the end of the file.
fn appends(py: Python<'_>, descriptor: i32) -> PyResult<bool> {
    let fcntl = py.import("fcntl")?;
    let flags: i32 = fcntl.call_method1("fcntl", (descriptor, fcntl.getattr("F_GETFL")?))?.extract()?;
    let append: i32 = py.import("os")?.getattr("O_APPEND")?.extract()?;
    Ok(flags & append != 0)
}
