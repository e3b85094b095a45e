//! The root directory of a context: everything is opened relative to it, and no symbolic link is followed on the way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

use crate::error::{Error, Result};

/// An open root directory.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

/// How a regular file is opened. Without NONBLOCK, a pipe that took its place would make us wait.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);
/// How a directory is opened.
pub(super) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Opens the root. It may be a symbolic link itself. Fails with `ContextRoot`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::ContextRoot { path: path.to_owned(), source: errno.into() })?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens what is at a relative path for reading; no part of the path may be a symbolic link.
    pub(super) fn open_file(&self, path: &[u8]) -> io::Result<File> {
        #[cfg(target_os = "linux")]
        if let Some(opened) = open_beneath(self.fd.as_fd(), path) {
            return opened;
        }
        open_by_parts(self.fd.as_fd(), path)
    }

    /// The path of an entry on this machine, for messages.
    pub(super) fn join(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }
}

/// One call where the kernel has `openat2`; `None` where it does not, or a sandbox forbids it, or the path is too long for it.
#[cfg(target_os = "linux")]
fn open_beneath(root: BorrowedFd<'_>, path: &[u8]) -> Option<io::Result<File>> {
    use rustix::fs::{ResolveFlags, openat2};
    use rustix::io::Errno;

    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, OsStr::from_bytes(path), FILE, Mode::empty(), resolve) {
        Ok(fd) => Some(Ok(File::from(fd))),
        Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => None,
        Err(errno) => Some(Err(errno.into())),
    }
}

/// Part by part: works everywhere, for paths of any length.
fn open_by_parts(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let mut parts = path.split(|byte| *byte == b'/').map(OsStr::from_bytes).peekable();
    let mut parent: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let at = parent.as_ref().map_or(root, AsFd::as_fd);
        let flags = if parts.peek().is_some() { DIRECTORY } else { FILE };
        let fd = openat(at, part, flags, Mode::empty())?;
        if parts.peek().is_none() {
            return Ok(File::from(fd));
        }
        parent = Some(fd);
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn both_ways_open_files_and_follow_no_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/c"), "text").unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink("a/b/c", dir.path().join("file")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let at_once = |path: &[u8]| root.open_file(path);
        let by_parts = |path: &[u8]| open_by_parts(root.fd.as_fd(), path);
        for open in [&at_once as &dyn Fn(&[u8]) -> io::Result<File>, &by_parts] {
            let mut text = String::new();
            open(b"a/b/c").unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
            for path in ["link/b/c", "file", "a/missing", "missing/c"] {
                assert!(open(path.as_bytes()).is_err(), "{path}");
            }
        }
    }
}
