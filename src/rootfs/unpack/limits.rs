//! How much a layer may have.

/// What a layer may have at most. More is no layer but an attack: the error is `ImageInvalid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its archive, decompressed.
    pub bytes: u64,
    /// Paths, with the directories on the way to them and those that are replaced.
    pub entries: usize,
    /// So many times what it has compressed. It counts from [`Limits::FREE`] on: little that is very regular does no harm.
    pub ratio: u64,
}

impl Limits {
    /// What a layer may have whatever its ratio.
    pub const FREE: u64 = 1 << 30;
}

impl Default for Limits {
    /// 256 GiB, ten million paths, and 1,100 times what it has compressed: gzip at its best, of zeros alone, is at 1,032.
    fn default() -> Self {
        Self { bytes: 256 << 30, entries: super::super::scan::MAX_ENTRIES, ratio: 1100 }
    }
}
