//! One entry of a layer that is to be written.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use crate::context::{Context, EntryId};
use crate::digest::Digest;
use crate::mtime::Mtime;
use crate::rootfs::{Stamp, TreeFiles, Xattrs};

/// One entry of a layer. Entries come in the order of [`crate::context::compare_paths`], each path once, though a whiteout
/// may come before what is there now, and [`LayerKind::Opaque`] behind its directory. Directories that are not there are the
/// business of whoever makes the list.
#[derive(Clone, Debug)]
pub struct LayerEntry {
    /// Relative to the root, cleaned, `/` between its parts. Only [`LayerKind::Opaque`] may have the empty path, the root's.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: LayerKind,
    /// Permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was modified. Layers keep whole seconds, as containerd's do.
    pub mtime: Mtime,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum LayerKind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Where the bytes come from.
        content: Content,
        /// Their digest, if it is known. A file that has another one has changed.
        digest: Option<Digest>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// The target as it is stored.
        target: Vec<u8>,
    },
    /// Another name of a file that stands before it in the layer.
    Hardlink {
        /// The path of its first name, relative to the root.
        first: Vec<u8>,
        /// The size of the file in bytes.
        size: u64,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Removes what lower layers have at this path (the path is that of what is removed, not `.wh.`).
    Whiteout,
    /// Removes what lower layers have in the directory of this path.
    Opaque,
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// Memory.
    Bytes(Bytes),
    /// A file of the build context.
    Context(Arc<Context>, EntryId),
    /// A part of a file on this machine, where something was put down for the length of a build.
    Spool {
        /// The file.
        file: Arc<File>,
        /// Where the content begins.
        offset: u64,
    },
    /// The file of this path in a tree on this machine, which has to be as it was when it was listed.
    Tree {
        /// The tree.
        files: Arc<TreeFiles>,
        /// What the file was.
        stamp: Stamp,
    },
    /// A file in a layer of an image or a stage. It has to be taken out of there before a layer can be written.
    InLayer {
        /// Which layer, from 0, of the [`crate::rootfs::View`] that it was found in.
        layer: usize,
        /// Its path there: for a hard link, that of its first name.
        path: Vec<u8>,
    },
}
