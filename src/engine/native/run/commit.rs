//! What a command changed becomes a layer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::layer::Layer;
use super::super::progress::Running;
use super::super::stage::Builder;
use super::adopt::{self, Times, adopt};
use super::machine::Machine;
use super::roots::left_key;
use super::stand::Stand;
use super::work::Seen;
use crate::dockerfile::Step;
use crate::engine::blocking;
use crate::error::Result;
use crate::layer::LayerEntry;
use crate::layer::changes::{Changes, Left, Owners, changes};
use crate::rootfs::{ExecUser, TreeFiles};
use crate::sandbox::{Finished, InodeOwner, Level, ScanContents};

/// What was found in a root after a command.
struct Found {
    seen: Seen,
    entries: Vec<LayerEntry>,
    left_out: Vec<String>,
}

/// Whose the things are that a command left.
fn owners(machine: &Machine, user: &ExecUser, finished: &Finished) -> Owners {
    if machine.level != Level::Single {
        return Owners::Real;
    }
    let inodes: HashMap<u64, (u32, u32)> =
        finished.owners.iter().map(|InodeOwner { inode, uid, gid, .. }| (*inode, (*uid, *gid))).collect();
    Owners::Emulated { command: (user.uid, user.gid), inodes }
}

impl Builder<'_> {
    /// The layer of what a command changed.
    pub(super) async fn commit(&self, step: &Step, stand: &Stand, owners: Owners, running: &Running) -> Result<Layer> {
        let shared = self.around.shared;
        let Found { seen, entries, left_out } = self.found(stand, owners).await?;
        for line in left_out {
            running.say(&format!("left out of the layer: {line}")).await;
        }
        let times = adopt::times(&entries, self.clamp());
        let layer = shared.write_layer(entries, &step.text, running).await?;
        if stand.is_overlay() && !times.is_empty() {
            self.adopt(stand, seen, times, &layer).await?;
        }
        Ok(layer)
    }

    async fn found(&self, stand: &Stand, owners: Owners) -> Result<Found> {
        let (stand, cancel) = (stand.clone(), self.around.shared.job.cancel.clone());
        blocking(move || {
            let tree = stand.tree();
            let contents = match &stand.before {
                Some(before) => ScanContents::Since(before.place.clone()),
                None => ScanContents::All,
            };
            let seen = stand.work.list(&stand.machine, &tree, contents, &cancel)?;
            let left = Left {
                listing: &seen.listing,
                before: stand.before.as_ref().map(|before| &before.listing),
                files: Arc::new(TreeFiles::open(&tree)?),
                spool: seen.spool.clone(),
                view: &stand.view,
                owners: &owners,
            };
            let Changes { entries, left_out } = changes(&left, &cancel)?;
            Ok(Found { seen, entries, left_out })
        })
        .await
    }

    /// Keeps what the command left as the tree of its layer, for commands that follow.
    async fn adopt(&self, stand: &Stand, seen: Seen, times: Times, layer: &Layer) -> Result<()> {
        let shared = self.around.shared;
        let key = left_key(&stand.machine, &self.stage.layers, layer.diff_id);
        let (stand, store, cancel) = (stand.clone(), shared.store.clone(), shared.job.cancel.clone());
        blocking(move || {
            let upper: PathBuf = stand.tree();
            let left = adopt::Left { upper: &upper, listing: &seen.listing, times: &times, view: &stand.view };
            adopt(&left, &store, &key, &cancel).map(drop)
        })
        .await
    }

    /// What says whose things are.
    pub(super) fn owners(machine: &Machine, user: &ExecUser, finished: &Finished) -> Owners {
        owners(machine, user, finished)
    }
}
