//! One entry of a context.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;

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
        /// The index of the first name in [`Context::entries`](super::Context::entries); always smaller than this one's.
        first: usize,
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

/// A time, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// And nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// 2000-01-01T00:00:00Z: the time of everything that has no time of its own. 0 would do, had zip files (and therefore
/// wheels built in a RUN) not begun in 1980.
pub const FIXED_TIME: i64 = 946_684_800;

/// Where the content is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// On disk.
    Disk { links: Option<Links> },
    /// In memory.
    Memory(Bytes),
}

/// What is known of a regular file that has several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
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

    /// Whether it exists in memory only: an extra file, or a directory made up for one.
    pub const fn is_extra(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }
}

/// Compares two paths in the order of a walk: depth first, siblings by their bytes, a directory before what is in it.
pub fn compare_paths(left: &[u8], right: &[u8]) -> Ordering {
    // No name holds a NUL byte, so the separator can take its place: it sorts before everything else.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    left[same..].iter().map(key).cmp(right[same..].iter().map(key))
}

/// Cuts a list into batches of at most so many entries and bytes; a file that is bigger is a batch of its own.
pub(super) fn batches(entries: &[Entry], most: usize, bytes: u64) -> impl Iterator<Item = &[Entry]> + Send {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut size = 0;
        let full = |entry: &Entry| {
            size += entry.size();
            size > bytes
        };
        let count = rest.iter().take(most).position(full).map_or(rest.len().min(most), |at| at.max(1));
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

/// Makes hard links of all but the first name of each file that has several in the list.
pub(super) fn find_hard_links(entries: &mut [Entry]) {
    let mut names = HashMap::new();
    for (index, entry) in entries.iter_mut().enumerate() {
        if let Source::Disk { links: Some(file) } = entry.source {
            let first = *names.entry((file.device, file.inode)).or_insert(index);
            entry.kind = if first == index { Kind::File { size: file.size } } else { Kind::Hardlink { first } };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_a_walk() {
        let sorted: &[&[u8]] = &[b"A", b"a", b"a/b", b"a/b/c", b"a/c", b"a b", b"a!", b"a.txt", b"ab", b"b", b"\xff"];
        let mut paths = sorted.to_vec();
        paths.reverse();
        paths.sort_by(|left, right| compare_paths(left, right));
        // A space sorts before `!`, and both after `/`, whatever their codes are.
        assert_eq!(paths, sorted);
    }
}
