//! Where an archive goes: counted and hashed on the way.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use super::buffers::Buffers;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Blocks that may wait for the hasher.
const WAITING: usize = 4;

/// A thread that hashes blocks in the order in which it gets them: SHA-256 is slower than a pipe.
pub(crate) struct Hasher<'scope> {
    blocks: SyncSender<Arc<Vec<u8>>>,
    digest: ScopedJoinHandle<'scope, Digest>,
}

impl<'scope> Hasher<'scope> {
    /// Buffers of blocks that nobody holds any more are given back.
    pub(crate) fn start(scope: &'scope Scope<'scope, '_>, buffers: &'scope Buffers) -> Self {
        let (sender, blocks) = mpsc::sync_channel::<Arc<Vec<u8>>>(WAITING);
        let digest = scope.spawn(move || {
            let mut hash = Sha256::new();
            for block in blocks {
                hash.update(block.as_slice());
                give_back(buffers, block);
            }
            Digest::from_bytes(hash.finalize().into())
        });
        Self { blocks: sender, digest }
    }

    /// Adds a block. Waits while too many are waiting.
    pub(crate) fn add(&self, block: Arc<Vec<u8>>) -> Result<()> {
        self.blocks.send(block).map_err(|_| Error::internal("the hasher stopped"))
    }

    /// The digest of all blocks.
    pub(crate) fn finish(self) -> Result<Digest> {
        drop(self.blocks);
        self.digest.join().map_err(|_| Error::internal("the hasher stopped"))
    }
}

/// A writer that is counted, and hashed if a digest is wanted.
pub(crate) struct Output<'a, 'scope> {
    out: &'a mut dyn Write,
    bytes: u64,
    hasher: Option<Hasher<'scope>>,
    /// Where blocks go that are written.
    buffers: &'a Buffers,
    /// What an error of the writer is.
    failed: fn(io::Error) -> Error,
}

impl<'a> Output<'a, '_> {
    /// Lets `work` write, and returns how many bytes it wrote and their digest.
    pub(crate) fn hashed(
        out: &mut dyn Write,
        buffers: &Buffers,
        failed: fn(io::Error) -> Error,
        work: impl FnOnce(&mut Output<'_, '_>) -> Result<()>,
    ) -> Result<(u64, Digest)> {
        std::thread::scope(|scope| {
            let hasher = Some(Hasher::start(scope, buffers));
            let mut output = Output { out, bytes: 0, hasher, buffers, failed };
            work(&mut output)?;
            let (bytes, hasher) = output.end()?;
            let digest = hasher.map(Hasher::finish).transpose()?;
            Ok((bytes, digest.ok_or_else(|| Error::internal("nothing was hashed"))?))
        })
    }

    /// Lets `work` write, and returns how many bytes it wrote.
    pub(crate) fn counted(
        out: &'a mut dyn Write,
        buffers: &'a Buffers,
        failed: fn(io::Error) -> Error,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<u64> {
        let mut output = Self { out, bytes: 0, hasher: None, buffers, failed };
        work(&mut output)?;
        output.end().map(|(bytes, _)| bytes)
    }
}

impl<'scope> Output<'_, 'scope> {
    pub(crate) fn write(&mut self, block: Vec<u8>) -> Result<()> {
        let block = Arc::new(block);
        if let Some(hasher) = &self.hasher {
            hasher.add(Arc::clone(&block))?;
        }
        self.out.write_all(&block).map_err(self.failed)?;
        self.bytes += block.len() as u64;
        give_back(self.buffers, block);
        Ok(())
    }

    /// Lets `write` write past this, to where `out` writes; it says how many bytes that were. Only where nothing is hashed.
    pub(crate) fn past(&mut self, write: impl FnOnce() -> Result<u64>) -> Result<()> {
        if self.hasher.is_some() {
            return Err(Error::internal("what is hashed was written past the hasher"));
        }
        self.bytes += write()?;
        Ok(())
    }

    fn end(self) -> Result<(u64, Option<Hasher<'scope>>)> {
        self.out.flush().map_err(self.failed)?;
        Ok((self.bytes, self.hasher))
    }
}

/// The last one who holds a block gives its buffer back.
fn give_back(buffers: &Buffers, block: Arc<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(block) {
        buffers.give(buffer);
    }
}
