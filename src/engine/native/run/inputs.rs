//! What a command sees besides its root: what its bind mounts show, found before it is known whether it has to run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::copy::Selection;
use super::super::key::Key;
use super::super::stage::{Builder, image_key};
use super::super::trees::Trees;
use crate::digest::Digest;
use crate::dockerfile::instruction::{Mount, MountKind};
use crate::dockerfile::paths;
use crate::dockerfile::step::{RunMount, RunStep};
use crate::dockerfile::{Origin, Step};
use crate::engine::blocking;
use crate::error::Result;

/// What one bind mount shows, or what a cache begins with.
#[derive(Clone)]
pub(super) struct Bound {
    /// Where it comes from.
    pub(super) trees: Arc<Trees>,
    /// What it is.
    pub(super) selection: Selection,
    /// Over all of it.
    pub(super) digest: Digest,
}

/// What the mounts of a command show, by their numbers.
pub(super) type Inputs = BTreeMap<usize, Bound>;

/// Whether a mount shows something that can be looked at before.
pub(super) fn is_bound(mount: &RunMount) -> bool {
    match mount.mount.kind {
        MountKind::Bind => true,
        // Without a source of its own it begins empty.
        MountKind::Cache => mount.origin.as_ref().is_some_and(|origin| *origin != Origin::Scratch),
        MountKind::Tmpfs | MountKind::Secret | MountKind::Ssh => false,
    }
}

/// The path in its source that a mount shows. A cache begins with all of it, and shows the path.
pub(super) fn source(mount: &Mount) -> String {
    match mount.kind {
        MountKind::Cache => "/".to_owned(),
        _ => paths::join("/", mount.source.as_deref().unwrap_or_default()),
    }
}

impl Builder<'_> {
    /// What the mounts of a command show.
    pub(super) async fn inputs(&self, step: &Step, run: &RunStep) -> Result<Inputs> {
        let mut inputs = Inputs::new();
        for (number, mount) in run.mounts.iter().enumerate().filter(|(_, mount)| is_bound(mount)) {
            inputs.insert(number, self.bound(step, mount).await?);
        }
        Ok(inputs)
    }

    async fn bound(&self, step: &Step, mount: &RunMount) -> Result<Bound> {
        let shared = self.around.shared;
        let trees = Arc::new(Trees::of_origin(self, step, mount.origin.as_ref()).await?);
        let (of, path, hashes, cancel) =
            (Arc::clone(&trees), source(&mount.mount), shared.hashes.clone(), shared.job.cancel.clone());
        let found = blocking(move || {
            Ok(of.at(&path, &cancel).and_then(|mut selection| {
                let digest = selection.digest(hashes.as_ref(), &cancel)?;
                Ok((selection, digest))
            }))
        })
        .await?;
        let (selection, digest) = found.map_err(|failure| failure.at(|near| self.place_of(step, near)))?;
        Ok(Bound { trees, selection, digest })
    }

    /// What mounts from stages and images show, as far as that is known without looking; `None` if no mount is of these.
    pub(super) fn origins(&self, run: &RunStep) -> Option<BTreeMap<usize, Digest>> {
        let mut origins = BTreeMap::new();
        for (number, mount) in run.mounts.iter().enumerate().filter(|(_, mount)| is_bound(mount)) {
            let origin = match mount.origin.as_ref()? {
                Origin::Stage(id) => self.around.stages[id].key,
                origin => image_key(&self.around.images.get(origin)?.layers),
            };
            origins.insert(number, Key::new("origin of a mount").digest(&origin).text(&source(&mount.mount)).finish());
        }
        Some(origins).filter(|origins| !origins.is_empty())
    }
}
