//! Where an archive goes: counted and hashed on the way, and to a file as a whole or not at all.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, SyncSender};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Blocks that may wait for the hasher.
const WAITING: usize = 4;
/// How much of many small pieces is written at a time.
const BUFFER: usize = 1 << 18;

/// A writer that is counted, and hashed on a thread of its own: SHA-256 is slower than a pipe.
pub(super) struct Output<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
    hasher: SyncSender<Arc<Vec<u8>>>,
}

impl<'a> Output<'a> {
    /// Lets `work` write, and returns how many bytes it wrote and their digest.
    pub(super) fn with(out: &'a mut dyn Write, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<(u64, Digest)> {
        std::thread::scope(|scope| {
            let (hasher, blocks) = mpsc::sync_channel::<Arc<Vec<u8>>>(WAITING);
            let hash = scope.spawn(move || {
                let mut hash = Sha256::new();
                for block in blocks {
                    hash.update(block.as_slice());
                }
                Digest::from_bytes(hash.finalize().into())
            });
            let mut output = Self { out, bytes: 0, hasher };
            let done = work(&mut output).and_then(|()| output.out.flush().map_err(write_error));
            let bytes = output.bytes;
            // The hasher ends when nobody can send to it any more.
            drop(output);
            let digest = hash.join().map_err(|_| Error::internal("the hasher stopped"));
            done?;
            Ok((bytes, digest?))
        })
    }

    /// Fails with `ContextWrite`.
    pub(super) fn write(&mut self, block: Vec<u8>) -> Result<()> {
        let block = Arc::new(block);
        if self.hasher.send(Arc::clone(&block)).is_err() {
            return Err(Error::internal("the hasher stopped"));
        }
        self.out.write_all(&block).map_err(write_error)?;
        self.bytes += block.len() as u64;
        Ok(())
    }
}

pub(super) fn write_error(source: io::Error) -> Error {
    Error::ContextWrite { source }
}

/// A writer that is counted and hashed as it goes, for many small pieces.
pub(super) struct Hashing<'a> {
    out: io::BufWriter<&'a mut dyn Write>,
    hash: Sha256,
    bytes: u64,
    /// When set, what is written goes nowhere.
    discard: Rc<Cell<bool>>,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(out: &'a mut dyn Write, discard: Rc<Cell<bool>>) -> Self {
        Self { out: io::BufWriter::with_capacity(BUFFER, out), hash: Sha256::new(), bytes: 0, discard }
    }

    pub(super) fn finish(mut self) -> Result<(u64, Digest)> {
        self.out.flush().map_err(write_error)?;
        Ok((self.bytes, Digest::from_bytes(self.hash.finalize().into())))
    }
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if self.discard.get() {
            return Ok(buffer.len());
        }
        let count = self.out.write(buffer)?;
        self.hash.update(&buffer[..count]);
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

    /// Gives the file its name.
    pub(super) fn keep(mut self) -> Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.target).map_err(write_error)?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Write for TemporaryFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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
