//! Bind mounts: of stages and images as their unpacked layers are, of contexts as a tree that is made of what is wanted.

use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::copy::{Item, Owner};
use super::super::key::Key;
use super::super::shared::Shared;
use super::inputs::Bound;
use super::machine::Machine;
use super::work::Work;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::layer::{LayerEntry, LayerOptions, write};
use crate::oci::media::Compression;
use crate::rootfs::{IndexEntry, LayerIndex, Limits, Packed, unpack};
use crate::sandbox::{Mount, Task};
use crate::store::{Tree, TreeKey, TreeState};

/// The name in a tree of what is mounted.
const NAME: &str = "m";

/// Where a bind mount is seen, and whether it can be written to.
pub(super) struct Target {
    /// The path.
    pub(super) path: String,
    /// Without it, what is written is dropped.
    pub(super) read_only: bool,
}

impl Shared {
    /// The mount of something.
    pub(super) async fn bind(
        &self,
        machine: &Arc<Machine>,
        work: &Arc<Work>,
        bound: &Bound,
        target: Target,
    ) -> Result<Mount> {
        let item = bound.selection.item().ok_or_else(|| Error::internal("a mount of nothing"))?;
        let has_overlay = machine.no_overlay.is_none();
        if bound.trees.is_view() && item.is_dir() && has_overlay {
            return self.bind_layers(machine, work, bound, item, target).await;
        }
        if bound.trees.is_view() && !item.is_dir() && target.read_only {
            let source = self.file_in_layers(machine, bound, item).await?;
            return Ok(Mount::Bind { source, target: target.path, read_only: true });
        }
        let tree = self.tree_of(machine, bound).await?.path();
        if target.read_only {
            return Ok(Mount::Bind { source: tree.join(NAME), target: target.path, read_only: true });
        }
        if item.is_dir() && has_overlay {
            let lowers = vec![tree.join(NAME)];
            return self.overlay(machine, work, lowers, item, target).await;
        }
        let (own, machine, cancel) = (Arc::clone(work), Arc::clone(machine), self.job.cancel.clone());
        blocking(move || {
            let to = own.directory("mounted")?;
            machine.task(&Task::Copy { layers: vec![tree], to: to.clone() }, &cancel)?;
            Ok(Mount::Bind { source: to.join(NAME), target: target.path, read_only: false })
        })
        .await
    }

    /// A directory of layers.
    async fn bind_layers(
        &self,
        machine: &Arc<Machine>,
        work: &Arc<Work>,
        bound: &Bound,
        item: &Item,
        target: Target,
    ) -> Result<Mount> {
        let unpacked = self.unpacked(machine, &bound.trees.layers, 0).await?;
        let numbers = unpacked.view.layers_of(&item.path);
        let place = relative(&item.path);
        let mut lowers: Vec<PathBuf> = Vec::with_capacity(numbers.len());
        for number in &numbers {
            lowers.extend(unpacked.trees[*number].as_ref().map(|tree| tree.join(place)));
        }
        if lowers.is_empty() {
            let own = Arc::clone(work);
            lowers.push(blocking(move || own.directory("empty")).await?);
        }
        if let [source] = lowers.as_slice()
            && target.read_only
            && !numbers.iter().any(|number| covers(&unpacked.view.layers()[*number]))
        {
            return Ok(Mount::Bind { source: source.clone(), target: target.path, read_only: true });
        }
        self.overlay(machine, work, lowers, item, target).await
    }

    /// Directories over each other, and one for what is written, with the attributes that they have together.
    async fn overlay(
        &self,
        machine: &Arc<Machine>,
        work: &Arc<Work>,
        lowers: Vec<PathBuf>,
        item: &Item,
        target: Target,
    ) -> Result<Mount> {
        let Item { mode, owner: Owner { uid, gid }, .. } = *item;
        let (own, machine, cancel) = (Arc::clone(work), Arc::clone(machine), self.job.cancel.clone());
        blocking(move || {
            let (upper, work) = (own.fresh("upper"), own.directory("work")?);
            machine.make_directory(upper.clone(), mode, (uid, gid), &cancel)?;
            Ok(Mount::Overlay { lowers, upper, work, target: target.path, read_only: target.read_only })
        })
        .await
    }

    /// Where a file of layers is on this machine.
    async fn file_in_layers(&self, machine: &Arc<Machine>, bound: &Bound, item: &Item) -> Result<PathBuf> {
        let unpacked = self.unpacked(machine, &bound.trees.layers, 0).await?;
        let found = unpacked.view.find(&item.path);
        let tree = found.as_ref().and_then(|found| unpacked.trees[found.layer].as_ref());
        let tree = tree.ok_or_else(|| Error::internal("a file that is in no layer"))?;
        Ok(tree.join(relative(&item.path)))
    }

    /// A tree with what is mounted in it, and nothing else, under a name of its own.
    async fn tree_of(&self, machine: &Arc<Machine>, bound: &Bound) -> Result<Tree> {
        let once = Key::new("mounted").digest(&bound.digest).text(&machine.form.key()).finish();
        let make = async {
            let entries = self.take_out(bound.selection.entries(NAME), &bound.trees.layers).await?;
            let (own, machine) = (self.store.clone(), Arc::clone(machine));
            let cancel = self.job.cancel.clone();
            blocking(move || {
                let make = Making { store: &own, machine: &machine, cancel: &cancel };
                make.tree(entries)
            })
            .await
        };
        self.runs.trees.get(&once, make).await
    }

    /// Where a directory is whose content is what is mounted.
    pub(super) async fn directory_of(&self, machine: &Arc<Machine>, bound: &Bound) -> Result<PathBuf> {
        Ok(self.tree_of(machine, bound).await?.path().join(NAME))
    }
}

/// Makes a tree of entries: they go through a layer, so that everything is in it as in an image.
struct Making<'a> {
    store: &'a crate::store::Store,
    machine: &'a Machine,
    cancel: &'a crate::cancel::Cancel,
}

impl Making<'_> {
    fn tree(&self, entries: Vec<LayerEntry>) -> Result<Tree> {
        let place = self.store.path();
        let failed = |source| Error::Store { path: place.to_owned(), action: "write what is mounted".into(), source };
        let mut file = tempfile::tempfile_in(place).map_err(failed)?;
        let options = LayerOptions { compression: Compression::None, ..LayerOptions::default() };
        let written = write(entries.into_iter(), &options, None, &mut file, &|_| {}, self.cancel)?;
        let key = TreeKey { diff_id: written.diff_id, form: self.machine.form.key(), variant: None };
        let new = match self.store.tree_or_new(&key, self.cancel)? {
            TreeState::Ready(tree) => return Ok(tree),
            TreeState::Missing(new) => new,
        };
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let layer = Packed { blob: file, compression: Compression::None, diff_id: &written.diff_id, indexed: false };
        let unpacked = unpack(layer, &self.machine.form, &new.path(), Limits::default(), self.cancel)?;
        self.machine.own(new.path(), &unpacked.fixes, self.cancel)?;
        new.finish()
    }
}

/// Whether a layer removes anything of lower ones: its tree is then more than what one sees of it.
fn covers(index: &LayerIndex) -> bool {
    index.iter().any(|(_, entry)| matches!(entry, IndexEntry::Whiteout | IndexEntry::Opaque))
}

/// A path of a view on this machine.
pub(super) fn relative(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path))
}
