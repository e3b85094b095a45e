//! Writes a blob.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::failure::failed;
use super::{Blob, Store, files, lock};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How much of many small pieces is written at a time.
const BUFFER: usize = 1 << 17;

/// Writes a blob, hashing it on the way. Nothing is kept unless [`BlobWriter::finish`] says so.
///
/// Errors of [`Write`] hold an [`Error`] of ours (see [`io::Error::downcast`]): `NoSpace` or `Store`.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    file: NamedTempFile,
    buffer: Vec<u8>,
    hash: Sha256,
    size: u64,
}

impl BlobWriter {
    pub(super) fn create(store: Store) -> Result<Self> {
        let file = lock::held_file(&store.tmp()).map_err(|source| failed(store.path(), "write", source))?;
        Ok(Self { store, file, buffer: Vec::new(), hash: Sha256::new(), size: 0 })
    }

    /// How many bytes were written.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Writes all of some bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|source| failed(self.store.path(), "write", source))
    }

    /// Keeps what was written. `expected` is the digest and the size that it should have: with others, nothing is kept, and
    /// the error is `ImageInvalid`.
    pub fn finish(mut self, expected: Option<(&Digest, u64)>) -> Result<Blob> {
        self.flush().map_err(|source| failed(self.store.path(), "write", source))?;
        let digest = Digest::from_bytes(self.hash.finalize().into());
        if let Some((wanted, size)) = expected
            && (*wanted, size) != (digest, self.size)
        {
            let reason = format!("its content is {digest} with {} bytes and should have {size}", self.size);
            return Err(Error::ImageInvalid { what: format!("blob {wanted}"), reason });
        }
        let path = self.store.layout.blob(&digest, self.size);
        files::place(&self.store.layout, self.file, &path)?;
        self.store.count(self.size);
        Ok(Blob::new(digest, self.size, path))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() >= BUFFER {
            self.file.write_all(bytes).map_err(|source| self.failed(source))?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        written.map_err(|source| self.failed(source))
    }
}

impl BlobWriter {
    fn failed(&self, source: io::Error) -> io::Error {
        io::Error::other(failed(self.store.path(), "write", source))
    }
}
