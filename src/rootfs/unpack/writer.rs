//! Writes what comes out of a layer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, renameat, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::super::index::Body;
use super::super::node::Xattrs;
use super::super::scan::Sink;
use super::super::tar::{Member, MemberKind, invalid};
use super::{Form, OWNER};
use crate::error::{Error, Result};
use crate::folders::{self, Folders, split};
use crate::mtime::Mtime;

/// Linux takes no longer paths, so nobody could use what has one.
const MAX_PATH: usize = 4096;

/// A tree that is being written.
pub(super) struct Writer {
    pub(super) folders: Folders,
    pub(super) form: Form,
    directory: PathBuf,
    own: (u32, u32),
    /// The name of a hard link that is yet to get its own: one that nobody can guess, and no layer has.
    linking: String,
    file: Option<Writing>,
    /// What is not there though the layer has it.
    missing: BTreeSet<Vec<u8>>,
    /// Why, and for how many.
    reasons: BTreeMap<&'static str, (Vec<u8>, u64)>,
    pub(super) leads_elsewhere: bool,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// A file that is being written.
struct Writing {
    file: File,
    path: Vec<u8>,
    dress: Dress,
}

/// What something gets when it is there.
pub(super) struct Dress {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) xattrs: Xattrs,
}

impl Dress {
    fn of(member: &Member) -> Self {
        let Member { mode, uid, gid, mtime, ref xattrs, .. } = *member;
        Self { mode, uid, gid, mtime, xattrs: xattrs.clone() }
    }
}

impl Writer {
    pub(super) fn open(directory: &Path, form: &Form) -> Result<Self> {
        let folders = Folders::open(directory).map_err(|source| failed(directory, b"", source))?;
        Ok(Self {
            folders,
            form: form.clone(),
            directory: directory.to_owned(),
            own: (geteuid().as_raw(), getegid().as_raw()),
            linking: folders::unique("linking"),
            file: None,
            missing: BTreeSet::new(),
            reasons: BTreeMap::new(),
            leads_elsewhere: false,
            files: 0,
            bytes: 0,
        })
    }

    /// What an error at a path is.
    pub(super) fn failed(&self, path: &[u8], source: io::Error) -> Error {
        failed(&self.directory, path, source)
    }

    /// What was left out, a line for each reason.
    pub(super) fn left_out(&self) -> Vec<String> {
        let line = |(reason, (path, count)): (&&str, &(Vec<u8>, u64))| {
            let path = String::from_utf8_lossy(path);
            match count {
                1 => format!("`{path}`: {reason}"),
                count => format!("`{path}` and {} more: {reason}", count - 1),
            }
        };
        self.reasons.iter().map(line).collect()
    }

    pub(super) fn note(&mut self, path: &[u8], reason: &'static str) {
        let (first, count) = self.reasons.entry(reason).or_default();
        if *count == 0 {
            path.clone_into(first);
        }
        *count += 1;
    }

    fn leave_out(&mut self, path: &[u8], reason: &'static str) {
        self.note(path, reason);
        self.missing.insert(path.to_owned());
    }

    /// Whether something can be put there: nothing is below a link. What is there goes, unless it is a directory and another
    /// one comes.
    fn clear(&mut self, path: &[u8], was: &Body, keep_directory: bool) -> Result<bool> {
        if path.len() >= MAX_PATH {
            let name = String::from_utf8_lossy(&path[..256]);
            return Err(invalid(format!("the path `{name}…` is too long")));
        }
        let cleared = self.try_clear(path, was, keep_directory);
        match cleared {
            Err(error) if is_link(&error) => {
                self.leads_elsewhere = true;
                self.missing.insert(path.to_owned());
                Ok(false)
            }
            cleared => cleared.map(|()| true).map_err(|error| self.failed(path, error)),
        }
    }

    fn try_clear(&mut self, path: &[u8], was: &Body, keep_directory: bool) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.folders.make(parent)?;
        match was {
            Body::Nothing => return Ok(()),
            Body::Implied | Body::Dir if keep_directory => return Ok(()),
            _ => folders::remove(parent, name)?,
        }
        self.folders.forget(path);
        if !self.missing.is_empty() {
            self.missing.remove(path);
        }
        Ok(())
    }

    fn special(&mut self, path: &[u8], kind: FileType, device: u64, member: &Member) -> Result<()> {
        if kind != FileType::Fifo && !self.form.is_real() {
            // Those of /dev nobody misses: every command has a new one.
            if path.starts_with(b"dev/") {
                self.missing.insert(path.to_owned());
            } else {
                self.leave_out(path, "a device, which only root can make");
            }
            return Ok(());
        }
        let made = (|| {
            let (parent, name) = self.folders.parent(path)?;
            mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device)?;
            // The umask has had its say.
            Ok::<_, io::Error>(chmodat(parent, name, Mode::from_raw_mode(member.mode), AtFlags::empty())?)
        })();
        match made {
            Err(error) if errno(&error) == Some(Errno::PERM) => {
                self.leave_out(path, "a device, which this root may not make");
                Ok(())
            }
            made => made.and_then(|()| self.dress_name(path, member)).map_err(|error| self.failed(path, error)),
        }
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], member: &Member) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        let (parent, name) = self.folders.parent(path)?;
        symlinkat(OsStr::from_bytes(target), parent, name)?;
        self.dress_name(path, member)
    }

    /// Owner and time of what cannot be opened.
    fn dress_name(&mut self, path: &[u8], member: &Member) -> io::Result<()> {
        let owner = self.owner(member.uid, member.gid);
        let (parent, name) = self.folders.parent(path)?;
        if let Some((uid, gid)) = owner {
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(utimensat(parent, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whose something is to be, if that is to be done here and it is not so already.
    pub(super) fn owner(&self, uid: u32, gid: u32) -> Option<(Uid, Gid)> {
        let needed = self.form.is_real() && (uid, gid) != self.own;
        needed.then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Owner, attributes, mode and time, in the order in which none undoes another.
    pub(super) fn dress(&mut self, path: &[u8], file: BorrowedFd<'_>, dress: &Dress) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(dress.uid, dress.gid) {
            fchown(file, Some(uid), Some(gid))?;
        }
        self.attributes(path, file, dress)?;
        fchmod(file, Mode::from_raw_mode(dress.mode))?;
        Ok(futimens(file, &times(dress.mtime))?)
    }

    /// Extended attributes: those of the layer that mean something in an image, and whose it is.
    pub(super) fn attributes(&mut self, path: &[u8], file: BorrowedFd<'_>, dress: &Dress) -> io::Result<()> {
        if self.form == Form::Single && (dress.uid, dress.gid) != (0, 0) {
            let owner = format!("{}:{}", dress.uid, dress.gid);
            if !set_xattr(file, OWNER.as_bytes(), owner.as_bytes())? {
                self.note(path, "the file system keeps no extended attributes, so its owner is lost");
            }
        }
        for (name, value) in &dress.xattrs {
            if is_written(&self.form, name) && !set_xattr(file, name, value)? {
                self.note(path, "an extended attribute that could not be set");
            }
        }
        Ok(())
    }
}

/// Whether an attribute of a layer gets into the tree here. Those of overlayfs and ours would be taken at their word.
fn is_written(form: &Form, name: &[u8]) -> bool {
    match name.strip_prefix(b"user.") {
        Some(name) => !name.starts_with(b"overlay.") && !name.starts_with(b"cooper."),
        // Elsewhere it is set from inside the namespace, which is the one that it holds in.
        None => form.is_real() && name == CAPABILITY.as_bytes(),
    }
}

/// The attribute with a file's capabilities.
pub(super) const CAPABILITY: &str = "security.capability";

/// Whether it could be set: not every file system and every user can.
pub(in super::super) fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<bool> {
    match fsetxattr(file, name, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Sink for Writer {
    fn put(&mut self, path: &[u8], was: &Body, member: &Member) -> Result<()> {
        if !self.clear(path, was, matches!(member.kind, MemberKind::Dir))? {
            return Ok(());
        }
        let done = match &member.kind {
            MemberKind::Dir if matches!(was, Body::Implied | Body::Dir) => return Ok(()),
            MemberKind::Dir => {
                self.folders.parent(path).and_then(|(parent, name)| Ok(mkdirat(parent, name, Mode::RWXU)?))
            }
            MemberKind::Symlink { target } => self.symlink(path, target, member),
            MemberKind::CharDevice { major, minor } => {
                return self.special(path, FileType::CharacterDevice, makedev(*major, *minor), member);
            }
            MemberKind::BlockDevice { major, minor } => {
                return self.special(path, FileType::BlockDevice, makedev(*major, *minor), member);
            }
            MemberKind::Fifo => return self.special(path, FileType::Fifo, 0, member),
            MemberKind::File { .. } | MemberKind::Hardlink { .. } => return Err(Error::internal("a file was put")),
        };
        done.map_err(|error| self.failed(path, error))
    }

    fn begin(&mut self, path: &[u8], was: &Body, member: &Member) -> Result<()> {
        if !self.clear(path, was, false)? {
            return Ok(());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self
            .folders
            .parent(path)
            .and_then(|(parent, name)| Ok(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?));
        let file = File::from(opened.map_err(|error| self.failed(path, error))?);
        self.file = Some(Writing { file, path: path.to_owned(), dress: Dress::of(member) });
        self.files += 1;
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(Writing { file, path, .. }) = &mut self.file else { return Ok(()) };
        self.bytes += bytes.len() as u64;
        file.write_all(bytes).map_err(|error| failed(&self.directory, path, error))
    }

    fn end(&mut self) -> Result<()> {
        let Some(Writing { file, path, dress }) = self.file.take() else { return Ok(()) };
        self.dress(&path, file.as_fd(), &dress).map_err(|error| self.failed(&path, error))
    }

    fn link(&mut self, path: &[u8], was: &Body, first: &[u8]) -> Result<()> {
        if path == first {
            return Ok(());
        }
        if self.missing.contains(first) {
            self.missing.insert(path.to_owned());
            return Ok(());
        }
        // The directory that goes may be the one that the file is in: it gets its new name before.
        let (above, _) = split(first);
        let linked = self.folders.get(above).and_then(|folder| folder.try_clone_to_owned()).and_then(|from| {
            let (_, name) = split(first);
            Ok(linkat(from, name, self.folders.root(), &self.linking, AtFlags::empty())?)
        });
        match linked {
            Err(error) if is_link(&error) => {
                self.leads_elsewhere = true;
                self.missing.insert(path.to_owned());
                return Ok(());
            }
            linked => linked.map_err(|error| self.failed(path, error))?,
        }
        if !self.clear(path, was, false)? {
            return folders::remove(self.folders.root(), OsStr::new(&self.linking))
                .map_err(|error| self.failed(path, error));
        }
        self.files += 1;
        let root = self.folders.root().try_clone_to_owned();
        let named = root.and_then(|root| {
            let (parent, name) = self.folders.parent(path)?;
            Ok(renameat(root, &self.linking, parent, name)?)
        });
        named.map_err(|error| self.failed(path, error))
    }
}

/// Whether a part of a path is a link, and no directory.
fn is_link(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::NOTDIR | Errno::LOOP))
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// What went wrong at a path of a tree.
pub(super) fn failed(directory: &Path, path: &[u8], source: io::Error) -> Error {
    use std::os::unix::ffi::OsStrExt as _;
    let shown = directory.join(OsStr::from_bytes(path));
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::NoSpace { message: format!("cannot unpack a layer to `{}`: {source}", directory.display()) }
        }
        _ if errno(&source) == Some(Errno::NAMETOOLONG) => {
            let name = String::from_utf8_lossy(path);
            invalid(format!("the name `{name}` is too long for the file system"))
        }
        _ => Error::Store { path: shown, action: "unpack a layer".into(), source },
    }
}

pub(super) fn times(time: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
