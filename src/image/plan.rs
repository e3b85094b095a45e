//! What is to be written: the blobs of an image, and what names them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Serialize;

use super::blobs::{Blobs, Verified, read_error};
use super::{BLOCK, CREATED, IMAGE_NAME, REF_NAME, blob_path, full_name, invalid};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::media::{Compression, Family};
use crate::oci::{Descriptor, Document, ImageConfig, Index, Manifest, PlatformSpec};
use crate::reference::Reference;

/// Layers of Windows that only Microsoft hands out, in Docker's words and in OCI's.
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

/// An image that is to be written.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// The bytes of its manifest.
    pub manifest: &'a [u8],
    /// The bytes of its configuration.
    pub config: &'a [u8],
    /// What it is called. Names without a tag are tagged `latest`; those with a digest and no tag are left out.
    pub names: &'a [Reference],
    /// What has its layers.
    pub blobs: &'a dyn Blobs,
}

/// Who watches the writing.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// When to stop.
    pub cancel: &'a Cancel,
    /// Is told how many bytes of blobs are written, and how many there are in all.
    pub progress: &'a dyn Fn(u64, u64),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The manifest, as it is there. It is another one than was given where a Docker archive has unpacked layers, and where
    /// an OCI layout has an image that was in Docker's words.
    pub manifest: Descriptor,
    /// The bytes of all blobs, those that were there before among them.
    pub bytes: u64,
}

/// The blobs of an image, each once, and how they are named.
pub(super) struct Plan<'a> {
    image: Image<'a>,
    pub(super) manifest: Descriptor,
    config: Digest,
    layers: Vec<Digest>,
    pub(super) items: BTreeMap<Digest, Item<'a>>,
}

/// One blob.
pub(super) struct Item<'a> {
    /// In bytes.
    pub(super) size: u64,
    content: Content<'a>,
}

enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    Blob(Descriptor),
    /// What is in a layer that is compressed with Zstandard.
    Unpacked(Descriptor),
}

/// Counts what is written, and stops where that is wanted.
pub(super) struct Meter<'a> {
    watch: Watch<'a>,
    done: u64,
    total: u64,
}

impl<'a> Plan<'a> {
    /// A plan for an OCI layout. A manifest in Docker's words is put into OCI's, as BuildKit does there: skopeo and umoci take
    /// no other. The image's configuration and its layers stay. Fails with `ImageInvalid` where the parts do not fit.
    pub(super) fn for_layout(image: Image<'a>) -> Result<Self> {
        let (mut manifest, config) = parse(&image)?;
        let bytes = if manifest.family() == Family::Oci {
            Cow::Borrowed(image.manifest)
        } else {
            in_oci_words(&mut manifest);
            Cow::Owned(manifest.to_bytes())
        };
        let mut plan = Self::of(image, &manifest, &config, bytes);
        for layer in manifest.layers.iter().filter(|layer| layer.urls.is_empty()) {
            plan.insert(layer.digest, layer.size, Content::Blob(layer.clone()));
        }
        Ok(plan)
    }

    /// A plan for an image that every Docker loads: those before 23 know no Zstandard, so such layers are unpacked, as
    /// `docker save` would. The image's identity there, the digest of its configuration, stays.
    ///
    /// These layers are read once to know how big they are.
    pub(super) fn for_docker(image: Image<'a>, watch: Watch<'_>) -> Result<Self> {
        let (mut manifest, config) = parse(&image)?;
        let family = manifest.family();
        let mut contents = Vec::with_capacity(manifest.layers.len());
        let mut unpacked = false;
        for (layer, diff_id) in manifest.layers.iter_mut().zip(&config.rootfs.diff_ids) {
            if !layer.urls.is_empty() {
                return Err(invalid("image", format!("layer {} is elsewhere: no archive can hold it", layer.digest)));
            }
            let from = layer.clone();
            if Compression::of_layer(&layer.media_type) != Some(Compression::Zstd) {
                contents.push(Content::Blob(from));
                continue;
            }
            unpacked = true;
            layer.size = unpacked_size(image.blobs, &from, diff_id, watch)?;
            layer.digest = *diff_id;
            family.layer(Compression::None).clone_into(&mut layer.media_type);
            contents.push(Content::Unpacked(from));
        }
        let bytes = if unpacked { Cow::Owned(manifest.to_bytes()) } else { Cow::Borrowed(image.manifest) };
        let mut plan = Self::of(image, &manifest, &config, bytes);
        for (layer, content) in manifest.layers.iter().zip(contents) {
            plan.insert(layer.digest, layer.size, content);
        }
        Ok(plan)
    }

    fn of(image: Image<'a>, manifest: &Manifest, config: &ImageConfig, bytes: Cow<'a, [u8]>) -> Self {
        let mut descriptor = Descriptor::of(&manifest.media_type, &bytes);
        descriptor.platform = config.platform().map(|platform| PlatformSpec {
            os_version: config.os_version.clone(),
            os_features: config.os_features.clone(),
            ..PlatformSpec::from(&platform)
        });
        if let Some(created) = &config.created {
            descriptor.annotations.insert(CREATED.into(), created.clone());
        }
        let layers = manifest.layers.iter().map(|layer| layer.digest).collect();
        let digest = descriptor.digest;
        let config = manifest.config.digest;
        let mut plan = Self { image, manifest: descriptor, config, layers, items: BTreeMap::new() };
        plan.insert(digest, bytes.len() as u64, Content::Bytes(bytes));
        plan.insert(config, image.config.len() as u64, Content::Bytes(Cow::Borrowed(image.config)));
        plan
    }

    fn insert(&mut self, digest: Digest, size: u64, content: Content<'a>) {
        self.items.entry(digest).or_insert(Item { size, content });
    }

    /// How `index.json` lists the image: once for each name, as containerd and BuildKit do.
    pub(super) fn entries(&self) -> Vec<Descriptor> {
        let named = |name: &Reference| {
            let mut entry = self.manifest.clone();
            entry.annotations.insert(IMAGE_NAME.into(), full_name(name)?);
            entry.annotations.insert(REF_NAME.into(), name.tag_or_latest()?.to_owned());
            Some(entry)
        };
        let entries: Vec<Descriptor> = self.image.names.iter().filter_map(named).collect();
        if entries.is_empty() { vec![self.manifest.clone()] } else { entries }
    }

    /// The `index.json` of an archive.
    pub(super) fn index(&self) -> Vec<u8> {
        Index::new(self.entries()).to_bytes()
    }

    /// The `manifest.json` of a Docker archive.
    ///
    /// # Panics
    /// Never: it has nothing that JSON lacks.
    pub(super) fn docker_manifest(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Item {
            config: String,
            /// `null` where there is none, as Go writes it.
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let name = |name: &Reference| Some(format!("{}:{}", name.name(), name.tag_or_latest()?));
        let names: Vec<String> = self.image.names.iter().filter_map(name).collect();
        let item = Item {
            config: blob_path(&self.config),
            repo_tags: (!names.is_empty()).then_some(names),
            layers: self.layers.iter().map(blob_path).collect(),
        };
        serde_json::to_vec(&[item]).expect("names and paths are JSON")
    }

    /// Hands the content of a blob over, checked.
    pub(super) fn read(
        &self,
        digest: &Digest,
        item: &Item<'_>,
        meter: &mut Meter<'_>,
        consume: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let own = Descriptor::new("", *digest, item.size);
        let reader: Box<dyn Read> = match &item.content {
            Content::Bytes(bytes) => Box::new(&bytes[..]),
            Content::Blob(from) => Box::new(Verified::new(self.image.blobs.open(from)?, from)),
            Content::Unpacked(from) => Box::new(Verified::new(unpacked(self.image.blobs, from)?, &own)),
        };
        each_block(reader, &own, &mut |block| {
            consume(block)?;
            meter.add(block.len() as u64)
        })
    }

    /// A meter for all blobs.
    pub(super) fn meter<'w>(&self, watch: Watch<'w>) -> Meter<'w> {
        Meter { watch, done: 0, total: self.items.values().map(|item| item.size).sum() }
    }
}

impl Meter<'_> {
    /// Fails with `Interrupted`.
    pub(super) fn add(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        (self.watch.progress)(self.done, self.total);
        self.watch.cancel.check()
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }
}

fn parse(image: &Image<'_>) -> Result<(Manifest, ImageConfig)> {
    let Document::Manifest(manifest) = Document::parse("", image.manifest)? else {
        return Err(invalid("manifest", "it is an index, and not the manifest of one image"));
    };
    let found = Digest::of(image.config);
    if found != manifest.config.digest {
        return Err(invalid("configuration", format!("it should be {} and is {found}", manifest.config.digest)));
    }
    let config = ImageConfig::parse(image.config)?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(invalid("manifest", format!("it has {layers} layers, the configuration {diff_ids}")));
    }
    Ok((*manifest, config))
}

/// Replaces Docker's media types. A layer that no registry may hand out stays one of that kind.
fn in_oci_words(manifest: &mut Manifest) {
    Family::Oci.manifest().clone_into(&mut manifest.media_type);
    Family::Oci.config().clone_into(&mut manifest.config.media_type);
    for layer in &mut manifest.layers {
        if layer.media_type == DOCKER_FOREIGN {
            OCI_FOREIGN.clone_into(&mut layer.media_type);
        } else if let Some(compression) = Compression::of_layer(&layer.media_type) {
            Family::Oci.layer(compression).clone_into(&mut layer.media_type);
        }
    }
}

/// What is in a layer that is compressed with Zstandard.
fn unpacked<'a>(blobs: &dyn Blobs, layer: &'a Descriptor) -> Result<impl Read + 'a> {
    let reader = Verified::new(blobs.open(layer)?, layer);
    zstd::stream::read::Decoder::new(reader).map_err(|error| read_error(error, layer))
}

/// How big a layer is when it is unpacked, which has to give what the configuration says.
fn unpacked_size(blobs: &dyn Blobs, layer: &Descriptor, diff_id: &Digest, watch: Watch<'_>) -> Result<u64> {
    use sha2::{Digest as _, Sha256};

    let (mut size, mut hash) = (0, Sha256::new());
    each_block(unpacked(blobs, layer)?, layer, &mut |block| {
        size += block.len() as u64;
        hash.update(block);
        watch.cancel.check()
    })?;
    let found = Digest::from_bytes(hash.finalize().into());
    if found == *diff_id {
        return Ok(size);
    }
    Err(invalid(format!("layer {}", layer.digest), format!("it should hold {diff_id} and holds {found}")))
}

fn each_block(
    mut reader: impl Read,
    descriptor: &Descriptor,
    consume: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; BLOCK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => consume(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error, descriptor)),
        }
    }
}
