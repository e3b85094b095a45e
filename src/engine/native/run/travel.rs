//! What commands keep in cache mounts, in a registry cache (`cache-to ...,mounts=true`): a layer for each, which a build on
//! another machine begins with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use super::super::cache::{KeptMount, Record};
use super::super::layer::{Layer, Source};
use super::super::shared::Shared;
use super::machine::Machine;
use super::work::Work;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::layer::changes::{Changes, Left, Owners, changes};
use crate::layer::{LayerOptions, write};
use crate::oci::Descriptor;
use crate::oci::media::{Compression, Family};
use crate::rootfs::{Fix, Fixes, Limits, Packed, TreeFiles, View, unpack};
use crate::sandbox::ScanContents;
use crate::store::{CacheKey, NewCache, Store};

/// A cache that this build used, and the layer that it is now.
pub(in super::super) struct Travelling {
    /// What it is known by, whatever the machine.
    pub(in super::super) id: Digest,
    /// What the registry keeps of it.
    pub(in super::super) kept: KeptMount,
    /// The layer.
    pub(in super::super) layer: Layer,
}

impl Shared {
    /// Notes that a cache is used.
    pub(super) fn note_cache(&self, id: Digest, name: &str) {
        let mut used = self.runs.caches.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(id, name.to_owned());
    }

    /// The caches that this build used, as layers in the store.
    pub(in super::super) async fn travelling(&self) -> Result<Vec<Travelling>> {
        let used: BTreeMap<Digest, String> = self.runs.caches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if used.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(machine) = self.machine().await? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for (id, name) in used {
            let (store, machine, cancel) = (self.store.clone(), Arc::clone(machine), self.job.cancel.clone());
            let packed = blocking(move || {
                let key = CacheKey { id, form: machine.form.key() };
                pack(&store, &machine, &key, &cancel)
            });
            if let Some(layer) = packed.await? {
                all.push(Travelling { id, kept: KeptMount::new(&layer, &name), layer });
            } else {
                let message = format!("the cache mount `{name}` is in use and was not exported");
                self.job.events.send(Event::Notice { message }).await;
            }
        }
        Ok(all)
    }

    /// A cache that a registry has, if there is one: its bytes are opened.
    pub(super) async fn travelled(&self, id: &Digest) -> Option<(Layer, Box<dyn std::io::Read + Send>)> {
        let (kept, repository) = self.cache.mount(id)?;
        let layer = Record::layer_of(&kept.digest, kept.size, &kept.compression, kept.diff_id);
        let layer = Layer { sources: vec![Source::Registry(repository)], ..layer };
        // Without it, the command fills it again.
        let reader = self.open(&layer).await.ok()?;
        Some((layer, reader))
    }
}

/// What is in a cache, as a layer in the store; `None` if somebody uses it just now.
fn pack(store: &Store, machine: &Arc<Machine>, key: &CacheKey, cancel: &Cancel) -> Result<Option<Layer>> {
    let Some(directory) = store.kept_cache(key)? else { return Ok(None) };
    let (work, tree) = (Work::new(store, machine)?, directory.path());
    let seen = work.list(machine, &tree, ScanContents::All, cancel)?;
    let (view, owners) = (View::default(), owners(machine));
    let files = Arc::new(TreeFiles::open(&tree)?);
    let left =
        Left { listing: &seen.listing, before: None, files, spool: seen.spool.clone(), view: &view, owners: &owners };
    let Changes { entries, .. } = changes(&left, cancel)?;
    let options = LayerOptions { compression: Compression::Zstd, ..LayerOptions::default() };
    let mut out = store.writer()?;
    let written = write(entries.into_iter(), &options, None, &mut out, &|_| {}, cancel)?;
    out.finish(Some((&written.digest, written.size)))?;
    let descriptor = Descriptor::new(Family::Oci.layer(Compression::Zstd), written.digest, written.size);
    Ok(Some(Layer { descriptor, diff_id: written.diff_id, sources: Vec::new() }))
}

fn owners(machine: &Machine) -> Owners {
    if machine.level == crate::sandbox::Level::Single {
        return Owners::Emulated { command: (0, 0), inodes: std::collections::HashMap::new() };
    }
    Owners::Real
}

/// Fills a new cache with what travelled. Its own attributes are those that the mount wants. Blocks.
pub(super) fn fill(
    machine: &Machine,
    new: &NewCache<'_>,
    (layer, reader): (Layer, Box<dyn std::io::Read + Send>),
    (mode, owner): (u32, (u32, u32)),
    cancel: &Cancel,
) -> Result<()> {
    let place = new.path();
    let failed = |source| Error::Store { path: place.clone(), action: "make a cache".into(), source };
    std::fs::create_dir(&place).map_err(failed)?;
    let packed = Packed { blob: reader, compression: layer.compression(), diff_id: &layer.diff_id, indexed: false };
    let unpacked = unpack(packed, &machine.form, &place, Limits::default(), cancel)?;
    machine.own(place.clone(), &unpacked.fixes, cancel)?;
    let (Some(above), Some(name)) = (place.parent(), place.file_name()) else { return Ok(()) };
    let path = name.as_encoded_bytes().to_vec();
    let fix = Fix { path, owner: Some(owner), mode: Some(mode), capability: None };
    machine.own(Path::new(above).to_owned(), &Fixes(vec![fix]), cancel).map(drop)
}
