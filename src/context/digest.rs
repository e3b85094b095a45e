//! One digest for what is in a context.

use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::archive::portable_mode;
use super::entry::{Entry, Kind, Source, batches, compare_paths};
use super::index::{Clock, Index, Lookup, Record, Recorder};
use super::stamp::Stamp;
use super::{Context, EntryId};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::pipeline;

/// Changes whenever the way of digesting does.
const VERSION: &[u8] = b"cooper context 2";
/// How many entries one thread takes at a time, if they are small.
const BATCH: usize = 128;
/// And how many bytes of content, unless it is a single file.
const BATCH_BYTES: u64 = 4 << 20;
/// How much is read at a time, and between two looks at the cancel flag.
const CHUNK: usize = 1 << 18;

/// The digest of a context, and what it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContextDigest {
    /// Equal for equal contexts.
    pub digest: Digest,
    /// How many files were read; the others were in the index.
    pub hashed_files: u64,
    /// And how many bytes.
    pub hashed_bytes: u64,
}

impl Context {
    /// The digest of paths, kinds, contents, link targets and of whether a file may be executed, in the order of the
    /// entries and each framed by its length.
    ///
    /// It is the same for the same content on every machine, for every user and in every directory: times, owners, other
    /// permission bits and whether two equal files are hard links of each other do not count. With an index, files that
    /// did not change since an earlier digest are not read. Fails as [`Context::pack`] does.
    pub fn digest(&self, index: Option<&Index>, cancel: &Cancel) -> Result<ContextDigest> {
        let mut total = Total::new();
        let recorder = self.hash_all(self.entries(), index, cancel, |hashed| total.add(hashed))?;
        recorder.into_iter().for_each(Recorder::finish);
        Ok(total.finish())
    }

    /// The SHA-256 of the contents of files, in the order of the ids, each of which is a regular file's or a hard link's.
    ///
    /// With an index, files that did not change since an earlier digest are not read. Fails as [`Context::pack`] does.
    pub fn file_digests(&self, ids: &[EntryId], index: Option<&Index>, cancel: &Cancel) -> Result<Vec<Digest>> {
        let mut wanted = ids.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut entries: Vec<Entry> = wanted.iter().map(|id| self.entry(*id)).collect();
        entries.sort_unstable_by(|left, right| compare_paths(&left.path, &right.path));
        let mut digests = vec![None; wanted.len()];
        let place = |id: EntryId| wanted.binary_search(&id).ok();
        let consume = |hashed: &Hashed| {
            if let (Some(place), Some(content)) = (place(hashed.entry.id), &hashed.content) {
                digests[place] = Some(content.digest);
            }
        };
        let recorder = self.hash_all(entries.into_iter(), index, cancel, consume)?;
        recorder.into_iter().for_each(Recorder::finish);
        let digest = |id: &EntryId| place(*id).and_then(|place| digests[place]);
        let digests: Option<Vec<Digest>> = ids.iter().map(digest).collect();
        digests.ok_or_else(|| Error::internal("the digest of something that is no file"))
    }

    /// Hashes the contents of entries, in parallel, and hands each over in their order, which is that of a walk. What was
    /// found out is recorded, and is kept once the recorder is finished.
    fn hash_all<'a>(
        &self,
        entries: impl Iterator<Item = Entry> + Send,
        index: Option<&'a Index>,
        cancel: &Cancel,
        mut consume: impl FnMut(&Hashed),
    ) -> Result<Option<Recorder<'a>>> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let index = index.zip(self.root.as_ref());
        let mut lookup = index.map(|(index, root)| index.lookup(root));
        let clock = index.map(|(_, root)| Clock::of(root));
        let mut recorder = index.map(|(index, root)| index.recorder(root));
        let items = entries.map(move |entry| Item::new(entry, lookup.as_mut()));
        let worker = || {
            let mut buffer = vec![0; CHUNK];
            Ok(move |batch: Vec<Item>| {
                let hash = |item| self.hash(item, clock, &mut buffer, cancel);
                batch.into_iter().map(hash).collect::<Result<Vec<_>>>()
            })
        };
        let consume = |batch: Vec<Hashed>| {
            for hashed in batch {
                consume(&hashed);
                record(recorder.as_mut(), hashed);
            }
            Ok(())
        };
        pipeline::run(threads, batches(items, BATCH, BATCH_BYTES, Item::cost).map(Ok), worker, consume)?;
        Ok(recorder)
    }

    fn hash(&self, item: Item, clock: Option<Clock>, buffer: &mut [u8], cancel: &Cancel) -> Result<Hashed> {
        cancel.check()?;
        let Item { entry, known } = item;
        let content = match (&entry.kind, known) {
            (_, Some(digest)) => Some(Content { digest, read: None, stamp: Some(entry.stamp) }),
            (Kind::File { .. } | Kind::Hardlink { .. }, None) => Some(self.read(&entry, clock, buffer, cancel)?),
            _ => None,
        };
        Ok(Hashed { entry, content })
    }

    /// Reads a file and hashes it.
    fn read(&self, entry: &Entry, clock: Option<Clock>, buffer: &mut [u8], cancel: &Cancel) -> Result<Content> {
        let now = SystemTime::now();
        let mut reader = self.reader(entry)?;
        let before = reader.stat();
        let mut hash = Sha256::new();
        loop {
            cancel.check()?;
            let count = reader.read_some(buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        let stamp = clock.and_then(|clock| {
            let before = before.filter(|stat| clock.is_settled(stat, now))?;
            let stamp = Stamp::of(&before);
            (Stamp::of(&reader.stat()?) == stamp).then_some(stamp)
        });
        let digest = Digest::from_bytes(hash.finalize().into());
        Ok(Content { digest, read: Some(reader.size()), stamp })
    }
}

/// An entry, and the hash of its content if it is known.
struct Item {
    entry: Entry,
    known: Option<Digest>,
}

impl Item {
    fn new(entry: Entry, lookup: Option<&mut Lookup>) -> Self {
        let is_file = matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. });
        let known = lookup.filter(|_| is_file && entry.source == Source::Disk);
        let known = known.and_then(|lookup| lookup.find(&entry.path, entry.stamp));
        Self { entry, known }
    }

    /// How many bytes have to be read.
    fn cost(&self) -> u64 {
        if self.known.is_some() { 0 } else { self.entry.size() }
    }
}

struct Hashed {
    entry: Entry,
    content: Option<Content>,
}

/// What is known of a file's content now.
struct Content {
    digest: Digest,
    /// How many bytes were read, unless it was known before.
    read: Option<u64>,
    /// What the file looked like, if the index may keep the digest.
    stamp: Option<Stamp>,
}

/// Keeps what is known of a file's content, if it may be kept.
fn record(recorder: Option<&mut Recorder<'_>>, Hashed { entry, content }: Hashed) {
    if let (Some(recorder), Some(content)) = (recorder, content)
        && let Some(stamp) = content.stamp
    {
        let record = Record { path: entry.path, stamp, content: content.digest };
        recorder.put(&record, content.read.is_none());
    }
}

/// The digest so far.
struct Total {
    hash: Sha256,
    files: u64,
    bytes: u64,
}

impl Total {
    fn new() -> Self {
        let mut total = Self { hash: Sha256::new(), files: 0, bytes: 0 };
        total.frame(VERSION);
        total
    }

    /// Adds the next entry.
    fn add(&mut self, Hashed { entry, content }: &Hashed) {
        self.frame(&entry.path);
        match &entry.kind {
            Kind::File { .. } | Kind::Hardlink { .. } => {
                let executable = portable_mode(entry) & 0o100 != 0;
                self.hash.update(if executable { b"x" } else { b"f" });
            }
            Kind::Dir => self.hash.update(b"d"),
            Kind::Symlink { target } => {
                self.hash.update(b"l");
                self.frame(target);
            }
            Kind::Fifo => self.hash.update(b"p"),
            Kind::CharDevice { major, minor } => self.device(b"c", *major, *minor),
            Kind::BlockDevice { major, minor } => self.device(b"b", *major, *minor),
        }
        if let Some(content) = content {
            self.hash.update(content.digest.as_bytes());
            self.files += u64::from(content.read.is_some());
            self.bytes += content.read.unwrap_or_default();
        }
    }

    fn device(&mut self, kind: &[u8], major: u32, minor: u32) {
        self.hash.update(kind);
        self.hash.update(major.to_be_bytes());
        self.hash.update(minor.to_be_bytes());
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    fn finish(self) -> ContextDigest {
        let digest = Digest::from_bytes(self.hash.finalize().into());
        ContextDigest { digest, hashed_files: self.files, hashed_bytes: self.bytes }
    }
}
