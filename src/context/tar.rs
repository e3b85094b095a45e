//! Tar: the plan of an archive as units that can be made in parallel, and the making of a unit.
//!
//! The format is GNU's (`././@LongLink` for long names, base 256 for big numbers), which every reader of build contexts
//! takes. Owners are 0:0 without names, times are all the same, and there are no sparse files: the bytes of an archive
//! depend on the content alone.

use std::sync::Arc;

use tar::{EntryType, Header};

use super::archive::Job;
use super::compress::Codec;
use super::entry::{Entry, Kind};
use super::output::Output;
use super::pipeline;
use super::reader::EntryReader;
use crate::error::{Error, Result};

/// How much of an archive one unit holds: big enough to compress well (within 1 % of a single stream), small enough to
/// keep a few of them per thread in memory.
const UNIT: u64 = 1 << 20;
/// The block size of tar.
const BLOCK: usize = 512;
/// The longest name that fits a header; one byte less than the field, since some readers want a NUL.
const NAME: usize = 99;

/// Writes the archive of a job.
pub(super) fn write(job: &Job<'_>, codec: Codec, output: &mut Output<'_>) -> Result<()> {
    let plan = Plan { job, next: 0, big: None, ended: false };
    let worker = || {
        let mut encoder = codec.encoder()?;
        Ok(move |work: Work| encoder.encode(render(job, &work)?))
    };
    pipeline::run(job.threads, plan, worker, |unit| output.write(unit))
}

/// One unit of an archive.
enum Work {
    /// Some entries, whole.
    Entries(std::ops::Range<usize>),
    /// A part of a big file.
    Part { file: Arc<EntryReader>, head: Vec<u8>, offset: u64, length: u64 },
    /// What ends an archive.
    End,
}

/// Cuts the list of entries into units. The cuts depend on names and sizes only.
struct Plan<'a> {
    job: &'a Job<'a>,
    next: usize,
    /// A file that is cut into several units, and how much of it is planned.
    big: Option<(Arc<EntryReader>, u64)>,
    ended: bool,
}

impl Iterator for Plan<'_> {
    type Item = Result<Work>;

    fn next(&mut self) -> Option<Result<Work>> {
        if self.ended {
            return None;
        }
        if let Some((file, offset)) = self.big.take() {
            return Some(Ok(self.part(file, Vec::new(), offset)));
        }
        let start = self.next;
        let mut size = 0;
        while let Some(entry) = self.job.entries.get(self.next) {
            let more = estimate(entry);
            if entry.size() > UNIT / 2 || (size > 0 && size + more > UNIT) {
                break;
            }
            size += more;
            self.next += 1;
        }
        if start < self.next {
            return Some(Ok(Work::Entries(start..self.next)));
        }
        let Some(entry) = self.job.entries.get(start) else {
            self.ended = true;
            return Some(Ok(Work::End));
        };
        self.next += 1;
        Some(self.begin(entry))
    }
}

impl Plan<'_> {
    fn begin(&mut self, entry: &Entry) -> Result<Work> {
        let file = self.job.context.reader(entry)?;
        let mut head = Vec::with_capacity(4 * BLOCK);
        push_header(self.job, entry, file.size(), &mut head)?;
        Ok(self.part(Arc::new(file), head, 0))
    }

    fn part(&mut self, file: Arc<EntryReader>, head: Vec<u8>, offset: u64) -> Work {
        let length = (file.size() - offset).min(UNIT);
        let end = offset + length;
        if end < file.size() {
            self.big = Some((Arc::clone(&file), end));
        }
        Work::Part { file, head, offset, length }
    }
}

/// About how much room an entry takes.
fn estimate(entry: &Entry) -> u64 {
    let link = match &entry.kind {
        Kind::Symlink { target } => target.len(),
        _ => 0,
    };
    let long = [entry.path.len(), link].into_iter().filter(|length| *length > NAME);
    BLOCK as u64 + entry.size() + long.map(|length| (2 * BLOCK + length) as u64).sum::<u64>()
}

fn render(job: &Job<'_>, work: &Work) -> Result<Vec<u8>> {
    job.cancel.check()?;
    match work {
        Work::End => Ok(vec![0; 2 * BLOCK]),
        Work::Part { file, head, offset, length } => {
            let length = usize::try_from(*length).map_err(|_| Error::internal("a unit is too big"))?;
            let mut unit = Vec::with_capacity(head.len() + length + BLOCK);
            unit.extend_from_slice(head);
            unit.resize(head.len() + length, 0);
            file.read_at(&mut unit[head.len()..], *offset)?;
            job.count(length as u64);
            if offset + length as u64 == file.size() {
                pad(&mut unit, length);
            }
            Ok(unit)
        }
        Work::Entries(range) => {
            let entries = &job.entries[range.clone()];
            let size: u64 = entries.iter().map(|entry| estimate(entry) + BLOCK as u64).sum();
            let mut unit = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
            for entry in entries {
                job.cancel.check()?;
                push_entry(job, entry, &mut unit)?;
            }
            Ok(unit)
        }
    }
}

fn push_entry(job: &Job<'_>, entry: &Entry, unit: &mut Vec<u8>) -> Result<()> {
    if !matches!(entry.kind, Kind::File { .. }) {
        return push_header(job, entry, 0, unit);
    }
    let file = job.context.reader(entry)?;
    if file.size() > entry.size().max(UNIT) {
        // It was small when the archive was planned; all of it at once would be too much.
        let path = job.context.full_path(entry);
        let found = format!("had {}", file.size());
        return Err(Error::ContextChanged { path, expected: entry.size(), found });
    }
    push_header(job, entry, file.size(), unit)?;
    let (start, length) = (unit.len(), usize::try_from(file.size()).unwrap_or_default());
    unit.resize(start + length, 0);
    file.read_at(&mut unit[start..], 0)?;
    job.count(length as u64);
    pad(unit, length);
    Ok(())
}

fn pad(unit: &mut Vec<u8>, length: usize) {
    unit.resize(unit.len() + length.next_multiple_of(BLOCK) - length, 0);
}

fn push_header(job: &Job<'_>, entry: &Entry, size: u64, unit: &mut Vec<u8>) -> Result<()> {
    let mut path = entry.path.clone();
    if entry.is_dir() {
        path.push(b'/');
    }
    let first;
    let (kind, link): (EntryType, &[u8]) = match &entry.kind {
        Kind::File { .. } => (EntryType::Regular, b""),
        Kind::Dir => (EntryType::Directory, b""),
        Kind::Symlink { target } => (EntryType::Symlink, target),
        Kind::Hardlink { first: index } => {
            first = job.entries.get(*index).ok_or_else(|| Error::internal("a hard link to nothing"))?;
            (EntryType::Link, &first.path)
        }
        Kind::Fifo => (EntryType::Fifo, b""),
        Kind::CharDevice { .. } => (EntryType::Char, b""),
        Kind::BlockDevice { .. } => (EntryType::Block, b""),
    };
    push_long(EntryType::GNULongLink, link, unit);
    push_long(EntryType::GNULongName, &path, unit);
    let mut header = header(kind, job.options.mode(entry), size);
    header.set_mtime(job.options.mtime);
    if let Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } = entry.kind {
        let device = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        device.map_err(|error| Error::internal(error.to_string()))?;
    }
    finish(header, &path, link, unit);
    Ok(())
}

/// A name that is too long for a header comes before it, as the content of an entry of its own.
fn push_long(kind: EntryType, name: &[u8], unit: &mut Vec<u8>) {
    if name.len() <= NAME {
        return;
    }
    let length = name.len() + 1;
    finish(header(kind, 0o644, length as u64), b"././@LongLink", b"", unit);
    unit.extend_from_slice(name);
    unit.push(0);
    pad(unit, length);
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Puts the names in, cut to what fits, and the checksum.
fn finish(mut header: Header, path: &[u8], link: &[u8], unit: &mut Vec<u8>) {
    let fields = header.as_old_mut();
    let (path, link) = (&path[..path.len().min(NAME)], &link[..link.len().min(NAME)]);
    fields.name[..path.len()].copy_from_slice(path);
    fields.linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    unit.extend_from_slice(header.as_bytes());
}
