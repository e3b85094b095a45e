//! Random changes of a tree, what is in it then, and what a layer of the changes makes of what was there before.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::layer::changes::{Changes, Left, Owners, changes};
use cooper::layer::{LayerOptions, WrittenLayer, write};
use cooper::rootfs::{Listing, NodeKind, TreeFiles, View, list_tree};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, lsetxattr, utimensat};

/// A change. What cannot be done is not done.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(String, u8),
    Append(String),
    /// Opened to be written to, and not written to.
    Open(String),
    Mkdir(String),
    Remove(String),
    /// A directory that is removed and made again.
    Renew(String),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    Chmod(String, u32),
    Chown(String, u32),
    Touch(String, i64),
    Fifo(String),
    Capability(String),
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "d e", "ü"]), 1..4).prop_map(|parts| parts.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    let mode = prop::sample::select(vec![0o644_u32, 0o755, 0o600, 0o4755, 0o1777, 0o000, 0o2750]);
    prop_oneof![
        4 => (path(), 0..3_u8).prop_map(|(path, content)| Op::Write(path, content)),
        1 => path().prop_map(Op::Append),
        2 => path().prop_map(Op::Open),
        4 => path().prop_map(Op::Mkdir),
        3 => path().prop_map(Op::Remove),
        2 => path().prop_map(Op::Renew),
        2 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => (path(), path()).prop_map(|(from, to)| Op::Symlink(from, to)),
        2 => (path(), mode).prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => (path(), 0..3_u32).prop_map(|(path, id)| Op::Chown(path, id)),
        1 => (path(), 0..3_i64).prop_map(|(path, time)| Op::Touch(path, time)),
        1 => path().prop_map(Op::Fifo),
        1 => path().prop_map(Op::Capability),
    ]
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 0..40)
}

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: 1_600_000_000 + seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn remove(path: &Path) {
    let is_dir = path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let _ = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// No link is followed: the tree may have some that lead out of it.
fn is_link(root: &Path, path: &str) -> bool {
    let mut whole = root.to_owned();
    path.split('/').any(|part| {
        whole.push(part);
        whole.symlink_metadata().is_ok_and(|found| found.is_symlink())
    })
}

impl Op {
    fn apply(&self, root: &Path) {
        let (Self::Write(path, _)
        | Self::Append(path)
        | Self::Open(path)
        | Self::Mkdir(path)
        | Self::Remove(path)
        | Self::Renew(path)
        | Self::Rename(path, _)
        | Self::Link(path, _)
        | Self::Symlink(path, _)
        | Self::Chmod(path, _)
        | Self::Chown(path, _)
        | Self::Touch(path, _)
        | Self::Fifo(path)
        | Self::Capability(path)) = self;
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if is_link(root, parent) {
            return;
        }
        let whole = root.join(path);
        let kind = whole.symlink_metadata().map(|found| found.file_type());
        let is_file = kind.as_ref().is_ok_and(fs::FileType::is_file);
        let is_link_itself = kind.as_ref().is_ok_and(fs::FileType::is_symlink);
        match self {
            Self::Write(_, content) if is_file || kind.is_err() => {
                let _ = fs::write(&whole, [b"", &b"one"[..], &b"two"[..]][usize::from(*content)]);
            }
            Self::Append(_) if is_file => {
                let _ = OpenOptions::new().append(true).open(&whole).map(|mut file| file.write_all(b"more"));
            }
            Self::Open(_) if is_file => drop(OpenOptions::new().append(true).open(&whole)),
            Self::Mkdir(_) => drop(fs::create_dir_all(&whole)),
            Self::Remove(_) => remove(&whole),
            Self::Renew(_) => {
                remove(&whole);
                let _ = fs::create_dir(&whole);
            }
            Self::Rename(_, to) if !is_link(root, to.rsplit_once('/').map_or("", |(parent, _)| parent)) => {
                let _ = fs::rename(&whole, root.join(to));
            }
            Self::Link(_, to) if is_file && !is_link(root, to) => drop(fs::hard_link(&whole, root.join(to))),
            Self::Symlink(_, to) => drop(std::os::unix::fs::symlink(to, &whole)),
            Self::Chmod(_, mode) if !is_link_itself => {
                // Whoever is not root has to get in again.
                let mode = if is_file || rustix::process::geteuid().is_root() { *mode } else { *mode | 0o700 };
                let _ = fs::set_permissions(&whole, fs::Permissions::from_mode(mode | 0o400));
            }
            Self::Chown(_, id) => drop(std::os::unix::fs::lchown(&whole, Some(*id), Some(*id))),
            Self::Touch(_, time) => touch(&whole, *time, *time * 500),
            Self::Fifo(_) => {
                let mode = rustix::fs::Mode::from_raw_mode(0o640);
                let _ = rustix::fs::mknodat(CWD, &whole, rustix::fs::FileType::Fifo, mode, 0);
            }
            Self::Capability(_) if is_file => {
                let value = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
                let _ = lsetxattr(&whole, "security.capability", value, XattrFlags::empty());
            }
            _ => {}
        }
    }
}

pub(crate) fn apply(ops: &[Op], root: &Path) {
    for op in ops {
        op.apply(root);
    }
}

/// What is in a tree, as far as layers can say it: a line for each path.
pub(crate) fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let mut entries: Vec<PathBuf> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_owned();
            let kind = metadata.file_type();
            let owner = format!("{:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
            let time = metadata.mtime();
            let said = if kind.is_dir() {
                left.push(path.clone());
                format!("dir {owner}")
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                format!("link {} {}:{} {time}", target.display(), metadata.uid(), metadata.gid())
            } else if kind.is_fifo() {
                format!("fifo {owner} {time}")
            } else {
                let mut content = Vec::new();
                File::open(&path).unwrap().read_to_end(&mut content).unwrap();
                let mut value = vec![0; 64];
                let capability = rustix::fs::lgetxattr(&path, "security.capability", value.as_mut_slice()).is_ok();
                names.entry(metadata.ino()).or_insert_with(|| name.clone());
                format!("file {owner} {time} {} {capability}", Digest::of(&content))
            };
            found.insert(name, said);
        }
    }
    found
}

/// The same of a view.
pub(crate) fn seen(view: &View) -> BTreeMap<Vec<u8>, String> {
    view.walk(b"")
        .map(|found| {
            let node = &found.node;
            let owner = format!("{:o} {}:{}", node.mode, node.uid, node.gid);
            let time = node.mtime.seconds;
            let said = match &node.kind {
                NodeKind::Dir => format!("dir {owner}"),
                NodeKind::Symlink { target } => {
                    format!("link {} {}:{} {time}", String::from_utf8_lossy(target), node.uid, node.gid)
                }
                NodeKind::Fifo => format!("fifo {owner} {time}"),
                NodeKind::File { digest, .. } => {
                    let capability = node.xattrs.contains_key(&b"security.capability"[..]);
                    format!("file {owner} {time} {digest} {capability}")
                }
                other => format!("{other:?}"),
            };
            (found.path, said)
        })
        .collect()
}

/// What changed in a directory, the upper one of an overlay or, with what was there before, a whole root.
pub(crate) fn changed(directory: &Path, before: Option<&Listing>, view: &View, owners: &Owners) -> Changes {
    let listing = listed(directory);
    let files = Arc::new(TreeFiles::open(directory).unwrap());
    let left = Left { listing: &listing, before, files, spool: None, view, owners };
    changes(&left, &Cancel::new()).unwrap()
}

pub(crate) fn listed(directory: &Path) -> Listing {
    let listing = list_tree(directory, None, &|_| false, &Cancel::new()).unwrap();
    assert_eq!(Listing::from_bytes(&listing.to_bytes()).unwrap(), listing);
    listing
}

/// A layer of some changes, as an archive.
pub(crate) fn layer_of(changes: Changes) -> (Vec<u8>, WrittenLayer) {
    let options = LayerOptions { compression: cooper::oci::media::Compression::None, ..LayerOptions::default() };
    let mut tar = Vec::new();
    let written = write(changes.entries.into_iter(), &options, None, &mut tar, &|_| {}, &Cancel::new()).unwrap();
    (tar, written)
}
