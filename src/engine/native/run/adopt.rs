//! What a command left becomes the tree of its layer, without going through an archive.
//!
//! It is used in place of the layer on the same lower layers only ([`left_key`](super::roots::left_key)), and only if it looks
//! the same there: times are made those of the layer, and where anything has what a layer cannot say, the layer is unpacked
//! like any other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, flistxattr, openat, unlinkat, utimensat};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::folders::Folders;
use crate::layer::{LayerEntry, LayerKind};
use crate::mtime::Mtime;
use crate::rootfs::{Item, ItemKind, Listing, OWNER, View};
use crate::store::{Store, TreeKey, TreeState};

/// A longer list of attributes holds some that are not known.
const MAX_NAMES: usize = 4096;

/// The times that things have in a layer.
pub(super) type Times = HashMap<Vec<u8>, Mtime>;

/// The times of some entries, none later than `latest`, in whole seconds as layers have them.
pub(super) fn times(entries: &[LayerEntry], latest: Option<Mtime>) -> Times {
    let there = entries.iter().filter(|entry| !matches!(entry.kind, LayerKind::Whiteout | LayerKind::Opaque));
    let time = |time: Mtime| Mtime {
        seconds: latest.map_or(time.seconds, |latest| latest.seconds.min(time.seconds)),
        nanoseconds: 0,
    };
    there.map(|entry| (entry.path.clone(), time(entry.mtime))).collect()
}

/// What a command left, and what it means.
pub(super) struct Left<'a> {
    /// The upper directory of its root.
    pub(super) upper: &'a Path,
    /// What is in there.
    pub(super) listing: &'a Listing,
    /// The times of what got into the layer.
    pub(super) times: &'a Times,
    /// The lower layers.
    pub(super) view: &'a View,
}

/// Keeps what a command left under a key, if it is as good as its layer; whether it is. Blocks.
pub(super) fn adopt(left: &Left<'_>, store: &Store, key: &TreeKey, cancel: &Cancel) -> Result<bool> {
    match settle(left, cancel) {
        Ok(true) => {}
        Ok(false) => return Ok(false),
        // Not all of it is this user's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) => {
            return Err(match error.downcast::<Error>() {
                Ok(ours) => ours,
                Err(source) => {
                    Error::Store { path: left.upper.to_owned(), action: "keep what a command left".into(), source }
                }
            });
        }
    }
    let TreeState::Missing(new) = store.tree_or_new(key, cancel)? else { return Ok(true) };
    let moved = std::fs::rename(left.upper, new.path());
    moved.map_err(|source| Error::Store {
        path: left.upper.to_owned(),
        action: "keep what a command left".into(),
        source,
    })?;
    new.finish()?;
    Ok(true)
}

/// Gives everything the time that it has in the layer, or in lower ones; whether nothing has what the layer has not.
fn settle(left: &Left<'_>, cancel: &Cancel) -> io::Result<bool> {
    let mut folders = Folders::open(left.upper)?;
    // What is in a directory comes before it.
    for item in left.listing.0.iter().rev() {
        cancel.check().map_err(io::Error::other)?;
        let (parent, name) = folders.parent(&item.path)?;
        match item.kind {
            ItemKind::Whiteout => continue,
            ItemKind::Socket => {
                unlinkat(parent, name, AtFlags::empty())?;
                continue;
            }
            ItemKind::File { .. } | ItemKind::Dir { .. } if !is_plain(parent, name, item)? => return Ok(false),
            _ => {}
        }
        let lower = || left.view.find(&item.path).map(|found| found.node.mtime);
        if let Some(time) = left.times.get(&item.path).copied().or_else(lower)
            && time != item.mtime
        {
            let spec = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
            let times = Timestamps { last_access: spec, last_modification: spec };
            utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(true)
}

/// Whether something has only the attributes that layers, overlayfs and this program give.
fn is_plain(parent: BorrowedFd<'_>, name: &OsStr, item: &Item) -> io::Result<bool> {
    let kind = if matches!(item.kind, ItemKind::Dir { .. }) { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
    let opened = openat(parent, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind, Mode::empty())?;
    let mut names = vec![0; MAX_NAMES];
    let length = match flistxattr(opened.as_fd(), names.as_mut_slice()) {
        Err(Errno::NOTSUP) => return Ok(true),
        Err(Errno::RANGE) => return Ok(false),
        length => length?,
    };
    let known = |name: &[u8]| {
        name.starts_with(b"trusted.overlay.")
            || name.starts_with(b"user.overlay.")
            || [OWNER.as_bytes(), b"security.capability", b"security.selinux"].contains(&name)
    };
    Ok(names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).all(known))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{XattrFlags, lsetxattr};

    use super::*;
    use crate::digest::Digest;
    use crate::rootfs::{TreeFiles, list_tree};

    fn left_and_kept(change: impl FnOnce(&Path)) -> (tempfile::TempDir, Option<std::path::PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        fs::create_dir_all(upper.join("d")).unwrap();
        fs::write(upper.join("d/f"), "1").unwrap();
        change(&upper);
        let store = Store::open(&dir.path().join("store")).unwrap();
        let listing = list_tree(&upper, None, &|_| false, &Cancel::new()).unwrap();
        let (files, view) = (std::sync::Arc::new(TreeFiles::open(&upper).unwrap()), View::default());
        let owners = crate::layer::changes::Owners::Real;
        let found = crate::layer::changes::Left {
            listing: &listing,
            before: None,
            files,
            spool: None,
            view: &view,
            owners: &owners,
        };
        let entries = crate::layer::changes::changes(&found, &Cancel::new()).unwrap().entries;
        let times = times(&entries, Some(Mtime { seconds: 1000, nanoseconds: 0 }));
        let key = TreeKey { diff_id: Digest::of(b"layer"), form: "root".into(), variant: None };
        let left = Left { upper: &upper, listing: &listing, times: &times, view: &view };
        let kept = adopt(&left, &store, &key, &Cancel::new()).unwrap();
        let tree = store.tree(&key).unwrap().map(|tree| tree.path());
        assert_eq!(tree.is_some(), kept);
        (dir, tree)
    }

    #[test]
    fn what_was_left_gets_the_times_of_the_layer() {
        let (_dir, tree) = left_and_kept(|upper| {
            std::os::unix::fs::symlink("f", upper.join("d/l")).unwrap();
            std::os::unix::net::UnixListener::bind(upper.join("s")).unwrap();
        });
        let tree = tree.unwrap();
        for path in ["d", "d/f", "d/l"] {
            let modified = tree.join(path).symlink_metadata().unwrap().modified().unwrap();
            assert_eq!(modified, std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000), "{path}");
        }
        assert!(!tree.join("s").exists());
    }

    #[test]
    fn what_no_layer_can_say_is_not_kept() {
        let (_dir, tree) = left_and_kept(|upper| {
            // File systems without such attributes have nothing that could be lost.
            let set = lsetxattr(upper.join("d/f"), "user.mine", b"1", XattrFlags::empty());
            set.expect("the file system of temporary files keeps attributes");
        });
        assert_eq!(tree, None);
    }
}
