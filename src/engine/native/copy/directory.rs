//! The directory of WORKDIR.

use super::files::{Files, Owner};
use super::place::PARENT_MODE;
use super::target::Target;
use super::{CopyMistake, relative};
use crate::dockerfile::step::MakeDirectory;
use crate::layer::LayerEntry;
use crate::mtime::Mtime;

/// The entries of a layer that makes a directory and those above it, as far as the base has them not: where it has all of
/// them, there are none. What is made belongs to `owner`, which is what [`MakeDirectory::user`] says.
///
/// Fails where something in the path is there and is no directory.
pub fn make_directory(
    step: &MakeDirectory,
    base: &dyn Files,
    owner: Owner,
    clamp: Option<Mtime>,
) -> Result<Vec<LayerEntry>, CopyMistake> {
    let mut target = Target::new(base);
    let path = target.resolve(&[], relative(&step.path))?;
    target.make_directories(&path, PARENT_MODE, owner)?;
    Ok(target.finish(clamp))
}
