//! Whose files are meant to be, as it is noted: in the files, or beside them.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Stat, XattrFlags, fgetxattr, fstat, getxattr, lgetxattr, readlinkat, setxattr, statat,
};
use rustix::io::{Errno, Result};

use super::super::InodeOwner;
use super::resolve::Identity;
use crate::rootfs::OWNER;

/// So many owners are noted beside files: it is links and special files that need it.
const MAX_BESIDE: usize = 1 << 20;
/// Longer notes are none of ours.
const MAX_NOTE: usize = 24;

/// Owners.
#[derive(Debug)]
pub(super) struct Notes {
    /// Those of files that take no attributes, by device and inode.
    beside: HashMap<(u64, u64), (u32, u32)>,
    /// Who owns what has no note.
    silent: (u32, u32),
    /// Where what is written to the root goes.
    upper: Option<OwnedFd>,
    /// The mount of the root.
    mount: u64,
    /// The device of what is written there.
    device: u64,
}

impl Notes {
    /// `silent` is who owns what has no note.
    pub(super) fn new(root: BorrowedFd<'_>, upper: Option<OwnedFd>, silent: (u32, u32)) -> Result<Self> {
        let device = match &upper {
            Some(upper) => fstat(upper)?.st_dev,
            None => fstat(root)?.st_dev,
        };
        Ok(Self { beside: HashMap::new(), silent, upper, mount: Identity::of(root)?.mount, device })
    }

    /// Whether nothing is noted beside files.
    pub(super) fn are_inside(&self) -> bool {
        self.beside.is_empty()
    }

    /// Whether there may be a note for what a path of ours leads to, found out fast.
    pub(super) fn may_have(&self, path: &[u8], follow: bool) -> bool {
        let mut note = [0; MAX_NOTE];
        let found = if follow { getxattr(path, OWNER, &mut note) } else { lgetxattr(path, OWNER, &mut note) };
        if found.is_ok() {
            return true;
        }
        if self.beside.is_empty() {
            return false;
        }
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        statat(CWD, path, flags).is_ok_and(|found| !takes_attributes(&found) || self.beside.contains_key(&key(&found)))
    }

    /// Whether there may be a note for an open file, found out fast.
    pub(super) fn may_have_open(&self, file: BorrowedFd<'_>) -> bool {
        let mut note = [0; MAX_NOTE];
        !(self.beside.is_empty() && matches!(fgetxattr(file, OWNER, &mut note), Err(Errno::NODATA | Errno::NOTSUP)))
    }

    /// What is noted for a file.
    pub(super) fn get(&self, file: BorrowedFd<'_>, found: &Stat) -> Option<(u32, u32)> {
        if takes_attributes(found) {
            let mut note = [0; MAX_NOTE];
            let length = match fgetxattr(file, OWNER, &mut note) {
                Err(Errno::BADF) => getxattr(way(file), OWNER, &mut note),
                result => result,
            };
            if let Some(owner) = length.ok().and_then(|length| parse(&note[..length])) {
                return Some(owner);
            }
        }
        if self.beside.is_empty() { None } else { self.beside.get(&self.identify(file, found)).copied() }
    }

    /// Notes who owns a file that was made just now.
    pub(super) fn set(&mut self, file: BorrowedFd<'_>, owner: (u32, u32)) -> Result<()> {
        self.change(file, &fstat(file)?, None, owner)
    }

    /// Notes who owns a file from now on. Nothing has to be noted where that is root, and `before` there was no note.
    pub(super) fn change(
        &mut self,
        file: BorrowedFd<'_>,
        found: &Stat,
        before: Option<(u32, u32)>,
        owner: (u32, u32),
    ) -> Result<()> {
        if owner == self.silent && owner == (0, 0) && before.is_none() {
            return Ok(());
        }
        if takes_attributes(found) {
            let note = format!("{}:{}", owner.0, owner.1);
            match setxattr(way(file), OWNER, note.as_bytes(), XattrFlags::empty()) {
                // A file system without attributes, such as older ones in memory: it is no part of a layer.
                Err(Errno::NOTSUP) => {}
                result => return result,
            }
        }
        let key = self.identify(file, found);
        if self.beside.len() >= MAX_BESIDE && !self.beside.contains_key(&key) {
            return Err(Errno::NOSPC);
        }
        self.beside.insert(key, owner);
        Ok(())
    }

    /// Forgets what was noted beside a file: its inode was another's before.
    pub(super) fn forget(&mut self, file: BorrowedFd<'_>) -> Result<()> {
        if !self.beside.is_empty() {
            let key = self.identify(file, &fstat(file)?);
            self.beside.remove(&key);
        }
        Ok(())
    }

    /// A file's device and inode. Links that overlayfs has copied have the inode of the lower layer for as long as the kernel
    /// remembers, and in the upper directory, where they are listed, another.
    fn identify(&self, file: BorrowedFd<'_>, found: &Stat) -> (u64, u64) {
        let in_upper = || {
            let upper = self.upper.as_ref()?;
            if takes_attributes(found) || Identity::of(file).ok()?.mount != self.mount {
                return None;
            }
            let path = readlinkat(CWD, way(file), Vec::new()).ok()?.into_bytes();
            let beneath = path.strip_prefix(b"/").filter(|path| !path.is_empty())?;
            let copy = statat(upper, beneath, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            (kind(&copy) == kind(found)).then(|| key(&copy))
        };
        in_upper().unwrap_or_else(|| key(found))
    }

    /// Owners that are noted beside files of the root.
    pub(super) fn into_owners(self) -> Vec<InodeOwner> {
        let here = self.beside.into_iter().filter(|((device, _), _)| *device == self.device);
        let mut owners: Vec<_> =
            here.map(|((device, inode), (uid, gid))| InodeOwner { device, inode, uid, gid }).collect();
        owners.sort_unstable_by_key(|owner| owner.inode);
        owners
    }
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

const fn key(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

/// Whether a file can have attributes of the user's.
fn takes_attributes(found: &Stat) -> bool {
    matches!(kind(found), FileType::RegularFile | FileType::Directory)
}

/// A path that leads to an open file. What is only referred to has no other way to its attributes (before 6.13).
pub(super) fn way(file: impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// `UID:GID`.
fn parse(note: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(note).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_two_numbers() {
        assert_eq!(parse(b"1000:33"), Some((1000, 33)));
        for bad in [b"".as_slice(), b"1000", b"a:b", b"1:2:3", b"-1:0", b"4294967296:0", b"\xff:1"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_noted_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
            rustix::fs::openat(CWD, dir.path().join(name), flags, rustix::fs::Mode::empty()).unwrap()
        };
        std::fs::write(dir.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("l")).unwrap();
        let mut notes = Notes::new(open("").as_fd(), None, (0, 0)).unwrap();
        for (name, owner) in [("f", (7, 8)), ("l", (9, u32::MAX - 1)), ("", (1, 0)), ("f", (0, 0))] {
            let file = open(name);
            let found = fstat(&file).unwrap();
            notes.change(file.as_fd(), &found, notes.get(file.as_fd(), &found), owner).unwrap();
            assert_eq!(notes.get(file.as_fd(), &found), Some(owner), "{name}");
        }
        let link = open("l");
        assert!(notes.may_have(dir.path().join("l").to_str().unwrap().as_bytes(), false));
        assert!(!notes.are_inside());
        let inode = fstat(&link).unwrap().st_ino;
        notes.forget(open("").as_fd()).unwrap();
        let owners = notes.into_owners();
        assert_eq!(owners.iter().map(|o| (o.inode, o.uid, o.gid)).collect::<Vec<_>>(), [(inode, 9, u32::MAX - 1)]);
    }
}
