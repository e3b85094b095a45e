//! Results of steps in a registry, for colleagues: a manifest whose configuration is a list of records, and whose layers are
//! what the steps made, what is known of bases, and, if that is wanted, what commands keep in cache mounts. Every registry keeps
//! it, and collects no layer of it as garbage.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::cache::{CACHE_CONFIG, CACHE_INDEX, Contents, KeptMount, Record, import};
use super::layer::Layer;
use super::plan::Built;
use super::product::Product;
use super::push::{push_bytes, push_layer};
use super::shared::Shared;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::oci::media::Family;
use crate::oci::{Descriptor, Manifest};
use crate::reference::Reference;
use crate::request::{BuildOptions, CacheMode, CacheSpec, RegistryCache};

/// The newest records that a cache keeps. A build of a ZenML pipeline has five or so.
const MOST_RECORDS: usize = 500;
/// Manifests of more layers are refused by some registries.
const MOST_LAYERS: usize = 1000;

/// The attribute of a cache that says whether cache mounts go there.
pub(super) const MOUNTS: &str = "mounts";

/// The caches that are read.
pub(super) fn sources(options: &BuildOptions) -> Vec<Reference> {
    options.cache_from.iter().filter_map(CacheSpec::registry).map(|cache| cache.reference).collect()
}

/// Writes what this build used or made where the request says.
pub(super) async fn export(shared: &Shared, built: &Built, product: &Product) -> Result<()> {
    for cache in shared.request.options.cache_to.iter().filter_map(CacheSpec::registry) {
        match export_to(shared, built, product, &cache).await {
            Ok(()) => {}
            Err(error) if cache.ignore_error && !matches!(error, Error::Interrupted) => {
                let message = format!("the cache was not written to {}: {error}", cache.reference);
                shared.job.events.send(Event::Warning { code: error.code().into(), message }).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn export_to(shared: &Shared, built: &Built, product: &Product, cache: &RegistryCache) -> Result<()> {
    let to = &cache.reference;
    let before = match import(&shared.client, to).await {
        Ok(before) => before.unwrap_or_default(),
        // What is there is no cache; it is replaced, as a tag is.
        Err(Error::ImageInvalid { .. }) => Contents::default(),
        Err(error) => return Err(error),
    };
    let layers = all_layers(built);
    let kept: BTreeSet<Digest> = match cache.mode.unwrap_or(CacheMode::Min) {
        CacheMode::Min => product.layers.iter().map(|layer| layer.diff_id).collect(),
        CacheMode::Max => layers.values().map(|layer| layer.diff_id).collect(),
    };
    let new = shared.cache.seen().into_iter().filter(|(_, record)| kept.contains(&record.diff_id));
    let mut contents = before.clone();
    contents.records.extend(new.map(|(key, record)| (key.to_string(), record)));
    forget_old(&mut contents.records);
    let indexes = indexes(shared, &layers, &kept, &mut contents).await?;
    let mounts = if takes_mounts(cache) { shared.travelling().await? } else { Vec::new() };
    contents.mounts.extend(mounts.iter().map(|mount| (mount.id.to_string(), mount.kept.clone())));
    if contents == before {
        return Ok(());
    }
    for record in contents.records.values() {
        if let Some(layer) = layers.get(&record.digest) {
            push_layer(shared, layer, to).await?;
        }
    }
    for mount in &mounts {
        push_layer(shared, &mount.layer, to).await?;
    }
    for (descriptor, bytes) in indexes {
        push_bytes(shared, &descriptor, bytes, to).await?;
    }
    write(shared, &contents, to).await
}

/// Whether what commands keep in cache mounts goes there too.
fn takes_mounts(cache: &RegistryCache) -> bool {
    cache.attributes.get(MOUNTS).is_some_and(|value| value == "true")
}

/// The layers of all stages, by their digests.
fn all_layers(built: &Built) -> HashMap<Digest, Layer> {
    let layers = built.stages.values().flat_map(|stage| &stage.layers);
    layers.map(|layer| (layer.descriptor.digest, layer.clone())).collect()
}

fn forget_old(records: &mut BTreeMap<String, Record>) {
    while records.len() > MOST_RECORDS {
        let oldest = records.iter().min_by_key(|(_, record)| record.created).map(|(key, _)| key.clone());
        oldest.and_then(|key| records.remove(&key));
    }
}

/// Adds what is known of layers: bases among them, so that nobody else has to read them.
async fn indexes(
    shared: &Shared,
    layers: &HashMap<Digest, Layer>,
    kept: &BTreeSet<Digest>,
    contents: &mut Contents,
) -> Result<Vec<(Descriptor, Bytes)>> {
    let mut new = Vec::new();
    for diff_id in kept {
        if contents.indexes.contains_key(&diff_id.to_string()) {
            continue;
        }
        let Some(bytes) = shared.index_bytes(*diff_id).await? else { continue };
        let descriptor = Descriptor::of(CACHE_INDEX, &bytes);
        contents.indexes.insert(diff_id.to_string(), descriptor.clone());
        new.push((descriptor, Bytes::from(bytes)));
    }
    // Of layers that nothing names any more, nothing is kept.
    let named: BTreeSet<String> = contents.records.values().map(|record| record.diff_id.to_string()).collect();
    let here: BTreeSet<String> = layers.values().map(|layer| layer.diff_id.to_string()).collect();
    let room = MOST_LAYERS.saturating_sub(contents.records.len());
    let spare: Vec<String> =
        contents.indexes.keys().filter(|id| !named.contains(*id) && !here.contains(*id)).cloned().collect();
    for id in spare.iter().take(contents.indexes.len().saturating_sub(room)) {
        contents.indexes.remove(id);
    }
    Ok(new)
}

async fn write(shared: &Shared, contents: &Contents, to: &Reference) -> Result<()> {
    let bytes = serde_json::to_vec(contents).map_err(|error| Error::internal(error.to_string()))?;
    let config = Descriptor::of(CACHE_CONFIG, &bytes);
    push_bytes(shared, &config, Bytes::from(bytes), to).await?;
    let layers: BTreeMap<Digest, Descriptor> = contents
        .records
        .values()
        .map(|record| record.layer(Vec::new()).descriptor)
        .chain(contents.indexes.values().cloned())
        .chain(contents.mounts.values().map(KeptMount::descriptor))
        .map(|descriptor| (descriptor.digest, descriptor))
        .collect();
    let manifest = Manifest::new(Family::Oci, config, layers.into_values().collect());
    let bytes = Bytes::from(manifest.to_bytes());
    shared.client.push_manifest(to, &manifest.media_type, bytes).await?;
    shared.job.events.send(Event::Notice { message: format!("the cache was written to {to}") }).await;
    Ok(())
}
