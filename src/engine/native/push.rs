//! Pushing: what a registry lacks goes there, several layers at once, and the manifest last.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncSeekExt};

use super::layer::Layer;
use super::product::{Product, Written};
use super::shared::Shared;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::oci::Descriptor;
use crate::reference::Reference;
use crate::registry::client::{BlobSource, PushedBlob};

/// How many layers go at once.
const AT_ONCE: usize = 4;

/// What a push did.
pub(super) struct Pushed {
    /// The digest of the manifest.
    pub(super) digest: Digest,
    /// How many bytes went there.
    pub(super) bytes: u64,
}

/// A blob that is at hand.
struct InMemory {
    descriptor: Descriptor,
    bytes: Bytes,
}

#[async_trait]
impl BlobSource for InMemory {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn open(&self, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(Box::new(std::io::Cursor::new(self.bytes.slice(start..))))
    }
}

/// A layer, which is fetched only if the registry does not have it.
struct OfLayer<'a> {
    shared: &'a Shared,
    layer: &'a Layer,
    descriptor: Descriptor,
}

#[async_trait]
impl BlobSource for OfLayer<'_> {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn open(&self, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let blob = self.shared.blob(self.layer).await?;
        let failed = |source| Error::Store { path: blob.path().to_owned(), action: "read".into(), source };
        let mut file = tokio::fs::File::open(blob.path()).await.map_err(failed)?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(failed)?;
        Ok(Box::new(file))
    }
}

/// Pushes an image under all of its names; the digest is the same for each.
pub(super) async fn push(shared: &Shared, product: &Product, written: &Written, tags: &[Reference]) -> Result<Pushed> {
    let mut pushed = Pushed { digest: Digest::of(&written.manifest_bytes), bytes: 0 };
    let mut done = BTreeSet::new();
    for tag in tags {
        let started = Instant::now();
        // Two tags of one repository share its blobs.
        let first = done.insert((tag.registry().to_owned(), tag.repository().to_owned()));
        if is_there(shared, tag, &pushed.digest).await? {
            tell_layers(shared, tag, &product.layers).await;
        } else {
            if first {
                pushed.bytes += blobs(shared, product, written, tag).await?;
            }
            let bytes = Bytes::from(written.manifest_bytes.clone());
            shared.client.push_manifest(tag, &written.manifest.media_type, bytes).await?;
        }
        let (digest, seconds) = (pushed.digest.to_string(), started.elapsed().as_secs_f64());
        shared.job.events.send(Event::Pushed { reference: tag.to_string(), digest, seconds }).await;
    }
    Ok(pushed)
}

/// Whether the tag is this image already: then all of it is there.
async fn is_there(shared: &Shared, tag: &Reference, digest: &Digest) -> Result<bool> {
    match shared.client.manifest_digest(tag).await {
        Ok(found) => Ok(found.is_some_and(|found| found.digest == *digest)),
        Err(Error::Interrupted) => Err(Error::Interrupted),
        // Who may write may not read, perhaps; the push itself will tell.
        Err(_) => Ok(false),
    }
}

async fn tell_layers(shared: &Shared, tag: &Reference, layers: &[Layer]) {
    for layer in layers {
        tell(shared, tag, &layer.descriptor, "Layer already exists", 0).await;
    }
}

async fn tell(shared: &Shared, tag: &Reference, blob: &Descriptor, status: &str, current: u64) {
    let layer = blob.digest.hex()[..12].to_owned();
    let (status, total) = (status.to_owned(), blob.size);
    shared.job.events.send(Event::Push { reference: tag.to_string(), layer, status, current, total }).await;
}

/// Pushes layers and configuration; how many bytes went there.
async fn blobs(shared: &Shared, product: &Product, written: &Written, tag: &Reference) -> Result<u64> {
    let unique: BTreeSet<Digest> = product.layers.iter().map(|layer| layer.descriptor.digest).collect();
    let layer = |digest: &Digest| product.layers.iter().find(|layer| layer.descriptor.digest == *digest);
    let layers: Vec<&Layer> = unique.iter().filter_map(layer).collect();
    let config = push_bytes(shared, &written.manifest.config, Bytes::from(written.config_bytes.clone()), tag);
    let layers: Vec<_> = layers.into_iter().map(|layer| push_layer(shared, layer, tag)).collect();
    let layers = stream::iter(layers).buffer_unordered(AT_ONCE);
    let layers = layers.try_fold(0, |sum, bytes| async move { Ok(sum + bytes) });
    let (config, layers) = tokio::try_join!(config, layers)?;
    Ok(config + layers)
}

/// Pushes what is at hand; how many bytes went there.
pub(super) async fn push_bytes(shared: &Shared, descriptor: &Descriptor, bytes: Bytes, to: &Reference) -> Result<u64> {
    let source = InMemory { descriptor: descriptor.clone(), bytes };
    let pushed = shared.client.push_blob(to, &source, &[], &|_, _| {}).await?;
    Ok(if pushed == PushedBlob::Uploaded { descriptor.size } else { 0 })
}

/// Pushes a layer; how many bytes went there.
pub(super) async fn push_layer(shared: &Shared, layer: &Layer, tag: &Reference) -> Result<u64> {
    let descriptor = layer.descriptor.clone();
    let source = OfLayer { shared, layer, descriptor: descriptor.clone() };
    let same_registry =
        |other: &&Reference| other.registry() == tag.registry() && other.repository() != tag.repository();
    let mounts: Vec<Reference> = layer.repositories().filter(same_registry).cloned().collect();
    let sent = Arc::new(AtomicU64::new(0));
    let progress = |current: u64, _total: u64| {
        sent.store(current, Ordering::Relaxed);
        let event = Event::Push {
            reference: tag.to_string(),
            layer: descriptor.digest.hex()[..12].to_owned(),
            status: "Pushing".to_owned(),
            current,
            total: descriptor.size,
        };
        shared.job.events.offer(event);
    };
    let pushed = match shared.client.push_blob(tag, &source, &mounts, &progress).await {
        Ok(pushed) => pushed,
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            verify(shared, &descriptor.digest).await?;
            return Err(error);
        }
    };
    let (status, bytes) = match pushed {
        PushedBlob::Existed => ("Layer already exists", 0),
        PushedBlob::Mounted => ("Mounted", 0),
        PushedBlob::Uploaded => ("Pushed", descriptor.size),
    };
    tell(shared, tag, &descriptor, status, bytes).await;
    Ok(bytes)
}

/// Looks whether a layer that was refused is what it should be: the store believes its files until they are read, and a power
/// cut may have left one torn. Fails with `StoreDamaged` then; the file is gone, and the next build makes it anew.
async fn verify(shared: &Shared, digest: &Digest) -> Result<()> {
    let Some(blob) = shared.stored(*digest).await? else { return Ok(()) };
    let cancel = shared.job.cancel.clone();
    blocking(move || blob.verify(&cancel)).await
}
