//! What is in one layer.
//!
//! An index is a tree of records. The records of a directory's children stand next to each other, by name: a directory is
//! listed in the time that it is big, and a path is found by one binary search for each of its parts.

mod bytes;
mod tree;

use std::collections::BTreeMap;
use std::ops::Range;

use super::node::{Node, NodeKind, Xattrs};
use crate::digest::Digest;
use crate::mtime::Mtime;
pub(super) use tree::{Body, Place, Tree};

/// What a layer says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexEntry {
    /// Something is there.
    Node(Node),
    /// A further name of a file.
    Hardlink {
        /// The name under which its content stands in the layer. What is there now may be another file, if the layer
        /// has two entries of that name.
        first: Vec<u8>,
        /// The file.
        node: Node,
    },
    /// What lower layers have here is gone.
    Whiteout,
    /// What lower layers have in this directory is gone.
    Opaque,
}

/// What is in one layer: every path, with the digest of every file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerIndex {
    /// Names, targets of links and first names of hard linked files.
    texts: Vec<u8>,
    /// The root is the first.
    records: Vec<Record>,
    contents: Vec<Content>,
    xattrs: Vec<Xattrs>,
    small: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// A part of the texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    at: u32,
    length: u32,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    name: Span,
    /// The first child, and how many there are.
    children: (u32, u32),
    cover: Cover,
    what: What,
    meta: Meta,
}

/// What a record says of lower layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cover {
    /// Nothing.
    #[default]
    None,
    /// The children that they have are gone.
    Opaque,
    /// What they have is gone.
    Whiteout,
}

/// What a record says is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Nothing: it is a whiteout.
    Nothing,
    /// A directory that is only named by what is in it. If a lower layer has it, it is that one.
    Implied,
    Dir,
    File {
        content: u32,
    },
    Hardlink {
        content: u32,
        first: Span,
    },
    Symlink {
        target: Span,
    },
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// Attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    /// Where its extended attributes are, from 1; 0 is for none.
    pub(super) xattrs: u32,
}

/// What a record is to those who put layers over each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Nothing,
    Implied,
    Dir,
    Symlink,
    Other,
}

/// A record's place in its index.
pub(super) type RecordId = u32;
/// The record of the root.
pub(super) const ROOT: RecordId = 0;

/// Files below these names are kept whole, wherever they are: a link may lead there from `/etc`.
const KEPT_NAMES: &[&[u8]] = &[b"passwd", b"group"];
/// These are kept however many others there are.
const KEPT_PATHS: &[&[u8]] = &[b"etc/passwd", b"etc/group"];
/// So many others are kept.
const MAX_KEPT: usize = 16;
/// The biggest file that is kept.
pub(super) const MAX_KEPT_SIZE: u64 = 1 << 20;

impl LayerIndex {
    /// The index of a layer that is written here. Entries may come in any order; the last of a path counts, though a path
    /// may have a whiteout or be opaque as well. Paths are relative to the root and clean; what is below a file is left out.
    pub fn new(entries: Vec<(Vec<u8>, IndexEntry)>) -> Self {
        let mut entries = entries;
        // What is in a directory comes after it: a file clears what is below it.
        entries.sort_by(|left, right| crate::paths::compare_paths(&left.0, &right.0));
        let mut tree = Tree::default();
        for (path, entry) in entries {
            tree.add(&path, entry);
        }
        tree.finish()
    }

    /// How many paths it names, with directories that are only implied.
    pub fn len(&self) -> usize {
        self.records.len() - 1
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.records.len() == 1 && self.records[0].cover == Cover::None
    }

    /// Whether nothing of the layers below it is left: its root is opaque.
    pub fn hides_all(&self) -> bool {
        self.cover(ROOT) != Cover::None
    }

    /// Everything that it says, in the order of [`crate::paths::compare_paths`]. A path that has both comes twice: first
    /// with what is gone, then with what is there. Directories that are only implied are left out.
    pub fn iter(&self) -> impl Iterator<Item = (Vec<u8>, IndexEntry)> + '_ {
        self.paths().flat_map(|(id, path)| self.entries(id).map(move |entry| (path.clone(), entry)))
    }

    /// What is at a path, else what is gone from there.
    pub fn find(&self, path: &[u8]) -> Option<IndexEntry> {
        let id = self.locate(path)?;
        self.entry(id).or_else(|| self.gone(id))
    }

    /// The content of a small file that names users or groups (`etc/passwd`, `etc/group`), if the layer has it.
    pub fn small_file(&self, path: &[u8]) -> Option<&[u8]> {
        self.small.get(path).map(Vec::as_slice)
    }

    /// Whether a file is one whose content an index keeps. Whoever writes a layer gives it to [`LayerIndex::keep`].
    pub fn keeps(path: &[u8], mode: u32, size: u64) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        KEPT_NAMES.contains(&name) && size <= MAX_KEPT_SIZE && mode & 0o111 == 0
    }

    /// Keeps the content of a small file, unless there are too many.
    pub fn keep(&mut self, path: &[u8], content: Vec<u8>) {
        let others = self.small.keys().filter(|path| !KEPT_PATHS.contains(&path.as_slice())).count();
        if others < MAX_KEPT || KEPT_PATHS.contains(&path) {
            self.small.insert(path.to_owned(), content);
        }
    }

    /// Its records with their paths, but for the root's if that says nothing, in the order of a walk.
    pub(super) fn paths(&self) -> impl Iterator<Item = (RecordId, Vec<u8>)> + '_ {
        let mut path = Vec::new();
        // The directories that are open: what is left of their children, and how long their paths are.
        let mut open = vec![(self.children(ROOT), 0)];
        let root = self.entries(ROOT).next().map(|_| (ROOT, Vec::new()));
        root.into_iter().chain(std::iter::from_fn(move || {
            loop {
                let (children, length) = open.last_mut()?;
                path.truncate(*length);
                let Some(id) = children.next() else {
                    open.pop();
                    continue;
                };
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(self.name(id));
                open.push((self.children(id), path.len()));
                return Some((id, path.clone()));
            }
        }))
    }

    /// The record of a path.
    pub(super) fn locate(&self, path: &[u8]) -> Option<RecordId> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(ROOT, |id, part| self.child(id, part))
    }

    /// The children of a record, by name.
    pub(super) fn children(&self, id: RecordId) -> Range<RecordId> {
        let (first, count) = self.record(id).children;
        first..first + count
    }

    /// The child of that name.
    pub(super) fn child(&self, id: RecordId, name: &[u8]) -> Option<RecordId> {
        let Range { start: mut low, end: mut high } = self.children(id);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The last part of its path.
    pub(super) fn name(&self, id: RecordId) -> &[u8] {
        self.text(self.record(id).name)
    }

    pub(super) fn shape(&self, id: RecordId) -> Shape {
        match self.record(id).what {
            What::Nothing => Shape::Nothing,
            What::Implied => Shape::Implied,
            What::Dir => Shape::Dir,
            What::Symlink { .. } => Shape::Symlink,
            _ => Shape::Other,
        }
    }

    pub(super) fn cover(&self, id: RecordId) -> Cover {
        self.record(id).cover
    }

    /// Where the content of a hard linked file is, if a record is a further name of one.
    pub(super) fn first_name(&self, id: RecordId) -> Option<&[u8]> {
        match self.record(id).what {
            What::Hardlink { first, .. } => Some(self.text(first)),
            _ => None,
        }
    }

    /// The target of a symbolic link; nothing for others.
    pub(super) fn target(&self, id: RecordId) -> &[u8] {
        match self.record(id).what {
            What::Symlink { target } => self.text(target),
            _ => &[],
        }
    }

    /// What is there; a directory that is only implied is nobody's.
    pub(super) fn node(&self, id: RecordId) -> Option<Node> {
        let Record { what, meta, .. } = self.record(id);
        let kind = match *what {
            What::Nothing | What::Implied => return None,
            What::Dir => NodeKind::Dir,
            What::File { content } | What::Hardlink { content, .. } => {
                let Content { size, digest } = self.contents[at(content)];
                NodeKind::File { size, digest }
            }
            What::Symlink { target } => NodeKind::Symlink { target: self.text(target).to_owned() },
            What::Fifo => NodeKind::Fifo,
            What::CharDevice { major, minor } => NodeKind::CharDevice { major, minor },
            What::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
        };
        let xattrs = meta.xattrs.checked_sub(1).map(|number| self.xattrs[at(number)].clone()).unwrap_or_default();
        Some(Node { kind, mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs })
    }

    /// What a record says: what is gone, and what is there.
    pub(super) fn entries(&self, id: RecordId) -> impl Iterator<Item = IndexEntry> + use<> {
        self.gone(id).into_iter().chain(self.entry(id))
    }

    /// All records.
    pub(super) fn ids(&self) -> impl Iterator<Item = RecordId> + '_ {
        (1..).take(self.records.len() - 1)
    }

    fn gone(&self, id: RecordId) -> Option<IndexEntry> {
        match self.record(id).cover {
            Cover::None => None,
            Cover::Opaque => Some(IndexEntry::Opaque),
            Cover::Whiteout => Some(IndexEntry::Whiteout),
        }
    }

    fn entry(&self, id: RecordId) -> Option<IndexEntry> {
        let node = self.node(id)?;
        Some(match self.first_name(id) {
            Some(first) => IndexEntry::Hardlink { first: first.to_owned(), node },
            None => IndexEntry::Node(node),
        })
    }

    /// The digest of the file at a path.
    fn digest(&self, path: &[u8]) -> Option<Digest> {
        match self.record(self.locate(path)?).what {
            What::File { content } | What::Hardlink { content, .. } => Some(self.contents[at(content)].digest),
            _ => None,
        }
    }

    fn record(&self, id: RecordId) -> &Record {
        &self.records[at(id)]
    }

    fn text(&self, span: Span) -> &[u8] {
        &self.texts[at(span.at)..at(span.at) + at(span.length)]
    }
}

/// A number as an index of a list.
const fn at(number: u32) -> usize {
    number as usize
}
