//! One digest for what is in a context.

use sha2::{Digest as _, Sha256};

use super::archive::portable_mode;
use super::entry::{Entry, Kind, batches};
use super::{Context, pipeline};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;

/// Changes whenever the way of digesting does.
const VERSION: &[u8] = b"cooper context 1";
/// How many entries one thread takes at a time, if they are small.
const BATCH: usize = 128;
/// And how many bytes of content, unless it is a single file.
const BATCH_BYTES: u64 = 4 << 20;
/// How much is read at a time, and between two looks at the cancel flag.
const CHUNK: usize = 1 << 18;

impl Context {
    /// The digest of paths, kinds, contents, link targets and of whether a file may be executed, in the order of the
    /// entries and each framed by its length.
    ///
    /// It is the same for the same content on every machine, for every user and in every directory: times, owners, other
    /// permission bits and whether two equal files are hard links of each other do not count. Fails as
    /// [`Context::pack`] does.
    pub fn digest(&self, cancel: &Cancel) -> Result<Digest> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut hash = Sha256::new();
        frame(&mut hash, VERSION);
        let worker = || {
            let mut buffer = vec![0; CHUNK];
            Ok(move |batch: &[Entry]| {
                let record = |entry| self.record(entry, &mut buffer, cancel);
                batch.iter().map(record).collect::<Result<Vec<_>>>()
            })
        };
        let consume = |records: Vec<Sha256>| {
            for record in records {
                hash.update(record.finalize());
            }
            Ok(())
        };
        pipeline::run(threads, batches(&self.entries, BATCH, BATCH_BYTES).map(Ok), worker, consume)?;
        Ok(Digest::from_bytes(hash.finalize().into()))
    }

    /// The hash of one entry.
    fn record(&self, entry: &Entry, buffer: &mut [u8], cancel: &Cancel) -> Result<Sha256> {
        cancel.check()?;
        let mut hash = Sha256::new();
        frame(&mut hash, &entry.path);
        match &entry.kind {
            Kind::File { .. } | Kind::Hardlink { .. } => {
                let executable = portable_mode(entry) & 0o100 != 0;
                hash.update(if executable { b"x" } else { b"f" });
                let mut reader = self.reader(entry)?;
                hash.update(reader.size().to_be_bytes());
                loop {
                    cancel.check()?;
                    let count = reader.read_some(buffer)?;
                    if count == 0 {
                        break;
                    }
                    hash.update(&buffer[..count]);
                }
            }
            Kind::Dir => hash.update(b"d"),
            Kind::Symlink { target } => {
                hash.update(b"l");
                frame(&mut hash, target);
            }
            Kind::Fifo => hash.update(b"p"),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                let kind = if matches!(entry.kind, Kind::CharDevice { .. }) { b"c" } else { b"b" };
                hash.update(kind);
                hash.update(major.to_be_bytes());
                hash.update(minor.to_be_bytes());
            }
        }
        Ok(hash)
    }
}

fn frame(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}
