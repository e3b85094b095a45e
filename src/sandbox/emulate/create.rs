//! What is made by a process that takes itself for another.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat,
};
use rustix::io::{Errno, Result};

use super::call::{Made, Place};
use super::caller::Caller;
use super::resolve::Found;
use super::sys::Answer;
use super::{World, ids};

/// As large as the arguments of `openat2` were first, and are still: flags, mode and how paths are followed.
const HOW: usize = 24;

impl World {
    /// Makes something and notes whose it is; or the kernel makes it, if nothing has to be noted.
    pub(super) fn make(&mut self, caller: &Caller<'_>, place: Place, made: Made) -> Result<Answer> {
        if let Made::Node { mode, device: 0 } = made
            && FileType::from_raw_mode(mode) == FileType::CharacterDevice
        {
            // Anybody may make one, and it would hide what is in lower layers.
            return Err(Errno::PERM);
        }
        let owner = ids::of(&self.table, caller)?.owner();
        let is_own = owner == self.table.get(0).owner();
        let is_beside = !matches!(made, Made::File { .. } | Made::FileHow { .. } | Made::Directory { .. });
        if is_own && (!is_beside || self.notes.are_inside()) {
            return Ok(Answer::Continue);
        }
        let Some(made) = plain(caller, made)? else { return Ok(Answer::Continue) };
        let found = Found::new(*caller, place)?;
        if let Made::File { flags, mode } = made
            && is_unnamed(flags)
        {
            let file = open_unnamed(&found.open(self.root)?, flags, masked(caller, mode)?)?;
            self.notes.set(file.as_fd(), owner)?;
            return Ok(Answer::File(file, flags & u64::from(OFlags::CLOEXEC.bits()) != 0));
        }
        let Some((parent, name)) = found.parent(self.root)? else { return Ok(Answer::Continue) };
        // What is there already is opened by the kernel, or refused.
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            _ => return Ok(Answer::Continue),
        }
        let above = fstat(&parent)?;
        let gives = above.st_mode & libc::S_ISGID != 0;
        let group = if gives { self.notes.get(parent.as_fd(), &above).unwrap_or((0, 0)).1 } else { owner.1 };
        self.make_in(caller, &parent, name, made, (owner.0, group), is_own)
    }

    fn make_in(
        &mut self,
        caller: &Caller<'_>,
        parent: &OwnedFd,
        name: &OsStr,
        made: Made,
        owner: (u32, u32),
        is_own: bool,
    ) -> Result<Answer> {
        let made = match made {
            Made::File { flags, mode } => {
                let file = open_new(parent, name, flags, masked(caller, mode)?)?;
                self.notes.set(file.as_fd(), owner)?;
                return Ok(Answer::File(file, flags & u64::from(OFlags::CLOEXEC.bits()) != 0));
            }
            Made::Directory { mode } => with_mask(|| mkdirat(parent, name, masked(caller, mode)?)),
            Made::Symlink { target } => {
                let target = caller.path(target)?;
                if target.is_empty() {
                    return Err(Errno::NOENT);
                }
                symlinkat(OsStr::from_bytes(&target), parent, name)
            }
            Made::Node { mode, device } => {
                let kind = if mode & libc::S_IFMT == 0 { FileType::RegularFile } else { FileType::from_raw_mode(mode) };
                let (major, minor) = numbers(device);
                with_mask(|| mknodat(parent, name, kind, masked(caller, mode)?, makedev(major, minor)))
            }
            Made::FileHow { .. } => return Ok(Answer::Continue),
        };
        made?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        if is_own {
            self.notes.forget(file.as_fd())?;
        } else {
            self.notes.set(file.as_fd(), owner)?;
        }
        Ok(Answer::Value(0))
    }
}

/// The arguments of `openat2` as those of `openat`; none, if it follows paths in its own way, or makes nothing.
fn plain(caller: &Caller<'_>, made: Made) -> Result<Option<Made>> {
    let Made::FileHow { how, size } = made else { return Ok(Some(made)) };
    if size != HOW as u64 {
        return Ok(None);
    }
    let how = caller.read(how, HOW)?;
    let number = |at: usize| how[8 * at..8 * at + 8].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let [flags, permissions, resolve] = [number(0), number(1), number(2)];
    let creates = flags & u64::from(OFlags::CREATE.bits()) != 0 || is_unnamed(flags);
    let permissions = u32::try_from(permissions).ok().filter(|mode| mode & !0o7777 == 0);
    Ok(permissions.filter(|_| creates && resolve == 0).map(|mode| Made::File { flags, mode }))
}

const fn is_unnamed(flags: u64) -> bool {
    let unnamed = OFlags::TMPFILE.bits() as u64;
    flags & unnamed == unnamed
}

/// Permissions as the caller's mask leaves them.
fn masked(caller: &Caller<'_>, mode: u32) -> Result<Mode> {
    Ok(Mode::from_raw_mode(mode & 0o7777 & !caller.umask()?))
}

/// Does something without a mask of our own.
fn with_mask<T>(make: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = rustix::process::umask(Mode::empty());
    let result = make();
    rustix::process::umask(before);
    result
}

/// Flags of the caller's, for a file that is only made if it is not there.
fn opening(flags: u64) -> OFlags {
    OFlags::from_bits_retain(u32::try_from(flags).unwrap_or_default()) | OFlags::CLOEXEC
}

fn open_new(parent: &OwnedFd, name: &OsStr, flags: u64, mode: Mode) -> Result<OwnedFd> {
    let flags = opening(flags) | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY;
    with_mask(|| openat2(parent, name, flags, mode, ResolveFlags::NO_MAGICLINKS))
}

fn open_unnamed(directory: &OwnedFd, flags: u64, mode: Mode) -> Result<OwnedFd> {
    with_mask(|| openat(directory, ".", opening(flags), mode))
}

/// The two numbers of a device, as `mknod` takes them (`new_decode_dev`, `linux/kdev_t.h`).
const fn numbers(device: u64) -> (u32, u32) {
    #[allow(clippy::cast_possible_truncation, reason = "the kernel takes 32 bits")]
    let device = device as u32;
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_two_numbers() {
        for (major, minor) in [(0, 0), (1, 3), (8, 1), (259, 65_537), (4095, 1_048_575)] {
            assert_eq!(numbers(makedev(major, minor)), (major, minor));
        }
    }

    #[test]
    fn unnamed_files_are_no_directories() {
        let bits = |flags: OFlags| u64::from(flags.bits());
        assert!(is_unnamed(bits(OFlags::TMPFILE | OFlags::RDWR)));
        assert!(!is_unnamed(bits(OFlags::DIRECTORY)) && !is_unnamed(bits(OFlags::CREATE)));
    }
}
