//! A thread that hashes files, while the one that reads them goes on.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// How much is handed over at once: many small files, or a part of a big one.
const BATCH: usize = 256 << 10;
/// So many batches are on their way, or empty.
const BATCHES: usize = 4;

/// Contents of files, one after the other.
#[derive(Debug)]
struct Batch {
    data: Vec<u8>,
    /// How much of the data is there.
    filled: usize,
    /// Where in it files end.
    ends: Vec<usize>,
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Contents {
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    batch: Batch,
}

/// The digests, once all contents are there.
#[derive(Debug)]
pub(super) struct Digests<'scope>(ScopedJoinHandle<'scope, Vec<Digest>>);

/// Starts the thread.
pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Result<(Contents, Digests<'scope>)> {
    let (full, to_hash) = sync_channel::<Batch>(BATCHES);
    let (hashed, empty) = channel();
    let new = || Batch { data: vec![0; BATCH], filled: 0, ends: Vec::new() };
    for _ in 1..BATCHES {
        hashed.send(new()).map_err(|_| stopped())?;
    }
    let thread = Builder::new().name("hash".into()).spawn_scoped(scope, move || {
        let mut digests = Vec::new();
        let mut hash = Sha256::new();
        for mut batch in to_hash {
            let mut at = 0;
            for end in batch.ends.drain(..) {
                hash.update(&batch.data[at..end]);
                digests.push(Digest::from_bytes(hash.finalize_reset().into()));
                at = end;
            }
            hash.update(&batch.data[at..batch.filled]);
            batch.filled = 0;
            // Nobody takes the last ones.
            let _ = hashed.send(batch);
        }
        digests
    });
    let thread = thread.map_err(|error: io::Error| Error::internal(format!("no thread can be started: {error}")))?;
    Ok((Contents { full, empty, batch: new() }, Digests(thread)))
}

impl Contents {
    /// Room for some of the content of the file.
    pub(super) fn room(&mut self) -> Result<&mut [u8]> {
        if self.batch.filled == self.batch.data.len() {
            self.hand_over()?;
        }
        Ok(&mut self.batch.data[self.batch.filled..])
    }

    /// So much of the room was filled.
    pub(super) const fn filled(&mut self, count: usize) {
        self.batch.filled += count;
    }

    /// The file ends here. Its digest is the next.
    pub(super) fn end_file(&mut self) {
        self.batch.ends.push(self.batch.filled);
    }

    fn hand_over(&mut self) -> Result<()> {
        let empty = self.empty.recv().map_err(|_| stopped())?;
        self.full.send(std::mem::replace(&mut self.batch, empty)).map_err(|_| stopped())
    }

    /// There are no more files.
    pub(super) fn finish(self) -> Result<()> {
        self.full.send(self.batch).map_err(|_| stopped())
    }
}

impl Digests<'_> {
    /// One for each file.
    pub(super) fn get(self) -> Result<Vec<Digest>> {
        self.0.join().map_err(|_| stopped())
    }
}

fn stopped() -> Error {
    Error::internal("hashing stopped")
}
