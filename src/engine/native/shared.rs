//! What all parts of one build share: the store, the registries, the context, and what was found out so far.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_util::io::SyncIoBridge;

use super::cache::Cache;
use super::layer::{Layer, Source};
use super::run::Runs;
use crate::context::Index;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::engine::opened::Opened;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::registry::client::Client;
use crate::request::{BuildRequest, Job};
use crate::rootfs::{LayerIndex, View, decompress};
use crate::sandbox::Sandboxes;
use crate::store::{Blob, BlobWriter, Lease, Store};

/// The kind of the records that say what is in a layer, by its diff id.
const INDEX: &str = "layer-index";

/// One build.
pub(super) struct Shared {
    pub(super) request: BuildRequest,
    pub(super) job: Job,
    pub(super) environment: Arc<Environment>,
    pub(super) store: Store,
    /// Nothing of this build is pruned before it ends.
    _lease: Lease,
    pub(super) client: Client,
    pub(super) opened: Opened,
    /// The hashes of the context's files.
    pub(super) hashes: Option<Index>,
    pub(super) cache: Cache,
    /// What its commands share.
    pub(super) runs: Runs,
    blobs: Once<Blob>,
    indexes: Once<Arc<LayerIndex>>,
}

/// Things that are made once, however many ask for them at the same time.
pub(super) struct Once<T>(Mutex<HashMap<Digest, Arc<OnceCell<T>>>>);

impl<T: Clone> Once<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// What was made for a key, or is made now.
    pub(super) async fn get(&self, key: &Digest, make: impl Future<Output = Result<T>>) -> Result<T> {
        let cell = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(*key).or_default());
        cell.get_or_try_init(|| make).await.cloned()
    }
}

impl Shared {
    pub(super) fn new(
        request: &BuildRequest,
        job: &Job,
        environment: &Arc<Environment>,
        store: Store,
        client: Client,
        opened: Opened,
        cache: Cache,
    ) -> Result<Self> {
        let store = match &request.engine.helper {
            Some(helper) => store.with_remover(Arc::new(Sandboxes::new(helper.clone()))),
            None => store,
        };
        Ok(Self {
            request: request.clone(),
            job: job.clone(),
            environment: Arc::clone(environment),
            _lease: store.lease()?,
            store,
            client,
            opened,
            hashes: Index::of_user(environment),
            cache,
            runs: Runs::new(),
            blobs: Once::new(),
            indexes: Once::new(),
        })
    }

    /// A layer in the store, fetched if it is not there yet.
    pub(super) async fn blob(&self, layer: &Layer) -> Result<Blob> {
        let make = async {
            match self.stored(layer.descriptor.digest).await? {
                Some(blob) => Ok(blob),
                None => self.fetch(layer).await,
            }
        };
        self.blobs.get(&layer.descriptor.digest, make).await
    }

    /// What the store has under a digest.
    pub(super) async fn stored(&self, digest: Digest) -> Result<Option<Blob>> {
        let store = self.store.clone();
        blocking(move || store.blob(&digest)).await
    }

    /// Puts a layer into the store.
    async fn fetch(&self, layer: &Layer) -> Result<Blob> {
        let (store, expected) = (self.store.clone(), layer.descriptor.clone());
        let cancel = self.job.cancel.clone();
        let reader = self.open(layer).await?;
        blocking(move || {
            let mut writer = store.writer()?;
            copy(reader, &mut writer, &cancel)?;
            writer.finish(Some((&expected.digest, expected.size)))
        })
        .await
    }

    /// The compressed bytes of a layer, from the first place that has it.
    pub(super) async fn open(&self, layer: &Layer) -> Result<Box<dyn std::io::Read + Send>> {
        let mut failed = None;
        for source in &layer.sources {
            match self.open_at(source, &layer.descriptor).await {
                Ok(reader) => return Ok(reader),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| Error::StoreDamaged {
            path: self.store.path().to_owned(),
            reason: format!("the layer {} is gone", layer.descriptor.digest),
        }))
    }

    async fn open_at(&self, source: &Source, descriptor: &Descriptor) -> Result<Box<dyn std::io::Read + Send>> {
        match source {
            Source::Registry(repository) => {
                let stream = Box::pin(self.client.blob(repository, descriptor)).await?;
                Ok(Box::new(SyncIoBridge::new(stream)))
            }
            Source::Image(blobs) => {
                let (blobs, descriptor) = (Arc::clone(blobs), descriptor.clone());
                blocking(move || blobs.open(&descriptor)).await
            }
        }
    }

    /// What is in a layer: known, or found out by reading it once from front to back.
    pub(super) async fn index(&self, layer: &Layer) -> Result<Arc<LayerIndex>> {
        let make = async {
            if let Some(index) = self.known_index(layer).await? {
                return Ok(index);
            }
            let index = self.read_index(layer).await?;
            self.keep_index(layer.diff_id, Arc::clone(&index)).await?;
            Ok(index)
        };
        self.indexes.get(&layer.diff_id, make).await
    }

    async fn known_index(&self, layer: &Layer) -> Result<Option<Arc<LayerIndex>>> {
        let (store, key) = (self.store.clone(), layer.diff_id);
        let known = blocking(move || {
            let Some(bytes) = store.record(INDEX, &key)? else { return Ok(None) };
            // One of another version is made again.
            Ok(LayerIndex::from_bytes(&bytes).ok())
        });
        if let Some(index) = known.await? {
            return Ok(Some(Arc::new(index)));
        }
        let Some(index) = Box::pin(self.cache.index(&self.client, &layer.diff_id)).await else { return Ok(None) };
        let index = Arc::new(index);
        self.keep_index(layer.diff_id, Arc::clone(&index)).await?;
        Ok(Some(index))
    }

    /// Keeps what is known of a layer.
    pub(super) async fn keep_index(&self, diff_id: Digest, index: Arc<LayerIndex>) -> Result<()> {
        let store = self.store.clone();
        blocking(move || store.put_record(INDEX, &diff_id, &index.to_bytes())).await
    }

    /// What is known of a layer, as it is kept.
    pub(super) async fn index_bytes(&self, diff_id: Digest) -> Result<Option<Vec<u8>>> {
        let store = self.store.clone();
        blocking(move || store.record(INDEX, &diff_id)).await
    }

    async fn read_index(&self, layer: &Layer) -> Result<Arc<LayerIndex>> {
        if self.runs.expected.load(Ordering::Relaxed)
            && let Ok(machine) = self.machine().await?
            && let Some(index) = Box::pin(self.index_by_unpacking(machine, layer)).await?
        {
            return Ok(index);
        }
        let (compression, cancel, expected) = (layer.compression(), self.job.cancel.clone(), layer.diff_id);
        let reader: Box<dyn std::io::Read + Send> = match self.stored(layer.descriptor.digest).await? {
            Some(blob) => Box::new(blob.open()?),
            None => self.open(layer).await?,
        };
        blocking(move || {
            let mut tar = Hashed::new(decompress(reader, compression));
            let index = LayerIndex::read(&mut tar, &cancel)?;
            let found = tar.finish(&cancel)?;
            if found != expected {
                let reason = format!("its content has the digest {found}, not {expected}");
                return Err(Error::ImageInvalid { what: "layer".into(), reason });
            }
            Ok(Arc::new(index))
        })
        .await
    }

    /// The file system of some layers.
    pub(super) async fn view(&self, layers: &[Layer]) -> Result<View> {
        let mut view = View::default();
        for batch in layers.chunks(4) {
            let indexes = batch.iter().map(|layer| self.index(layer));
            for index in futures_util::future::try_join_all(indexes).await? {
                view.push(index)?;
            }
        }
        Ok(view)
    }
}

fn copy(mut from: impl std::io::Read, to: &mut BlobWriter, cancel: &crate::cancel::Cancel) -> Result<()> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        cancel.check()?;
        let count = from.read(&mut buffer).map_err(read_failed)?;
        if count == 0 {
            return Ok(());
        }
        to.append(&buffer[..count])?;
    }
}

/// The error inside of one that a reader returned.
pub(super) fn read_failed(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::ImageInvalid { what: "layer".into(), reason: error.to_string() },
    }
}

/// A reader that hashes what it reads.
struct Hashed<R> {
    inner: R,
    hash: sha2::Sha256,
}

impl<R: std::io::Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: sha2::Digest::new() }
    }

    /// Reads what is left; the digest of all.
    fn finish(mut self, cancel: &crate::cancel::Cancel) -> Result<Digest> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            cancel.check()?;
            match std::io::Read::read(&mut self, &mut buffer) {
                Ok(0) => return Ok(Digest::from_bytes(sha2::Digest::finalize(self.hash).into())),
                Ok(_) => {}
                Err(error) => return Err(read_failed(error)),
            }
        }
    }
}

impl<R: std::io::Read> std::io::Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        sha2::Digest::update(&mut self.hash, &buffer[..count]);
        Ok(count)
    }
}
