//! One index file: a header, then blocks of records in the order of a walk.
//!
//! A block is its length and its CRC-32 (both 4 bytes, little endian), and that many bytes of records. A record is: how many
//! bytes of its path are those of the record before it, how many follow (2 bytes each), these, the stamp (8), the day on
//! which the file was last seen (4, since 1970) and the SHA-256 of its content (32). The first record of a block shares
//! nothing. An empty block ends the file.

use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering as Atomic};
use std::time::{SystemTime, UNIX_EPOCH};

use super::super::entry::compare_paths;
use super::super::stamp::Stamp;
use super::folder;
use crate::digest::Digest;

/// Begins every file. The number changes with the format.
const MAGIC: &[u8] = b"cooper context index 1\n";
/// How much of records goes into a block.
const BLOCK: usize = 64 << 10;
/// A block is never longer: one record may be added to a block that is nearly full.
const MAX_BLOCK: usize = BLOCK + (1 << 17);
/// One file is never longer: about three million files.
const MAX_FILE: u64 = 256 << 20;
/// The stamp, the day and the hash.
const FIXED: usize = 8 + 4 + 32;
/// How many days a file is remembered that was not seen.
const KEPT_DAYS: u32 = 30;

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Record {
    pub(in super::super) path: Vec<u8>,
    pub(in super::super) stamp: Stamp,
    pub(in super::super) content: Digest,
}

/// Reads the records of a file, from the first to the last or to the first damage.
pub(super) struct Reader {
    file: BufReader<File>,
    block: Vec<u8>,
    at: usize,
    /// The record after those that were passed over, and its day.
    next: Option<(Record, u32)>,
}

impl Reader {
    /// `None` where there is no file of this root, or nothing in it can be used.
    pub(super) fn open(path: &Path, root: &Path) -> Option<Self> {
        let mut file = BufReader::with_capacity(BLOCK, folder::open_own(path)?);
        let expected = header(root);
        let mut found = vec![0; expected.len()];
        file.read_exact(&mut found).ok()?;
        if found != expected {
            return None;
        }
        let mut reader = Self { file, block: Vec::new(), at: 0, next: None };
        reader.advance(Vec::new());
        Some(reader)
    }

    /// The record at a path, after passing over all that come before it.
    pub(super) fn seek(&mut self, path: &[u8]) -> Option<&Record> {
        while self.compare(path) == Some(Ordering::Less) {
            self.take();
        }
        (self.compare(path) == Some(Ordering::Equal)).then(|| self.next.as_ref().map(|(record, _)| record)).flatten()
    }

    fn compare(&self, path: &[u8]) -> Option<Ordering> {
        self.next.as_ref().map(|(record, _)| compare_paths(&record.path, path))
    }

    /// The next record and its day.
    fn take(&mut self) -> Option<(Record, u32)> {
        let taken = self.next.take()?;
        self.advance(taken.0.path.clone());
        Some(taken)
    }

    fn advance(&mut self, mut path: Vec<u8>) {
        if self.at == self.block.len() && self.read_block().is_none() {
            return;
        }
        self.next = self.parse(&mut path);
    }

    fn read_block(&mut self) -> Option<()> {
        (self.at, self.block) = (0, Vec::new());
        let mut head = [0; 8];
        self.file.read_exact(&mut head).ok()?;
        let [length, checksum] = [&head[..4], &head[4..]].map(|bytes| bytes.try_into().map_or(0, u32::from_le_bytes));
        let length = usize::try_from(length).ok().filter(|length| (1..=MAX_BLOCK).contains(length))?;
        let mut block = vec![0; length];
        self.file.read_exact(&mut block).ok()?;
        if crc32fast::hash(&block) == checksum {
            self.block = block;
        }
        (!self.block.is_empty()).then_some(())
    }

    fn parse(&mut self, path: &mut Vec<u8>) -> Option<(Record, u32)> {
        let mut rest = self.block.get(self.at..)?;
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at_checked(count)?;
            rest = after;
            Some(taken)
        };
        let shared = usize::from(u16::from_le_bytes(take(2)?.try_into().ok()?));
        let length = usize::from(u16::from_le_bytes(take(2)?.try_into().ok()?));
        if shared > path.len() {
            return None;
        }
        path.truncate(shared);
        path.extend_from_slice(take(length)?);
        let stamp = Stamp(u64::from_le_bytes(take(8)?.try_into().ok()?));
        let day = u32::from_le_bytes(take(4)?.try_into().ok()?);
        let content = Digest::from_bytes(take(32)?.try_into().ok()?);
        self.at = self.block.len() - rest.len();
        Some((Record { path: std::mem::take(path), stamp, content }, day))
    }
}

fn header(root: &Path) -> Vec<u8> {
    let root = root.as_os_str().as_bytes();
    [MAGIC, &(root.len() as u64).to_le_bytes(), root].concat()
}

/// Writes a file, which takes its name when it is complete.
pub(super) struct Writer {
    file: BufWriter<File>,
    partial: PathBuf,
    target: PathBuf,
    /// What is in the file that will be replaced.
    old: Option<Reader>,
    block: Vec<u8>,
    last: Vec<u8>,
    written: u64,
    today: u32,
}

impl Writer {
    pub(super) fn create(target: &Path, root: &Path, old: Option<Reader>) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut partial = target.as_os_str().to_owned();
        let number = NUMBER.fetch_add(1, Atomic::Relaxed);
        partial.push(format!(".{}.{number}{}", std::process::id(), folder::PARTIAL));
        let partial = PathBuf::from(partial);
        // What a process with this one's number left behind is in nobody's use.
        if let Err(error) = fs::remove_file(&partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        let mut writer = Self {
            file: BufWriter::with_capacity(BLOCK, file),
            partial,
            target: target.to_owned(),
            old,
            block: Vec::with_capacity(BLOCK),
            last: Vec::new(),
            written: 0,
            today: today(),
        };
        writer.file.write_all(&header(root))?;
        Ok(writer)
    }

    /// Adds a record behind what the old file has before it. Records come in the order of a walk.
    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        self.copy_old(Some(&record.path))?;
        self.add(record, self.today)
    }

    /// Copies the old records before a path, or all, and drops the one at it.
    fn copy_old(&mut self, until: Option<&[u8]>) -> io::Result<()> {
        while let Some(old) = &mut self.old {
            match until.map_or(Some(Ordering::Less), |path| old.compare(path)) {
                Some(Ordering::Less) => {
                    let Some((record, day)) = old.take() else { break };
                    if day.saturating_add(KEPT_DAYS) >= self.today {
                        self.add(&record, day)?;
                    }
                }
                Some(Ordering::Equal) => drop(old.take()),
                Some(Ordering::Greater) | None => break,
            }
        }
        Ok(())
    }

    fn add(&mut self, record: &Record, day: u32) -> io::Result<()> {
        let same = self.last.iter().zip(&record.path).take_while(|(left, right)| left == right).count();
        let shared = if self.block.is_empty() { 0 } else { same.min(usize::from(u16::MAX)) };
        let rest = &record.path[shared..];
        let size = (4 + rest.len() + FIXED) as u64;
        let (Ok(shared), Ok(length)) = (u16::try_from(shared), u16::try_from(rest.len())) else { return Ok(()) };
        if self.written + size > MAX_FILE {
            return Ok(());
        }
        self.written += size;
        self.block.extend_from_slice(&shared.to_le_bytes());
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(rest);
        self.block.extend_from_slice(&record.stamp.0.to_le_bytes());
        self.block.extend_from_slice(&day.to_le_bytes());
        self.block.extend_from_slice(record.content.as_bytes());
        self.last.clone_from(&record.path);
        if self.block.len() >= BLOCK { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.block.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc32fast::hash(&self.block).to_le_bytes())?;
        self.file.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Copies what is left of the old file, and replaces it.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.copy_old(None)?;
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.end_block()?;
        self.file.flush()?;
        fs::rename(&self.partial, &self.target)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing is there once it has its name.
        let _ = fs::remove_file(&self.partial);
    }
}

fn today() -> u32 {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
    u32::try_from(days).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/some/root";

    fn record(path: &str, stamp: u64) -> Record {
        Record { path: path.into(), stamp: Stamp(stamp), content: Digest::of(path.as_bytes()) }
    }

    fn write(path: &Path, records: &[Record]) {
        let mut writer = Writer::create(path, Path::new(ROOT), Reader::open(path, Path::new(ROOT))).unwrap();
        for record in records {
            writer.put(record).unwrap();
        }
        writer.finish().unwrap();
    }

    fn read(path: &Path) -> Vec<Record> {
        let mut reader = Reader::open(path, Path::new(ROOT)).unwrap();
        std::iter::from_fn(|| reader.take().map(|(record, _)| record)).collect()
    }

    #[test]
    fn records_come_back_and_old_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.index");
        let many: Vec<Record> = (0..5_000).map(|number| record(&format!("dir/{number:05}"), number)).collect();
        write(&path, &many);
        assert_eq!(read(&path), many);
        // Between, before and behind the old ones; one of them is new.
        let new = [record("a", 1), record("dir/00007", 70), record("dir/00007a", 2), record("e", 3)];
        write(&path, &new);
        let found = read(&path);
        assert_eq!(found.len(), 5_003);
        assert_eq!(found[0], new[0]);
        assert_eq!(found[8..10], new[1..3]);
        assert_eq!(found[10], many[8]);
        assert_eq!(found[5_002], new[3]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn seeking_passes_over_what_comes_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.index");
        write(&path, &[record("a/b", 1), record("a/d", 2), record("a.txt", 3)]);
        let mut reader = Reader::open(&path, Path::new(ROOT)).unwrap();
        assert_eq!(reader.seek(b"a/a"), None);
        assert_eq!(reader.seek(b"a/b").unwrap().stamp, Stamp(1));
        assert_eq!(reader.seek(b"a/c"), None);
        assert_eq!(reader.seek(b"a.txt").unwrap().stamp, Stamp(3));
        assert_eq!(reader.seek(b"b"), None);
    }

    #[test]
    fn damage_ends_a_file_and_invents_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.index");
        let records: Vec<Record> = (0..3_000).map(|number| record(&format!("{number:05}"), number)).collect();
        write(&path, &records);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(997) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            if Reader::open(&path, Path::new(ROOT)).is_some() {
                let found = read(&path);
                assert_eq!(found, records[..found.len()], "{at}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            if Reader::open(&path, Path::new(ROOT)).is_some() {
                let found = read(&path);
                assert_eq!(found, records[..found.len()], "{at}");
            }
        }
    }

    #[test]
    fn a_file_of_another_root_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.index");
        write(&path, &[record("a", 1)]);
        assert!(Reader::open(&path, Path::new("/some/where")).is_none());
    }

    #[test]
    fn what_was_not_seen_for_a_month_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.index");
        let mut writer = Writer::create(&path, Path::new(ROOT), None).unwrap();
        let today = writer.today;
        for (name, age) in [("a", 0), ("b", KEPT_DAYS), ("c", KEPT_DAYS + 1), ("d", KEPT_DAYS + 1)] {
            writer.add(&record(name, 1), today - age).unwrap();
        }
        writer.finish().unwrap();
        write(&path, &[record("d", 2)]);
        assert_eq!(read(&path), [record("a", 1), record("b", 1), record("d", 2)]);
    }

    #[test]
    fn what_is_not_finished_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.index");
        write(&path, &[record("a", 1)]);
        let mut writer = Writer::create(&path, Path::new(ROOT), None).unwrap();
        writer.put(&record("b", 1)).unwrap();
        drop(writer);
        assert_eq!(read(&path), [record("a", 1)]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
