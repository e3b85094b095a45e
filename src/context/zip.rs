//! Zip: small files are compressed in parallel, big ones as they are written.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use zip::result::ZipError;
use zip::write::{PreparedZipFile, SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use super::archive::Job;
use super::entry::{Entry, Kind, batches};
use super::notice::Notice;
use super::output::{Hashing, write_error};
use super::reader::EntryReader;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::pipeline;

/// Files above this size are not held in memory.
const SMALL: u64 = 1 << 20;
/// Each thread keeps some 4 MiB busy: eight of them take 50 MiB for 50,000 small files, sixteen took 83.
const MAX_THREADS: usize = 8;
/// How many entries one thread takes at a time.
const BATCH: usize = 64;
/// How much is read at a time of a big file, and between two looks at the cancel flag.
const CHUNK: usize = 1 << 18;
/// From here on a size needs the fields of zip64.
const LARGE: u64 = u32::MAX as u64 - (1 << 20);

/// The bit of the MS-DOS attributes that marks a directory.
const DOS_DIRECTORY: u32 = 0x10;

type Writer<'a> = ZipWriter<StreamWriter<Hashing<'a>>>;

/// Writes the archive of a job.
pub(super) fn write(job: &Job<'_>, out: &mut dyn Write, notices: &mut Vec<Notice>) -> Result<(u64, Option<Digest>)> {
    let discard = Rc::new(Cell::new(false));
    let mut writer = ZipWriter::new_stream(Hashing::new(out, job.options.digest, Rc::clone(&discard)));
    let plan = batches(job.tree.entries(), BATCH, SMALL, Entry::size).map(Ok);
    let worker = || Ok(|batch| prepare_all(job, batch));
    let consume = |ready: Vec<Ready>| {
        for item in ready {
            add(job, &mut writer, item, notices)?;
        }
        Ok(())
    };
    if let Err(error) = pipeline::run(job.threads.min(MAX_THREADS), plan, worker, consume) {
        // Dropping the writer ends the archive; one that lacks files must not look complete.
        discard.set(true);
        return Err(error);
    }
    writer.finish().map_err(failed)?.into_inner().finish()
}

/// What is left to do for an entry.
enum Ready {
    /// It is compressed.
    Prepared(Box<PreparedZipFile>),
    /// All of it.
    Raw(Entry),
}

fn prepare_all(job: &Job<'_>, batch: Vec<Entry>) -> Result<Vec<Ready>> {
    let prepare = |entry| {
        job.cancel.check()?;
        prepare(job, entry)
    };
    batch.into_iter().map(prepare).collect()
}

fn prepare(job: &Job<'_>, entry: Entry) -> Result<Ready> {
    let Kind::File { size: 1..=SMALL } = entry.kind else { return Ok(Ready::Raw(entry)) };
    let Ok(name) = std::str::from_utf8(&entry.path) else { return Ok(Ready::Raw(entry)) };
    let reader = job.context.reader(&entry)?;
    if reader.size() > SMALL {
        return Ok(Ready::Raw(entry));
    }
    let mut content = vec![0; usize::try_from(reader.size()).unwrap_or_default()];
    reader.read_at(&mut content, 0)?;
    job.count(reader.size());
    let prepared = PreparedZipFile::from_data(name, options(job, &entry), &content).map_err(failed)?;
    Ok(Ready::Prepared(Box::new(prepared)))
}

fn add(job: &Job<'_>, writer: &mut Writer<'_>, item: Ready, notices: &mut Vec<Notice>) -> Result<()> {
    let entry = match item {
        Ready::Prepared(file) => return writer.add_prepared_file(*file).map_err(failed),
        Ready::Raw(entry) => entry,
    };
    let entry = &entry;
    let options = options(job, entry);
    match &entry.kind {
        Kind::File { .. } | Kind::Hardlink { .. } => {
            let reader = job.context.reader(entry)?;
            let options = options.large_file(reader.size() >= LARGE);
            start(writer, &entry.path, options)?;
            copy(job, reader, writer)
        }
        Kind::Dir => add_dir(job, writer, entry, options),
        Kind::Symlink { target } => {
            start(writer, &entry.path, stored(options))?;
            writer.write_all(target).map_err(write_error)
        }
        Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
            notices.push(Notice::SpecialSkipped { path: entry.display_path().into_owned() });
            Ok(())
        }
    }
}

fn add_dir(job: &Job<'_>, writer: &mut Writer<'_>, entry: &Entry, options: SimpleFileOptions) -> Result<()> {
    if let Ok(path) = std::str::from_utf8(&entry.path) {
        return writer.add_directory(path, options).map_err(failed);
    }
    // Only `start_file` takes such a name, and it takes no directories: without the bits of the type it is one by its
    // name alone.
    let path = [&entry.path[..], b"/"].concat();
    let options = options.external_attributes(job.options.mode(entry) << 16 | DOS_DIRECTORY);
    start(writer, &path, stored(options))
}

fn stored(options: SimpleFileOptions) -> SimpleFileOptions {
    options.compression_method(CompressionMethod::Stored).compression_level(None)
}

fn start(writer: &mut Writer<'_>, path: &[u8], options: SimpleFileOptions) -> Result<()> {
    writer.start_file_with_options(options.name(path)).map_err(failed)
}

fn copy(job: &Job<'_>, mut reader: EntryReader, writer: &mut Writer<'_>) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        job.cancel.check()?;
        let count = reader.read_some(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        job.count(count as u64);
        writer.write_all(&buffer[..count]).map_err(write_error)?;
    }
}

fn options(job: &Job<'_>, entry: &Entry) -> SimpleFileOptions {
    let (kind, dos) = match entry.kind {
        Kind::Dir => (0o040_000, DOS_DIRECTORY),
        Kind::Symlink { .. } => (0o120_000, 0),
        _ => (0o100_000, 0),
    };
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(i64::from(job.options.zip_level())))
        .external_attributes((kind | job.options.mode(entry)) << 16 | dos)
        .last_modified_time(date_time(job.options.mtime))
        .system(System::Unix)
}

/// The time in UTC, within the years that the format has.
fn date_time(seconds: u64) -> DateTime {
    const DAY: u64 = 86_400;
    let (year, month, day) = civil(seconds / DAY);
    let part = |divisor: u64, modulus: u64| u8::try_from(seconds / divisor % modulus).unwrap_or_default();
    let time = DateTime::from_date_and_time(year, month, day, part(3600, 24), part(60, 60), part(1, 60));
    time.unwrap_or_default()
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: u64) -> (u16, u8, u8) {
    // Years that begin in March have their leap day at the end; an era of 400 such years has 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let small = |number: u64| u8::try_from(number).unwrap_or_default();
    (u16::try_from(year).unwrap_or(u16::MAX), small(month), small(day))
}

fn failed(error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => write_error(error),
        error => Error::internal(format!("zip: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let text = |seconds| {
            let time = date_time(seconds);
            format!(
                "{}-{}-{} {}:{}:{}",
                time.year(),
                time.month(),
                time.day(),
                time.hour(),
                time.minute(),
                time.second()
            )
        };
        assert_eq!(text(946_684_800), "2000-1-1 0:0:0");
        assert_eq!(text(951_782_400 + 86_399), "2000-2-29 23:59:58");
        assert_eq!(text(1_735_689_598), "2024-12-31 23:59:58");
        assert_eq!(text(0), "1980-1-1 0:0:0");
    }
}
