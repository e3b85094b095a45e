//! Directories that a daemon may sync, whatever they are made of.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io::{Cursor, Read};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::packet::FileType;
use crate::cancel::Cancel;
use crate::context::compare_paths;
use crate::digest::Digest;
use crate::error::Result;

/// One entry of a [`SyncDir`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Relative, clean, `/` between parts.
    pub path: Cow<'a, [u8]>,
    /// What it is.
    pub kind: FileType,
    /// Unix permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Bytes of a file's content, for every name of a hard link too.
    pub size: u64,
    /// Nanoseconds since 1970. Together with the size it tells a daemon whether a file has changed; where the directory
    /// gives a digest ([`SyncDir::digests`]), only its seconds are sent.
    pub mtime: i64,
    /// Target of a symbolic link, as it is.
    pub target: Cow<'a, [u8]>,
    /// The first name of a hard link; `None` for that name itself.
    pub link_to: Option<Cow<'a, [u8]>>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// A directory that a daemon may sync.
///
/// Entries are in the order of file synchronisation ([`compare_paths`]), and each is preceded by its parent directories.
pub trait SyncDir: Send + Sync {
    /// How many entries there are.
    fn len(&self) -> usize;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One entry.
    fn node(&self, index: usize) -> Node<'_>;

    /// The digests of the contents of files, in the order of `indexes`: `None` for what is no file, and for a file whose
    /// [`Node::mtime`] depends on its content already. Blocks; fails with what reading a file fails with.
    fn digests(&self, indexes: &[usize], cancel: &Cancel) -> Result<Vec<Option<Digest>>> {
        cancel.check()?;
        Ok(vec![None; indexes.len()])
    }

    /// The content of a file: exactly its size, or an error that names the file.
    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>>;
}

/// Finds an entry by its path.
pub fn find(dir: &dyn SyncDir, path: &[u8]) -> Option<usize> {
    let at = lower_bound(dir, path);
    (at < dir.len() && *dir.node(at).path == *path).then_some(at)
}

/// The first entry that does not come before `path`.
pub(super) fn lower_bound(dir: &dyn SyncDir, path: &[u8]) -> usize {
    let (mut low, mut high) = (0, dir.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if compare_paths(&dir.node(middle).path, path) == Ordering::Less {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// A few files that exist in memory only, side by side.
pub struct MemoryDir {
    files: Vec<(String, Bytes)>,
}

impl MemoryDir {
    /// Files by their names, which are single path components.
    pub fn new(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by(|a, b| compare_paths(a.0.as_bytes(), b.0.as_bytes()));
        Self { files }
    }
}

impl SyncDir for MemoryDir {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn node(&self, index: usize) -> Node<'_> {
        let (name, content) = &self.files[index];
        Node {
            path: name.as_bytes().into(),
            kind: FileType::File,
            mode: 0o644,
            size: content.len() as u64,
            mtime: content_mtime(content),
            target: Cow::default(),
            link_to: None,
            device: (0, 0),
        }
    }

    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>> {
        Ok(Box::new(Cursor::new(self.files[index].1.clone())))
    }
}

/// The time that is sent for a file: its own seconds, and nanoseconds that depend on its content
/// (docs/decisions/0016-never-stale.md).
///
/// They are below half a second. BuildKit cuts the times of layers to seconds, but rounds those of archives: either way the
/// second stays.
pub fn sent_time(mtime: i64, content: &Digest) -> i64 {
    const SECOND: i64 = 1_000_000_000;
    // So that no second that there is leads out of the numbers.
    let seconds = mtime.div_euclid(SECOND).clamp(i64::MIN / SECOND, i64::MAX / SECOND - 1);
    let number = content.as_bytes().iter().take(7).fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
    seconds * SECOND + number % (SECOND / 2)
}

/// A modification time that changes with the content. A daemon takes equal sizes and times for equal files, and a text
/// that is made anew for each build has no time of its own.
fn content_mtime(content: &[u8]) -> i64 {
    const YEAR_2000: i64 = 946_684_800;
    const SECOND: i64 = 1_000_000_000;
    let hash = Sha256::digest(content);
    let number = hash.iter().take(7).fold(0_i64, |number, byte| (number << 8) | i64::from(*byte));
    // Within a year, to the nanosecond: 2^54 values.
    YEAR_2000 * SECOND + number % (365 * 86_400 * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_text_depends_on_it() {
        let times = ["FROM a\n", "FROM b\n"].map(|text| content_mtime(text.as_bytes()));
        assert_ne!(times[0], times[1]);
        assert_eq!(times[0], content_mtime(b"FROM a\n"));
        assert!(times[0] >= 946_684_800_000_000_000);
    }

    #[test]
    fn a_time_that_is_sent_has_the_files_second_and_the_contents_nanoseconds() {
        let [one, other] = ["one", "two"].map(|text| Digest::from_bytes(Sha256::digest(text).into()));
        let time = 1_700_000_000_987_654_321;
        assert_ne!(sent_time(time, &one), sent_time(time, &other));
        assert_eq!(sent_time(time, &one), sent_time(1_700_000_000_000_000_000, &one));
        for digest in [one, other, Digest::from_bytes([0xff; 32])] {
            for mtime in [time, 0, -1, i64::MAX, i64::MIN] {
                let nanoseconds = sent_time(mtime, &digest).rem_euclid(1_000_000_000);
                assert!(nanoseconds < 500_000_000);
                let seconds = sent_time(mtime, &digest).div_euclid(1_000_000_000);
                assert!((seconds - mtime.div_euclid(1_000_000_000)).abs() <= 1, "{mtime}: {seconds}");
            }
            assert_eq!(sent_time(-1, &digest).div_euclid(1_000_000_000), -1);
        }
    }

    #[test]
    fn entries_are_found() {
        let dir = MemoryDir::new(["b", "a", "c"].map(|name| (name.to_owned(), Bytes::new())));
        assert_eq!(find(&dir, b"c"), Some(2));
        assert_eq!(find(&dir, b"bb"), None);
    }
}
