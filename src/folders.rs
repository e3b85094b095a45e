//! Directories of a tree that are opened by their own names, each in the one above it: no link is ever followed, and no path
//! is resolved twice.

use std::ffi::OsStr;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

/// So many directories are open at once, however deep a tree is.
const MAX_OPEN: usize = 64;
/// A directory that is opened and never followed to.
pub(crate) const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A tree, and the directories on the way to where something was done last.
#[derive(Debug)]
pub(crate) struct Folders {
    root: OwnedFd,
    path: Vec<u8>,
    /// How much of the path leads to each of them. Of deep paths, some in the middle are missing.
    open: Vec<(usize, OwnedFd)>,
}

impl Folders {
    /// The tree in a directory. To it, links are followed: it is ours.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::of(root))
    }

    /// The tree in an open directory.
    pub(crate) const fn of(root: OwnedFd) -> Self {
        Self { root, path: Vec::new(), open: Vec::new() }
    }

    /// The root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A directory that is there. `ENOTDIR` or `ELOOP` if a part of its path is none.
    pub(crate) fn get(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        self.walk(path, false)
    }

    /// A directory, made with its parents where they are not there. Only we can use it, until it gets another mode.
    pub(crate) fn make(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        self.walk(path, true)
    }

    /// The directory that a path is in, and its last part.
    pub(crate) fn parent<'a>(&mut self, path: &'a [u8]) -> io::Result<(BorrowedFd<'_>, &'a OsStr)> {
        let (parent, name) = split(path);
        Ok((self.walk(parent, false)?, name))
    }

    fn walk(&mut self, path: &[u8], make: bool) -> io::Result<BorrowedFd<'_>> {
        let leads = |end: usize, old: &[u8]| {
            path.get(..end) == Some(&old[..end]) && path.get(end).is_none_or(|byte| *byte == b'/')
        };
        while self.open.last().is_some_and(|(end, _)| !leads(*end, &self.path)) {
            self.open.pop();
        }
        let mut end = self.open.last().map_or(0, |(end, _)| *end);
        if end < path.len() || self.path.len() != path.len() {
            self.path.clear();
            self.path.extend_from_slice(path);
        }
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |slash| start + slash);
            let parent = self.open.last().map_or(&self.root, |(_, open)| open);
            let opened = enter(parent.as_fd(), OsStr::from_bytes(&path[start..end]), make)?;
            if self.open.len() == MAX_OPEN {
                self.open.pop();
            }
            self.open.push((end, opened));
        }
        Ok(self.open.last().map_or(&self.root, |(_, open)| open).as_fd())
    }

    /// Forgets a directory that is going away, and what is in it.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        let within = |end: usize, old: &[u8]| end >= path.len() && old[..end].starts_with(path);
        while self.open.last().is_some_and(|(end, _)| within(*end, &self.path)) {
            self.open.pop();
        }
    }
}

fn enter(parent: BorrowedFd<'_>, name: &OsStr, make: bool) -> io::Result<OwnedFd> {
    match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) if make => {
            mkdirat(parent, name, Mode::RWXU)?;
            Ok(openat(parent, name, DIRECTORY, Mode::empty())?)
        }
        result => Ok(result?),
    }
}

/// The directory that a path is in, and its last part.
pub(crate) fn split(path: &[u8]) -> (&[u8], &OsStr) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
        None => (&path[..0], OsStr::from_bytes(path)),
    }
}

/// The path of something in a directory.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

/// What is in a directory, by name; its own path and the one above it are not.
pub(crate) fn list(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What has that name; `None` if there is nothing.
pub(crate) fn look(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Stat>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes what is at a path, which is ours, with all that is in it. What is not there is no mistake.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => remove(parent.as_fd(), name),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes whatever has that name, with what is in it. Modes of our own directories do not keep us out. What is gone by then
/// is gone.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    empty(parent, name)?;
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what is in a directory, as far as that is possible; the first error is told. Deep trees take no stack: what is
/// deep is moved up.
fn empty(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let root = open_up(parent, name)?;
    let mut failed = None;
    let mut open = vec![(root, Vec::new(), true)];
    while let Some((directory, left, listed)) = open.last_mut() {
        if std::mem::take(listed) {
            *left = list(directory.as_fd())?;
        }
        let Some(name) = left.last().cloned() else {
            open.pop();
            if let Some((above, left, _)) = open.last_mut()
                && let Some(done) = left.pop()
                && let Err(error) = unlinkat(&*above, OsStr::from_bytes(&done), AtFlags::REMOVEDIR)
            {
                failed.get_or_insert(io::Error::from(error));
            }
            continue;
        };
        let name = OsStr::from_bytes(&name);
        let removed = match unlinkat(&*directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(&*directory, name, AtFlags::REMOVEDIR),
            result => result,
        };
        match removed {
            Err(Errno::NOTEMPTY | Errno::EXIST) => match descend(&mut open) {
                Ok(()) => {}
                Err(error) => {
                    failed.get_or_insert(error);
                    skip(&mut open);
                }
            },
            Ok(()) | Err(Errno::NOENT) => skip(&mut open),
            Err(error) => {
                failed.get_or_insert(io::Error::from(error));
                skip(&mut open);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// A directory, what is left to do in it, and whether that is yet to be listed.
type Emptying = (OwnedFd, Vec<Vec<u8>>, bool);

fn skip(open: &mut [Emptying]) {
    if let Some((_, left, _)) = open.last_mut() {
        left.pop();
    }
}

/// Opens the next directory. Where too many are open, it is moved up to the first of them, to be emptied from there.
fn descend(open: &mut Vec<Emptying>) -> io::Result<()> {
    let Some((directory, left, _)) = open.last() else { return Ok(()) };
    let Some(name) = left.last().cloned() else { return Ok(()) };
    let name = OsStr::from_bytes(&name);
    let opened = open_up(directory.as_fd(), name)?;
    if open.len() < MAX_OPEN {
        open.push((opened, Vec::new(), true));
        return Ok(());
    }
    let moved = unique("moved");
    rustix::fs::renameat(directory, name, &open[0].0, &moved)?;
    skip(open);
    // The first directory's next, after the one that is open now.
    let at = open[0].1.len() - 1;
    open[0].1.insert(at, moved.into_bytes());
    Ok(())
}

/// A name that nothing has, and that nobody can guess. It does not begin with `.wh.`: fuse-overlayfs lets nobody make that.
pub(crate) fn unique(purpose: &str) -> String {
    // The standard library's only source of randomness.
    let random = || RandomState::new().build_hasher().finish();
    format!(".cooper-{purpose}-{:016x}{:016x}", random(), random())
}

/// Opens a directory to remove what is in it, whatever its mode.
fn open_up(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let opened = match openat(parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Nobody else is at work here, and it is a directory: that was seen when it could not be unlinked.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, DIRECTORY, Mode::empty())?
        }
        result => result?,
    };
    let mode = rustix::fs::fstat(&opened)?.st_mode;
    if mode & 0o700 != 0o700 {
        // Root needs none of it.
        let _ = rustix::fs::fchmod(&opened, Mode::RWXU);
    }
    Ok(opened)
}
