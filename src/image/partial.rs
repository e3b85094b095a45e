//! Files that take their names when they are complete.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// A file that takes its name, and the place of an older one, when it is complete. Dropped before, it leaves nothing behind.
#[derive(Debug)]
pub struct Partial {
    file: File,
    target: PathBuf,
    /// Where it is until then; `None` once it has its name, and for devices and pipes, which are written to directly.
    temporary: Option<PathBuf>,
}

impl Partial {
    /// A file that will be at `target`. Fails with `OutputFailed`.
    pub fn create(target: &Path) -> Result<Self> {
        Self::beside(target).map_err(|source| failed(target, source))
    }

    fn beside(target: &Path) -> io::Result<Self> {
        // What a link points to is replaced, and not the link.
        let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
        let there = fs::metadata(&target);
        if there.as_ref().is_ok_and(fs::Metadata::is_dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if there.is_ok_and(|there| !there.is_file()) {
            let file = OpenOptions::new().write(true).open(&target)?;
            return Ok(Self { file, target, temporary: None });
        }
        let name = target.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        loop {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let mut hidden = OsString::from(".");
            hidden.push(&name);
            hidden.push(format!(".{}.{}.partial", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
            let temporary = target.with_file_name(hidden);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { file, target, temporary: Some(temporary) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the file its name. Fails with `OutputFailed`.
    pub fn keep(mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.target).map_err(|source| failed(&self.target, source))?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Write for Partial {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It may have gone with its directory; there is nothing else to do.
            let _ = fs::remove_file(temporary);
        }
    }
}

pub(super) fn failed(path: &Path, source: io::Error) -> Error {
    Error::unwritten(path, source)
}
