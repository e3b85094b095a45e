//! A layer that is decompressed and hashed in threads of its own, while the one that wants it does something with it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope};

use super::super::decompress;
use super::super::tar::invalid;
use super::Limits;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::media::Compression;
use crate::pack::{Buffers, Hasher};

/// How much is handed over at once.
pub(super) const BLOCK: usize = 512 << 10;
/// So many blocks may wait.
const WAITING: usize = 4;

/// A decompressed layer.
pub(super) struct Stream<'scope> {
    blocks: Receiver<io::Result<Vec<u8>>>,
    hasher: Hasher<'scope>,
    buffers: &'scope Buffers,
    block: Arc<Vec<u8>>,
    at: usize,
    ended: bool,
}

/// Counts what is read of the compressed layer.
struct Counted<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(into)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl<'scope> Stream<'scope> {
    /// Starts the threads. They end when all is read, and when the stream is dropped.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        packed: impl Read + Send + 'scope,
        compression: Compression,
        limits: Limits,
        buffers: &'scope Buffers,
    ) -> Result<Self> {
        let (sender, blocks) = sync_channel(WAITING);
        let count = Arc::new(AtomicU64::new(0));
        let packed = Counted { reader: packed, count: Arc::clone(&count) };
        let unpacking = Unpacking { count, sender, buffers, limits, bytes: 0 };
        let spawned = Builder::new()
            .name("decompress".into())
            .spawn_scoped(scope, move || unpacking.run(decompress(packed, compression)));
        spawned.map_err(|error| Error::internal(format!("no thread can be started: {error}")))?;
        let hasher = Hasher::start(scope, buffers);
        Ok(Self { blocks, hasher, buffers, block: Arc::default(), at: 0, ended: false })
    }

    /// The digest of all that was read: the diff id, if that was everything.
    pub(super) fn finish(self) -> Result<Digest> {
        self.hasher.finish()
    }

    fn next(&mut self) -> io::Result<()> {
        let Ok(block) = self.blocks.recv() else {
            self.ended = true;
            return Ok(());
        };
        let block = Arc::new(block?);
        self.hasher.add(Arc::clone(&block)).map_err(io::Error::other)?;
        if let Some(done) = Arc::into_inner(std::mem::replace(&mut self.block, block)) {
            self.buffers.give(done);
        }
        self.at = 0;
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() && !self.ended {
            self.next()?;
        }
        let rest = &self.block[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// The thread that decompresses.
struct Unpacking<'scope> {
    count: Arc<AtomicU64>,
    sender: SyncSender<io::Result<Vec<u8>>>,
    buffers: &'scope Buffers,
    limits: Limits,
    bytes: u64,
}

impl Unpacking<'_> {
    fn run(mut self, mut reader: impl Read) {
        loop {
            let block = self.block(&mut reader);
            let ended = block.as_ref().map_or(true, Vec::is_empty);
            // An error of sending says that nobody wants the rest.
            if matches!(&block, Ok(block) if block.is_empty()) || self.sender.send(block).is_err() || ended {
                return;
            }
        }
    }

    /// The next block; an empty one at the end.
    fn block(&mut self, reader: &mut impl Read) -> io::Result<Vec<u8>> {
        let mut block = self.buffers.take();
        reader.take(BLOCK as u64).read_to_end(&mut block)?;
        self.bytes += block.len() as u64;
        let packed = self.count.load(Ordering::Relaxed);
        let refused = |what: String| Err(io::Error::other(invalid(what)));
        if self.bytes > self.limits.bytes {
            return refused(format!("it has more than {} bytes", self.limits.bytes));
        }
        if self.bytes > Limits::FREE && self.bytes / self.limits.ratio.max(1) > packed {
            return refused(format!("{packed} bytes of it become more than {} times as many", self.limits.ratio));
        }
        Ok(block)
    }
}
