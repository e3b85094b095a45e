//! What is at a path of a file system.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::mtime::Mtime;

/// Extended attributes by their full names (`security.capability`).
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// A file, directory, link or special file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was modified.
    pub mtime: Mtime,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// What a node is. Further names of a hard linked file are files too, with the content of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Of the content.
        digest: Digest,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// The target as it is stored.
        target: Vec<u8>,
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
}

impl Node {
    /// Whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        matches!(self.kind, NodeKind::Dir)
    }

    /// A directory of root's that has no time of its own.
    pub const fn directory(mode: u32) -> Self {
        Self { kind: NodeKind::Dir, mode, uid: 0, gid: 0, mtime: Mtime::FIXED, xattrs: Xattrs::new() }
    }
}
