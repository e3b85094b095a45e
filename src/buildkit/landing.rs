//! Files that a daemon sends, written to a directory.
//!
//! The list is checked: parents come first, and no path leads out. What is in the directory already is never followed: every
//! directory is opened by its own name, in the one above it. A file gets its name when all of it is there.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use rustix::fs::{
    self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::packet::{FileType, Stat};
use super::receive::{Folder, Wire};
use crate::error::Result;
use crate::folders::{self, DIRECTORY, Folders};
use crate::mtime::Mtime;

/// Files that are asked for before they are needed: enough for a daemon that is far away, and few enough for its answers to
/// wait unread.
const WINDOW: usize = 256;

/// Writes what is in a list. Owners are given where root does it; devices that this user may not make are left out.
///
/// Fails with `OutputFailed` and `NoSpace`. Files that are complete by then stay.
pub(super) fn write(folder: &Folder, list: &[Stat], wire: Wire) -> Result<()> {
    let folders = Folders::open(folder.path()).map_err(|error| folder.failed(b"", error))?;
    let mut landing = Landing {
        folder,
        list,
        wire,
        folders,
        is_root: geteuid().is_root(),
        asked: 0,
        open: HashMap::new(),
        temporary: folders::unique("received"),
    };
    landing.run()
}

struct Landing<'a> {
    folder: &'a Folder,
    list: &'a [Stat],
    wire: Wire,
    folders: Folders,
    is_root: bool,
    /// How many files were asked for and are not complete.
    asked: usize,
    /// What is known of each of them.
    open: HashMap<u32, Arriving>,
    /// What names of files begin with that are not complete. Nobody can guess it.
    temporary: String,
}

/// A file that was asked for.
#[derive(Default)]
struct Arriving {
    /// Made when its first part comes.
    file: Option<File>,
    received: u64,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        for (id, arriving) in std::mem::take(&mut self.open) {
            if arriving.file.is_some() {
                let name = self.temporary_name(id);
                if let Ok((parent, _)) = self.folders.parent(&self.list[id as usize].path) {
                    // There is an error already.
                    let _ = unlinkat(parent, &name, AtFlags::empty());
                }
            }
        }
    }
}

impl<'a> Landing<'a> {
    fn run(&mut self) -> Result<()> {
        let (list, folder) = (self.list, self.folder);
        let failed = |stat: &'a Stat| move |error| folder.failed(&stat.path, error);
        for (id, stat) in (0..).zip(list) {
            match stat.file_type() {
                Some(FileType::Dir) => self.directory(&stat.path).map_err(failed(stat))?,
                Some(FileType::Symlink) => self.symlink(stat).map_err(failed(stat))?,
                Some(FileType::File) if stat.linkname.is_empty() => self.ask(id)?,
                Some(FileType::File) => {}
                Some(kind) => self.special(stat, kind).map_err(failed(stat))?,
                None => self.folder.leave_out(&stat.path, "a socket, which only programs make"),
            }
        }
        while self.asked > 0 {
            self.take()?;
        }
        let is_link = |stat: &&Stat| stat.file_type() == Some(FileType::File) && !stat.linkname.is_empty();
        for stat in list.iter().filter(is_link) {
            self.hard_link(stat).map_err(failed(stat))?;
        }
        // Modes may keep us out, and times change with what is in a directory.
        for stat in list.iter().rev().filter(|stat| stat.file_type() == Some(FileType::Dir)) {
            self.finish_directory(stat).map_err(failed(stat))?;
        }
        Ok(())
    }

    /// Makes a directory that only we can use, until it is finished. One that is there stays.
    fn directory(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.folders.parent(path)?;
        match folders::look(parent, name)? {
            Some(there) if is_directory(&there) => {
                if there.st_mode & 0o700 != 0o700 && !self.is_root {
                    chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                }
                return Ok(());
            }
            Some(_) => unlinkat(parent, name, AtFlags::empty())?,
            None => {}
        }
        Ok(mkdirat(parent, name, Mode::RWXU)?)
    }

    fn finish_directory(&mut self, stat: &Stat) -> io::Result<()> {
        let (parent, name) = self.folders.parent(&stat.path)?;
        let opened = openat(parent, name, DIRECTORY, Mode::empty())?;
        dress(opened.as_fd(), stat, self.is_root)
    }

    fn symlink(&mut self, stat: &Stat) -> io::Result<()> {
        let is_root = self.is_root;
        let (parent, name) = self.make_way(&stat.path)?;
        symlinkat(OsStr::from_bytes(&stat.linkname), parent, name)?;
        dress_name(parent, name, stat, is_root)
    }

    fn special(&mut self, stat: &Stat, kind: FileType) -> io::Result<()> {
        let number = |part: i64| u32::try_from(part).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let device = makedev(number(stat.devmajor)?, number(stat.devminor)?);
        let (kind, device) = match kind {
            FileType::CharDevice => (fs::FileType::CharacterDevice, device),
            FileType::BlockDevice => (fs::FileType::BlockDevice, device),
            _ => (fs::FileType::Fifo, 0),
        };
        let (folder, is_root) = (self.folder, self.is_root);
        let (parent, name) = self.make_way(&stat.path)?;
        let mode = Mode::from_raw_mode(stat.unix_mode());
        match mknodat(parent, name, kind, mode, device) {
            Err(Errno::PERM | Errno::ACCESS) if kind != fs::FileType::Fifo => {
                folder.leave_out(&stat.path, "this user may make no devices");
                return Ok(());
            }
            result => result?,
        }
        // The umask has had its say.
        chmodat(parent, name, mode, AtFlags::empty())?;
        dress_name(parent, name, stat, is_root)
    }

    fn hard_link(&mut self, stat: &Stat) -> io::Result<()> {
        let (from, first) = self.folders.parent(&stat.linkname)?;
        let from = from.try_clone_to_owned()?;
        let (parent, name) = self.make_way(&stat.path)?;
        Ok(linkat(&from, first, parent, name, AtFlags::empty())?)
    }

    /// The place for something that is no directory: what is there goes.
    fn make_way<'p>(&mut self, path: &'p [u8]) -> io::Result<(BorrowedFd<'_>, &'p OsStr)> {
        let (parent, name) = self.folders.parent(path)?;
        folders::remove(parent, name)?;
        self.folders.forget(path);
        self.folders.parent(path)
    }

    fn ask(&mut self, id: u32) -> Result<()> {
        while self.asked >= WINDOW {
            self.take()?;
        }
        self.wire.ask(id)?;
        self.open.insert(id, Arriving::default());
        self.asked += 1;
        Ok(())
    }

    /// Takes a part of a file that was asked for.
    fn take(&mut self) -> Result<()> {
        let (id, data) = self.wire.next()?;
        let Some(mut arriving) = self.open.remove(&id) else {
            let path = self.list.get(id as usize).map_or(&b"?"[..], |stat| &stat.path);
            return Err(self.folder.refused(path, "nobody asked for this content"));
        };
        let stat = &self.list[id as usize];
        let written = self.put(id, &mut arriving, &data);
        let received = arriving.received;
        // It is there to be removed, whatever happened.
        self.open.insert(id, arriving);
        written.map_err(|error| self.folder.failed(&stat.path, error))?;
        if !data.is_empty() {
            return Ok(());
        }
        // A daemon that cannot read a file sends nothing of it.
        if i64::try_from(received).is_ok_and(|received| received < stat.size) {
            let reason = format!("{received} bytes of {} came", stat.size);
            return Err(self.folder.refused(&stat.path, &reason));
        }
        self.finish_file(id, stat).map_err(|error| self.folder.failed(&stat.path, error))?;
        self.open.remove(&id);
        self.asked -= 1;
        Ok(())
    }

    fn put(&mut self, id: u32, arriving: &mut Arriving, data: &Bytes) -> io::Result<()> {
        let file = if let Some(file) = &mut arriving.file {
            file
        } else {
            let name = self.temporary_name(id);
            let (parent, _) = self.folders.parent(&self.list[id as usize].path)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            arriving.file.insert(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
        };
        file.write_all(data)?;
        arriving.received += data.len() as u64;
        Ok(())
    }

    fn finish_file(&mut self, id: u32, stat: &Stat) -> io::Result<()> {
        let temporary = self.temporary_name(id);
        if let Some(Arriving { file: Some(file), .. }) = self.open.get(&id) {
            dress(file.as_fd(), stat, self.is_root)?;
        }
        let (parent, name) = self.folders.parent(&stat.path)?;
        if folders::look(parent, name)?.as_ref().is_some_and(is_directory) {
            folders::remove(parent, name)?;
            self.folders.forget(&stat.path);
        }
        let (parent, name) = self.folders.parent(&stat.path)?;
        Ok(renameat(parent, temporary.as_str(), parent, name)?)
    }

    fn temporary_name(&self, id: u32) -> String {
        format!("{}-{id}", self.temporary)
    }
}

fn is_directory(stat: &fs::Stat) -> bool {
    fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory
}

/// Owner, mode, attributes and time, in the order in which none undoes another.
fn dress(file: BorrowedFd<'_>, stat: &Stat, is_root: bool) -> io::Result<()> {
    if is_root {
        fchown(file, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)))?;
    }
    fchmod(file, Mode::from_raw_mode(stat.unix_mode()))?;
    // Others say something to this machine, and not to whoever uses the files.
    let ours = |name: &str| name.starts_with("user.") || name == "security.capability";
    for (name, value) in stat.xattrs.iter().filter(|(name, _)| ours(name)) {
        match fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // Other file systems, other users.
            Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(futimens(file, &times(stat))?)
}

/// Owner and time of what cannot be opened.
fn dress_name(parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat, is_root: bool) -> io::Result<()> {
    if is_root {
        let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(utimensat(parent, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = Mtime::of_nanoseconds(stat.mod_time);
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
