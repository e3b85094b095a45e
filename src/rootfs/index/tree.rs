//! An index that is being made.

use std::collections::BTreeMap;

use super::super::node::{Node, NodeKind, Xattrs};
use super::{Content, Cover, IndexEntry, LayerIndex, Meta, Record, Span, What};
use crate::digest::Digest;

/// A tree of what was said so far. Later entries win.
#[derive(Debug)]
pub(in super::super) struct Tree {
    /// The root is the first. What was replaced stays until the end, out of reach.
    branches: Vec<Branch>,
    contents: Vec<Content>,
    xattrs: Vec<Xattrs>,
    small: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The directory of the last entry: the next is often there too.
    last: (Vec<u8>, usize),
    /// How long all names and targets are together.
    text: usize,
}

/// One path.
#[derive(Debug, Default)]
struct Branch {
    body: Body,
    meta: Meta,
    cover: Cover,
    children: BTreeMap<Box<[u8]>, usize>,
}

/// What is at a path.
#[derive(Clone, Debug, Default)]
pub(in super::super) enum Body {
    #[default]
    Nothing,
    Implied,
    Dir,
    /// The number of the content.
    File(usize),
    /// The number of the content, and the name that it has in the layer.
    Hardlink(usize, Box<[u8]>),
    Symlink(Box<[u8]>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// A place in the tree.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Place(usize);

impl Default for Tree {
    fn default() -> Self {
        let root = Branch { body: Body::Implied, ..Branch::default() };
        Self {
            branches: vec![root],
            contents: Vec::new(),
            xattrs: Vec::new(),
            small: BTreeMap::new(),
            last: (Vec::new(), 0),
            text: 0,
        }
    }
}

impl Tree {
    /// How many paths it holds, with those that were replaced.
    pub(in super::super) fn len(&self) -> usize {
        self.branches.len()
    }

    /// How long all texts in it are together.
    pub(in super::super) const fn text(&self) -> usize {
        self.text
    }

    /// The place of a path, made with its parents if it is new. `None` if a parent is neither a directory nor a link.
    pub(in super::super) fn place(&mut self, path: &[u8]) -> Option<Place> {
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None if path.is_empty() => return Some(Place(0)),
            None => (&path[..0], path),
        };
        let parent = self.directory(directory)?;
        Some(Place(self.child(parent, name)))
    }

    fn directory(&mut self, path: &[u8]) -> Option<usize> {
        // Nothing on the way there was replaced since: that would have been an entry of another directory.
        if self.last.0 == path {
            return Some(self.last.1);
        }
        let mut id = 0;
        for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            id = self.child(id, part);
            let branch = &mut self.branches[id];
            match branch.body {
                Body::Nothing => branch.body = Body::Implied,
                Body::Implied | Body::Dir | Body::Symlink(_) => {}
                _ => return None,
            }
        }
        self.last = (path.to_owned(), id);
        Some(id)
    }

    fn child(&mut self, parent: usize, name: &[u8]) -> usize {
        if let Some(id) = self.branches[parent].children.get(name) {
            return *id;
        }
        let id = self.branches.len();
        self.branches.push(Branch::default());
        self.branches[parent].children.insert(name.into(), id);
        self.text += name.len();
        id
    }

    /// The place of a path that is there.
    pub(in super::super) fn find(&self, path: &[u8]) -> Option<Place> {
        let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(0, |id, part| self.branches[id].children.get(part).copied()).map(Place)
    }

    /// What is at a place.
    pub(in super::super) fn at(&self, place: Place) -> (&Body, Meta) {
        let branch = &self.branches[place.0];
        (&branch.body, branch.meta)
    }

    /// Puts something at a place, in place of what is there. A directory keeps what is in it.
    pub(in super::super) fn put(&mut self, place: Place, body: Body, meta: Meta) {
        self.text += match &body {
            Body::Symlink(text) | Body::Hardlink(_, text) => text.len(),
            _ => 0,
        };
        let branch = &mut self.branches[place.0];
        if matches!(body, Body::Dir) {
            // What is replaced had replaced what lower layers have: the directory is a new one.
            if !matches!(branch.body, Body::Nothing | Body::Implied | Body::Dir) {
                branch.cover = Cover::Whiteout;
            }
        } else if !branch.children.is_empty() {
            branch.children.clear();
            self.last = (Vec::new(), 0);
        }
        branch.body = body;
        branch.meta = meta;
    }

    /// Says that what lower layers have is gone. `false` if that is in a directory where something else is.
    pub(in super::super) fn cover(&mut self, place: Place, cover: Cover) -> bool {
        let branch = &mut self.branches[place.0];
        if cover == Cover::Opaque {
            match branch.body {
                Body::Nothing => branch.body = Body::Implied,
                Body::Implied | Body::Dir | Body::Symlink(_) => {}
                _ => return false,
            }
        }
        if branch.cover != Cover::Whiteout {
            branch.cover = cover;
        }
        true
    }

    /// Adds a content; its digest may come later.
    pub(in super::super) fn content(&mut self, size: u64, digest: Digest) -> usize {
        self.contents.push(Content { size, digest });
        self.contents.len() - 1
    }

    /// Sets the digests of all contents.
    pub(in super::super) fn set_digests(&mut self, digests: impl IntoIterator<Item = Digest>) {
        for (content, digest) in self.contents.iter_mut().zip(digests) {
            content.digest = digest;
        }
    }

    /// Adds extended attributes; what comes back is for [`Meta`].
    pub(in super::super) fn xattrs(&mut self, xattrs: Xattrs) -> u32 {
        if xattrs.is_empty() {
            return 0;
        }
        if self.xattrs.last() != Some(&xattrs) {
            self.text += xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            self.xattrs.push(xattrs);
        }
        number(self.xattrs.len())
    }

    /// Keeps the content of a small file.
    pub(in super::super) fn keep(&mut self, path: Vec<u8>, content: Vec<u8>) {
        self.small.insert(path, content);
    }

    /// Adds an entry. `false` if it is below a file: it is left out.
    pub(in super::super) fn add(&mut self, path: &[u8], entry: IndexEntry) -> bool {
        let Some(place) = self.place(path) else { return false };
        match entry {
            IndexEntry::Whiteout => return self.cover(place, Cover::Whiteout),
            IndexEntry::Opaque => return self.cover(place, Cover::Opaque),
            IndexEntry::Node(node) => self.add_node(place, node, None),
            IndexEntry::Hardlink { first, node } => self.add_node(place, node, Some(first)),
        }
        true
    }

    fn add_node(&mut self, place: Place, node: Node, first: Option<Vec<u8>>) {
        let Node { kind, mode, uid, gid, mtime, xattrs } = node;
        let meta = Meta { mode, uid, gid, mtime, xattrs: self.xattrs(xattrs) };
        let body = match kind {
            NodeKind::File { size, digest } => {
                let content = self.content(size, digest);
                match first {
                    Some(first) => Body::Hardlink(content, first.into()),
                    None => Body::File(content),
                }
            }
            NodeKind::Dir => Body::Dir,
            NodeKind::Symlink { target } => Body::Symlink(target.into()),
            NodeKind::Fifo => Body::Fifo,
            NodeKind::CharDevice { major, minor } => Body::CharDevice(major, minor),
            NodeKind::BlockDevice { major, minor } => Body::BlockDevice(major, minor),
        };
        self.put(place, body, meta);
    }

    /// The index.
    pub(in super::super) fn finish(mut self) -> LayerIndex {
        let mut making = Making {
            index: LayerIndex {
                texts: Vec::with_capacity(self.text),
                records: Vec::with_capacity(self.branches.len()),
                contents: Vec::with_capacity(self.contents.len()),
                xattrs: Vec::new(),
                small: BTreeMap::new(),
            },
            interned: BTreeMap::new(),
        };
        let root = self.record(&mut making, 0, &[]);
        making.index.records.push(root);
        // Level by level: the children of one record come together.
        let mut level = vec![(0, 0)];
        while !level.is_empty() {
            let mut next = Vec::new();
            for (record, branch) in level {
                let children = std::mem::take(&mut self.branches[branch].children);
                let records = &mut making.index.records;
                records[record].children = (number(records.len()), number(children.len()));
                for (name, child) in children {
                    let made = self.record(&mut making, child, &name);
                    next.push((making.index.records.len(), child));
                    making.index.records.push(made);
                }
            }
            level = next;
        }
        let mut index = making.index;
        for (path, content) in self.small {
            // Something else may have come to be there later.
            if index.digest(&path) == Some(Digest::of(&content)) {
                index.keep(&path, content);
            }
        }
        index
    }

    fn record(&mut self, making: &mut Making, branch: usize, name: &[u8]) -> Record {
        let Branch { body, mut meta, cover, children } = std::mem::take(&mut self.branches[branch]);
        if let Some(xattrs) = (meta.xattrs as usize).checked_sub(1).map(|at| &self.xattrs[at]) {
            meta.xattrs = making.intern(xattrs);
        }
        self.branches[branch].children = children;
        let name = making.text(name);
        let what = match body {
            Body::Nothing => What::Nothing,
            Body::Implied => What::Implied,
            Body::Dir => What::Dir,
            Body::File(content) => What::File { content: making.content(self.contents[content]) },
            Body::Hardlink(content, first) => {
                What::Hardlink { content: making.content(self.contents[content]), first: making.text(&first) }
            }
            Body::Symlink(target) => What::Symlink { target: making.text(&target) },
            Body::Fifo => What::Fifo,
            Body::CharDevice(major, minor) => What::CharDevice { major, minor },
            Body::BlockDevice(major, minor) => What::BlockDevice { major, minor },
        };
        let cover = match (what, cover) {
            (What::Nothing | What::Implied, cover) => cover,
            (What::Dir, Cover::Opaque | Cover::Whiteout) => Cover::Opaque,
            // It hides what lower layers have anyway.
            _ => Cover::None,
        };
        Record { name, children: (0, 0), cover, what, meta }
    }
}

/// An index that grows record by record.
struct Making {
    index: LayerIndex,
    /// The extended attributes that it has already.
    interned: BTreeMap<Xattrs, u32>,
}

impl Making {
    fn text(&mut self, bytes: &[u8]) -> Span {
        let at = number(self.index.texts.len());
        self.index.texts.extend_from_slice(bytes);
        Span { at, length: number(bytes.len()) }
    }

    fn content(&mut self, content: Content) -> u32 {
        self.index.contents.push(content);
        number(self.index.contents.len() - 1)
    }

    fn intern(&mut self, xattrs: &Xattrs) -> u32 {
        if let Some(known) = self.interned.get(xattrs) {
            return *known;
        }
        self.index.xattrs.push(xattrs.clone());
        let new = number(self.index.xattrs.len());
        self.interned.insert(xattrs.clone(), new);
        new
    }
}

/// A number of things in memory. Readers of layers stop long before there are 2³² of anything.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
