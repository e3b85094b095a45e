//! The cache: what a step made the last time, by a key over everything that it depends on. Records are in the store of this
//! machine, and in registries.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::layer::{Layer, Source};
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::oci::media::{Compression, Family};
use crate::oci::{Descriptor, Document, Manifest};
use crate::reference::Reference;
use crate::registry::client::Client;
use crate::rootfs::LayerIndex;
use crate::store::Store;

/// The kind of the records in the store.
const STEP: &str = "step";
/// The configuration of a cache in a registry.
pub(super) const CACHE_CONFIG: &str = "application/vnd.zenml-cooper.cache.v1+json";
/// What is in a layer, as a blob.
pub(super) const CACHE_INDEX: &str = "application/vnd.zenml-cooper.layer-index.v1";
/// More than this is no cache of ours: a record takes about 400 bytes.
const MAX_CONFIG: u64 = 32 << 20;
/// The index of a base with a million files takes about 40 MB.
const MAX_INDEX: u64 = 256 << 20;

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// When the layer was made, in seconds since 1970.
    pub(super) created: u64,
    /// The instruction, for people.
    pub(super) instruction: String,
    /// What steps on top of it depend on: its own key, even where it is found under another one.
    pub(super) key: Digest,
    /// Its digest, as it is compressed.
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
    /// `gzip`, `zstd` or `none`.
    pub(super) compression: String,
    /// The digest of its tar archive.
    pub(super) diff_id: Digest,
}

/// What a registry keeps for others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// By the key of the step.
    pub(super) records: BTreeMap<String, Record>,
    /// What is in layers, by diff id.
    #[serde(default)]
    pub(super) indexes: BTreeMap<String, Descriptor>,
    /// What commands keep in cache mounts, by what these are known by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) mounts: BTreeMap<String, KeptMount>,
}

/// What a registry keeps of a cache mount: a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptMount {
    /// What it is called, for people.
    pub(super) name: String,
    /// The digest of the layer, as it is compressed.
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
    /// `gzip`, `zstd` or `none`.
    pub(super) compression: String,
    /// The digest of its tar archive.
    pub(super) diff_id: Digest,
}

impl KeptMount {
    pub(super) fn new(layer: &Layer, name: &str) -> Self {
        let Record { digest, size, compression, diff_id, .. } = Record::new(layer, layer.diff_id, 0, "");
        Self { name: name.to_owned(), digest, size, compression, diff_id }
    }

    /// Its descriptor in the manifest of a cache.
    pub(super) fn descriptor(&self) -> Descriptor {
        Record::layer_of(&self.digest, self.size, &self.compression, self.diff_id).descriptor
    }
}

/// A cache that was read from a registry.
struct Imported {
    repository: Reference,
    contents: Contents,
}

/// Where to look.
pub(super) struct Cache {
    store: Store,
    imported: Vec<Imported>,
    /// What this build used or made, for those who export it.
    seen: Mutex<BTreeMap<Digest, Record>>,
}

impl Record {
    pub(super) fn new(layer: &Layer, key: Digest, created: u64, instruction: &str) -> Self {
        let compression = match layer.compression() {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        Self {
            created,
            instruction: instruction.to_owned(),
            key,
            digest: layer.descriptor.digest,
            size: layer.descriptor.size,
            compression: compression.to_owned(),
            diff_id: layer.diff_id,
        }
    }

    pub(super) fn layer(&self, sources: Vec<Source>) -> Layer {
        Layer { sources, ..Self::layer_of(&self.digest, self.size, &self.compression, self.diff_id) }
    }

    /// A layer by what is known of it.
    pub(super) fn layer_of(digest: &Digest, size: u64, compression: &str, diff_id: Digest) -> Layer {
        let compression = match compression {
            "none" => Compression::None,
            "zstd" => Compression::Zstd,
            _ => Compression::Gzip,
        };
        let descriptor = Descriptor::new(Family::Oci.layer(compression), *digest, size);
        Layer { descriptor, diff_id, sources: Vec::new() }
    }
}

impl Cache {
    /// The cache of this machine, and those of some registries. One that cannot be read is told of, and not used.
    pub(super) async fn open(store: &Store, client: &Client, from: &[Reference], events: &Events) -> Result<Self> {
        let mut imported = Vec::new();
        let reads = from.iter().map(|reference| async move { (reference, import(client, reference).await) });
        for (reference, read) in futures_util::future::join_all(reads).await {
            match read {
                Ok(Some(contents)) => imported.push(Imported { repository: reference.clone(), contents }),
                Ok(None) => {
                    events.send(Event::Notice { message: format!("there is no cache at {reference} yet") }).await;
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => {
                    let message = format!("the cache at {reference} is not used: {error}");
                    events.send(Event::Warning { code: error.code().into(), message }).await;
                }
            }
        }
        Ok(Self { store: store.clone(), imported, seen: Mutex::default() })
    }

    /// What a step made the last time, if its layer can still be had.
    pub(super) async fn find(&self, client: &Client, key: &Digest) -> Result<Option<(Record, Layer)>> {
        if let Some(found) = self.find_here(key).await? {
            self.note(key, &found.0);
            return Ok(Some(found));
        }
        for cache in &self.imported {
            let Some(record) = cache.contents.records.get(&key.to_string()) else { continue };
            // Registries forget blobs; then the step has to be done again.
            if client.has_blob(&cache.repository, &record.digest).await? {
                self.note(key, record);
                return Ok(Some((record.clone(), record.layer(vec![Source::Registry(cache.repository.clone())]))));
            }
        }
        Ok(None)
    }

    async fn find_here(&self, key: &Digest) -> Result<Option<(Record, Layer)>> {
        let (store, key) = (self.store.clone(), *key);
        blocking(move || {
            let Some(bytes) = store.record(STEP, &key)? else { return Ok(None) };
            // A record of another version is as good as none.
            let Ok(record) = serde_json::from_slice::<Record>(&bytes) else { return Ok(None) };
            let found = store.blob(&record.digest)?.filter(|blob| blob.size() == record.size);
            Ok(found.map(|_| (record.clone(), record.layer(Vec::new()))))
        })
        .await
    }

    /// Keeps what a step made.
    pub(super) async fn keep(&self, key: Digest, record: Record) -> Result<()> {
        self.note(&key, &record);
        let store = self.store.clone();
        blocking(move || {
            let bytes = serde_json::to_vec(&record).map_err(|error| Error::internal(error.to_string()))?;
            store.put_record(STEP, &key, &bytes)
        })
        .await
    }

    /// Keeps what is kept under one key under another as well.
    pub(super) async fn alias(&self, alias: Digest, key: Digest) -> Result<()> {
        let record = self.seen().remove(&key);
        match record {
            Some(record) => self.keep(alias, record).await,
            None => Ok(()),
        }
    }

    fn note(&self, key: &Digest, record: &Record) {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(*key, record.clone());
    }

    /// What this build used or made.
    pub(super) fn seen(&self) -> BTreeMap<Digest, Record> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// What a registry has of a cache mount, and where.
    pub(super) fn mount(&self, id: &Digest) -> Option<(KeptMount, Reference)> {
        let found =
            |cache: &Imported| Some((cache.contents.mounts.get(&id.to_string())?.clone(), cache.repository.clone()));
        self.imported.iter().find_map(found)
    }

    /// What a registry knows of a layer; nothing where it cannot be had.
    pub(super) async fn index(&self, client: &Client, diff_id: &Digest) -> Option<LayerIndex> {
        for cache in &self.imported {
            let Some(descriptor) = cache.contents.indexes.get(&diff_id.to_string()) else { continue };
            let bytes = client.blob_bytes(&cache.repository, descriptor, MAX_INDEX).await;
            if let Some(index) = bytes.ok().and_then(|bytes| LayerIndex::from_bytes(&bytes).ok()) {
                return Some(index);
            }
        }
        None
    }
}

/// Reads a cache. `None` where there is none.
pub(super) async fn import(client: &Client, reference: &Reference) -> Result<Option<Contents>> {
    let invalid = |reason: &str| Error::ImageInvalid { what: "cache".into(), reason: reason.to_owned() };
    let Some(fetched) = client.manifest(reference).await? else { return Ok(None) };
    let Document::Manifest(manifest) = Document::parse(&fetched.descriptor.media_type, &fetched.bytes)? else {
        return Err(invalid("it is an index of images"));
    };
    let Manifest { config, .. } = *manifest;
    if config.media_type != CACHE_CONFIG {
        return Err(invalid("it is an image, or the cache of another builder"));
    }
    let bytes = client.blob_bytes(reference, &config, MAX_CONFIG).await?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| invalid(&error.to_string()))
}
