//! Directories that are in use for the length of a build, and go with it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::retry_on_intr;

use super::failure::failed;
use super::files::{Layout, list, make_folder};
use super::{Store, lock};
use crate::error::Result;
use crate::folders;

/// Removes directories that this process cannot remove by itself: what is in them belongs to subordinate ids.
pub trait Remover: std::fmt::Debug + Send + Sync {
    /// Removes these directories, as far as that is possible. Blocks.
    fn remove(&self, directories: &[PathBuf]);
}

/// A directory in the store that is this process's alone. It goes when the value is dropped, and when the process is gone:
/// whoever opens the store next removes it.
///
/// Files in it that belong to subordinate ids have to be removed from inside their user namespace; what is left is tried again
/// by everybody, and by the store's [`Remover`] when it is pruned.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// The directory itself, locked.
    _lock: File,
}

impl Scratch {
    pub(super) fn new(layout: &Layout) -> Result<Self> {
        let make = || {
            make_folder(&layout.scratch())?;
            loop {
                let prefix = format!("{}-", std::process::id());
                let made = tempfile::Builder::new().prefix(&prefix).rand_bytes(12).tempdir_in(layout.scratch())?;
                // Before it has the lock, somebody may take it for one that was left behind.
                let Ok(lock) = directory(made.path()) else { continue };
                retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))?;
                if lock.metadata()?.nlink() > 0 {
                    return Ok(Self { path: made.keep(), _lock: lock });
                }
            }
        };
        make().map_err(|source| failed(&layout.dir, "make a directory", source))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is removed by others.
        let _ = folders::remove_all(&self.path);
    }
}

/// Opens a directory, so that it can be locked.
fn directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(CWD, path, flags, Mode::empty())?))
}

/// Removes what nobody holds; what is left then, if `remover` cannot remove it either, stays for somebody who can.
pub(super) fn sweep(layout: &Layout, remover: Option<&dyn Remover>) {
    let mut left = Vec::new();
    for (_, path) in list(&layout.scratch()).into_iter().flatten().flatten() {
        let opened = if path.is_dir() { directory(&path) } else { fs::OpenOptions::new().write(true).open(&path) };
        let Ok(file) = opened else { continue };
        if !lock::try_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_or(false) {
            continue;
        }
        if folders::remove_all(&path).is_err() {
            left.push((path, file));
        }
    }
    if let Some(remover) = remover
        && !left.is_empty()
    {
        // The locks are held meanwhile.
        let (paths, _locks): (Vec<_>, Vec<_>) = left.into_iter().unzip();
        remover.remove(&paths);
        for path in paths {
            let _ = folders::remove_all(&path);
        }
    }
}

impl Store {
    /// A directory for the length of a build, on the file system of the store.
    pub fn scratch(&self) -> Result<Scratch> {
        Scratch::new(&self.layout)
    }

    /// The same store with somebody who removes what belongs to subordinate ids.
    #[must_use]
    pub fn with_remover(self, remover: std::sync::Arc<dyn Remover>) -> Self {
        Self { remover: Some(remover), ..self }
    }
}
