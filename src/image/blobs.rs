//! Where the bytes of an image come from, and readers that believe nothing.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::invalid;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// The largest manifest, index or configuration that is read, in bytes. Registries refuse manifests of more than 4 MiB.
pub(super) const MAX_DOCUMENT: u64 = 8 << 20;

/// Something that has blobs.
pub trait Blobs: Send + Sync {
    /// Opens a blob for reading from its beginning. Whoever reads it checks what it is ([`Verified`]).
    ///
    /// An `io::Error` of the reader may have an [`Error`] inside, which is what callers then get.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>>;
}

/// A reader whose last bytes come only if all of them are what a descriptor says: neither too few nor too many, and of its
/// digest. Otherwise it fails with an `io::Error` that has an `ImageInvalid` inside.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    digest: Digest,
    size: u64,
    left: u64,
    /// Gone when all was read and found good.
    hash: Option<Sha256>,
}

impl<R: Read> Verified<R> {
    /// Reads what a descriptor says.
    pub fn new(inner: R, descriptor: &Descriptor) -> Self {
        let (digest, size) = (descriptor.digest, descriptor.size);
        Self { inner, digest, size, left: size, hash: Some(Sha256::new()) }
    }

    fn failed(&self, reason: String) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, invalid(format!("blob {}", self.digest), reason))
    }

    /// Called when all bytes that there should be are read.
    fn finish(&mut self) -> io::Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let found = Digest::from_bytes(hash.finalize().into());
        if found == self.digest {
            return Ok(());
        }
        // Reading on gives the same error.
        self.left = 1;
        Err(self.failed(format!("its content has the digest {found}")))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            self.finish()?;
            let more = self.inner.read(&mut [0])?;
            return if more == 0 { Ok(0) } else { Err(self.failed(format!("it has more than {} bytes", self.size))) };
        }
        let Some(hash) = &mut self.hash else { return Err(self.failed("it was found to be wrong".into())) };
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(self.failed(format!("it has {} bytes and should have {}", self.size - self.left, self.size)));
        }
        hash.update(&buffer[..count]);
        self.left -= count as u64;
        if self.left == 0 {
            self.finish()?;
        }
        Ok(count)
    }
}

/// What an error of a reader is for callers.
pub(super) fn read_error(error: io::Error, descriptor: &Descriptor) -> Error {
    match error.downcast::<Error>() {
        Ok(inner) => inner,
        Err(error) => invalid(format!("blob {}", descriptor.digest), format!("cannot be read: {error}")),
    }
}

/// Reads a manifest, an index or a configuration.
pub(super) fn read_document(blobs: &dyn Blobs, descriptor: &Descriptor) -> Result<Vec<u8>> {
    if descriptor.size > MAX_DOCUMENT {
        let reason = format!("it has {} bytes; at most {MAX_DOCUMENT} are read", descriptor.size);
        return Err(invalid(format!("blob {}", descriptor.digest), reason));
    }
    let mut bytes = Vec::new();
    let mut reader = Verified::new(blobs.open(descriptor)?, descriptor);
    reader.read_to_end(&mut bytes).map_err(|error| read_error(error, descriptor))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], described: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Verified::new(content, &Descriptor::of("", described)).read_to_end(&mut bytes).map(|_| bytes)
    }

    #[test]
    fn good_bytes_pass() {
        for size in [0, 1, 100_000] {
            let content = vec![7; size];
            assert_eq!(read(&content, &content).unwrap(), content);
        }
    }

    #[test]
    fn the_end_of_bad_bytes_is_never_reached() {
        for (content, described) in [("abc", "abd"), ("ab", "abc"), ("abcd", "abc"), ("x", ""), ("", "x")] {
            let error = read(content.as_bytes(), described.as_bytes()).unwrap_err();
            let error = error.downcast::<Error>().unwrap();
            assert_eq!(error.code(), "image-invalid", "{content} {described}");
        }
        // Not even by those who ask for no more than there should be.
        let descriptor = Descriptor::of("", b"abd");
        let mut reader = Verified::new(b"abc".as_slice(), &descriptor);
        assert!(reader.read_exact(&mut [0; 3]).is_err());
        assert!(reader.read(&mut [0; 3]).is_err());
    }
}
