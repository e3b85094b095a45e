//! Who may remove what: the lock of a store, leases, and files whose writer is alive.
//!
//! All are locks of whole files (`flock`), which end with the process that holds them, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use tempfile::NamedTempFile;

use super::failure::failed;
use super::files::{Layout, list};
use crate::cancel::Cancel;
use crate::error::Result;

/// How long prune waits between two looks whether anybody uses the store: a look-up takes some microseconds.
const PAUSE: Duration = Duration::from_millis(1);

/// The clock may be set back while a lease lives. What was used so much earlier than it began stays too.
const SLACK: Duration = Duration::from_secs(60);

/// Waits until prune takes nothing away, and keeps it so while the file is open.
pub(super) fn shared(layout: &Layout) -> Result<File> {
    let lock = || {
        let file = File::open(layout.lock())?;
        retry_on_intr(|| flock(&file, FlockOperation::LockShared))?;
        Ok(file)
    };
    lock().map_err(|source| failed(&layout.dir, "lock it", source))
}

/// Waits until nobody looks anything up or puts anything into place, and keeps it so while the file is open.
pub(super) fn exclusive(layout: &Layout, cancel: &Cancel) -> Result<File> {
    let failed = |source| failed(&layout.dir, "lock it", source);
    let file = OpenOptions::new().write(true).open(layout.lock()).map_err(failed)?;
    loop {
        cancel.check()?;
        // Those who wait for a shared lock come first.
        thread::sleep(PAUSE);
        if try_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
            return Ok(file);
        }
    }
}

pub(super) fn try_lock(file: &File, how: FlockOperation) -> io::Result<bool> {
    match retry_on_intr(|| flock(file, how)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A new file with a name of its own, that stays while this process has it open. It goes when the value is dropped.
pub(super) fn held_file(folder: &Path) -> io::Result<NamedTempFile> {
    loop {
        let prefix = format!("{}-", std::process::id());
        let file = tempfile::Builder::new().prefix(&prefix).rand_bytes(12).tempfile_in(folder)?;
        retry_on_intr(|| flock(file.as_file(), FlockOperation::LockExclusive))?;
        // Before it had the lock, somebody may have taken it for one that was left behind.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// Removes the files of a folder that nobody holds. What cannot be removed stays for somebody who may.
pub(super) fn sweep(folder: &Path) {
    for (_, path) in list(folder).into_iter().flatten().flatten() {
        let Ok(file) = OpenOptions::new().write(true).open(&path) else { continue };
        if try_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_or(false) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Keeps everything that is read or written while it lives from being pruned.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Lease {
    _file: NamedTempFile,
}

impl Lease {
    pub(super) fn take(layout: &Layout) -> Result<Self> {
        let file = held_file(&layout.leases()).map_err(|source| failed(&layout.dir, "take a lease", source))?;
        Ok(Self { _file: file })
    }
}

/// The time since which nothing may be pruned; `None` without a living lease. The caller holds the exclusive lock, so that
/// no lease of which this knows nothing can have seen anything yet.
pub(super) fn leased_since(layout: &Layout) -> io::Result<Option<SystemTime>> {
    let mut oldest: Option<SystemTime> = None;
    for item in list(&layout.leases())? {
        let (_, path) = item?;
        // One that ended since it was listed.
        let Some(file) = super::files::open(&path)? else { continue };
        if try_lock(&file, FlockOperation::NonBlockingLockShared)? {
            continue;
        }
        let start = file.metadata()?.modified()? - SLACK;
        oldest = Some(oldest.map_or(start, |oldest| oldest.min(start)));
    }
    Ok(oldest)
}
