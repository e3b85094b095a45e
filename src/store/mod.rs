//! What is kept between builds: blobs by their digest, records by a kind and a key, and unpacked layers.
//!
//! ```text
//! blobs/ab/abcd...ef.1234      a blob: SHA-256 and size are its name
//! records/KIND/ab/abcd...ef    a record: checksum and value
//! trees/FORM/ab/abcd...ef/     an unpacked layer: `tree`, and `info`, how much that is
//! caches/FORM/ab/abcd...ef-0/  what commands keep in a cache mount: `tree`, and `lock`, held by who uses it
//! tmp/                         what is being written; its writer holds a lock on the file
//! scratch/                     directories in use; who uses one holds a lock on it
//! leases/                      one locked file for each living lease
//! lock                         shared while something is looked up or put into place, exclusive while prune takes away
//! pruned                       when prune_if_due looked the last time
//! ```
//!
//! Any number of processes may use one store, and each may be killed at any instant. The rules that keep it sound:
//!
//! - What is written goes to `tmp` and is renamed when it is complete. A file there that nobody holds a lock on was left
//!   by a process that is gone: whoever opens the store next removes it.
//! - Nothing is synced: after a power cut, a file may be short, or hold other bytes than were written. The size is checked
//!   when a blob is found, its digest when it is read, the checksum of a record always. What is damaged is removed, and is
//!   then not there. A record may name a blob that is gone; whoever reads it has to ask for the blob.
//! - The time of a file's last modification is that of its last use. [`Lease`] is nothing but a time: prune takes nothing
//!   that was used since the oldest living lease began.
//! - Only this user may read the files. Records are believed, so a directory that others may write to is not used.
//!
//! Everything here blocks.

mod blob;
mod caches;
mod census;
mod failure;
mod files;
mod lock;
mod policy;
mod prune;
mod record;
mod scratch;
mod trees;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use blob::{Blob, BlobReader};
pub use caches::{CacheDirectory, CacheKey, CacheSharing, NewCache};
pub use lock::Lease;
pub use policy::{Policy, parse_age, parse_size};
pub use prune::Pruned;
pub use scratch::{Remover, Scratch};
pub use trees::{NewTree, Tree, TreeKey, TreeState};
pub use usage::{KindUsage, Usage};
pub use writer::BlobWriter;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use failure::failed;
use files::Layout;

/// How many bytes a store may have where nobody says.
pub const DEFAULT_LIMIT: u64 = 20 << 30;

/// A store in a directory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    layout: Arc<Layout>,
    limit: u64,
    /// Bytes that were written through this value and its clones since the last prune.
    written: Arc<AtomicU64>,
    remover: Option<Arc<dyn Remover>>,
}

impl Store {
    /// Opens the store in a directory, which is made if it is not there, and removes what dead processes left behind.
    ///
    /// A directory that cannot be written to will do if a store is there: reading works, writing fails with `Store`. Fails
    /// with `Store`, or with `NoSpace`, if no store can be made there, or others may write to the directory.
    pub fn open(dir: &Path) -> Result<Self> {
        let layout = Layout::open(dir)?;
        lock::sweep(&layout.tmp());
        lock::sweep(&layout.leases());
        scratch::sweep(&layout, None);
        Ok(Self { layout: Arc::new(layout), limit: DEFAULT_LIMIT, written: Arc::default(), remover: None })
    }

    /// Opens the user's: `store` in [`Environment::cache_dir`], with the limit of `COOPER_CACHE_SIZE` if that is set.
    ///
    /// Fails like [`Store::open`], with `Store` if there is no place for it, and with `InvalidOption` if the limit is none.
    pub fn of_user(environment: &Environment) -> Result<Self> {
        let limit = match environment.var("COOPER_CACHE_SIZE") {
            Some(text) => parse_size(text).ok_or_else(|| Error::InvalidOption {
                name: "COOPER_CACHE_SIZE".into(),
                reason: format!("`{text}` is no size; write bytes, or a number with k, m, g or t"),
            })?,
            None => DEFAULT_LIMIT,
        };
        let dir = environment.cache_dir().ok_or_else(|| {
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, "HOME is not set");
            failed(Path::new("~/.cache/zenml-cooper"), "keep anything", source)
        })?;
        Ok(Self::open(&dir.join("store"))?.with_limit(limit))
    }

    /// The same store with another limit for [`Store::prune_if_due`], in bytes.
    #[must_use]
    pub fn with_limit(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// The limit in bytes for [`Store::prune_if_due`].
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.layout.dir
    }

    /// Keeps everything that is read or written while it lives from being pruned, by other processes too.
    pub fn lease(&self) -> Result<Lease> {
        Lease::take(&self.layout)
    }

    /// The blob with a digest, if it is there with the size that it was written with. This counts as a use of it.
    pub fn blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        let _lock = lock::shared(&self.layout)?;
        Blob::find(&self.layout, digest)
    }

    /// Something to write a blob with.
    pub fn writer(&self) -> Result<BlobWriter> {
        BlobWriter::create(self.clone())
    }

    /// Keeps some bytes as a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let mut writer = self.writer()?;
        writer.append(bytes)?;
        writer.finish(None)
    }

    /// The record of a kind (lower-case letters, digits and `-`) with a key. This counts as a use of it.
    ///
    /// A damaged record is removed, and is then not there.
    pub fn record(&self, kind: &str, key: &Digest) -> Result<Option<Vec<u8>>> {
        let path = self.layout.record(kind, key)?;
        let _lock = lock::shared(&self.layout)?;
        record::read(&path, kind, key)
    }

    /// Keeps a record, in place of the one that was there.
    pub fn put_record(&self, kind: &str, key: &Digest, value: &[u8]) -> Result<()> {
        let path = self.layout.record(kind, key)?;
        let file = record::write(&self.layout, kind, key, value)?;
        files::place(&self.layout, file, &path)?;
        self.count(value.len() as u64);
        Ok(())
    }

    /// How much is kept.
    pub fn usage(&self, cancel: &Cancel) -> Result<Usage> {
        usage::of(&self.layout, cancel)
    }

    fn count(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    fn tmp(&self) -> PathBuf {
        self.layout.tmp()
    }
}
