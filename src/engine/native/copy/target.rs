//! The file system that a layer is made for: what is below it, and what the layer has so far.

use std::collections::HashMap;

use super::files::{Files, Item, ItemKind, Owner};
use super::resolve::resolve;
use super::{CopyMistake, name, parent, shown};
use crate::context::compare_paths;
use crate::layer::{LayerEntry, LayerKind};
use crate::mtime::Mtime;
use crate::rootfs::Xattrs;

type Result<T> = std::result::Result<T, CopyMistake>;

/// Which files are one file with several names: the source, and the place of the first name in it.
pub(super) type Group = (usize, usize);

/// What a layer puts somewhere.
#[derive(Clone, Debug)]
struct Placed {
    entry: LayerEntry,
    group: Option<Group>,
    /// A directory where the base has none.
    fresh: bool,
}

/// What is at a path, as far as it matters to what is put there.
#[derive(Clone, Debug)]
pub(super) enum There {
    Dir(Attributes),
    Symlink(Vec<u8>),
    Other,
}

/// What files and directories have besides their content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) mtime: Mtime,
    pub(super) xattrs: Xattrs,
}

impl Attributes {
    /// Those of a directory that somebody needs.
    pub(super) const fn of_parent(mode: u32, owner: Owner) -> Self {
        Self { mode, owner, mtime: Mtime::FIXED, xattrs: Xattrs::new() }
    }

    /// Makes an entry.
    pub(super) fn entry(self, path: Vec<u8>, kind: LayerKind) -> LayerEntry {
        let Self { mode, owner, mtime, xattrs } = self;
        LayerEntry { path, kind, mode, uid: owner.uid, gid: owner.gid, mtime, xattrs }
    }
}

/// A base and the layer above it.
pub(super) struct Target<'a> {
    base: &'a dyn Files,
    layer: HashMap<Vec<u8>, Placed>,
}

impl<'a> Target<'a> {
    pub(super) fn new(base: &'a dyn Files) -> Self {
        Self { base, layer: HashMap::new() }
    }

    /// What is at a path; no link is followed.
    pub(super) fn look(&self, path: &[u8]) -> Option<There> {
        if let Some(Placed { entry, .. }) = self.layer.get(path) {
            return Some(match &entry.kind {
                LayerKind::Dir => {
                    let (owner, xattrs) = (Owner { uid: entry.uid, gid: entry.gid }, entry.xattrs.clone());
                    There::Dir(Attributes { mode: entry.mode, owner, mtime: entry.mtime, xattrs })
                }
                LayerKind::Symlink { target } => There::Symlink(target.clone()),
                _ => There::Other,
            });
        }
        // The base has nothing in a directory that it does not have, nor in what the layer has put in the place of one.
        let above = self.layer.get(parent(path)).filter(|_| !path.is_empty());
        if above.is_some_and(|above| above.fresh || !matches!(above.entry.kind, LayerKind::Dir)) {
            return None;
        }
        let Item { kind, mode, owner, mtime, xattrs, .. } = self.base.find(path)?;
        Some(match kind {
            ItemKind::Dir => There::Dir(Attributes { mode, owner, mtime, xattrs }),
            ItemKind::Symlink { target } => There::Symlink(target),
            _ => There::Other,
        })
    }

    /// A path with all its links followed, which stay below `root`.
    pub(super) fn resolve(&self, root: &[u8], path: &[u8]) -> Result<Vec<u8>> {
        let target = |path: &[u8]| match self.look(path)? {
            There::Symlink(target) => Some(target),
            _ => None,
        };
        resolve(root, path, target)
            .map_err(|_| CopyMistake::new(format!("`{}` leads through too many links", shown(path))))
    }

    /// Sees to it that there is a directory at a path in which no link is.
    pub(super) fn make_directories(&mut self, path: &[u8], mode: u32, owner: Owner) -> Result<()> {
        match self.look(path) {
            Some(There::Dir(_)) => return Ok(()),
            Some(_) => return Err(CopyMistake::new(format!("`{}` is no directory", shown(path)))),
            None => {}
        }
        if !path.is_empty() {
            self.make_directories(parent(path), mode, owner)?;
            self.make_directory(path, Attributes::of_parent(mode, owner));
        }
        Ok(())
    }

    /// Puts a directory where nothing is.
    pub(super) fn make_directory(&mut self, path: &[u8], attributes: Attributes) {
        let entry = attributes.entry(path.to_vec(), LayerKind::Dir);
        self.layer.insert(path.to_vec(), Placed { entry, group: None, fresh: true });
    }

    /// Gives a directory that is there other attributes. The root of a file system is in no layer.
    pub(super) fn change_directory(&mut self, path: &[u8], attributes: Attributes) {
        if path.is_empty() {
            return;
        }
        let fresh = self.layer.get(path).is_some_and(|placed| placed.fresh);
        let entry = attributes.entry(path.to_vec(), LayerKind::Dir);
        self.layer.insert(path.to_vec(), Placed { entry, group: None, fresh });
    }

    /// Puts something that is no directory in the place of whatever is no directory either.
    pub(super) fn put(&mut self, entry: LayerEntry, group: Option<Group>) -> Result<()> {
        if let Some(There::Dir(_)) = self.look(&entry.path) {
            let (path, what) = (shown(&entry.path), String::from_utf8_lossy(name(&entry.path)).into_owned());
            return Err(CopyMistake::new(format!("`{what}` cannot be put at `{path}`: a directory is there")));
        }
        self.replace(entry, group);
        Ok(())
    }

    /// Puts something that is no directory in the place of anything.
    pub(super) fn replace(&mut self, entry: LayerEntry, group: Option<Group>) {
        self.layer.insert(entry.path.clone(), Placed { entry, group, fresh: false });
    }

    /// Takes everything back that the layer has at a path and below it.
    pub(super) fn forget(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.layer.retain(|placed, _| placed != path && !placed.starts_with(&below));
    }

    /// An entry of the layer.
    pub(super) fn entry(&self, path: &[u8]) -> Option<(&LayerEntry, Option<Group>)> {
        self.layer.get(path).map(|placed| (&placed.entry, placed.group))
    }

    /// The entries of the layer, in order, none younger than `clamp`.
    pub(super) fn finish(self, clamp: Option<Mtime>) -> Vec<LayerEntry> {
        let mut placed: Vec<Placed> = self.layer.into_values().collect();
        placed.sort_unstable_by(|left, right| compare_paths(&left.entry.path, &right.entry.path));
        let mut firsts: HashMap<Group, (Vec<u8>, u64)> = HashMap::new();
        let finished = placed.into_iter().map(|Placed { mut entry, group, .. }| {
            if let (Some(group), LayerKind::File { size, .. }) = (group, &entry.kind) {
                if let Some((first, size)) = firsts.get(&group) {
                    entry.kind = LayerKind::Hardlink { first: first.clone(), size: *size };
                } else {
                    firsts.insert(group, (entry.path.clone(), *size));
                }
            }
            entry.mtime = clamp.map_or(entry.mtime, |clamp| clamp.min(entry.mtime));
            entry
        });
        finished.collect()
    }
}
