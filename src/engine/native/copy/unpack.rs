//! Archives that ADD unpacks: the rules of `Untar` in Moby's `archive` package, which treats the destination as a root.

use super::files::Owner;
use super::place::PARENT_MODE;
use super::target::{Attributes, Group, Target, There};
use super::{CopyMistake, join, name, parent, shown};
use crate::layer::{LayerEntry, LayerKind};

/// Puts the next entry of an archive into a directory. `group` is a number of this entry alone.
///
/// - What is in the place is removed, unless both are directories: then the one that is there gets the entry's attributes.
/// - A directory that the archive has no entry for belongs to root, whatever `--chown` says.
/// - Links are followed as if the directory was the root of the file system.
pub(super) fn put(
    target: &mut Target<'_>,
    directory: &[u8],
    entry: &LayerEntry,
    owner: Option<Owner>,
    group: Group,
) -> Result<(), CopyMistake> {
    let above = target.resolve(directory, parent(&entry.path))?;
    target.make_directories(&above, PARENT_MODE, Owner::default())?;
    let path = join(&above, name(&entry.path));
    let there = target.look(&path);
    let owner = owner.unwrap_or(Owner { uid: entry.uid, gid: entry.gid });
    let xattrs = entry.xattrs.clone();
    // Whatever an archive says, links have no modes of their own.
    let mode = if matches!(entry.kind, LayerKind::Symlink { .. }) { 0o777 } else { entry.mode };
    let mut attributes = Attributes { mode, owner, mtime: entry.mtime, xattrs };
    if let (LayerKind::Dir, Some(There::Dir(there))) = (&entry.kind, &there) {
        for (name, value) in &there.xattrs {
            attributes.xattrs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        target.change_directory(&path, attributes);
        return Ok(());
    }
    target.forget(&path);
    match &entry.kind {
        LayerKind::Dir => target.make_directory(&path, attributes),
        LayerKind::Hardlink { first, .. } => link(target, directory, first, path)?,
        kind => target.replace(attributes.entry(path, kind.clone()), Some(group)),
    }
    Ok(())
}

/// Gives a file of the archive, or one that was there before, another name.
fn link(target: &mut Target<'_>, directory: &[u8], first: &[u8], path: Vec<u8>) -> Result<(), CopyMistake> {
    let above = target.resolve(directory, parent(first))?;
    let first = join(&above, name(first));
    let missing = || CopyMistake::new(format!("the archive has a link to `{}`, which is not in it", shown(&first)));
    let (entry, group) = target.entry(&first).ok_or_else(missing)?;
    let entry = LayerEntry { path, ..entry.clone() };
    target.replace(entry, group);
    Ok(())
}
