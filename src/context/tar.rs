//! Tar: the plan of an archive as units that can be made in parallel, and the making of a unit.
//!
//! The format is GNU's (`././@LongLink` for long names, base 256 for big numbers), which every reader of build contexts
//! takes. Owners are 0:0 without names, times are all the same, and there are no sparse files: the bytes of an archive
//! depend on the content alone.

use std::fs::File;
use std::io::Write;
use std::iter::Peekable;
use std::sync::Arc;

use tar::{EntryType, Header};

use super::archive::Job;
use super::entry::{Entry, Kind};
use super::output::write_error;
use super::reader::EntryReader;
use super::tree::Entries;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::{BLOCK, Buffers, Codec, Output, ROOM, UNIT, pad, pipeline};

/// The longest name that fits a header; one byte less than the field, since some readers want a NUL.
const NAME: usize = 99;

/// Writes the archive of a job; its size, and its digest if that is wanted. `file` is what `out` writes to, if that is one.
pub(super) fn write(
    job: &Job<'_>,
    codec: Codec,
    out: &mut dyn Write,
    file: Option<&File>,
) -> Result<(u64, Option<Digest>)> {
    let plan = Plan { job, entries: job.tree.entries().peekable(), big: None, ended: false };
    let buffers = Buffers::new(ROOM);
    // A byte that nobody looks at need not pass through this process.
    let file = file.filter(|_| matches!(codec, Codec::Plain) && !job.options.digest);
    let worker = || {
        let (mut encoder, buffers) = (codec.encoder()?, &buffers);
        Ok(move |work: Work| {
            let work = match work {
                Work::Part(part) if file.is_some() => return Ok(Made::Part(part)),
                work => work,
            };
            let mut unit = buffers.take();
            render(job, &work, &mut unit)?;
            encoder.encode(unit, buffers).map(Made::Bytes)
        })
    };
    let work = |output: &mut Output<'_, '_>| {
        pipeline::run(job.threads, plan, worker, |made| match made {
            Made::Bytes(unit) => output.write(unit),
            Made::Part(part) => output.past(|| part.copy(job, file, &buffers)),
        })
    };
    if job.options.digest {
        Output::hashed(out, &buffers, write_error, work).map(|(bytes, digest)| (bytes, Some(digest)))
    } else {
        Output::counted(out, &buffers, write_error, work).map(|bytes| (bytes, None))
    }
}

/// One unit of an archive.
enum Work {
    /// Some entries, whole.
    Entries(Vec<Entry>),
    /// A part of a big file.
    Part(Part),
    /// What ends an archive.
    End,
}

/// A part of a big file, with the header before its first byte and the padding behind its last.
struct Part {
    file: Arc<EntryReader>,
    head: Vec<u8>,
    offset: u64,
    length: u64,
}

/// A unit that is made.
enum Made {
    /// The bytes that go out.
    Bytes(Vec<u8>),
    /// A part that is copied as it is.
    Part(Part),
}

/// Cuts the list of entries into units. The cuts depend on names and sizes only.
struct Plan<'a> {
    job: &'a Job<'a>,
    entries: Peekable<Entries<'a>>,
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
        let mut unit = Vec::new();
        let mut size = 0;
        while let Some(entry) = self.entries.next_if(|entry| is_small(entry) && size + estimate(entry) <= UNIT) {
            size += estimate(&entry);
            unit.push(entry);
        }
        if !unit.is_empty() {
            return Some(Ok(Work::Entries(unit)));
        }
        let Some(entry) = self.entries.next() else {
            self.ended = true;
            return Some(Ok(Work::End));
        };
        // A link with a target of a megabyte would be no small entry, if there were such links.
        Some(if is_small(&entry) { Ok(Work::Entries(vec![entry])) } else { self.begin(&entry) })
    }
}

/// Whether an entry is never cut.
fn is_small(entry: &Entry) -> bool {
    entry.size() <= UNIT / 2
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
        Work::Part(Part { file, head, offset, length })
    }
}

/// How much room an entry takes; one that is cut may take some more.
fn estimate(entry: &Entry) -> u64 {
    let link = match &entry.kind {
        Kind::Symlink { target } => target.len(),
        _ => 0,
    };
    let long = [entry.path.len(), link].into_iter().filter(|length| *length > NAME);
    let long: usize = long.map(|length| BLOCK + length.next_multiple_of(BLOCK)).sum();
    (BLOCK + long) as u64 + entry.size().next_multiple_of(BLOCK as u64)
}

/// Appends what a unit holds.
fn render(job: &Job<'_>, work: &Work, unit: &mut Vec<u8>) -> Result<()> {
    job.cancel.check()?;
    match work {
        Work::End => unit.resize(2 * BLOCK, 0),
        Work::Part(part) => {
            let count = usize::try_from(part.length).map_err(|_| Error::internal("a unit is too big"))?;
            unit.extend_from_slice(&part.head);
            part.file.append_to(unit, part.offset, count)?;
            job.count(part.length);
            pad(unit, part.padded());
        }
        Work::Entries(entries) => {
            for entry in entries {
                job.cancel.check()?;
                push_entry(job, entry, unit)?;
            }
        }
    }
    Ok(())
}

impl Part {
    /// After how many bytes padding follows: none of it behind a part that is not the last one.
    fn padded(&self) -> usize {
        let ends = self.offset + self.length == self.file.size();
        // Only what is over a whole number of blocks matters.
        if ends { usize::try_from(self.length % BLOCK as u64).unwrap_or_default() } else { 0 }
    }

    /// Writes it to a file, and says how many bytes that were.
    fn copy(&self, job: &Job<'_>, to: Option<&File>, buffers: &Buffers) -> Result<u64> {
        job.cancel.check()?;
        let mut to = to.ok_or_else(|| Error::internal("there is no file to copy to"))?;
        let mut behind = Vec::new();
        pad(&mut behind, self.padded());
        to.write_all(&self.head).map_err(write_error)?;
        self.file.copy_to(to, self.offset, self.length, buffers)?;
        to.write_all(&behind).map_err(write_error)?;
        job.count(self.length);
        Ok(self.head.len() as u64 + self.length + behind.len() as u64)
    }
}

fn push_entry(job: &Job<'_>, entry: &Entry, unit: &mut Vec<u8>) -> Result<()> {
    if !matches!(entry.kind, Kind::File { .. }) {
        return push_header(job, entry, 0, unit);
    }
    let start = unit.len();
    push_header(job, entry, entry.size(), unit)?;
    if let Some(length) = job.context.append_unchanged(entry, unit) {
        job.count(length as u64);
        pad(unit, length);
        return Ok(());
    }
    unit.truncate(start);
    push_changed(job, entry, unit)
}

/// A file that has another size now, or cannot be read.
fn push_changed(job: &Job<'_>, entry: &Entry, unit: &mut Vec<u8>) -> Result<()> {
    let file = job.context.reader(entry)?;
    if file.size() > entry.size().max(UNIT) {
        // It was small when the archive was planned; all of it at once would be too much.
        let path = job.context.full_path(entry);
        let found = format!("had {}", file.size());
        return Err(Error::ContextChanged { path, expected: entry.size(), found });
    }
    push_header(job, entry, file.size(), unit)?;
    let length = usize::try_from(file.size()).unwrap_or_default();
    file.append_to(unit, 0, length)?;
    job.count(length as u64);
    pad(unit, length);
    Ok(())
}

fn push_header(job: &Job<'_>, entry: &Entry, size: u64, unit: &mut Vec<u8>) -> Result<()> {
    let mut path = entry.path.clone();
    if entry.is_dir() {
        path.push(b'/');
    }
    let (kind, link): (EntryType, &[u8]) = match &entry.kind {
        Kind::File { .. } => (EntryType::Regular, b""),
        Kind::Dir => (EntryType::Directory, b""),
        Kind::Symlink { target } => (EntryType::Symlink, target),
        Kind::Hardlink { first, .. } => (EntryType::Link, first),
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
