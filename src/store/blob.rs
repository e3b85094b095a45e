//! A blob that is there, and the reader that verifies it.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::failure::failed;
use super::files::{self, Layout, discard, list, size_in, touch};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How much is read at a time to verify a blob: between two looks at the flag that cancels.
const BLOCK: usize = 1 << 18;

/// A blob of a store. It is there until it is pruned: a [`super::Lease`] keeps it.
#[derive(Clone, Debug)]
pub struct Blob {
    digest: Digest,
    size: u64,
    path: Arc<Path>,
}

impl Blob {
    pub(super) fn new(digest: Digest, size: u64, path: PathBuf) -> Self {
        Self { digest, size, path: path.into() }
    }

    /// Looks for a blob. The caller holds the shared lock.
    pub(super) fn find(layout: &Layout, digest: &Digest) -> Result<Option<Self>> {
        let find = || {
            let hex = digest.hex();
            for item in list(&layout.blobs().join(&hex[..2]))? {
                let (name, path) = item?;
                let Some(size) = size_in(&name).filter(|_| name.starts_with(&hex)) else { continue };
                if path.symlink_metadata()?.len() == size {
                    touch(&path);
                    return Ok(Some(Self::new(*digest, size, path)));
                }
                discard(&path);
            }
            Ok(None)
        };
        find().map_err(|source| failed(&layout.dir, "find a blob", source))
    }

    /// Its digest.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Its file, which holds the blob and nothing else. Nobody may write to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A reader that verifies what it reads.
    pub fn open(&self) -> Result<BlobReader> {
        let file = self.open_at(0)?;
        Ok(BlobReader { file, blob: self.clone(), hash: Sha256::new(), left: self.size, verified: false })
    }

    /// The file, to be read from an offset, for those who send it where it is verified. If it is refused there,
    /// [`Blob::verify`] finds out whether the store is to blame.
    pub fn open_at(&self, offset: u64) -> Result<File> {
        let open = || {
            let Some(mut file) = files::open(&self.path)? else { return Ok(None) };
            file.seek(SeekFrom::Start(offset))?;
            Ok(Some(file))
        };
        match open().map_err(|source| failed(&self.path, "read a blob", source))? {
            Some(file) => Ok(file),
            None => Err(Error::StoreDamaged { path: self.path.to_path_buf(), reason: "it was removed".into() }),
        }
    }

    /// The whole content, verified.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut content = Vec::with_capacity(usize::try_from(self.size).unwrap_or_default());
        let mut reader = self.open()?;
        reader.read_to_end(&mut content).map_err(|source| failed(&self.path, "read a blob", source))?;
        Ok(content)
    }

    /// Reads it to its end; a damaged one is removed, and the error is `StoreDamaged`.
    pub fn verify(&self, cancel: &Cancel) -> Result<()> {
        let mut reader = self.open()?;
        let mut block = vec![0; BLOCK];
        while reader.read(&mut block).map_err(|source| failed(&self.path, "read a blob", source))? > 0 {
            cancel.check()?;
        }
        Ok(())
    }

    fn damaged(&self, reason: impl Into<String>) -> io::Error {
        discard(&self.path);
        io::Error::other(Error::StoreDamaged { path: self.path.to_path_buf(), reason: reason.into() })
    }
}

/// Reads a blob, and verifies it: the last bytes, and the end, come only if all bytes are right. A damaged blob is removed,
/// and the [`io::Error`] holds `StoreDamaged` (see [`io::Error::downcast`]).
///
/// Whoever stops before the last byte has verified nothing: [`BlobReader::finish`] reads the rest.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    blob: Blob,
    hash: Sha256,
    left: u64,
    verified: bool,
}

impl BlobReader {
    /// The blob that it reads.
    pub const fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Reads the rest, and fails with `StoreDamaged` if anything in the blob is wrong.
    pub fn finish(mut self) -> Result<()> {
        let rest = io::copy(&mut self, &mut io::sink());
        rest.map(drop).map_err(|source| failed(&self.blob.path, "read a blob", source))
    }

    fn verify(&mut self) -> io::Result<()> {
        let found = Digest::from_bytes(std::mem::take(&mut self.hash).finalize().into());
        if found != self.blob.digest {
            return Err(self.blob.damaged(format!("its content is {found}")));
        }
        if self.file.read(&mut [0])? > 0 {
            return Err(self.blob.damaged(format!("it has more than {} bytes", self.blob.size)));
        }
        self.verified = true;
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && self.left > 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..most])?;
        if read == 0 && self.left > 0 {
            return Err(self.blob.damaged(format!("{} of its {} bytes are missing", self.left, self.blob.size)));
        }
        self.hash.update(&buffer[..read]);
        self.left -= read as u64;
        if self.left == 0 && !self.verified {
            self.verify()?;
        }
        Ok(read)
    }
}
