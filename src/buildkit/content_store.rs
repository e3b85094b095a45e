//! The blobs of an OCI layout in a directory, for a daemon that reads and writes them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::Error;

/// Where the blobs of a layout are.
const BLOBS: &str = "blobs/sha256";

/// Why something could not be done.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no such blob, or none that is being written under this name.
    Missing(String),
    /// The blob is there already.
    Exists(Digest),
    /// Another one writes under this name.
    Busy(String),
    /// What was sent is not what was said.
    Wrong(String),
    /// A part that does not belong where the last one ended.
    OutOfPlace(String),
    /// Nothing may be changed here.
    ReadOnly,
    /// This machine failed.
    Ours(Error),
}

/// The blobs of one layout.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    writable: bool,
    /// What is being written, by the names that the daemon gives.
    writing: Mutex<HashMap<String, Progress>>,
}

/// What is known of a blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlobInfo {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

/// How far a blob is that is being written.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) started: SystemTime,
    pub(super) updated: SystemTime,
    pub(super) size: u64,
}

impl Store {
    /// A layout that is only read.
    pub fn to_read(root: PathBuf) -> Self {
        Self { root, writable: false, writing: Mutex::default() }
    }

    /// A layout that is also written to. The directory is made with the first blob.
    pub fn to_write(root: PathBuf) -> Self {
        Self { root, writable: true, writing: Mutex::default() }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(digest.hex())
    }

    fn unreadable(&self, digest: &Digest, error: &io::Error) -> Fault {
        if error.kind() == io::ErrorKind::NotFound {
            return Fault::Missing(format!("blob {digest}"));
        }
        let what = format!("OCI layout `{}`", self.root.display());
        Fault::Ours(Error::ImageInvalid { what, reason: format!("cannot read the blob {digest}: {error}") })
    }

    pub(super) fn open(&self, digest: &Digest) -> Result<(File, BlobInfo), Fault> {
        let opened = (|| {
            // A pipe in its place would make us wait.
            let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
            let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path(digest))?;
            let found = file.metadata()?;
            if !found.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
            }
            let modified = found.modified()?;
            Ok((file, BlobInfo { digest: *digest, size: found.len(), modified }))
        })();
        opened.map_err(|error| self.unreadable(digest, &error))
    }

    pub(super) fn info(&self, digest: &Digest) -> Result<BlobInfo, Fault> {
        self.open(digest).map(|(_, info)| info)
    }

    /// All blobs, in the order of their digests.
    pub(super) fn list(&self) -> Result<Vec<BlobInfo>, Fault> {
        let entries = match fs::read_dir(self.root.join(BLOBS)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Fault::Ours(Error::unwritten(&self.root, error))),
        };
        let digest = |entry: io::Result<fs::DirEntry>| -> Option<Digest> {
            format!("sha256:{}", entry.ok()?.file_name().to_str()?).parse().ok()
        };
        let mut digests: Vec<Digest> = entries.filter_map(digest).collect();
        digests.sort_unstable_by_key(|digest| *digest.as_bytes());
        // One that is gone by now is none.
        Ok(digests.iter().filter_map(|digest| self.info(digest).ok()).collect())
    }

    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Fault> {
        if !self.writable {
            return Err(Fault::ReadOnly);
        }
        fs::remove_file(self.path(digest)).map_err(|error| self.unreadable(digest, &error))
    }

    fn in_progress(&self) -> MutexGuard<'_, HashMap<String, Progress>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the one under this name is.
    pub(super) fn progress(&self, name: &str) -> Option<Progress> {
        self.in_progress().get(name).cloned()
    }

    /// All that are being written, by name.
    pub(super) fn all_progress(&self) -> Vec<(String, Progress)> {
        let mut all: Vec<_> =
            self.in_progress().iter().map(|(name, progress)| (name.clone(), progress.clone())).collect();
        all.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        all
    }

    /// Begins to write a blob under a name that nobody else writes under meanwhile.
    pub(super) fn begin(self: &Arc<Self>, name: &str) -> Result<Writing, Fault> {
        if !self.writable {
            return Err(Fault::ReadOnly);
        }
        let now = SystemTime::now();
        {
            let mut writing = self.in_progress();
            if writing.contains_key(name) {
                return Err(Fault::Busy(name.to_owned()));
            }
            writing.insert(name.to_owned(), Progress { started: now, updated: now, size: 0 });
        }
        let named = Named { store: Arc::clone(self), name: name.to_owned() };
        let file = self.temporary().map_err(Fault::Ours)?;
        Ok(Writing { named, file, hash: Sha256::new(), size: 0, started: now })
    }

    fn temporary(&self) -> Result<NamedTempFile, Error> {
        let directory = self.root.join(BLOBS);
        let made = fs::create_dir_all(&directory).and_then(|()| {
            // For everybody whom the umask lets read.
            let readable = Permissions::from_mode(0o644);
            tempfile::Builder::new().prefix(".ingest-").permissions(readable).tempfile_in(&directory)
        });
        made.map_err(|error| Error::unwritten(&directory, error))
    }
}

/// A name in use.
#[derive(Debug)]
struct Named {
    store: Arc<Store>,
    name: String,
}

impl Drop for Named {
    fn drop(&mut self) {
        self.store.in_progress().remove(&self.name);
    }
}

/// A blob that is being written. Dropped before it is complete, it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Writing {
    named: Named,
    file: NamedTempFile,
    hash: Sha256,
    pub(super) size: u64,
    pub(super) started: SystemTime,
}

impl Writing {
    fn failed(&self, error: io::Error) -> Fault {
        Fault::Ours(Error::unwritten(self.file.path(), error))
    }

    fn note(&self) {
        if let Some(progress) = self.named.store.in_progress().get_mut(&self.named.name) {
            progress.size = self.size;
            progress.updated = SystemTime::now();
        }
    }

    /// Forgets what was written.
    pub(super) fn restart(&mut self) -> Result<(), Fault> {
        let emptied = self.file.as_file_mut().set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| self.failed(error))?;
        (self.hash, self.size) = (Sha256::new(), 0);
        self.note();
        Ok(())
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.file.write_all(bytes).map_err(|error| self.failed(error))?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.note();
        Ok(())
    }

    /// The digest of what was written.
    pub(super) fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finalize().into())
    }

    /// Makes it a blob, if it is what it should be.
    pub(super) fn commit(self, total: Option<u64>, expected: Option<Digest>) -> Result<(), Fault> {
        let found = self.digest();
        if let Some(total) = total.filter(|total| *total != self.size) {
            return Err(Fault::Wrong(format!("{} bytes came, and {total} were announced", self.size)));
        }
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Fault::Wrong(format!("what came is {found}, and {expected} was announced")));
        }
        let path = self.named.store.path(&found);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(Fault::Exists(found));
        }
        let kept = self.file.persist(&path);
        kept.map(drop).map_err(|error| Fault::Ours(Error::unwritten(&path, error.error)))
    }
}
