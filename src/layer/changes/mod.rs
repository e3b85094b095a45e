//! What a command changed, as the entries of a layer.
//!
//! What BuildKit's differ for overlayfs and containerd's writer of layers do, is done here: a thing that is as it was, but for
//! the time of a directory, is left out; parents of what changed come with it; what is gone from a directory that was made
//! anew gets a whiteout of its own, and no directory is opaque. So the same command gives the same layer.

mod compare;
mod owners;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use super::{Content, LayerEntry, LayerKind};
use crate::cancel::Cancel;
use crate::context::compare_paths;
use crate::error::Result;
use crate::mtime::Mtime;
use crate::rootfs::{Item, ItemKind, Listing, Node, Stamp, TreeFiles, View, Xattrs};

pub use owners::Owners;

/// What a command left, and what was there before.
#[derive(Debug)]
pub struct Left<'a> {
    /// What is there: the upper directory of an overlay, or a whole root.
    pub listing: &'a Listing,
    /// For a whole root, what was there before. It is of the same directory.
    pub before: Option<&'a Listing>,
    /// Where the files are.
    pub files: Arc<TreeFiles>,
    /// Where contents are that this process cannot read.
    pub spool: Option<Arc<File>>,
    /// The layers below.
    pub view: &'a View,
    /// Whose things are.
    pub owners: &'a Owners,
}

/// What changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// In the order that [`super::write`] wants.
    pub entries: Vec<LayerEntry>,
    /// What no layer can hold, to be told to the user.
    pub left_out: Vec<String>,
}

/// What a command changed. Nothing, if it changed nothing.
///
/// Fails with `Store` or `StoreDamaged` if a content that has to be compared cannot be read, and with `Interrupted`. Blocks.
pub fn changes(left: &Left<'_>, cancel: &Cancel) -> Result<Changes> {
    let items = &left.listing.0;
    let mut run = Run {
        left,
        before: left.before.map(|before| before.0.iter().map(|item| (item.path.as_slice(), item)).collect()),
        inodes: left.before.iter().flat_map(|before| before.0.iter().map(|item| item.inode)).collect(),
        included: vec![false; items.len()],
        owners: vec![(0, 0); items.len()],
        gone: Vec::new(),
        open: vec![Open { at: None, pure: left.before.is_some(), lower: true }],
        left_out: Vec::new(),
    };
    if left.before.is_some() {
        run.missing(b"");
    }
    for at in 0..items.len() {
        cancel.check()?;
        run.item(at, cancel)?;
    }
    run.further_names();
    Ok(run.finish())
}

struct Run<'a> {
    left: &'a Left<'a>,
    before: Option<HashMap<&'a [u8], &'a Item>>,
    /// What was there before in a whole root.
    inodes: HashSet<u64>,
    /// Which items are part of the layer.
    included: Vec<bool>,
    owners: Vec<(u32, u32)>,
    /// What lower layers have and is gone.
    gone: Vec<Vec<u8>>,
    open: Vec<Open>,
    left_out: Vec<String>,
}

/// A directory on the way to the item that is looked at.
#[derive(Clone, Copy)]
struct Open {
    /// Its item; none for the root.
    at: Option<usize>,
    /// Whether nothing of lower layers shows through.
    pure: bool,
    /// Whether lower layers have a directory there.
    lower: bool,
}

impl<'a> Run<'a> {
    fn item(&mut self, at: usize, cancel: &Cancel) -> Result<()> {
        let item: &'a Item = &self.left.listing.0[at];
        while self.open.len() > 1 && !self.open.last().is_some_and(|open| self.holds(*open, item)) {
            self.open.pop();
        }
        let above = self.open[self.open.len() - 1];
        let lower = if above.lower { self.left.view.find(&item.path).map(|found| found.node) } else { None };
        match &item.kind {
            ItemKind::Whiteout => {
                if !above.pure && lower.is_some() {
                    self.gone.push(item.path.clone());
                    self.include_parents();
                }
                return Ok(());
            }
            ItemKind::Socket => {
                self.left_out.push(format!("`{}`: a socket", String::from_utf8_lossy(&item.path)));
                return Ok(());
            }
            _ => {}
        }
        self.owners[at] = self.left.owners.of(item, lower.as_ref(), self.inodes.contains(&item.inode));
        let is_new = lower.is_none();
        let changed = is_new || !(self.untouched(item) || self.same(at, lower.as_ref(), cancel)?);
        if changed {
            self.included[at] = true;
            self.include_parents();
        }
        if let ItemKind::Dir { opaque } = item.kind {
            let lower = lower.as_ref().is_some_and(Node::is_dir);
            let pure = above.pure || opaque || !lower;
            self.open.push(Open { at: Some(at), pure, lower });
            if pure && lower {
                self.missing(&item.path);
            }
        }
        Ok(())
    }

    fn holds(&self, open: Open, item: &Item) -> bool {
        let Some(at) = open.at else { return true };
        let rest = item.path.strip_prefix(self.left.listing.0[at].path.as_slice());
        rest.is_some_and(|rest| rest.first() == Some(&b'/'))
    }

    /// Whether a whole root has it as it was.
    fn untouched(&self, item: &Item) -> bool {
        self.before.as_ref().is_some_and(|before| before.get(item.path.as_slice()).is_some_and(|was| *was == item))
    }

    fn same(&self, at: usize, lower: Option<&Node>, cancel: &Cancel) -> Result<bool> {
        match lower {
            Some(lower) => compare::same(self.left, &self.left.listing.0[at], self.owners[at], lower, cancel),
            None => Ok(false),
        }
    }

    /// Notes what lower layers have in a directory and is not there now.
    fn missing(&mut self, directory: &[u8]) {
        let mut found = false;
        for child in self.left.view.children(directory) {
            let was = self.before.as_ref().is_none_or(|before| before.contains_key(child.path.as_slice()));
            if was && !self.is_there(&child.path) {
                self.gone.push(child.path);
                found = true;
            }
        }
        if found {
            self.include_parents();
        }
    }

    fn is_there(&self, path: &[u8]) -> bool {
        self.find(path).is_some_and(|at| self.left.listing.0[at].kind != ItemKind::Whiteout)
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        self.left.listing.0.binary_search_by(|item| compare_paths(&item.path, path)).ok()
    }

    /// The directories that are open get into the layer: something in them has changed.
    fn include_parents(&mut self) {
        for open in self.open.iter().rev().filter_map(|open| open.at) {
            if std::mem::replace(&mut self.included[open], true) {
                return;
            }
        }
    }

    /// If one name of a file gets into the layer, all that are here do: they are to be one file.
    fn further_names(&mut self) {
        let mut names: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, item) in self.left.listing.0.iter().enumerate() {
            if item.links > 1 && matches!(item.kind, ItemKind::File { .. }) {
                names.entry(item.inode).or_default().push(at);
            }
        }
        for names in names.into_values() {
            if !names.iter().any(|at| self.included[*at]) {
                continue;
            }
            for at in names {
                if !std::mem::replace(&mut self.included[at], true) {
                    self.include_above(at);
                }
            }
        }
    }

    fn include_above(&mut self, at: usize) {
        let mut path = self.left.listing.0[at].path.as_slice();
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..slash];
            if let Some(above) = self.find(path) {
                self.included[above] = true;
            }
        }
    }

    fn finish(self) -> Changes {
        let mut first_names: HashMap<u64, &[u8]> = HashMap::new();
        let mut entries: Vec<LayerEntry> = self.gone.into_iter().map(whiteout).collect();
        for (at, item) in self.left.listing.0.iter().enumerate().filter(|(at, _)| self.included[*at]) {
            let (uid, gid) = self.owners[at];
            let mut kind = kind(self.left, item);
            if let LayerKind::File { size, .. } = kind
                && item.links > 1
            {
                let first = *first_names.entry(item.inode).or_insert(&item.path);
                if first != item.path {
                    kind = LayerKind::Hardlink { first: first.to_owned(), size };
                }
            }
            let xattrs = item.capability.iter().map(|value| (compare::CAPABILITY.to_vec(), value.clone())).collect();
            entries.push(LayerEntry {
                path: item.path.clone(),
                kind,
                mode: item.mode,
                uid,
                gid,
                mtime: item.mtime,
                xattrs,
            });
        }
        entries.sort_by(|left, right| compare_paths(&left.path, &right.path).then_with(|| gone_first(left, right)));
        Changes { entries, left_out: self.left_out }
    }
}

fn gone_first(left: &LayerEntry, right: &LayerEntry) -> Ordering {
    let stays = |entry: &LayerEntry| !matches!(entry.kind, LayerKind::Whiteout);
    stays(left).cmp(&stays(right))
}

fn whiteout(path: Vec<u8>) -> LayerEntry {
    LayerEntry { path, kind: LayerKind::Whiteout, mode: 0, uid: 0, gid: 0, mtime: Mtime::FIXED, xattrs: Xattrs::new() }
}

fn kind(left: &Left<'_>, item: &Item) -> LayerKind {
    match &item.kind {
        ItemKind::File { size, spooled } => {
            let content = match (spooled, &left.spool) {
                (Some(offset), Some(file)) => Content::Spool { file: Arc::clone(file), offset: *offset },
                _ => Content::Tree { files: Arc::clone(&left.files), stamp: Stamp::of(item) },
            };
            LayerKind::File { size: *size, content, digest: None }
        }
        ItemKind::Dir { .. } => LayerKind::Dir,
        ItemKind::Symlink { target } => LayerKind::Symlink { target: target.clone() },
        ItemKind::Fifo => LayerKind::Fifo,
        ItemKind::CharDevice { major, minor } => LayerKind::CharDevice { major: *major, minor: *minor },
        ItemKind::BlockDevice { major, minor } => LayerKind::BlockDevice { major: *major, minor: *minor },
        // These are not included.
        ItemKind::Socket | ItemKind::Whiteout => LayerKind::Whiteout,
    }
}
