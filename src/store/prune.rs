//! Takes away what is too much.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::failure::failed;
use super::files::{make_folder, touch};
use super::usage::{Item, KindUsage, items, last_use};
use super::{Policy, Store, caches, lock, scratch};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::folders;

/// How many files are taken away under one lock: others wait so long.
const BATCH: usize = 64;

/// A build looks whether there is too much if nobody did for so long,
const INTERVAL: Duration = Duration::from_secs(600);
/// or if it wrote such a part of the limit.
const PART: u64 = 16;

/// What was taken away, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// What was taken away.
    pub removed: KindUsage,
    /// What is left.
    pub kept: KindUsage,
}

impl Store {
    /// Takes away what the policy does not let stay, but nothing that was used since the oldest living lease began.
    pub fn prune(&self, policy: &Policy, cancel: &Cancel) -> Result<Pruned> {
        let mut all = items(&self.layout, cancel)?;
        all.sort_unstable();
        let total: u64 = all.iter().map(|item| item.bytes).sum();
        let oldest = policy.older_than.and_then(|age| SystemTime::now().checked_sub(age));
        let mut pruned =
            Pruned { removed: KindUsage::default(), kept: KindUsage { count: all.len() as u64, bytes: total } };
        let mut rest = all.as_slice();
        while let Some(first) = rest.first() {
            let old = |item: &Item| oldest.is_some_and(|oldest| item.used < oldest);
            let over = policy.keep_bytes.map_or(0, |keep| pruned.kept.bytes.saturating_sub(keep));
            if over == 0 && !old(first) {
                break;
            }
            let mut bytes = 0;
            let wanted = |item: &&Item| {
                let wanted = bytes < over || old(item);
                bytes += item.bytes;
                wanted
            };
            let count = rest.iter().take(BATCH).take_while(wanted).count();
            let (batch, after) = rest.split_at(count);
            if !self.take_away(batch, &mut pruned, cancel)? {
                break;
            }
            rest = after;
        }
        // What other users' processes, or ours in their namespaces, have left.
        scratch::sweep(&self.layout, self.remover.as_deref());
        Ok(pruned)
    }

    /// Keeps the store to its limit: what a build does when it ends. `None` if there was no need to look.
    pub fn prune_if_due(&self, cancel: &Cancel) -> Result<Option<Pruned>> {
        let stamp = self.layout.pruned();
        let looked = stamp.metadata().and_then(|metadata| metadata.modified());
        let fresh = looked.is_ok_and(|looked| looked.elapsed().is_ok_and(|age| age < INTERVAL));
        if fresh && self.written.load(Ordering::Relaxed) < self.limit / PART {
            return Ok(None);
        }
        let pruned = self.prune(&Policy { keep_bytes: Some(self.limit), older_than: None }, cancel)?;
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&stamp);
        made.map_err(|source| failed(self.path(), "write", source))?;
        touch(&stamp);
        self.written.store(0, Ordering::Relaxed);
        Ok(Some(pruned))
    }

    /// Takes some files away, those that were used the longest time ago first. `false` if a lease keeps one of them, and so
    /// all that come later.
    fn take_away(&self, batch: &[Item], pruned: &mut Pruned, cancel: &Cancel) -> Result<bool> {
        let mut trash = Vec::new();
        let moved = self.move_away(batch, &mut trash, pruned, cancel);
        // Large files take their time, for which nobody needs to wait. What is not removed here is swept up later.
        for path in trash {
            let _ = folders::remove_all(&path);
        }
        moved.map_err(|source| failed(self.path(), "prune it", source))
    }

    /// Where something goes that is taken away.
    fn trash(&self, path: &Path) -> io::Result<PathBuf> {
        if path.is_dir() {
            make_folder(&self.layout.scratch())?;
            return Ok(self.layout.trash(path));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(self.tmp().join(format!("pruned-{name}")))
    }

    fn move_away(
        &self,
        batch: &[Item],
        trash: &mut Vec<PathBuf>,
        pruned: &mut Pruned,
        cancel: &Cancel,
    ) -> io::Result<bool> {
        let _lock = lock::exclusive(&self.layout, cancel).map_err(io::Error::other)?;
        let leased = lock::leased_since(&self.layout)?;
        for listed in batch {
            if leased.is_some_and(|since| listed.used >= since) {
                return Ok(false);
            }
            match last_use(&listed.path)? {
                // It was used, or written anew, since it was listed.
                Some(used) if used != listed.used => continue,
                Some(_) if caches::is_used(&listed.path) => continue,
                Some(_) => {
                    let target = self.trash(&listed.path)?;
                    fs::rename(&listed.path, &target)?;
                    trash.push(target);
                    pruned.removed.add(listed.bytes);
                }
                // Somebody else took it away.
                None => {}
            }
            pruned.kept.count -= 1;
            pruned.kept.bytes -= listed.bytes;
        }
        Ok(true)
    }
}
