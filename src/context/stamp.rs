//! What a file system says of a file, as far as a change of the file changes it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rustix::fs::Stat;

use super::entry::Mtime;

/// A change of a file's content changes its stamp: the inode's number, size, mode, time of modification and, which no
/// program can set, time of change are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u64);

impl Stamp {
    /// That of a file. 64 bits instead of all these numbers: two stamps are equal by chance once in 2^64 changes.
    pub(super) fn of(stat: &Stat) -> Self {
        let mut hasher = DefaultHasher::new();
        (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mode).hash(&mut hasher);
        (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec).hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// When a file was modified.
#[allow(
    clippy::unnecessary_fallible_conversions,
    clippy::useless_conversion,
    reason = "the types differ between systems"
)]
pub(super) fn mtime(stat: &Stat) -> Mtime {
    Mtime { seconds: stat.st_mtime.into(), nanoseconds: stat.st_mtime_nsec.try_into().unwrap_or_default() }
}

/// When anything about a file was changed.
#[allow(
    clippy::unnecessary_fallible_conversions,
    clippy::useless_conversion,
    reason = "the types differ between systems"
)]
pub(super) fn ctime(stat: &Stat) -> Mtime {
    Mtime { seconds: stat.st_ctime.into(), nanoseconds: stat.st_ctime_nsec.try_into().unwrap_or_default() }
}
