//! Where the image goes: registries, files, a daemon, and the store of this machine.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use tokio_util::io::SyncIoBridge;

use super::base;
use super::product::{Product, Written};
use super::push;
use super::shared::Shared;
use crate::cancel::Cancel;
use crate::daemon::{Daemon, find, images};
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::image::{self, ArchiveKind, Blobs, Image, Watch};
use crate::layer::apply::apply;
use crate::oci::Descriptor;
use crate::oci::media::{Compression, Family};
use crate::reference::Reference;
use crate::request::Output;
use crate::rootfs::decompress;
use crate::store::Blob;

/// How much of an archive may wait for a daemon.
const PIPE: usize = 1 << 20;

/// Where the image is now.
pub(super) struct Delivered {
    /// What it is called.
    pub(super) image: String,
    /// The digest of the pushed manifest.
    pub(super) digest: Option<Digest>,
    /// The digest of the configuration.
    pub(super) config_digest: Digest,
    /// How many bytes went to registries.
    pub(super) pushed_bytes: u64,
}

/// The layers of an image, in the store.
struct Stored(HashMap<Digest, Blob>);

impl Blobs for Stored {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let blob = self.0.get(&descriptor.digest);
        let blob = blob.ok_or_else(|| Error::internal(format!("the layer {} was not fetched", descriptor.digest)))?;
        Ok(Box::new(blob.open()?))
    }
}

/// Puts the image where the request says.
pub(super) async fn deliver(shared: &Shared, product: &Product) -> Result<Delivered> {
    let request = &shared.request;
    let written = product.write(product.family);
    let mut delivered = Delivered {
        image: String::new(),
        digest: None,
        config_digest: written.manifest.config.digest,
        pushed_bytes: 0,
    };
    if request.push {
        let pushed = push::push(shared, product, &written, &request.tags).await?;
        delivered.digest = Some(pushed.digest);
        delivered.pushed_bytes = pushed.bytes;
    }
    let mut loaded = None;
    for output in &request.outputs {
        loaded = write(shared, product, output).await?.or(loaded);
    }
    // What stays on this machine may be the base of the next build.
    let stays = |output: &Output| matches!(output, Output::Docker { dest: None } | Output::Store);
    if !request.push && request.outputs.iter().all(stays) {
        keep(shared, product, &written).await?;
    }
    if !request.push && request.outputs.is_empty() {
        hand_over(shared, product).await?;
    }
    delivered.image = match (request.tags.first(), delivered.digest) {
        (Some(tag), Some(digest)) => tag.with_digest(digest).to_string(),
        (Some(tag), None) => tag.to_string(),
        (None, _) => loaded.unwrap_or_else(|| delivered.config_digest.to_string()),
    };
    Ok(delivered)
}

/// All layers in the store.
async fn layers(shared: &Shared, product: &Product) -> Result<Stored> {
    let mut blobs = HashMap::new();
    for batch in product.layers.chunks(4) {
        let fetched = batch.iter().map(|layer| shared.blob(layer));
        for (layer, blob) in batch.iter().zip(futures_util::future::try_join_all(fetched).await?) {
            blobs.insert(layer.descriptor.digest, blob);
        }
    }
    Ok(Stored(blobs))
}

/// What writes to files.
struct Writer {
    written: Written,
    names: Vec<Reference>,
    blobs: Stored,
    cancel: Cancel,
    events: Events,
}

impl Writer {
    async fn new(shared: &Shared, product: &Product, family: Family) -> Result<Self> {
        Ok(Self {
            written: product.write(family),
            names: shared.request.tags.clone(),
            blobs: layers(shared, product).await?,
            cancel: shared.job.cancel.clone(),
            events: shared.job.events.clone(),
        })
    }

    /// Writes in a thread, and tells how far it is.
    async fn run(
        self,
        what: String,
        write: impl FnOnce(Image<'_>, Watch<'_>) -> Result<image::Written> + Send + 'static,
    ) -> Result<()> {
        blocking(move || {
            let image = Image {
                manifest: &self.written.manifest_bytes,
                config: &self.written.config_bytes,
                names: &self.names,
                blobs: &self.blobs,
            };
            let id = format!("output {what}");
            let name = format!("writing {what}");
            self.events.send_blocking(Event::StepStarted { id: id.clone(), name: name.clone() });
            let started = std::time::Instant::now();
            let progress = |current, total| {
                self.events.offer(Event::StepProgress { id: id.clone(), name: name.clone(), current, total });
            };
            let written = write(image, Watch { cancel: &self.cancel, progress: &progress });
            let seconds = started.elapsed().as_secs_f64();
            let error = written.as_ref().err().map(ToString::to_string);
            self.events.send_blocking(Event::StepDone {
                id: id.clone(),
                name: name.clone(),
                seconds,
                cached: false,
                error,
            });
            written.map(drop)
        })
        .await
    }
}

/// The result is what a daemon calls the image, which knows one without a name by its configuration or by its manifest.
async fn write(shared: &Shared, product: &Product, output: &Output) -> Result<Option<String>> {
    match output {
        Output::Oci { dest, tar } => {
            let dest = dest.clone();
            let what = dest.display().to_string();
            let is_archive = tar.unwrap_or_else(|| dest.extension().is_some_and(|extension| extension == "tar"));
            let writer = Writer::new(shared, product, Family::Oci).await?;
            let write = move |image: Image<'_>, watch: Watch<'_>| {
                if is_archive {
                    image::write_archive(image, ArchiveKind::Oci, &dest, watch)
                } else {
                    image::write_layout(image, &dest, watch)
                }
            };
            writer.run(what, write).await?;
        }
        Output::Docker { dest: Some(dest) } => {
            let dest = dest.clone();
            let what = dest.display().to_string();
            let writer = Writer::new(shared, product, Family::Docker).await?;
            let write = move |image: Image<'_>, watch: Watch<'_>| {
                image::write_archive(image, ArchiveKind::Docker, &dest, watch)
            };
            writer.run(what, write).await?;
        }
        Output::Local { dest } => local(shared, product, dest).await?,
        // It is kept there once everything else is written.
        Output::Store => {}
        Output::Docker { dest: None } => {
            let daemon =
                shared.job.cancel.guard(find(&shared.request.engine, &shared.environment, &mut Vec::new())).await?;
            return load(shared, product, &daemon).await;
        }
    }
    Ok(None)
}

/// Keeps the image in the store under its names, for the next build.
async fn keep(shared: &Shared, product: &Product, written: &Written) -> Result<()> {
    let (store, config, manifest) =
        (shared.store.clone(), written.config_bytes.clone(), written.manifest_bytes.clone());
    blocking(move || {
        store.put(&config)?;
        store.put(&manifest).map(drop)
    })
    .await?;
    for tag in &shared.request.tags {
        base::remember(&shared.store, tag, &written.manifest, &written.manifest_bytes, &product.layers).await?;
    }
    Ok(())
}

/// Writes the image's files to a directory.
async fn local(shared: &Shared, product: &Product, dest: &Path) -> Result<()> {
    let view = shared.view(&product.layers).await?;
    let stored = layers(shared, product).await?;
    let layers: Vec<(Blob, Compression)> = product
        .layers
        .iter()
        .filter_map(|layer| Some((stored.0.get(&layer.descriptor.digest)?.clone(), layer.compression())))
        .collect();
    let (dest, spool, cancel) = (dest.to_owned(), shared.store.path().to_owned(), shared.job.cancel.clone());
    let applied = blocking(move || {
        let mut open = |number: usize| {
            let (blob, compression) = layers.get(number).ok_or_else(|| Error::internal("a layer that is not there"))?;
            Ok(decompress(Box::new(blob.open()?), *compression))
        };
        apply(&view, &mut open, &dest, &spool, &cancel)
    })
    .await?;
    for left_out in &applied.left_out {
        shared.job.events.send(Event::Notice { message: left_out.clone() }).await;
    }
    Ok(())
}

/// Gives an image that goes nowhere else to the daemon of this machine, if there is one, so that it can be run.
async fn hand_over(shared: &Shared, product: &Product) -> Result<()> {
    let Some(name) = shared.request.tags.first() else { return Ok(()) };
    let message =
        match shared.job.cancel.guard(find(&shared.request.engine, &shared.environment, &mut Vec::new())).await {
            Ok(daemon) => {
                load(shared, product, &daemon).await?;
                format!("{name} was loaded into {}", daemon.product().name())
            }
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(_) => format!(
                "no daemon answers here: {name} is in the store at {}, where the next build finds it; \
             `--push` and `--output` bring it elsewhere",
                shared.store.path().display()
            ),
        };
    shared.job.events.send(Event::Notice { message }).await;
    Ok(())
}

/// Loads the image into a daemon while its archive is written. The result is what that calls it.
async fn load(shared: &Shared, product: &Product, daemon: &Daemon) -> Result<Option<String>> {
    let writer = Writer::new(shared, product, Family::Docker).await?;
    let (end, archive) = tokio::io::duplex(PIPE);
    let mut end = SyncIoBridge::new(end);
    let write = move |image: Image<'_>, watch: Watch<'_>| {
        let written = image::write_archive_to(image, ArchiveKind::Docker, &mut end, watch);
        // Dropping it ends the archive; after a failure it is no archive, which the daemon finds out.
        drop(end);
        written
    };
    let (written, loaded) = tokio::join!(
        writer.run(daemon.product().name().to_owned(), write),
        images::load(daemon, archive, &shared.job.cancel)
    );
    // What broke first is told: the daemon's reason, if it has one.
    let loaded = loaded?;
    written.map(|()| loaded.into_iter().next())
}
