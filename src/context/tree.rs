//! The entries of a context, kept compactly: 32 bytes and the name for each, so that a million of them fit in 50 MB.
//!
//! A tree has a listing for every directory, sorted by name. An [`Entry`], with its whole path, is made of a record when
//! somebody asks for it.

use std::collections::HashMap;

use bytes::Bytes;

use super::Summary;
use super::entry::{Entry, Kind, Mtime, Source};
use super::listing::{Listing, Record, Tag};
use super::stamp::Stamp;
use crate::error::{Error, Result};

/// The listing of the root.
const ROOT: u32 = 0;

/// Which entry of a context it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    listing: u32,
    index: u32,
}

/// The entries of a context.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    listings: Vec<Listing>,
    /// For each listing, the directory that it is of; the root's is not used.
    parents: Vec<EntryId>,
    /// Regular files that have several names.
    links: Vec<Linked>,
    /// What is in the extra files.
    contents: Vec<Bytes>,
}

/// A regular file with several names, some of which may be outside of the context.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    /// Its first name in the order of the walk.
    first: EntryId,
}

impl Linked {
    pub(super) fn new(device: u64, inode: u64, size: u64) -> Self {
        Self { device, inode, size, first: EntryId::default() }
    }
}

impl Default for Tree {
    /// An empty root.
    fn default() -> Self {
        Self::new(vec![Listing::default()])
    }
}

impl Tree {
    /// Makes a tree of listings: the first is the root's, and every directory's record has the number of its listing,
    /// which is greater than the number of the one that it is in.
    pub(super) fn new(mut listings: Vec<Listing>) -> Self {
        let mut links = Vec::new();
        let mut known = HashMap::new();
        for listing in &mut listings {
            let found = std::mem::take(&mut listing.links);
            for record in listing.records.iter_mut().filter(|record| record.tag() == Tag::Linked) {
                let Some(file) = usize::try_from(record.data).ok().and_then(|index| found.get(index)) else { continue };
                record.data = *known.entry((file.device, file.inode)).or_insert_with(|| {
                    links.push(file.clone());
                    links.len() as u64 - 1
                });
            }
        }
        let parents = vec![EntryId::default(); listings.len()];
        let mut tree = Self { listings, parents, links, contents: Vec::new() };
        for listing in 0..tree.listings.len() {
            tree.adopt(number(listing));
        }
        tree.find_first_names();
        tree
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.records().count()
    }

    /// The entries, depth first.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { tree: self, walk: Walk::new(self), path: Vec::new(), prefixes: vec![0] }
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        Walk::new(self).map(|step| self.record(step.id))
    }

    /// The entries in numbers.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for step in Walk::new(self) {
            let record = self.record(step.id);
            match record.tag() {
                Tag::File | Tag::Linked | Tag::Extra => summary.files += 1,
                Tag::Dir | Tag::ExtraDir => summary.dirs += 1,
                Tag::Symlink => summary.symlinks += 1,
                Tag::Fifo | Tag::CharDevice | Tag::BlockDevice => summary.special += 1,
            }
            summary.extra_files += u64::from(record.tag() == Tag::Extra);
            summary.bytes += match record.tag() {
                Tag::File => record.data,
                Tag::Linked => self.linked(record).filter(|file| file.first == step.id).map_or(0, |file| file.size),
                Tag::Extra => self.content(record).len() as u64,
                _ => 0,
            };
        }
        summary
    }

    /// The entry at a path.
    pub(super) fn find(&self, path: &[u8]) -> Option<Entry> {
        self.id_of(path).map(|id| self.make(id, path.to_vec()))
    }

    /// What is in a directory, by the bytes of the names; nothing for what is no directory. The root has the empty path.
    pub(super) fn children(&self, directory: &[u8]) -> Vec<Entry> {
        let listing = match directory {
            b"" => Some(ROOT),
            path => self.id_of(path).and_then(|id| self.record(id).listing()),
        };
        let Some(listing) = listing else { return Vec::new() };
        let names = self.listing(listing);
        let entry = |(index, record): (usize, &Record)| {
            let name = names.name(record);
            let path = if directory.is_empty() { name.to_vec() } else { [directory, name].join(&b'/') };
            self.make(EntryId { listing, index: number(index) }, path)
        };
        names.records.iter().enumerate().map(entry).collect()
    }

    fn id_of(&self, path: &[u8]) -> Option<EntryId> {
        let mut listing = Some(ROOT);
        let mut found = None;
        for name in path.split(|byte| *byte == b'/') {
            let inside = listing?;
            let names = self.listing(inside);
            let index = names.position(name, names.records.len())?;
            found = Some(EntryId { listing: inside, index: number(index) });
            listing = self.record(found?).listing();
        }
        found
    }

    /// An entry of this tree.
    pub(super) fn entry(&self, id: EntryId) -> Entry {
        self.make(id, self.path(id))
    }

    fn path(&self, id: EntryId) -> Vec<u8> {
        let mut chain = vec![id];
        let mut at = id;
        while at.listing != ROOT {
            at = self.parents[at.listing as usize];
            chain.push(at);
        }
        let mut path = Vec::new();
        for id in chain.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(self.listing(id.listing).name(self.record(id)));
        }
        path
    }

    fn make(&self, id: EntryId, path: Vec<u8>) -> Entry {
        let record = self.record(id);
        let (major, minor) = record.pair();
        let mut source = Source::Disk;
        let kind = match record.tag() {
            Tag::File => Kind::File { size: record.data },
            Tag::Linked => self.link(id, record),
            Tag::Dir => Kind::Dir,
            Tag::Symlink => Kind::Symlink { target: self.listing(id.listing).target(record).to_vec() },
            Tag::Fifo => Kind::Fifo,
            Tag::CharDevice => Kind::CharDevice { major, minor },
            Tag::BlockDevice => Kind::BlockDevice { major, minor },
            Tag::Extra => {
                let content = self.content(record).clone();
                let size = content.len() as u64;
                source = Source::Memory(content);
                Kind::File { size }
            }
            Tag::ExtraDir => {
                source = Source::Memory(Bytes::new());
                Kind::Dir
            }
        };
        Entry {
            path,
            kind,
            mode: record.mode(),
            mtime: Mtime::of_nanoseconds(record.mtime),
            source,
            stamp: record.stamp,
            id,
        }
    }

    fn link(&self, id: EntryId, record: &Record) -> Kind {
        match self.linked(record) {
            Some(file) if file.first == id => Kind::File { size: file.size },
            Some(file) => Kind::Hardlink { first: self.path(file.first), size: file.size },
            None => Kind::File { size: 0 },
        }
    }

    fn linked(&self, record: &Record) -> Option<&Linked> {
        usize::try_from(record.data).ok().and_then(|index| self.links.get(index))
    }

    fn content(&self, record: &Record) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        usize::try_from(record.data).ok().and_then(|index| self.contents.get(index)).unwrap_or(&EMPTY)
    }

    fn listing(&self, number: u32) -> &Listing {
        &self.listings[number as usize]
    }

    fn record(&self, id: EntryId) -> &Record {
        &self.listing(id.listing).records[id.index as usize]
    }

    /// Tells the directories in a listing where they are.
    fn adopt(&mut self, listing: u32) {
        for (index, record) in self.listings[listing as usize].records.iter().enumerate() {
            if let Some(inner) = record.listing() {
                self.parents[inner as usize] = EntryId { listing, index: number(index) };
            }
        }
    }

    /// Finds the first name of each file that has several.
    fn find_first_names(&mut self) {
        let mut seen = vec![false; self.links.len()];
        let mut first = Vec::new();
        for step in Walk::new(self) {
            let record = self.record(step.id);
            if record.tag() == Tag::Linked
                && let Ok(index) = usize::try_from(record.data)
                && !std::mem::replace(&mut seen[index], true)
            {
                first.push((index, step.id));
            }
        }
        for (index, id) in first {
            self.links[index].first = id;
        }
    }

    /// Puts extra files and their directories in, which come in the order of a walk.
    ///
    /// An extra file replaces what is at its path, unless that is a directory; what is walked keeps its directories.
    /// Fails with `ContextPath` where one of them is a directory and the other is not.
    pub(super) fn insert(&mut self, extra: &[Entry]) -> Result<()> {
        let parent = |entry: &Entry| entry.path[..entry.path.len() - entry.name().len()].to_vec();
        // Directories come before what is in them: a stable sort brings siblings together and keeps that.
        let mut sorted: Vec<(Vec<u8>, &Entry)> = extra.iter().map(|entry| (parent(entry), entry)).collect();
        sorted.sort_by(|left, right| left.0.cmp(&right.0));
        for siblings in sorted.chunk_by(|left, right| left.0 == right.0) {
            let directory = siblings[0].0.strip_suffix(b"/").unwrap_or_default();
            let listing = match directory {
                b"" => Some(ROOT),
                path => self.id_of(path).and_then(|id| self.record(id).listing()),
            };
            let listing = listing.ok_or_else(|| Error::internal("an extra file without a directory"))?;
            let walked = self.listing(listing).records.len();
            for (_, entry) in siblings {
                self.place(listing, walked, entry)?;
            }
            self.listings[listing as usize].sort();
            self.adopt(listing);
        }
        self.find_first_names();
        Ok(())
    }

    /// Replaces one of the first `walked` entries of a listing, which are sorted, or adds one behind them.
    fn place(&mut self, listing: u32, walked: usize, extra: &Entry) -> Result<()> {
        let inside = &self.listings[listing as usize];
        let found = inside.position(extra.name(), walked);
        if let Some(index) = found {
            match (inside.records[index].listing().is_some(), extra.is_dir()) {
                (true, true) => return Ok(()),
                (false, false) => {}
                (true, false) => return Err(conflict(extra, "an extra file has the name of a directory")),
                (false, true) => {
                    return Err(conflict(extra, "an extra file needs a directory of that name, and it is none"));
                }
            }
        }
        let (tag, data) = match &extra.source {
            _ if extra.is_dir() => {
                self.listings.push(Listing::default());
                self.parents.push(EntryId::default());
                (Tag::ExtraDir, self.listings.len() as u64 - 1)
            }
            Source::Memory(content) => {
                self.contents.push(content.clone());
                (Tag::Extra, self.contents.len() as u64 - 1)
            }
            Source::Disk => return Err(Error::internal("an extra file that is on disk")),
        };
        let inside = &mut self.listings[listing as usize];
        let name = match found {
            Some(index) => inside.records[index].name,
            None => inside.add_name(extra.name())?,
        };
        let record = Record::new(name, tag, extra.mode, data, extra.mtime, Stamp(0));
        match found {
            Some(index) => inside.records[index] = record,
            None => inside.records.push(record),
        }
        Ok(())
    }
}

fn conflict(entry: &Entry, reason: &str) -> Error {
    Error::ContextPath { path: entry.display_path().into_owned(), reason: reason.to_owned() }
}

/// A number of listings or of names in a directory: what does not fit has been refused when it was added.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The order of the entries, without their paths.
struct Walk<'a> {
    tree: &'a Tree,
    /// The directories that the walk is in: listing, and the index of the next record.
    frames: Vec<(u32, u32)>,
}

struct Step {
    id: EntryId,
    /// How many directories the entry is in.
    depth: usize,
}

impl<'a> Walk<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, frames: vec![(ROOT, 0)] }
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let depth = self.frames.len().checked_sub(1)?;
            let (listing, next) = self.frames.last_mut()?;
            let Some(record) = self.tree.listing(*listing).records.get(*next as usize) else {
                self.frames.pop();
                continue;
            };
            let id = EntryId { listing: *listing, index: *next };
            *next += 1;
            if let Some(inner) = record.listing() {
                self.frames.push((inner, 0));
            }
            return Some(Step { id, depth });
        }
    }
}

/// The entries of a context, in the order of a walk: depth first, siblings by the bytes of their names, each directory
/// before what is in it.
pub struct Entries<'a> {
    tree: &'a Tree,
    walk: Walk<'a>,
    /// The path of the last entry.
    path: Vec<u8>,
    /// How much of it each directory is, its slash included.
    prefixes: Vec<usize>,
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let Step { id, depth } = self.walk.next()?;
        self.prefixes.truncate(depth + 1);
        self.path.truncate(self.prefixes[depth]);
        let record = self.tree.record(id);
        self.path.extend_from_slice(self.tree.listing(id.listing).name(record));
        let entry = self.tree.make(id, self.path.clone());
        if entry.is_dir() {
            self.path.push(b'/');
            self.prefixes.push(self.path.len());
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::extra;
    use super::*;
    use crate::request::ExtraFile;

    fn files(paths: &[&str]) -> Vec<Entry> {
        let file =
            |path: &&str| ExtraFile { path: (*path).into(), content: path.as_bytes().to_vec().into(), mode: 0o644 };
        extra::entries(&paths.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.entries().map(|entry| entry.display_path().into_owned()).collect()
    }

    #[test]
    fn entries_come_in_order_and_are_found_again() {
        let mut tree = Tree::default();
        tree.insert(&files(&["b/c/d", "b/a", "b.txt", "a"])).unwrap();
        tree.insert(&files(&["b/c/a", "c/a", "a"])).unwrap();
        assert_eq!(paths(&tree), ["a", "b", "b/a", "b/c", "b/c/a", "b/c/d", "b.txt", "c", "c/a"]);
        assert_eq!(tree.len(), 9);
        for entry in tree.entries() {
            assert_eq!(tree.entry(entry.id()), entry);
            assert_eq!(tree.find(&entry.path), Some(entry));
        }
        for path in ["", "b/", "b/d", "d", "a/b", "b/c/d/e"] {
            assert_eq!(tree.find(path.as_bytes()), None, "{path}");
        }
        let inside =
            |directory: &[u8]| tree.children(directory).iter().map(Entry::as_path).map(Path::to_owned).collect();
        let (root, inner): (Vec<PathBuf>, Vec<PathBuf>) = (inside(b""), inside(b"b/c"));
        assert_eq!(root, ["a", "b", "b.txt", "c"].map(PathBuf::from));
        assert_eq!(inner, ["b/c/a", "b/c/d"].map(PathBuf::from));
        assert!(tree.children(b"a").is_empty() && tree.children(b"x").is_empty());
        assert_eq!((tree.summary().files, tree.summary().dirs, tree.summary().bytes), (6, 3, 22));
    }

    #[test]
    fn a_file_and_a_directory_cannot_share_a_name() {
        let mut tree = Tree::default();
        tree.insert(&files(&["a/b"])).unwrap();
        for path in ["a", "a/b/c"] {
            assert_eq!(tree.clone().insert(&files(&[path])).unwrap_err().code(), "context-path", "{path}");
        }
        tree.insert(&files(&["a/b", "a/a"])).unwrap();
        assert_eq!(paths(&tree), ["a", "a/a", "a/b"]);
    }

    #[test]
    fn an_entry_takes_little_room() {
        assert_eq!(size_of::<Record>(), 32);
    }
}
