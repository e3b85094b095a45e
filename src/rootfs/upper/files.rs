//! Contents of the files of a tree that was listed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::Item;
use crate::error::{Error, Result};
use crate::folders::Folders;
use crate::mtime::Mtime;

/// How files are opened: a name that has become a pipe does not hang, and one that has become a link is not followed.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The files of a tree on this machine. They are opened when they are read, by many threads.
#[derive(Debug)]
pub struct TreeFiles {
    root: OwnedFd,
    directory: PathBuf,
    /// Whether the kernel, and what filters calls to it, know `openat2`.
    has_openat2: AtomicBool,
}

/// What a file was when it was listed. With a different one, it has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    ctime: Mtime,
}

impl Stamp {
    /// That of an item.
    pub const fn of(item: &Item) -> Self {
        Self { inode: item.inode, ctime: item.ctime }
    }
}

/// A file of a tree that is open.
#[derive(Debug)]
pub struct TreeFile {
    file: File,
    path: PathBuf,
    size: u64,
    stamp: Stamp,
}

impl TreeFiles {
    /// The files in a directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, directory, flags, Mode::empty()).map_err(|error| failed(directory, error.into()))?;
        Ok(Self { root, directory: directory.to_owned(), has_openat2: AtomicBool::new(true) })
    }

    /// Opens a file. No part of its path may be a link. Fails with `StoreDamaged` if it is another one than when it was
    /// listed.
    pub fn file(&self, path: &[u8], size: u64, stamp: Stamp) -> Result<TreeFile> {
        let shown = self.directory.join(OsStr::from_bytes(path));
        let file = self.descriptor(path).map_err(|error| failed(&shown, error))?;
        let file = TreeFile { file: File::from(file), path: shown, size, stamp };
        file.check()?;
        Ok(file)
    }

    fn descriptor(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.has_openat2.load(Ordering::Relaxed) {
            match openat2(&self.root, OsStr::from_bytes(path), FILE, Mode::empty(), beneath) {
                // Filters of old containers say `EPERM` for calls that they do not know. The long way tells which it is.
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2.store(false, Ordering::Relaxed),
                Err(Errno::NAMETOOLONG) => {}
                result => return Ok(result?),
            }
        }
        let mut folders = Folders::of(rustix::io::fcntl_dupfd_cloexec(&self.root, 0)?);
        let (parent, name) = folders.parent(path)?;
        Ok(openat(parent, name, FILE, Mode::empty())?)
    }
}

impl TreeFile {
    /// Appends `length` bytes from a place in the content. Fails with `StoreDamaged` if the file has changed meanwhile.
    pub fn append_to(&self, out: &mut Vec<u8>, offset: u64, length: usize) -> Result<()> {
        let from = out.len();
        out.resize(from + length, 0);
        self.file.read_exact_at(&mut out[from..], offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => failed(&self.path, error),
        })?;
        self.check()
    }

    fn check(&self) -> Result<()> {
        let found = self.file.metadata().map_err(|error| failed(&self.path, error))?;
        let ctime =
            Mtime { seconds: found.ctime(), nanoseconds: u32::try_from(found.ctime_nsec()).unwrap_or_default() };
        let same = found.is_file() && found.len() == self.size && self.stamp == Stamp { inode: found.ino(), ctime };
        if same { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Error {
        Error::StoreDamaged { path: self.path.clone(), reason: "it changed after the command had ended".into() }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Store { path: path.to_owned(), action: "read a file".into(), source }
}
