//! Images that stages build on or copy from: only manifests and configurations are read here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use super::key::Key;
use super::layer::{Layer, Source};
use crate::daemon::{find, images};
use crate::digest::Digest;
use crate::engine::blocking;
use crate::environment::Environment;
use crate::error::{Error, Location, Result};
use crate::event::{Event, Events};
use crate::image::{Place, Scheme, Selector};
use crate::oci::media::{Compression, Family};
use crate::oci::{Descriptor, Document, ImageConfig, Index, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::client::Client;
use crate::request::{EngineSpec, Job};
use crate::store::Store;

/// Which manifest a name stood for when it was last looked up.
const NAME: &str = "image-name";
/// What a named context begins with that is an image of a registry.
const DOCKER_IMAGE: &str = "docker-image://";
/// Configurations are a few kilobytes; labels may be large.
const MAX_CONFIG: u64 = 16 << 20;

/// An image.
pub(super) struct Image {
    /// Its configuration.
    pub(super) config: ImageConfig,
    /// Its layers, the lowest first.
    pub(super) layers: Vec<Layer>,
    /// What its media types are of.
    pub(super) family: Family,
}

/// Looks images up.
pub(super) struct Images<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) job: &'a Job,
    /// Whether names of this machine come after those of registries.
    pub(super) pull: bool,
    /// What says where a daemon is.
    pub(super) spec: &'a EngineSpec,
    pub(super) environment: &'a Arc<Environment>,
}

/// What is remembered of a name.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Named {
    descriptor: Descriptor,
    /// Of an image that was built here and pushed nowhere: the repositories that have its base's layers.
    local: Option<BTreeMap<Digest, Vec<Reference>>>,
}

impl Images<'_> {
    /// The image behind a name, for a platform.
    ///
    /// Looks for one that was built here and not pushed, then in the registry; with `--pull` the other way round. Where the
    /// registry cannot be reached, what the name stood for the last time is used, and said so.
    pub(super) async fn find(&self, name: &Reference, platform: &Platform, place: Location) -> Result<Image> {
        let known = named(self.store, name).await?;
        if let Some(known) = known.as_ref().filter(|known| known.local.is_some() && !self.pull) {
            return self.read_local(name, known, platform).await;
        }
        let found = match self.look_up(name).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(missing(name, &place, "the registry does not have it".to_owned())),
            Err(Error::RegistryDenied { message, .. }) => Err(missing(name, &place, message)),
            Err(error) => Err(error),
        };
        match (found, known) {
            (Ok(descriptor), _) => {
                if name.digest().is_none() {
                    keep_name(self.store, name, &Named { descriptor: descriptor.clone(), local: None }).await?;
                }
                self.read(name, descriptor, platform).await
            }
            (Err(Error::Interrupted), _) => Err(Error::Interrupted),
            (Err(error), Some(known)) if known.local.is_some() => {
                tell(&self.job.events, name, &error, "the image of this machine is used").await;
                self.read_local(name, &known, platform).await
            }
            (Err(error @ Error::RegistryUnreachable { .. }), Some(known)) if !self.pull => {
                tell(&self.job.events, name, &error, "the image that it was the last time is used").await;
                self.read(name, known.descriptor, platform).await
            }
            (Err(error), _) => match self.of_daemon(name, platform).await? {
                Some(image) => Ok(image),
                None => Err(error),
            },
        }
    }

    /// The image of a daemon on this machine, where no registry has it: one that was built there.
    async fn of_daemon(&self, name: &Reference, platform: &Platform) -> Result<Option<Image>> {
        let cancel = &self.job.cancel;
        let Ok(daemon) = cancel.guard(find(self.spec, self.environment, &mut Vec::new())).await else {
            cancel.check()?;
            return Ok(None);
        };
        let Ok(Some(summary)) = cancel.guard(images::has_image(&daemon, name)).await else {
            cancel.check()?;
            return Ok(None);
        };
        let message = format!("{name} is in no registry; it is taken from {}", daemon.product().name());
        self.job.events.send(Event::Notice { message }).await;
        // By its id: the name may move.
        let file = self.save(images::save(&daemon, &summary.id).await?).await?;
        let (platform, cancel) = (platform.clone(), cancel.clone());
        let opened = blocking(move || {
            let place = Place { scheme: Scheme::DockerArchive, path: file.path().to_owned(), selector: Selector::Any };
            crate::image::open(&place, &platform, &cancel)
        })
        .await?;
        image(opened.manifest, opened.config, &[Source::Image(Arc::new(opened.blobs))]).map(Some)
    }

    /// An archive of a daemon, in a file that goes when it is closed.
    async fn save(&self, mut saved: images::Saved) -> Result<NamedTempFile> {
        let directory = self.store.path().to_owned();
        let failed = |source| Error::Store { path: self.store.path().to_owned(), action: "write".into(), source };
        let file = NamedTempFile::new_in(directory).map_err(failed)?;
        let mut out = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
        while let Some(bytes) = saved.next(&self.job.cancel).await? {
            out.write_all(&bytes).await.map_err(failed)?;
        }
        out.flush().await.map_err(failed)?;
        Ok(file)
    }

    /// What a registry has under a name.
    async fn look_up(&self, name: &Reference) -> Result<Option<Descriptor>> {
        if let Some(digest) = name.digest()
            && let Some(bytes) = self.stored(digest).await?
        {
            return Ok(Some(Descriptor::new("", *digest, bytes.len() as u64)));
        }
        self.client.manifest_digest(name).await
    }

    async fn stored(&self, digest: &Digest) -> Result<Option<Bytes>> {
        let (store, digest) = (self.store.clone(), *digest);
        blocking(move || {
            let Some(blob) = store.blob(&digest)? else { return Ok(None) };
            let mut bytes = Vec::new();
            match std::io::Read::read_to_end(&mut blob.open()?, &mut bytes) {
                Ok(_) => Ok(Some(bytes.into())),
                // It was damaged, and is gone now.
                Err(_) => Ok(None),
            }
        })
        .await
    }

    /// A manifest or an index, from the store or from the registry.
    async fn document(&self, name: &Reference, wanted: &Descriptor) -> Result<Document> {
        if let Some(bytes) = self.stored(&wanted.digest).await? {
            return Document::parse(&wanted.media_type, &bytes);
        }
        let fetched = self.client.manifest(&name.with_digest(wanted.digest)).await?;
        let fetched = fetched.ok_or_else(|| Error::ImageInvalid {
            what: "manifest".into(),
            reason: format!("the registry named {} and does not have it", wanted.digest),
        })?;
        let document = Document::parse(&fetched.descriptor.media_type, &fetched.bytes)?;
        self.keep(fetched.bytes).await?;
        Ok(document)
    }

    async fn keep(&self, bytes: Bytes) -> Result<()> {
        let store = self.store.clone();
        blocking(move || store.put(&bytes).map(drop)).await
    }

    async fn read(&self, name: &Reference, found: Descriptor, platform: &Platform) -> Result<Image> {
        let manifest = match self.document(name, &found).await? {
            Document::Manifest(manifest) => *manifest,
            Document::Index(index) => self.of_index(name, &index, platform).await?,
        };
        let stored = self.stored(&manifest.config.digest).await?;
        let config = if let Some(bytes) = stored {
            bytes
        } else {
            let bytes = self.client.blob_bytes(name, &manifest.config, MAX_CONFIG).await?;
            self.keep(bytes.clone()).await?;
            bytes
        };
        let config = ImageConfig::parse(&config)?;
        if let Some(own) = config.platform().filter(|own| own != platform) {
            let message = format!("{name} is for {own}, not for {platform}");
            self.job.events.send(Event::Warning { code: "platform-missing".into(), message }).await;
        }
        image(manifest, config, &[Source::Registry(name.clone())])
    }

    /// An image that was built here: each of its layers is in the store, or where its base came from.
    async fn read_local(&self, name: &Reference, known: &Named, platform: &Platform) -> Result<Image> {
        let mut image = self.read(name, known.descriptor.clone(), platform).await?;
        for layer in &mut image.layers {
            let places = known.local.as_ref().and_then(|local| local.get(&layer.descriptor.digest));
            layer.sources = places.into_iter().flatten().cloned().map(Source::Registry).collect();
        }
        Ok(image)
    }

    /// The image that a named context is.
    ///
    /// Fails as [`Self::find`] does, and as [`crate::image::open`] does for one in a file.
    pub(super) async fn of_context(&self, source: &str, platform: &Platform, place: Location) -> Result<Image> {
        if let Some(name) = source.strip_prefix(DOCKER_IMAGE) {
            return self.find(&name.parse()?, platform, place).await;
        }
        let file = Place::parse(source)?.ok_or_else(|| Error::internal("a context that is no image"))?;
        let (platform, cancel) = (platform.clone(), self.job.cancel.clone());
        let opened = blocking(move || crate::image::open(&file, &platform, &cancel)).await?;
        image(opened.manifest, opened.config, &[Source::Image(Arc::new(opened.blobs))])
    }

    async fn of_index(&self, name: &Reference, index: &Index, platform: &Platform) -> Result<Manifest> {
        let missing = || Error::PlatformMissing {
            reference: name.to_string(),
            platform: platform.to_string(),
            available: index.platforms().join(", "),
        };
        let chosen = index.select(platform).ok_or_else(missing)?;
        match self.document(name, chosen).await? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => {
                Err(Error::ImageInvalid { what: "index".into(), reason: "there is an index in it".into() })
            }
        }
    }
}

/// Puts together what belongs together.
pub(super) fn image(manifest: Manifest, config: ImageConfig, sources: &[Source]) -> Result<Image> {
    let invalid = |reason: String| Error::ImageInvalid { what: "manifest".into(), reason };
    let (layers, ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != ids {
        return Err(invalid(format!("it has {layers} layers, and its configuration has {ids}")));
    }
    if let Some(other) = manifest.layers.iter().find(|layer| Compression::of_layer(&layer.media_type).is_none()) {
        return Err(invalid(format!("`{}` is no layer of a file system", other.media_type)));
    }
    let family = manifest.family();
    let layers = manifest.layers.into_iter().zip(&config.rootfs.diff_ids);
    let layers = layers.map(|(descriptor, diff_id)| Layer { descriptor, diff_id: *diff_id, sources: sources.to_vec() });
    Ok(Image { layers: layers.collect(), config, family })
}

async fn tell(events: &Events, name: &Reference, error: &Error, instead: &str) {
    let message = format!("{name} could not be looked up ({error}); {instead}");
    events.send(Event::Warning { code: error.code().into(), message }).await;
}

fn missing(name: &Reference, place: &Location, message: String) -> Error {
    Error::BaseMissing { reference: name.to_string(), location: Some(Box::new(place.clone())), message }
}

fn name_key(name: &Reference) -> Digest {
    Key::new("image name").text(&name.name()).text(name.tag_or_latest().unwrap_or_default()).finish()
}

async fn named(store: &Store, name: &Reference) -> Result<Option<Named>> {
    let (store, key) = (store.clone(), name_key(name));
    blocking(move || Ok(store.record(NAME, &key)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))).await
}

async fn keep_name(store: &Store, name: &Reference, named: &Named) -> Result<()> {
    let (store, key) = (store.clone(), name_key(name));
    let bytes = serde_json::to_vec(named).map_err(|error| Error::internal(error.to_string()))?;
    blocking(move || store.put_record(NAME, &key, &bytes)).await
}

/// Remembers what an image that was built here, and pushed nowhere, is called.
pub(super) async fn remember(
    store: &Store,
    name: &Reference,
    manifest: &Manifest,
    bytes: &[u8],
    layers: &[Layer],
) -> Result<()> {
    let places = layers.iter().map(|layer| (layer.descriptor.digest, layer.repositories().cloned().collect()));
    let descriptor = Descriptor::of(&manifest.media_type, bytes);
    keep_name(store, name, &Named { descriptor, local: Some(places.collect()) }).await
}

/// Whether the source of a named context is an image.
pub(super) fn is_image_source(source: &str) -> bool {
    source.starts_with(DOCKER_IMAGE) || matches!(Place::parse(source), Ok(Some(_)))
}
