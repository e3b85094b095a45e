//! One directory of a context: a record and a name for everything in it.

use super::entry::Mtime;
use super::stamp::Stamp;
use super::tree::Linked;
use crate::error::{Error, Result};

/// The names in a directory, and what they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// All names, and the targets of symbolic links.
    names: Vec<u8>,
    /// By name, once the listing is complete.
    pub(super) records: Vec<Record>,
    /// Regular files with several names, while the walk goes on.
    pub(super) links: Vec<Linked>,
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// A size, or the number of something; see [`Tag`].
    pub(super) data: u64,
    pub(super) stamp: Stamp,
    /// Nanoseconds since 1970; what does not fit (before 1678, after 2262) is cut, as in `BuildKit`'s protocol.
    pub(super) mtime: i64,
    pub(super) name: Name,
    /// The tag in the upper four bits, permission bits in the others.
    bits: u16,
}

/// Where a name is in [`Listing::names`].
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(2))]
pub(super) struct Name {
    start: u32,
    length: u16,
}

/// What an entry is, and what its data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    /// A regular file; its size.
    File,
    /// A regular file with several names; its number among them.
    Linked,
    /// A directory; the number of its listing.
    Dir,
    /// A symbolic link; where its target is in the names, and the target's length.
    Symlink,
    /// A pipe.
    Fifo,
    /// A device; its major and minor number.
    CharDevice,
    /// The same.
    BlockDevice,
    /// A regular file in memory; its number among the contents.
    Extra,
    /// A directory that exists for such a file; the number of its listing.
    ExtraDir,
}

const TAGS: [Tag; 9] = [
    Tag::File,
    Tag::Linked,
    Tag::Dir,
    Tag::Symlink,
    Tag::Fifo,
    Tag::CharDevice,
    Tag::BlockDevice,
    Tag::Extra,
    Tag::ExtraDir,
];
const PERMISSIONS: u16 = 0o7777;

impl Record {
    pub(super) fn new(name: Name, tag: Tag, mode: u32, data: u64, mtime: Mtime, stamp: Stamp) -> Self {
        let permissions = u16::try_from(mode & u32::from(PERMISSIONS)).unwrap_or_default();
        Self { data, stamp, mtime: mtime.nanoseconds_in_all(), name, bits: (tag as u16) << 12 | permissions }
    }

    pub(super) fn tag(&self) -> Tag {
        TAGS[usize::from(self.bits >> 12)]
    }

    pub(super) fn mode(&self) -> u32 {
        u32::from(self.bits & PERMISSIONS)
    }

    /// Its data as two numbers.
    pub(super) fn pair(&self) -> (u32, u32) {
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        (half(self.data >> 32), half(self.data))
    }

    /// The number of its listing, if it is a directory.
    pub(super) fn listing(&self) -> Option<u32> {
        matches!(self.tag(), Tag::Dir | Tag::ExtraDir).then(|| u32::try_from(self.data).ok()).flatten()
    }
}

impl Listing {
    /// Fails with `ContextPath` for a name that no file system takes.
    pub(super) fn add_name(&mut self, name: &[u8]) -> Result<Name> {
        let place = Self::place(self.names.len(), name.len());
        self.names.extend_from_slice(name);
        place.ok_or_else(|| Error::ContextPath {
            path: String::from_utf8_lossy(name).into_owned(),
            reason: "the name is too long, or its directory is too big".into(),
        })
    }

    fn place(start: usize, length: usize) -> Option<Name> {
        Some(Name { start: u32::try_from(start).ok()?, length: u16::try_from(length).ok()? })
    }

    /// Keeps the target of a link and returns the data of its record.
    pub(super) fn add_target(&mut self, target: &[u8]) -> u64 {
        let place = (self.names.len() as u64) << 32 | target.len() as u64;
        self.names.extend_from_slice(target);
        place
    }

    pub(super) fn bytes(&self, name: Name) -> &[u8] {
        let (start, length) = (name.start as usize, usize::from(name.length));
        &self.names[start..start + length]
    }

    pub(super) fn name(&self, record: &Record) -> &[u8] {
        self.bytes(record.name)
    }

    pub(super) fn target(&self, record: &Record) -> &[u8] {
        let (start, length) = record.pair();
        let (start, length) = (start as usize, length as usize);
        &self.names[start..start + length]
    }

    /// Gives back what was reserved and is not used.
    pub(super) fn shrink(&mut self) {
        self.names.shrink_to_fit();
        self.records.shrink_to_fit();
    }

    /// The index of a name among the first `count` entries, which are sorted.
    pub(super) fn position(&self, name: &[u8], count: usize) -> Option<usize> {
        self.records[..count].binary_search_by(|record| self.name(record).cmp(name)).ok()
    }

    pub(super) fn sort(&mut self) {
        let Self { names, records, .. } = self;
        let bytes = |record: &Record| {
            let (start, length) = (record.name.start as usize, usize::from(record.name.length));
            &names[start..start + length]
        };
        records.sort_unstable_by(|left, right| bytes(left).cmp(bytes(right)));
    }
}
