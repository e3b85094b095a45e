//! Where an archive goes: hashed on the way if it is written in small pieces, and to a file as a whole or not at all.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// How much of many small pieces is written at a time.
const BUFFER: usize = 1 << 18;

pub(super) fn write_error(source: io::Error) -> Error {
    Error::ContextWrite { source }
}

/// A writer that is counted, and hashed if a digest is wanted, as it goes, for many small pieces.
pub(super) struct Hashing<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
    hash: Option<Sha256>,
    bytes: u64,
    /// When set, what is written goes nowhere.
    discard: Rc<Cell<bool>>,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(out: &'a mut dyn Write, digest: bool, discard: Rc<Cell<bool>>) -> Self {
        Self { out: io::BufWriter::with_capacity(BUFFER, out), hash: digest.then(Sha256::new), bytes: 0, discard }
    }

    pub(super) fn finish(mut self) -> Result<(u64, Option<Digest>)> {
        self.out.flush().map_err(write_error)?;
        Ok((self.bytes, self.hash.map(|hash| Digest::from_bytes(hash.finalize().into()))))
    }
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.discard.get() {
            return Ok(buffer.len());
        }
        let count = self.out.write(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..count]);
        }
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file that takes its name when it is complete. Dropped before, it leaves nothing behind.
pub(super) struct TemporaryFile {
    file: File,
    target: PathBuf,
    /// Where it is until then; `None` once it has its name, and for devices and pipes, which are written to directly.
    temporary: Option<PathBuf>,
}

impl TemporaryFile {
    pub(super) fn create(target: &Path) -> Result<Self> {
        // A link is followed, so that what it points to is replaced and not the link.
        let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
        if fs::metadata(&target).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
            let file = OpenOptions::new().write(true).open(&target).map_err(write_error)?;
            return Ok(Self { file, target, temporary: None });
        }
        let name = target.file_name().ok_or_else(|| write_error(io::ErrorKind::IsADirectory.into()))?;
        if target.is_dir() {
            return Err(write_error(io::ErrorKind::IsADirectory.into()));
        }
        loop {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}.{}.partial", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
            let temporary = target.with_file_name(hidden);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok(Self { file, target, temporary: Some(temporary) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(write_error(error)),
            }
        }
    }

    /// What is written to.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name.
    pub(super) fn keep(mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.target).map_err(write_error)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // It may have gone with its directory; there is nothing else to do.
            let _ = fs::remove_file(temporary);
        }
    }
}
