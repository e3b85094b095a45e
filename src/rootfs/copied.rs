//! A root file system as a copy, where overlayfs cannot be had: unpacked layers, one over the other.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fchmod, fchown, fgetxattr,
    flistxattr, fstat, futimens, ioctl_ficlone, linkat, major, minor, mkdirat, mknodat, openat, readlinkat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

use super::unpack::set_xattr;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::folders::{self, DIRECTORY, Folders, join, list, look};

/// How a file is opened to be read.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// No list of attributes, and no value, is longer on Linux.
const MAX_XATTR: usize = 64 << 10;
/// Nearly all are shorter.
const USUAL_XATTR: usize = 512;

/// Copies unpacked layers, lowest first, over what is in a directory: what their whiteouts and opaque directories hide goes.
/// Where the file system can share blocks between files, nothing is copied. Hard links within a layer stay.
///
/// It has to be done where owners can be given: inside the user namespace, if the layers' form has one. Fails with `Store`,
/// `NoSpace`, or `Interrupted`. Blocks.
pub fn copy_layers<'a>(layers: impl IntoIterator<Item = &'a Path>, to: &Path, cancel: &Cancel) -> Result<()> {
    for layer in layers {
        let open = |path: &Path| Folders::open(path).map_err(|error| failed(path, b"", error));
        let mut run = Run { from: open(layer)?, to: open(to)?, names: HashMap::new(), dressed: Vec::new(), cancel };
        run.copy().map_err(|(path, error)| failed(to, &path, error))?;
    }
    Ok(())
}

struct Run<'a> {
    from: Folders,
    to: Folders,
    /// Files with several names: the first of each.
    names: HashMap<u64, Vec<u8>>,
    /// Directories, which get their attributes in the end.
    dressed: Vec<Vec<u8>>,
    cancel: &'a Cancel,
}

/// Where something went wrong, and what.
type Failure = (Vec<u8>, io::Error);

impl Run<'_> {
    fn copy(&mut self) -> Result<(), Failure> {
        let mut left = vec![Vec::new()];
        while let Some(directory) = left.pop() {
            let names = self.from.get(&directory).and_then(list).map_err(|error| (directory.clone(), error))?;
            for name in names {
                let path = join(&directory, &name);
                let checked = self.cancel.check().map_err(io::Error::other);
                match checked.and_then(|()| self.item(&path)) {
                    Ok(true) => left.push(path),
                    Ok(false) => {}
                    Err(error) => return Err((path, error)),
                }
            }
        }
        while let Some(path) = self.dressed.pop() {
            self.dress_directory(&path).map_err(|error| (path, error))?;
        }
        Ok(())
    }

    /// Copies one thing; whether it is a directory, in which there may be more.
    fn item(&mut self, path: &[u8]) -> io::Result<bool> {
        let (from, name) = self.from.parent(path)?;
        let Some(found) = look(from, name)? else { return Ok(false) };
        let (to, _) = self.to.parent(path)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                let opened = openat(from, name, DIRECTORY, Mode::empty())?;
                let keeps = !is_marked(opened.as_fd(), "opaque")?
                    && look(to, name)?
                        .is_some_and(|there| FileType::from_raw_mode(there.st_mode) == FileType::Directory);
                if !keeps {
                    folders::remove(to, name)?;
                    mkdirat(to, name, Mode::RWXU)?;
                    self.to.forget(path);
                }
                self.dressed.push(path.to_owned());
                return Ok(true);
            }
            FileType::CharacterDevice if found.st_rdev == 0 => folders::remove(to, name)?,
            FileType::RegularFile => {
                let file = File::from(openat(from, name, FILE, Mode::empty())?);
                folders::remove(to, name)?;
                if found.st_size > 0 || !is_marked(file.as_fd(), "whiteout")? {
                    self.file(path, &file, &found)?;
                }
            }
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new())?;
                folders::remove(to, name)?;
                symlinkat(target.as_c_str(), to, name)?;
                dress_name(to, name, &found)?;
            }
            kind => {
                folders::remove(to, name)?;
                let device = rustix::fs::makedev(major(found.st_rdev), minor(found.st_rdev));
                mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, device)?;
                dress_name(to, name, &found)?;
                chmodat(to, name, Mode::from_raw_mode(found.st_mode), AtFlags::empty())?;
            }
        }
        self.to.forget(path);
        Ok(false)
    }

    fn file(&mut self, path: &[u8], content: &File, found: &Stat) -> io::Result<()> {
        if found.st_nlink > 1 {
            if let Some(first) = self.names.get(&found.st_ino) {
                let (above, first) = folders::split(first);
                let above = self.to.get(above)?.try_clone_to_owned()?;
                let (to, name) = self.to.parent(path)?;
                return Ok(linkat(above, first, to, name, AtFlags::empty())?);
            }
            self.names.insert(found.st_ino, path.to_owned());
        }
        let (to, name) = self.to.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
        if found.st_size > 0 && ioctl_ficlone(&file, content).is_err() {
            io::copy(&mut &*content, &mut file)?;
        }
        dress(content.as_fd(), file.as_fd(), found)
    }

    fn dress_directory(&mut self, path: &[u8]) -> io::Result<()> {
        let from = self.from.get(path)?;
        let found = fstat(from)?;
        let to = self.to.get(path)?;
        dress(from, to, &found)
    }
}

/// Owner, attributes, mode and time, in the order in which none undoes another.
fn dress(from: BorrowedFd<'_>, to: BorrowedFd<'_>, found: &Stat) -> io::Result<()> {
    let there = fstat(to)?;
    if (there.st_uid, there.st_gid) != (found.st_uid, found.st_gid) {
        fchown(to, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    }
    for name in attributes(from)? {
        let value = sized(|room| fgetxattr(from, name.as_slice(), room))?;
        set_xattr(to, &name, &value)?;
    }
    fchmod(to, Mode::from_raw_mode(found.st_mode))?;
    Ok(futimens(to, &times(found))?)
}

/// Owner and time of what cannot be opened.
fn dress_name(to: BorrowedFd<'_>, name: &OsStr, found: &Stat) -> io::Result<()> {
    let Some(there) = look(to, name)? else { return Ok(()) };
    if (there.st_uid, there.st_gid) != (found.st_uid, found.st_gid) {
        let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
        chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(utimensat(to, name, &times(found), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(found: &Stat) -> Timestamps {
    let nanoseconds = i64::try_from(found.st_mtime_nsec).unwrap_or_default();
    let time = Timespec { tv_sec: found.st_mtime, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// What a call gives that says when there is too little room.
fn sized(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    for room in [USUAL_XATTR, MAX_XATTR] {
        let mut value = vec![0; room];
        match get(&mut value) {
            Err(Errno::RANGE) if room < MAX_XATTR => {}
            result => {
                value.truncate(result?);
                return Ok(value);
            }
        }
    }
    Err(Errno::RANGE)
}

/// The attributes that are copied: those of users but overlayfs's, and capabilities.
fn attributes(file: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let names = match sized(|room| flistxattr(file, room)) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        result => result?,
    };
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let wanted = |name: &&[u8]| {
        *name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
    };
    Ok(names.filter(wanted).map(<[u8]>::to_vec).collect())
}

/// Whether overlayfs would take something for what its mark says.
fn is_marked(file: BorrowedFd<'_>, mark: &str) -> io::Result<bool> {
    for space in ["user", "trusted"] {
        let mut value = [0; 16];
        match fgetxattr(file, format!("{space}.overlay.{mark}"), &mut value) {
            Ok(length) if &value[..length] == b"y" => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn failed(directory: &Path, path: &[u8], source: io::Error) -> Error {
    let source = match source.downcast::<Error>() {
        Ok(ours) => return ours,
        Err(source) => source,
    };
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::NoSpace { message: format!("cannot copy layers to `{}`: {source}", directory.display()) }
        }
        _ => {
            let path = directory.join(OsStr::from_bytes(path));
            Error::Store { path, action: "copy a layer".into(), source }
        }
    }
}
