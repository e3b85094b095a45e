//! The cuts of a layer.

use std::iter::Peekable;
use std::sync::Arc;

use super::content::Source;
use super::entry::{Content, LayerEntry, LayerKind};
use super::header;
use crate::context::compare_paths;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::mtime::Mtime;
use crate::pack::{BLOCK, UNIT};

/// A unit of small files is not ended before it has so much.
const LEAST: u64 = 256 << 10;
/// How much there is on average between two entries that may end a unit.
const STRIDE: u64 = 256 << 10;

/// What a unit holds.
pub(super) enum Work {
    /// Some entries, whole.
    Entries(Vec<LayerEntry>),
    /// A part of a big file.
    Part(Part),
    /// What ends an archive.
    End,
}

/// A part of a big file.
pub(super) struct Part {
    pub(super) file: Arc<BigFile>,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// A file that is cut into several units.
pub(super) struct BigFile {
    pub(super) entry: LayerEntry,
    pub(super) content: Content,
    pub(super) source: Source,
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
}

impl Part {
    /// Whether the file ends with it.
    pub(super) fn is_last(&self) -> bool {
        self.offset + self.length == self.file.size
    }
}

/// Cuts the list of entries into units. The cuts depend on names and sizes only, and a different entry moves no cuts but
/// those nearby.
pub(super) struct Plan<I: Iterator<Item = LayerEntry>> {
    entries: Peekable<I>,
    clamp: Option<i64>,
    /// The path of the last entry, and its place among those of one path.
    last: Option<(Vec<u8>, u8)>,
    /// What is left of a big file.
    big: Option<(Arc<BigFile>, u64)>,
    ended: bool,
}

impl<I: Iterator<Item = LayerEntry>> Plan<I> {
    pub(super) fn new(entries: I, clamp_mtime: Option<u64>) -> Self {
        let clamp = clamp_mtime.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        Self { entries: entries.peekable(), clamp, last: None, big: None, ended: false }
    }

    fn small(&mut self) -> Result<Option<Work>> {
        let (mut unit, mut size) = (Vec::new(), 0);
        let fits = |entry: &LayerEntry, size| is_small(entry) && (size == 0 || size + room(entry) <= UNIT);
        while let Some(entry) = self.entries.next_if(|entry| fits(entry, size)) {
            let entry = self.take(entry)?;
            size += room(&entry);
            let ends = size >= LEAST && may_end(&entry);
            unit.push(entry);
            if ends {
                break;
            }
        }
        Ok((!unit.is_empty()).then_some(Work::Entries(unit)))
    }

    fn begin(&mut self, entry: LayerEntry) -> Result<Work> {
        let entry = self.take(entry)?;
        let LayerKind::File { size, content, digest } = &entry.kind else {
            return Err(Error::internal("an entry of a layer is too big"));
        };
        let source = Source::open(&entry.path, content, *size)?;
        let (size, content, digest) = (*size, content.clone(), *digest);
        Ok(self.part(Arc::new(BigFile { entry, content, source, size, digest }), 0))
    }

    fn part(&mut self, file: Arc<BigFile>, offset: u64) -> Work {
        let length = (file.size - offset).min(UNIT);
        if offset + length < file.size {
            self.big = Some((Arc::clone(&file), offset + length));
        }
        Work::Part(Part { file, offset, length })
    }

    /// Checks the next entry and gives it the time that it has in the layer.
    fn take(&mut self, mut entry: LayerEntry) -> Result<LayerEntry> {
        check_path(&entry)?;
        let place = place(&entry.kind);
        if let Some((last, before)) = &self.last
            && compare_paths(last, &entry.path).then(before.cmp(&place)).is_ge()
        {
            let path = String::from_utf8_lossy(&entry.path);
            return Err(Error::internal(format!("`{path}` is out of order in a layer")));
        }
        self.last = Some((entry.path.clone(), place));
        if matches!(entry.kind, LayerKind::Whiteout | LayerKind::Opaque) {
            entry.mtime = Mtime::FIXED;
        }
        let seconds = self.clamp.map_or(entry.mtime.seconds, |clamp| entry.mtime.seconds.min(clamp));
        entry.mtime = Mtime { seconds, nanoseconds: 0 };
        Ok(entry)
    }
}

impl<I: Iterator<Item = LayerEntry>> Iterator for Plan<I> {
    type Item = Result<Work>;

    fn next(&mut self) -> Option<Result<Work>> {
        if self.ended {
            return None;
        }
        if let Some((file, offset)) = self.big.take() {
            return Some(Ok(self.part(file, offset)));
        }
        match self.small() {
            Ok(None) => {}
            Ok(Some(work)) => return Some(Ok(work)),
            Err(error) => return Some(Err(error)),
        }
        let Some(entry) = self.entries.next() else {
            self.ended = true;
            return Some(Ok(Work::End));
        };
        Some(self.begin(entry))
    }
}

/// A path may be removed and then be there again, and a directory may be there and hide what was in it. Readers take these
/// in this order only.
const fn place(kind: &LayerKind) -> u8 {
    match kind {
        LayerKind::Whiteout => 0,
        LayerKind::Opaque => 2,
        _ => 1,
    }
}

fn check_path(entry: &LayerEntry) -> Result<()> {
    let (path, opaque) = (&entry.path, matches!(entry.kind, LayerKind::Opaque));
    let bad = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if !(opaque && path.is_empty()) && path.split(|byte| *byte == b'/').any(bad) {
        return Err(Error::internal(format!("`{}` is no path of a layer", String::from_utf8_lossy(path))));
    }
    if header::is_whiteout_name(path) {
        let name = String::from_utf8_lossy(path);
        let reason = format!("`{name}` has the name of a whiteout, and would remove another file");
        return Err(Error::ImageInvalid { what: "entry of a layer".into(), reason });
    }
    Ok(())
}

/// The size of an entry's content.
fn size(entry: &LayerEntry) -> u64 {
    match entry.kind {
        LayerKind::File { size, .. } => size,
        _ => 0,
    }
}

/// Whether an entry is never cut.
fn is_small(entry: &LayerEntry) -> bool {
    size(entry) <= UNIT / 2
}

fn room(entry: &LayerEntry) -> u64 {
    header::estimate(entry) + size(entry).next_multiple_of(BLOCK as u64)
}

/// Whether a unit may end with an entry: the bigger it is, the more probably. It depends on nothing that stands before or
/// behind it.
fn may_end(entry: &LayerEntry) -> bool {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(&entry.path).as_bytes()[..8]);
    u64::from_le_bytes(first) % STRIDE < room(entry)
}
