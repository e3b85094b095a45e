//! Directories that commands keep things in between builds (`RUN --mount=type=cache`).
//!
//! What has one name may be there several times: one for each command that would not share it. A directory is in use as long
//! as somebody holds a lock on the file beside it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::FlockOperation;

use super::Store;
use super::failure::failed;
use super::files::{Layout, list, touch};
use super::lock;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How long somebody waits between two looks whether a directory is free.
const PAUSE: Duration = Duration::from_millis(20);
/// So many commands at once each have one of their own.
const MOST: usize = 10_000;

/// What a directory is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// Over all that it depends on: its id, and what it began with.
    pub id: Digest,
    /// How owners are kept in it: the form of the trees that it is used with.
    pub form: String,
}

/// Who may use a directory at the same time (`sharing` of a cache mount).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheSharing {
    /// All that share it.
    Shared,
    /// One. Others get another directory.
    Private,
    /// One. Others wait.
    Locked,
}

/// A directory that is in use. It is free when this is dropped.
#[derive(Debug)]
pub struct CacheDirectory {
    directory: PathBuf,
    _lock: File,
}

/// A directory that is used for the first time, and is made by who has this.
#[derive(Debug)]
pub struct NewCache<'a> {
    of: &'a CacheDirectory,
    _lock: File,
}

impl CacheDirectory {
    /// Where things are kept. It is there after it was made once ([`CacheDirectory::or_new`]).
    pub fn path(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// What is needed to make it; `None` if it is there. Waits while somebody else makes it. Blocks.
    pub fn or_new(&self, cancel: &Cancel) -> Result<Option<NewCache<'_>>> {
        let failed = |source| failed(&self.directory, "make a cache", source);
        loop {
            cancel.check()?;
            if self.path().is_dir() {
                return Ok(None);
            }
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(self.directory.join("making")).map_err(failed)?;
            if !lock::try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
                thread::sleep(PAUSE);
                continue;
            }
            if !self.path().is_dir() {
                return Ok(Some(NewCache { of: self, _lock: file }));
            }
        }
    }
}

impl NewCache<'_> {
    /// Where it is made. What is there was begun by somebody who is gone.
    pub fn path(&self) -> PathBuf {
        self.of.directory.join("new")
    }

    /// It is complete.
    pub fn finish(self) -> Result<()> {
        let made = fs::rename(self.path(), self.of.path());
        made.map_err(|source| failed(&self.of.directory, "make a cache", source))
    }
}

impl Drop for CacheDirectory {
    fn drop(&mut self) {
        touch(&self.directory);
    }
}

impl Store {
    /// A directory for a command. Waits while others have it, if it is [`CacheSharing::Locked`].
    ///
    /// Fails with `Store` and `Interrupted`. Blocks.
    pub fn cache_directory(&self, key: &CacheKey, sharing: CacheSharing, cancel: &Cancel) -> Result<CacheDirectory> {
        let name = self.layout.cache(key)?;
        let failed = |source| failed(&name, "use a cache", source);
        loop {
            cancel.check()?;
            if let Some(found) = self.free(&name, sharing).map_err(failed)? {
                return Ok(found);
            }
            thread::sleep(PAUSE);
        }
    }

    /// The first directory of a name that is free; `None` if it has to be waited for.
    fn free(&self, name: &Path, sharing: CacheSharing) -> io::Result<Option<CacheDirectory>> {
        let how = match sharing {
            CacheSharing::Shared => FlockOperation::NonBlockingLockShared,
            CacheSharing::Private | CacheSharing::Locked => FlockOperation::NonBlockingLockExclusive,
        };
        // Nothing is pruned meanwhile.
        let _lock = lock::shared(&self.layout).map_err(io::Error::other)?;
        for number in 0..MOST {
            let mut directory = name.as_os_str().to_owned();
            directory.push(format!("-{number}"));
            let directory = PathBuf::from(directory);
            let is_new = !directory.is_dir();
            if is_new && number > 0 && sharing == CacheSharing::Locked {
                return Ok(None);
            }
            if is_new {
                DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            }
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(directory.join("lock"))?;
            if lock::try_lock(&file, how)? && file.metadata()?.nlink() > 0 {
                touch(&directory);
                return Ok(Some(CacheDirectory { directory, _lock: file }));
            }
        }
        Ok(None)
    }

    /// The directory of a name that was used last, if somebody keeps something in it. Whoever has it lets no others write.
    ///
    /// Fails with `Store`. Blocks.
    pub fn kept_cache(&self, key: &CacheKey) -> Result<Option<CacheDirectory>> {
        let name = self.layout.cache(key)?;
        let failed = |source| failed(&name, "use a cache", source);
        let (Some(folder), Some(file)) = (name.parent(), name.file_name()) else { return Ok(None) };
        let prefix = format!("{}-", file.to_string_lossy());
        let _lock = lock::shared(&self.layout)?;
        let mut newest = None;
        for item in list(folder).map_err(failed)? {
            let (other, path) = item.map_err(failed)?;
            if other.starts_with(&prefix) && path.join("tree").is_dir() {
                let used = path.metadata().and_then(|found| found.modified()).map_err(failed)?;
                newest = newest.max(Some((used, path)));
            }
        }
        let Some((_, directory)) = newest else { return Ok(None) };
        let file = OpenOptions::new().write(true).open(directory.join("lock")).map_err(failed)?;
        let free = lock::try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)?;
        Ok(free.then_some(CacheDirectory { directory, _lock: file }))
    }
}

impl Layout {
    pub(super) fn caches(&self) -> PathBuf {
        self.dir.join("caches")
    }

    /// Where the directories of a name are, but for their numbers. A form that is no name is a defect of the caller.
    fn cache(&self, key: &CacheKey) -> Result<PathBuf> {
        let CacheKey { id, form } = key;
        if form.is_empty() || !form.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(Error::internal(format!("`{form}` is no form of caches")));
        }
        let hex = id.hex();
        Ok(self.caches().join(form).join(&hex[..2]).join(hex))
    }
}

/// Whether somebody uses a directory. The caller holds the exclusive lock.
pub(super) fn is_used(directory: &Path) -> bool {
    let Ok(file) = OpenOptions::new().write(true).open(directory.join("lock")) else { return false };
    !lock::try_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_or(false)
}
