//! Finds the files that callers mean: from their directories, in their roots, through their links.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, StatxFlags, fstatfs, openat, openat2,
    readlinkat, statx,
};
use rustix::io::{Errno, Result};

use super::call::Place;
use super::caller::Caller;

/// So many links are followed in one path, as by the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A file or directory, wherever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: (u32, u32),
    inode: u64,
    /// Which mount it is seen in; 0 where the kernel does not say (before 5.8).
    pub(super) mount: u64,
}

impl Identity {
    pub(super) fn of(file: impl AsFd) -> Result<Self> {
        let mask = StatxFlags::INO | StatxFlags::MNT_ID;
        let found = statx(file, "", AtFlags::EMPTY_PATH, mask)?;
        let device = (found.stx_dev_major, found.stx_dev_minor);
        Ok(Self { device, inode: found.stx_ino, mount: found.stx_mnt_id })
    }
}

/// Where a caller's place is.
#[derive(Debug)]
pub(super) struct Found<'a> {
    caller: Caller<'a>,
    place: Place,
    /// Empty, if it is the base that is meant.
    path: Vec<u8>,
}

impl<'a> Found<'a> {
    /// Reads what the caller says.
    pub(super) fn new(caller: Caller<'a>, place: Place) -> Result<Self> {
        let path = place.path.map_or(Ok(Vec::new()), |address| caller.path(address))?;
        if path.is_empty() && place.path.is_some() && !place.empty {
            return Err(Errno::NOENT);
        }
        Ok(Self { caller, place, path })
    }

    /// The file, if it is one that the caller has open. Then there may be more to do with it than with what is referred to.
    pub(super) fn opened(&self) -> Option<OwnedFd> {
        let is_open = self.path.is_empty() && self.place.base != libc::AT_FDCWD;
        is_open.then(|| self.caller.file(self.place.base).ok()).flatten()
    }

    /// A path of ours that leads there, if the caller has our root, but for links of `/proc/self`. None if there would be too
    /// much of it.
    pub(super) fn near(&self) -> Result<Option<Vec<u8>>> {
        if self.path.starts_with(b"/") {
            return Ok(Some(self.path.clone()));
        }
        let mut near = self.base(&self.caller.directory()?).into_bytes();
        if !self.path.is_empty() {
            near.push(b'/');
            near.extend_from_slice(&self.path);
        }
        Ok((near.len() < 4096).then_some(near))
    }

    /// Whether a link at the end of [`Self::near`] is followed. The way to a file itself is always one.
    pub(super) const fn follows(&self) -> bool {
        self.place.follow || self.path.is_empty()
    }

    /// What its path begins at; `directory` is the caller's in `/proc`.
    fn base(&self, directory: &str) -> String {
        match self.place.base {
            _ if self.path.starts_with(b"/") => format!("{directory}/root"),
            libc::AT_FDCWD => format!("{directory}/cwd"),
            base => format!("{directory}/fd/{base}"),
        }
    }

    /// The file, as something to refer to it by. The caller is still there.
    pub(super) fn open(&self, root: Identity) -> Result<OwnedFd> {
        self.enter(root, &self.path, self.place.follow)
    }

    /// The directory that the last part of the path is to be in, and that part; none, if it is no name.
    pub(super) fn parent(&self, root: Identity) -> Result<Option<(OwnedFd, &OsStr)>> {
        let at = self.path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (parent, name) = self.path.split_at(at);
        if matches!(name, b"" | b"." | b"..") {
            return Ok(None);
        }
        Ok(Some((self.enter(root, parent, true)?, OsStr::from_bytes(name))))
    }

    fn enter(&self, root: Identity, path: &[u8], follow: bool) -> Result<OwnedFd> {
        let directory = self.caller.directory()?;
        let base = refer(CWD, self.base(&directory).as_bytes(), true).map_err(|error| match error {
            Errno::NOENT if self.place.base != libc::AT_FDCWD => Errno::BADF,
            error => error,
        })?;
        let relative: &[u8] = match path.iter().position(|byte| *byte != b'/') {
            None if path.is_empty() => return self.caller.check().map(|()| base),
            None => b".",
            Some(start) => &path[start..],
        };
        let own_root = refer(CWD, format!("{directory}/root").as_bytes(), true)?;
        self.caller.check()?;
        if Identity::of(&own_root)? == root {
            match within(&base, relative, follow) {
                Err(Errno::LOOP) => {}
                result => return result,
            }
        }
        walk(&own_root, base, relative, follow, &directory)
    }
}

/// Follows a path part by part, in a root that is not ours, and through links of `/proc` that are no paths. `directory` is the
/// caller's there.
fn walk(root: &OwnedFd, base: OwnedFd, path: &[u8], follow: bool, directory: &str) -> Result<OwnedFd> {
    let top = Identity::of(root)?;
    let mut here = base;
    let mut left = parts(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == b".." && Identity::of(&here)? == top {
            continue;
        }
        let next = within(&here, &name, false)?;
        let is_link = FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode).is_symlink();
        if !is_link || (left.is_empty() && !follow) {
            here = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        if fstatfs(&next)?.f_type == PROC_SUPER_MAGIC {
            if matches!(name.as_slice(), b"self" | b"thread-self") {
                left.push(directory.trim_start_matches("/proc/").as_bytes().to_vec());
                continue;
            }
            if within(&here, &name, true).err() == Some(Errno::LOOP) {
                here = refer(&here, &name, true)?;
                continue;
            }
        }
        let target = readlinkat(&next, "", Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            here = root.try_clone().map_err(|_| Errno::MFILE)?;
        }
        left.extend(parts(&target));
    }
    Ok(here)
}

/// The parts of a path, the last one first. A slash at its end is a part, as what is before it is to be a directory.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let mut parts: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).map(<[u8]>::to_vec).collect();
    if path.ends_with(b"/") {
        parts.push(b".".to_vec());
    }
    parts.reverse();
    parts
}

fn flags(follow: bool) -> OFlags {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    if follow { flags } else { flags | OFlags::NOFOLLOW }
}

/// What is at a path, through whatever links.
fn refer(base: impl AsFd, path: &[u8], follow: bool) -> Result<OwnedFd> {
    openat(base, path, flags(follow), Mode::empty())
}

/// What is at a path, through links that are paths.
fn within(base: impl AsFd, path: &[u8], follow: bool) -> Result<OwnedFd> {
    openat2(base, path, flags(follow), Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_taken_from_the_end() {
        let text = |path: &[u8]| {
            parts(path).iter().rev().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(text(b"//a/../b"), ["a", "..", "b"]);
        assert_eq!(text(b"a/b/"), ["a", "b", "."]);
        assert!(text(b"").is_empty());
    }
}
