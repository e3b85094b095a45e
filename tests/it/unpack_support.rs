//! Layers on disk, compared with what their indexes say.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::oci::media::Compression;
use cooper::rootfs::{Form, IndexEntry, LayerIndex, Limits, NodeKind, Packed, Unpacked, unpack};
use rustix::fs::lgetxattr;

use crate::rootfs_support::Tar;

/// An unpacked layer in a directory of its own.
pub(crate) struct OnDisk {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) done: Unpacked,
}

impl OnDisk {
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("tree").join(inside)
    }

    pub(crate) fn index(&self) -> &LayerIndex {
        self.done.index.as_ref().unwrap()
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        open_up(self.dir.path());
    }
}

/// Makes directories removable that nobody may look into.
pub(crate) fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

pub(crate) fn try_unpack(tar: &[u8], form: &Form, limits: Limits) -> cooper::Result<OnDisk> {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let layer = Packed { blob: tar, compression: Compression::None, diff_id: &Digest::of(tar), indexed: true };
    let done = unpack(layer, form, &tree, limits, &Cancel::new())?;
    Ok(OnDisk { dir, done })
}

/// Unpacks an archive, and sees that what is there is what its index says.
pub(crate) fn unpacked(tar: Tar, form: &Form) -> OnDisk {
    let tar = tar.end();
    let layer = try_unpack(&tar, form, Limits::default()).unwrap();
    assert_eq!(layer.index(), &LayerIndex::read(&tar[..], &Cancel::new()).unwrap());
    if !layer.done.leads_elsewhere {
        assert_matches(&layer.path(""), layer.index());
    }
    layer
}

/// Whether what is on disk is what the index says, in everything.
pub(crate) fn assert_matches(root: &Path, index: &LayerIndex) {
    let mut expected: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for (path, entry) in index.iter() {
        for (at, byte) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let _ = byte;
            expected.entry(path[..at].to_owned()).or_insert_with(|| "dir 755 946684800.000000000".into());
        }
        if path.is_empty() {
            continue;
        }
        let said = match &entry {
            IndexEntry::Whiteout => "whiteout".to_owned(),
            IndexEntry::Opaque => "opaque dir 755 946684800.000000000".to_owned(),
            IndexEntry::Node(node) | IndexEntry::Hardlink { node, .. } => {
                let kind = match &node.kind {
                    NodeKind::File { digest, .. } => format!("file {} {digest}", octal(node.mode)),
                    NodeKind::Dir => format!("dir {}", octal(node.mode)),
                    NodeKind::Symlink { target } => format!("link {}", String::from_utf8_lossy(target)),
                    NodeKind::Fifo => format!("fifo {}", octal(node.mode)),
                    NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. } => continue,
                };
                format!("{kind} {}.{:09}", node.mtime.seconds, node.mtime.nanoseconds)
            }
        };
        // A directory that is there may be a new one, which hides what was there, in one word.
        let hides = |old: &String| old.starts_with("opaque") || old == "whiteout";
        let said = match expected.get(&path) {
            Some(old) if hides(old) && said.starts_with("dir") => format!("opaque {said}"),
            _ => said,
        };
        expected.insert(path, said);
    }
    // What is gone, but has something in it, is a new directory.
    let parents: Vec<Vec<u8>> = expected
        .keys()
        .filter(|path| expected[*path] == "whiteout")
        .filter(|path| expected.keys().any(|other| other.starts_with(&[path.as_slice(), b"/"].concat())))
        .cloned()
        .collect();
    for path in parents {
        expected.insert(path, "opaque dir 755 946684800.000000000".into());
    }
    let mut found = BTreeMap::new();
    look(root, root, &mut found);
    assert_eq!(shown(&found), shown(&expected));
}

fn shown(tree: &BTreeMap<Vec<u8>, String>) -> Vec<String> {
    tree.iter().map(|(path, what)| format!("{}: {what}", path.escape_ascii())).collect()
}

fn octal(mode: u32) -> String {
    format!("{mode:o}")
}

fn look(root: &Path, directory: &Path, found: &mut BTreeMap<Vec<u8>, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let (mode, kind) = (octal(metadata.mode() & 0o7777), metadata.file_type());
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        let said = if kind.is_dir() {
            use std::os::unix::fs::PermissionsExt as _;
            let opaque = xattr(&path, "user.overlay.opaque").or_else(|| xattr(&path, "trusted.overlay.opaque"));
            // Directories that keep us out.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
            look(root, &path, found);
            let word = if opaque.as_deref() == Some(b"y") { "opaque " } else { "" };
            format!("{word}dir {mode} {time}")
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            format!("link {} {time}", target.to_string_lossy())
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            "whiteout".into()
        } else if kind.is_fifo() {
            format!("fifo {mode} {time}")
        } else if kind.is_file() {
            format!("file {mode} {} {time}", Digest::of(&fs::read(&path).unwrap()))
        } else {
            continue;
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_owned();
        found.insert(name, said);
    }
}

pub(crate) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = lgetxattr(path, OsStr::new(name), value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}
