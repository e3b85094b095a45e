//! The directory that a file system is written to.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::{Opened, is_root, split};
use crate::cancel::Cancel;
use crate::mtime::Mtime;
use crate::rootfs::{Found, Node, NodeKind};

/// Copied at a time.
const BUFFER: usize = 128 << 10;
/// A directory that is opened and never followed to.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The root of what is written.
pub(super) struct Folder {
    root: Opened,
    /// The directory that was used last: entries come one directory after the other.
    last: Option<(Vec<u8>, Opened)>,
    is_root: bool,
}

impl Folder {
    /// Opens it. This once, a link is followed: the user has named it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root: Rc::new(root), last: None, is_root: is_root() })
    }

    /// A directory of the view, by its names from the root.
    fn directory(&mut self, path: &[u8]) -> io::Result<Opened> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((last, opened)) = &self.last
            && last == path
        {
            return Ok(Rc::clone(opened));
        }
        let (parent, name) = split(path);
        // A step at a time, from the nearest that is open.
        let parent = self.directory(parent)?;
        let opened = Rc::new(openat(&parent, name, DIRECTORY, Mode::empty())?);
        self.last = Some((path.to_owned(), Rc::clone(&opened)));
        Ok(opened)
    }

    /// Makes a directory that only we can use, until it is finished. One that is there stays.
    pub(super) fn make_directory(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        match kind(parent.as_fd(), name)? {
            Some(FileType::Directory) => {
                let opened = openat(&parent, name, DIRECTORY, Mode::empty())?;
                // Its mode may keep even us out.
                if self.is_root { Ok(()) } else { Ok(fchmod(&opened, Mode::RWXU)?) }
            }
            Some(_) => {
                unlinkat(&parent, name, AtFlags::empty())?;
                Ok(mkdirat(&parent, name, Mode::RWXU)?)
            }
            None => Ok(mkdirat(&parent, name, Mode::RWXU)?),
        }
    }

    /// Gives a directory what it has to have, when everything is in it.
    pub(super) fn finish_directory(&mut self, found: &Found) -> io::Result<()> {
        let opened = self.directory(&found.path)?;
        self.dress(opened.as_fd(), &found.node)
    }

    pub(super) fn make_file(
        &mut self,
        found: &Found,
        content: &File,
        offset: u64,
        size: u64,
        cancel: &Cancel,
    ) -> io::Result<()> {
        let (parent, name) = self.make_way(&found.path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER))];
        let mut done = 0;
        while done < size {
            cancel.check().map_err(io::Error::other)?;
            let most = usize::try_from(size - done).unwrap_or(BUFFER).min(buffer.len());
            content.read_exact_at(&mut buffer[..most], offset + done)?;
            file.write_all_at(&buffer[..most], done)?;
            done += most as u64;
        }
        self.dress(file.as_fd(), &found.node)
    }

    pub(super) fn make_hard_link(&mut self, first: &[u8], path: &[u8]) -> io::Result<()> {
        let (from, first) = split(first);
        let from = self.directory(from)?;
        let (parent, name) = self.make_way(path)?;
        Ok(linkat(&from, first, &parent, name, AtFlags::empty())?)
    }

    pub(super) fn make_link(&mut self, found: &Found, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.make_way(&found.path)?;
        symlinkat(OsStr::from_bytes(target), &parent, name)?;
        self.dress_name(parent.as_fd(), name, &found.node)
    }

    /// Whether it could be made.
    pub(super) fn make_special(&mut self, found: &Found) -> io::Result<bool> {
        let (kind, device) = match found.node.kind {
            NodeKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            NodeKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            _ => (FileType::Fifo, 0),
        };
        let (parent, name) = self.make_way(&found.path)?;
        let mode = Mode::from_raw_mode(found.node.mode);
        match mknodat(&parent, name, kind, mode, device) {
            Err(Errno::PERM | Errno::ACCESS) if kind != FileType::Fifo => return Ok(false),
            result => result?,
        }
        // The umask has had its say.
        rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?;
        self.dress_name(parent.as_fd(), name, &found.node)?;
        Ok(true)
    }

    /// The place for something that is no directory: what is there goes.
    fn make_way<'a>(&mut self, path: &'a [u8]) -> io::Result<(Opened, &'a OsStr)> {
        let (parent, name) = split(path);
        let parent = self.directory(parent)?;
        match kind(parent.as_fd(), name)? {
            Some(FileType::Directory) => {
                self.last = None;
                remove_tree(parent.as_fd(), name)?;
            }
            Some(_) => unlinkat(&parent, name, AtFlags::empty())?,
            None => {}
        }
        Ok((parent, name))
    }

    /// Owner, mode, attributes and time, in the order in which none undoes another.
    fn dress(&self, file: BorrowedFd<'_>, node: &Node) -> io::Result<()> {
        if self.is_root {
            fchown(file, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))?;
        }
        fchmod(file, Mode::from_raw_mode(node.mode))?;
        for (name, value) in &node.xattrs {
            match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                // Other file systems, other users.
                Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(futimens(file, &times(node.mtime))?)
    }

    /// Owner and time of what cannot be opened.
    fn dress_name(&self, parent: BorrowedFd<'_>, name: &OsStr, node: &Node) -> io::Result<()> {
        if self.is_root {
            let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(utimensat(parent, name, &times(node.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// What has that name, if there is something.
fn kind(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<FileType>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a directory and what is in it, without following a link.
fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let opened = openat(parent, name, DIRECTORY, Mode::empty())?;
    for (name, is_directory) in list(&opened)? {
        if is_directory {
            remove_tree(opened.as_fd(), &name)?;
        } else {
            unlinkat(&opened, name.as_os_str(), AtFlags::empty())?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// What is in a directory, and whether it is a directory.
fn list(directory: &OwnedFd) -> io::Result<Vec<(std::ffi::OsString, bool)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            let is_directory = kind(directory.as_fd(), &name)? == Some(FileType::Directory);
            found.push((name, is_directory));
        }
    }
    Ok(found)
}

/// Opens directories whose modes keep us out, so that what was not finished can be removed.
pub(super) fn make_removable(path: &Path) {
    fn open_up(directory: &OwnedFd) -> io::Result<()> {
        fchmod(directory, Mode::RWXU)?;
        for (name, is_directory) in list(directory)? {
            if is_directory {
                // Only its owner gets here, and may do that before the directory can be opened.
                rustix::fs::chmodat(directory, name.as_os_str(), Mode::RWXU, AtFlags::empty())?;
                open_up(&openat(directory, name.as_os_str(), DIRECTORY, Mode::empty())?)?;
            }
        }
        Ok(())
    }
    if is_root() {
        return;
    }
    if let Ok(directory) = openat(CWD, path, DIRECTORY, Mode::empty()) {
        // What cannot be opened stays: there is an error already.
        let _ = open_up(&directory);
    }
}

fn times(time: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
