//! One entry of a context.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;

use super::stamp::Stamp;
use super::tree::EntryId;
pub use crate::mtime::{FIXED_TIME, Mtime};
pub use crate::paths::compare_paths;

/// A file, directory, link or special file of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, cleaned, `/` between its parts. Bytes: a name need not be UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits as they are on disk, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// When it was modified.
    pub mtime: Mtime,
    pub(super) source: Source,
    pub(super) stamp: Stamp,
    pub(super) id: EntryId,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file, `size` bytes long when the context was opened.
    File {
        /// In bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link, not followed. Its target may be missing or outside of the context.
    Symlink {
        /// The target as it is stored.
        target: Vec<u8>,
    },
    /// Another name of a regular file that is in the context already.
    Hardlink {
        /// The path of its first name, which comes before this one.
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
}

impl Kind {
    /// Its name in lists.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "file",
            Self::Dir => "dir",
            Self::Symlink { .. } => "symlink",
            Self::Hardlink { .. } => "hardlink",
            Self::Fifo => "fifo",
            Self::CharDevice { .. } => "char_device",
            Self::BlockDevice { .. } => "block_device",
        }
    }
}

/// Where the content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// On disk.
    Disk,
    /// In memory.
    Memory(Bytes),
}

impl Entry {
    /// The path for people: what is not UTF-8 is replaced.
    pub fn display_path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// The path for the file system, relative to the root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The last part of the path.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
    }

    /// For [`Context::entry`](super::Context::entry).
    pub const fn id(&self) -> EntryId {
        self.id
    }

    /// Whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }

    /// The size of a regular file, else 0. The further names of a hard linked file have none.
    pub const fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size } => size,
            _ => 0,
        }
    }

    /// The size of what a reader gets: that of the file, by each of its names.
    pub const fn content_size(&self) -> u64 {
        match self.kind {
            Kind::File { size } | Kind::Hardlink { size, .. } => size,
            _ => 0,
        }
    }

    /// Whether it exists in memory only: an extra file, or a directory made up for one.
    pub const fn is_extra(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }
}

/// Whether a path is somewhere in a directory; the root has the empty path.
pub(super) fn is_below(path: &[u8], directory: &[u8]) -> bool {
    match path.strip_prefix(directory) {
        Some(rest) => directory.is_empty() || rest.first() == Some(&b'/'),
        None => false,
    }
}

/// Cuts a list into batches of at most so many items and so much of what they cost; what costs more is a batch of its own.
pub(super) fn batches<T: Send>(
    items: impl Iterator<Item = T> + Send,
    most: usize,
    limit: u64,
    cost: impl Fn(&T) -> u64 + Send,
) -> impl Iterator<Item = Vec<T>> + Send {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let mut batch = vec![items.next()?];
        let mut sum = cost(&batch[0]);
        while batch.len() < most
            && let Some(item) = items.next_if(|item| sum + cost(item) <= limit)
        {
            sum += cost(&item);
            batch.push(item);
        }
        Some(batch)
    })
}
