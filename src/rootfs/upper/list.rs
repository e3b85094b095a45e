//! Listing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fgetxattr, major, minor, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::super::unpack::OWNER;
use super::{Item, ItemKind, Listing};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::folders::{Folders, join, list, look};
use crate::mtime::Mtime;

/// Bigger attributes than these nobody asks for here.
const MAX_XATTR: usize = 256;
/// How much is copied at once.
const CHUNK: usize = 256 << 10;

/// Where contents go that only the process that lists can read.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    length: u64,
}

impl SpoolFile {
    /// An empty file that can be written to.
    pub const fn new(file: File) -> Self {
        Self { file, length: 0 }
    }
}

/// Lists everything in a directory but itself.
///
/// With a spool, this is a process inside a user namespace that lists for one outside of it, with its ids as root's own:
/// contents of files that the other could not read go to the spool. `wanted` says of which, before it is told where.
///
/// Fails with `Store` if anything cannot be looked at, `ImageInvalid` for a tree in which overlayfs has noted what no layer
/// can say (`redirect_dir`, `metacopy`), and `Interrupted`. Blocks.
pub fn list_tree(
    directory: &Path,
    spool: Option<&mut SpoolFile>,
    wanted: &dyn Fn(&Item) -> bool,
    cancel: &Cancel,
) -> Result<Listing> {
    let failed = |path: &[u8], source: io::Error| failed(directory, path, source);
    let mut run = Run { spool, wanted, own: (geteuid().as_raw(), getegid().as_raw()) };
    let mut folders = Folders::open(directory).map_err(|error| failed(b"", error))?;
    let mut items = Vec::new();
    // Directories and what is left of them, and whether the one outside gets there.
    let names = list(folders.root()).map_err(|error| failed(b"", error))?;
    let mut open = vec![(Vec::new(), names.into_iter(), true)];
    while let Some((above, names, reaches)) = open.last_mut() {
        cancel.check()?;
        let Some(name) = names.next() else {
            open.pop();
            continue;
        };
        let path = join(above, &name);
        let reaches = *reaches;
        let parent = folders.get(above).map_err(|error| failed(&path, error))?;
        let item = run.item(parent, &path, &name, reaches).map_err(|error| failed(&path, error))?;
        let Some(item) = item else { continue };
        if matches!(item.kind, ItemKind::Dir { .. }) {
            let reaches = reaches && run.may(&item, 0o100);
            let names = folders.get(&path).and_then(list).map_err(|error| failed(&path, error))?;
            open.push((path, names.into_iter(), reaches));
        }
        items.push(item);
    }
    Ok(Listing(items))
}

struct Run<'a> {
    spool: Option<&'a mut SpoolFile>,
    wanted: &'a dyn Fn(&Item) -> bool,
    own: (u32, u32),
}

impl Run<'_> {
    /// What has that name; `None` if it is gone.
    fn item(&mut self, parent: BorrowedFd<'_>, path: &[u8], name: &[u8], reaches: bool) -> io::Result<Option<Item>> {
        let name = OsStr::from_bytes(name);
        let Some(found) = look(parent, name)? else { return Ok(None) };
        let size = u64::try_from(found.st_size).unwrap_or_default();
        let (major, minor) = (major(found.st_rdev), minor(found.st_rdev));
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => ItemKind::File { size, spooled: None },
            FileType::Directory => ItemKind::Dir { opaque: false },
            FileType::Symlink => ItemKind::Symlink { target: readlinkat(parent, name, Vec::new())?.into_bytes() },
            FileType::Fifo => ItemKind::Fifo,
            FileType::CharacterDevice if (major, minor) == (0, 0) => ItemKind::Whiteout,
            FileType::CharacterDevice => ItemKind::CharDevice { major, minor },
            FileType::BlockDevice => ItemKind::BlockDevice { major, minor },
            _ => ItemKind::Socket,
        };
        let mut item = item(path, kind, &found);
        match item.kind {
            ItemKind::File { .. } => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(openat(parent, name, flags, Mode::empty())?);
                attributes(file.as_fd(), &mut item)?;
                let readable = reaches && self.may(&item, 0o400);
                if let Some(spool) = &mut self.spool
                    && !readable
                    && size > 0
                    && (self.wanted)(&item)
                {
                    let at = copy(file, size, spool)?;
                    item.kind = ItemKind::File { size, spooled: Some(at) };
                }
            }
            ItemKind::Dir { .. } => {
                let directory = openat(parent, name, crate::folders::DIRECTORY, Mode::empty())?;
                attributes(directory.as_fd(), &mut item)?;
            }
            _ => {}
        }
        Ok(Some(item))
    }

    /// Whether the one outside, who is who we are here, may do something.
    const fn may(&self, item: &Item, owner_bit: u32) -> bool {
        let bit = if item.uid == self.own.0 {
            owner_bit
        } else if item.gid == self.own.1 {
            owner_bit >> 3
        } else {
            owner_bit >> 6
        };
        item.mode & bit != 0
    }
}

fn item(path: &[u8], kind: ItemKind, found: &Stat) -> Item {
    let time = |seconds, nanoseconds| Mtime { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or_default() };
    Item {
        path: path.to_owned(),
        kind,
        mode: found.st_mode & 0o7777,
        uid: found.st_uid,
        gid: found.st_gid,
        mtime: time(found.st_mtime, found.st_mtime_nsec),
        ctime: time(found.st_ctime, found.st_ctime_nsec),
        inode: found.st_ino,
        links: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
        capability: None,
        owner: None,
        copied_up: false,
    }
}

/// What attributes say of a file or directory.
fn attributes(file: BorrowedFd<'_>, item: &mut Item) -> io::Result<()> {
    let overlay = |name: &str| -> io::Result<Option<Vec<u8>>> {
        for space in ["user", "trusted"] {
            if let Some(value) = get(file, &format!("{space}.overlay.{name}"))? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    };
    item.copied_up = overlay("origin")?.is_some();
    item.owner = get(file, OWNER)?.as_deref().and_then(owner);
    match item.kind {
        ItemKind::Dir { .. } => {
            let opaque = overlay("opaque")?.is_some_and(|value| value == b"y");
            item.kind = ItemKind::Dir { opaque };
            refuse(item, overlay("redirect")?.as_deref(), "redirect_dir")?;
        }
        ItemKind::File { size, .. } => {
            item.capability = get(file, "security.capability")?.map(plain_capability);
            if size == 0 && overlay("whiteout")?.is_some() {
                item.kind = ItemKind::Whiteout;
            }
            refuse(item, overlay("metacopy")?.as_deref(), "metacopy")?;
        }
        _ => {}
    }
    Ok(())
}

fn refuse(item: &Item, found: Option<&[u8]>, feature: &str) -> io::Result<()> {
    if found.is_none() {
        return Ok(());
    }
    let path = String::from_utf8_lossy(&item.path);
    let reason = format!("`{path}` is not there as it is: overlayfs was mounted with `{feature}`");
    Err(io::Error::other(Error::ImageInvalid { what: "overlay".into(), reason }))
}

/// An attribute; `None` if there is none.
fn get(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX_XATTR];
    match fgetxattr(file, name, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        // What is that long is none of those that are asked for, but it is there.
        Err(Errno::RANGE) => Ok(Some(Vec::new())),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::OVERFLOW) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `UID:GID`.
fn owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Capabilities without the user namespace that they hold in (`struct vfs_ns_cap_data`, linux/capability.h): in an image they
/// hold in whichever it is run in.
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    /// The revision is the highest byte of the first number, little-endian; the third has the namespace's root at its end.
    const REVISION: usize = 3;
    if value.len() == 24 && value[REVISION] == 3 {
        value[REVISION] = 2;
        value.truncate(20);
    }
    value
}

/// Puts a content down; where it begins.
fn copy(mut file: File, size: u64, spool: &mut SpoolFile) -> io::Result<u64> {
    let start = spool.length;
    let mut chunk = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(chunk.len());
        file.read_exact(&mut chunk[..most])?;
        spool.file.write_all_at(&chunk[..most], spool.length)?;
        spool.length += most as u64;
        left -= most as u64;
    }
    Ok(start)
}

fn failed(directory: &Path, path: &[u8], source: io::Error) -> Error {
    let source = match source.downcast::<Error>() {
        Ok(ours) => return ours,
        Err(source) => source,
    };
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { message: format!("cannot put contents down: {source}") }
        }
        _ => {
            let path = directory.join(OsStr::from_bytes(path));
            Error::Store { path, action: "list what a command left".into(), source }
        }
    }
}
