//! The root of a command.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::layer::Layer;
use super::super::stage::Builder;
use super::machine::Machine;
use super::work::{Seen, Work};
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::Result;
use crate::event::Event;
use crate::rootfs::View;
use crate::sandbox::{Level, Root, ScanContents, Task};

/// A root that a command can be run on, once.
#[derive(Clone)]
pub(super) struct Stand {
    pub(super) machine: Arc<Machine>,
    /// Where everything is that belongs to it.
    pub(super) work: Arc<Work>,
    /// The root.
    pub(super) root: Root,
    /// What was in it before, if it is a copy.
    pub(super) before: Option<Arc<Seen>>,
    /// The layers that it consists of.
    pub(super) view: View,
}

/// A root that is a copy, as the last command of a stage left it.
pub(in super::super) struct Copied {
    work: Arc<Work>,
    directory: PathBuf,
    /// The layers that are in it.
    layers: Vec<Digest>,
}

impl Stand {
    /// Where the changes of the command are.
    pub(super) fn tree(&self) -> PathBuf {
        match &self.root {
            Root::Overlay { upper, .. } => upper.clone(),
            Root::Directory(directory) => directory.clone(),
        }
    }

    /// Whether the changes are by themselves.
    pub(super) const fn is_overlay(&self) -> bool {
        matches!(self.root, Root::Overlay { .. })
    }

    /// The copy, with one more layer in it.
    pub(super) fn copied(&self, layers: &[Layer], new: &Layer) -> Option<Copied> {
        let Root::Directory(directory) = &self.root else { return None };
        let layers = layers.iter().chain([new]).map(|layer| layer.diff_id).collect();
        Some(Copied { work: Arc::clone(&self.work), directory: directory.clone(), layers })
    }
}

impl Builder<'_> {
    /// The root of this stage's next command.
    pub(super) async fn stand(&mut self, machine: &Arc<Machine>) -> Result<Stand> {
        match &machine.no_overlay {
            None if machine.level != Level::Chroot => self.overlay_stand(machine).await,
            problem => {
                let reason = problem.as_ref().map_or_else(|| "it cannot be mounted".to_owned(), ToString::to_string);
                self.tell_copies(&reason).await;
                self.copied_stand(machine).await
            }
        }
    }

    async fn tell_copies(&self, reason: &str) {
        let shared = self.around.shared;
        if !shared.runs.told_copies.swap(true, Ordering::Relaxed) {
            let message = format!("overlayfs does not work here, so the files of each stage are copied: {reason}");
            shared.job.events.send(Event::Notice { message }).await;
        }
    }

    async fn overlay_stand(&self, machine: &Arc<Machine>) -> Result<Stand> {
        let shared = self.around.shared;
        let unpacked = shared.unpacked(machine, &self.stage.layers, 0).await?;
        let (store, machine) = (shared.store.clone(), Arc::clone(machine));
        blocking(move || {
            let work = Arc::new(Work::new(&store, &machine)?);
            let mut lowers: Vec<PathBuf> = unpacked.trees.into_iter().flatten().rev().collect();
            if lowers.is_empty() {
                lowers.push(work.directory("nothing")?);
            }
            let root = Root::Overlay { lowers, upper: work.directory("upper")?, work: work.directory("work")? };
            Ok(Stand { machine, work, root, before: None, view: unpacked.view })
        })
        .await
    }

    /// A copy: that of the last command, with what was put on top since, or a new one.
    async fn copied_stand(&mut self, machine: &Arc<Machine>) -> Result<Stand> {
        let shared = self.around.shared;
        let ids: Vec<Digest> = self.stage.layers.iter().map(|layer| layer.diff_id).collect();
        let last = self.copied.take().filter(|copied| ids.starts_with(&copied.layers));
        let from = last.as_ref().map_or(0, |copied| copied.layers.len());
        let unpacked = shared.unpacked(machine, &self.stage.layers, from).await?;
        let (store, machine, cancel) = (shared.store.clone(), Arc::clone(machine), shared.job.cancel.clone());
        blocking(move || {
            let (work, directory) = if let Some(Copied { work, directory, .. }) = last {
                (work, directory)
            } else {
                let work = Arc::new(Work::new(&store, &machine)?);
                let directory = work.directory("root")?;
                (work, directory)
            };
            let layers: Vec<PathBuf> = unpacked.trees.into_iter().flatten().collect();
            if !layers.is_empty() {
                machine.task(&Task::Copy { layers, to: directory.clone() }, &cancel)?;
            }
            let before = work.list(&machine, &directory, ScanContents::Nothing, &cancel)?;
            let root = Root::Directory(directory);
            Ok(Stand { machine, work, root, before: Some(Arc::new(before)), view: unpacked.view })
        })
        .await
    }
}
