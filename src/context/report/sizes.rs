//! Which files and directories take up the space: found in one pass, without a list of them all.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde::Serialize;

use crate::context::entry::{Entry, Kind, is_below};

/// How many files and directories are listed as the largest.
const LARGEST: usize = 20;
/// How many files and directories are in the tree.
const TREE: usize = 100;
/// How many of those at the top are named in one line.
const TOP: usize = 3;

/// How big something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Its path in the context.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes of the files in it, or of the file.
    pub bytes: u64,
    /// Files in and below it; 1 for a file.
    pub files: u64,
}

/// A directory or file with the largest of what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// How big it is, with all that is in it.
    #[serde(flatten)]
    pub size: Size,
    /// The largest first. Together they may be smaller than the directory: the rest is not worth a node.
    pub children: Vec<Self>,
}

/// Sizes, from entries in the order of a walk.
#[derive(Default)]
pub(super) struct Sizes {
    /// The directories that the current entry is in, the root first.
    open: Vec<Open>,
    seen: u64,
    largest_files: Best<LARGEST>,
    largest_directories: Best<LARGEST>,
    tree: Best<TREE>,
    top: Best<TOP>,
}

/// What was found.
pub(super) struct Measured {
    pub(super) largest_files: Vec<Size>,
    pub(super) largest_directories: Vec<Size>,
    /// What is directly below the root.
    pub(super) top: Vec<Size>,
    pub(super) tree: Node,
}

struct Open {
    path: Vec<u8>,
    order: u64,
    bytes: u64,
    files: u64,
}

impl Sizes {
    pub(super) fn new() -> Self {
        let root = Open { path: Vec::new(), order: 0, bytes: 0, files: 0 };
        Self { open: vec![root], ..Self::default() }
    }

    /// Takes the next entry.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.seen += 1;
        while self.open.last().is_some_and(|open| !is_below(&entry.path, &open.path)) {
            self.close();
        }
        match entry.kind {
            Kind::Dir => {
                self.open.push(Open { path: entry.path.clone(), order: self.seen, bytes: 0, files: 0 });
            }
            Kind::File { .. } | Kind::Hardlink { .. } => {
                if let Some(parent) = self.open.last_mut() {
                    parent.bytes += entry.size();
                    parent.files += 1;
                }
                let file = Found { bytes: entry.size(), order: Reverse(self.seen), files: 1, directory: false };
                self.largest_files.offer(file, &entry.path);
                self.offer(file, &entry.path);
            }
            _ => {}
        }
    }

    fn offer(&mut self, found: Found, path: &[u8]) {
        self.tree.offer(found, path);
        if !path.contains(&b'/') {
            self.top.offer(found, path);
        }
    }

    /// The last directory is complete.
    fn close(&mut self) {
        let Some(closed) = self.open.pop() else { return };
        if let Some(parent) = self.open.last_mut() {
            parent.bytes += closed.bytes;
            parent.files += closed.files;
        }
        let order = Reverse(closed.order);
        let found = Found { bytes: closed.bytes, order, files: closed.files, directory: true };
        self.largest_directories.offer(found, &closed.path);
        self.offer(found, &closed.path);
    }

    pub(super) fn finish(mut self) -> Measured {
        while self.open.len() > 1 {
            self.close();
        }
        let (bytes, files) = self.open.first().map_or((0, 0), |root| (root.bytes, root.files));
        let root = Size { path: String::new(), directory: true, bytes, files };
        Measured {
            largest_files: self.largest_files.sizes(),
            largest_directories: self.largest_directories.sizes(),
            top: self.top.sizes(),
            tree: tree(root, self.tree.found),
        }
    }
}

/// Of two, the larger ranks higher, and of two that are equal the earlier: a directory then ranks before what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    bytes: u64,
    order: Reverse<u64>,
    files: u64,
    directory: bool,
}

/// The `N` largest of all that are offered.
#[derive(Default)]
struct Best<const N: usize> {
    found: BinaryHeap<Reverse<Ranked>>,
}

#[derive(PartialEq, Eq)]
struct Ranked {
    found: Found,
    path: Vec<u8>,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.found.cmp(&other.found)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<const N: usize> Best<N> {
    fn offer(&mut self, found: Found, path: &[u8]) {
        let full = self.found.len() == N;
        if found.bytes == 0 || (full && self.found.peek().is_some_and(|Reverse(least)| least.found >= found)) {
            return;
        }
        if full {
            self.found.pop();
        }
        self.found.push(Reverse(Ranked { found, path: path.to_vec() }));
    }

    /// The largest first.
    fn sizes(self) -> Vec<Size> {
        self.found.into_sorted_vec().into_iter().map(|Reverse(ranked)| size(&ranked)).collect()
    }
}

fn size(ranked: &Ranked) -> Size {
    let Found { bytes, files, directory, .. } = ranked.found;
    Size { path: String::from_utf8_lossy(&ranked.path).into_owned(), directory, bytes, files }
}

/// Nests what was found. It has every parent of what is in it: no directory is smaller than what it holds.
fn tree(root: Size, found: BinaryHeap<Reverse<Ranked>>) -> Node {
    let mut found: Vec<Ranked> = found.into_iter().map(|Reverse(ranked)| ranked).collect();
    found.sort_by_key(|ranked| Reverse(ranked.found.order));
    let mut open: Vec<(Vec<u8>, Node)> = vec![(Vec::new(), Node { size: root, children: Vec::new() })];
    for ranked in found {
        while open.len() > 1 && open.last().is_some_and(|(path, _)| !is_below(&ranked.path, path)) {
            fold(&mut open);
        }
        let node = Node { size: size(&ranked), children: Vec::new() };
        open.push((ranked.path, node));
    }
    while open.len() > 1 {
        fold(&mut open);
    }
    let mut root = open.swap_remove(0).1;
    sort(&mut root);
    root
}

/// Puts the last node into the one before it.
fn fold(open: &mut Vec<(Vec<u8>, Node)>) {
    if let Some((_, mut node)) = open.pop()
        && let Some((_, parent)) = open.last_mut()
    {
        sort(&mut node);
        parent.children.push(node);
    }
}

fn sort(node: &mut Node) {
    node.children.sort_by_key(|child| Reverse(child.size.bytes));
}
