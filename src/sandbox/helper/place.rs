//! A root file system that is not ours yet: paths in it are resolved inside of it, and what is missing for a mount is made and
//! taken away again.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, readlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

/// Where mounts go.
pub(super) struct Place {
    root: OwnedFd,
    stubs: Vec<Stub>,
    mounted: Vec<OwnedFd>,
}

/// Something that was made for a mount.
struct Stub {
    parent: OwnedFd,
    name: String,
    is_directory: bool,
}

/// What a mount needs to be put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = PATH.union(OFlags::DIRECTORY);

/// The path by which system calls that take no descriptor reach one.
pub(super) fn reach(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Opens something of this machine, to be mounted.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, PATH, Mode::empty())?)
}

/// What has to be there for something to be mounted.
pub(super) fn kind_of(fd: impl AsFd) -> io::Result<Kind> {
    let directory = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory;
    Ok(if directory { Kind::Directory } else { Kind::File })
}

impl Place {
    /// The root at a path, which has to be a mount already.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, DIRECTORY, Mode::empty())?;
        Ok(Self { root, stubs: Vec::new(), mounted: Vec::new() })
    }

    /// The root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// What is at a path, links followed inside of the root.
    pub(super) fn find(&self, path: &str) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, PATH)?)
    }

    fn resolve(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = path.trim_start_matches('/');
        let path = if path.is_empty() { "." } else { path };
        crate::scoped::open(&self.root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Something to mount on at a path. What is missing of it is made, and gone after [`Self::clean`]; a link that leads to
    /// nothing is followed to where that would be, inside of the root.
    pub(super) fn target(&mut self, path: &str, kind: Kind) -> io::Result<OwnedFd> {
        let mut parts: Vec<String> = split(path);
        let (mut done, mut links) = (0, 0);
        while done < parts.len() {
            let here = parts[..=done].join("/");
            match self.resolve(&here, PATH) {
                Ok(_) => done += 1,
                Err(Errno::NOENT) => {
                    let parent = self.resolve(&parts[..done].join("/"), DIRECTORY)?;
                    let Some(link) = link(&parent, &parts[done])? else {
                        let is_directory = done + 1 < parts.len() || kind == Kind::Directory;
                        self.make(parent, &parts[done], is_directory)?;
                        done += 1;
                        continue;
                    };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let above = if link.starts_with('/') { "" } else { &parts[..done].join("/") };
                    parts = [split(above), split(&link), parts.split_off(done + 1)].concat();
                    parts = without_dots(parts);
                    done = 0;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.resolve(&parts.join("/"), PATH)?)
    }

    fn make(&mut self, parent: OwnedFd, name: &str, is_directory: bool) -> io::Result<()> {
        if is_directory {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
        }
        self.stubs.push(Stub { parent, name: name.to_owned(), is_directory });
        Ok(())
    }

    /// Something was mounted at a path: it is unmounted by [`Self::clean`].
    pub(super) fn mounted(&mut self, path: &str) -> io::Result<()> {
        let fd = self.find(path)?;
        self.mounted.push(fd);
        Ok(())
    }

    /// Makes the last thing that was mounted, and all below it, read-only.
    pub(super) fn make_read_only(&self) -> io::Result<()> {
        let Some(last) = self.mounted.last() else { return Ok(()) };
        super::sys::read_only(&CString::new(reach(last))?)
    }

    /// Takes away what was mounted, and what was made for it if nobody has put anything there. Called inside of the root, when
    /// no command is left.
    pub(super) fn clean(&mut self) {
        while let Some(fd) = self.mounted.pop() {
            let _ = unmount(reach(&fd), UnmountFlags::DETACH);
        }
        while let Some(Stub { parent, name, is_directory }) = self.stubs.pop() {
            let empty = is_directory
                || openat(&parent, &name, PATH | OFlags::NOFOLLOW, Mode::empty())
                    .and_then(fstat)
                    .is_ok_and(|found| found.st_size == 0);
            if empty {
                let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                let _ = unlinkat(&parent, &name, flags);
            }
        }
    }
}

fn split(path: &str) -> Vec<String> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
}

/// Where nothing is there yet, `..` is nothing but the part before.
fn without_dots(parts: Vec<String>) -> Vec<String> {
    let mut clean = Vec::new();
    for part in parts {
        if part == ".." {
            clean.pop();
        } else {
            clean.push(part);
        }
    }
    clean
}

/// Where a link leads; `None` if nothing has that name.
fn link(parent: &OwnedFd, name: &str) -> io::Result<Option<String>> {
    match readlinkat(parent, name, Vec::new()) {
        Ok(link) => Ok(Some(link.into_string().map_err(io::Error::other)?)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
