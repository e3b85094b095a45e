//! Where what is taken goes: the entries of a layer.

use super::files::{Files, Item, ItemKind, Nothing, Owner};
use super::select::{Root, Selected, Selection};
use super::target::{Attributes, Group, Target, There};
use super::{CopyMistake, Failure, join, name, needs_names, parent, relative, shown, unpack};
use crate::cancel::Cancel;
use crate::dockerfile::Chmod;
use crate::dockerfile::step::CopyStep;
use crate::layer::{LayerEntry, LayerKind};
use crate::mtime::Mtime;

/// Mode of a directory that is missing.
pub(super) const PARENT_MODE: u32 = 0o755;
/// How many entries are put down between two looks at the cancel flag.
const CANCEL_EVERY: usize = 1024;

/// Whether a layer is made as if there was nothing below it. `--link` has no effect together with `--chmod`, as in `BuildKit`.
pub const fn is_linked(step: &CopyStep) -> bool {
    step.link && step.chmod.is_none()
}

/// Whether [`place`] or [`owner`](super::owner) has to know what is in the base.
pub fn needs_base(step: &CopyStep) -> bool {
    !is_linked(step) || step.chown.as_deref().is_some_and(needs_names)
}

/// Makes the entries of a layer, in order, with the directories that the base has not. An instruction whose wildcards match
/// nothing makes none.
///
/// `owner` is what `--chown` says. No entry is younger than `clamp`. Fails with a mistake where a file and a directory meet,
/// and with `Interrupted`.
pub fn place(
    step: &CopyStep,
    selection: &Selection,
    base: &dyn Files,
    owner: Option<Owner>,
    clamp: Option<Mtime>,
    cancel: &Cancel,
) -> Result<Vec<LayerEntry>, Failure> {
    let base = if is_linked(step) { &Nothing } else { base };
    let mut placing = Placing { step, owner, target: Target::new(base), cancel };
    for (number, root) in selection.roots.iter().enumerate() {
        match &root.unpacked {
            Some(entries) => placing.unpack(number, entries)?,
            None => placing.root(number, root)?,
        }
    }
    Ok(placing.target.finish(clamp))
}

struct Placing<'a> {
    step: &'a CopyStep,
    owner: Option<Owner>,
    target: Target<'a>,
    cancel: &'a Cancel,
}

impl Placing<'_> {
    /// Copies a source, or one match of its wildcards.
    fn root(&mut self, number: usize, root: &Root) -> Result<(), Failure> {
        let destination = self.prepare(root)?;
        let item = &root.item;
        if !item.is_dir() {
            return Ok(self.put(item, destination, None)?);
        }
        match self.target.look(&destination) {
            None => self.target.make_directory(&destination, self.attributes(item)),
            // A directory that the instruction names stays as it is.
            Some(There::Dir(_)) => {}
            Some(_) => return Err(no_directory(&root.name, &destination).into()),
        }
        for (index, selected) in root.inside.iter().enumerate() {
            if index % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            self.inside(selected, join(&destination, &selected.path), (number, index))?;
        }
        Ok(())
    }

    /// Makes the directories that are missing above what a source becomes, and says what path that has.
    fn prepare(&mut self, root: &Root) -> Result<Vec<u8>, CopyMistake> {
        let written = relative(&self.step.destination);
        let directory = if self.step.into_directory { written } else { parent(written) };
        let directory = self.target.resolve(&[], directory)?;
        self.make_directories(&directory)?;
        let destination = self.target.resolve(&[], written)?;
        let there = self.target.look(&destination);
        let is_dir = root.item.is_dir();
        let into = if is_dir { !root.contents && there.is_some() } else { matches!(there, Some(There::Dir(_))) };
        let destination = if into { join(&destination, &root.name) } else { destination };
        if is_dir && root.contents && there.is_none() {
            self.make_directories(&destination)?;
        } else {
            self.make_directories(parent(&destination))?;
        }
        Ok(destination)
    }

    fn make_directories(&mut self, path: &[u8]) -> Result<(), CopyMistake> {
        let mode = match self.step.chmod {
            Some(Chmod::Octal(mode)) => mode & 0o777,
            _ => PARENT_MODE,
        };
        self.target.make_directories(path, mode, self.owner.unwrap_or_default())
    }

    /// Copies something that is in a directory.
    fn inside(&mut self, selected: &Selected, path: Vec<u8>, place: Group) -> Result<(), CopyMistake> {
        let item = &selected.item;
        if !item.is_dir() {
            let group = (place.0, selected.first.unwrap_or(place.1));
            return self.put(item, path, Some(group));
        }
        match self.target.look(&path) {
            None => self.target.make_directory(&path, self.attributes(item)),
            Some(There::Dir(there)) if selected.passed => {
                // BuildKit gives it the mode that it copies, and nothing else.
                self.target.change_directory(&path, Attributes { mode: item.mode, ..there });
            }
            Some(There::Dir(there)) => {
                let mut attributes = self.attributes(item);
                for (name, value) in there.xattrs {
                    attributes.xattrs.entry(name).or_insert(value);
                }
                self.target.change_directory(&path, attributes);
            }
            Some(_) => return Err(no_directory(name(&path), &path)),
        }
        Ok(())
    }

    /// Copies a file, a link or something special.
    fn put(&mut self, item: &Item, path: Vec<u8>, group: Option<Group>) -> Result<(), CopyMistake> {
        let kind = match &item.kind {
            ItemKind::File { size, content, digest, .. } => {
                LayerKind::File { size: *size, content: content.clone(), digest: *digest }
            }
            ItemKind::Dir => LayerKind::Dir,
            ItemKind::Symlink { target } => LayerKind::Symlink { target: target.clone() },
            ItemKind::Fifo => LayerKind::Fifo,
            ItemKind::CharDevice { major, minor } => LayerKind::CharDevice { major: *major, minor: *minor },
            ItemKind::BlockDevice { major, minor } => LayerKind::BlockDevice { major: *major, minor: *minor },
        };
        self.target.put(self.attributes(item).entry(path, kind), group)
    }

    /// The attributes that something gets when it is copied.
    fn attributes(&self, item: &Item) -> Attributes {
        let mode = match (&item.kind, &self.step.chmod) {
            (ItemKind::Symlink { .. }, _) => 0o777,
            (_, Some(chmod)) => chmod.apply(item.mode, item.is_dir()),
            (_, None) => item.mode,
        };
        let owner = self.owner.unwrap_or(item.owner);
        Attributes { mode, owner, mtime: item.mtime, xattrs: item.xattrs.clone() }
    }

    fn unpack(&mut self, number: usize, entries: &[LayerEntry]) -> Result<(), Failure> {
        let directory = self.target.resolve(&[], relative(&self.step.destination))?;
        self.target.make_directories(&directory, PARENT_MODE, self.owner.unwrap_or_default())?;
        for (index, entry) in entries.iter().enumerate() {
            if index % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            unpack::put(&mut self.target, &directory, entry, self.owner, (number, index))?;
        }
        Ok(())
    }
}

fn no_directory(what: &[u8], path: &[u8]) -> CopyMistake {
    let what = String::from_utf8_lossy(what);
    CopyMistake::new(format!("the directory `{what}` cannot be put at `{}`: a file is there", shown(path)))
}
