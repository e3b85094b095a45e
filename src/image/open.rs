//! Opening an image in a file as a base image.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use super::blobs::{Blobs, Verified, read_document};
use super::place::{Place, Scheme};
use super::source::Source;
use super::{INDEX_FILE, LAYOUT_FILE, MANIFEST_FILE, blob_path, docker, invalid, select};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::media::{self, Compression};
use crate::oci::{Descriptor, Document, ImageConfig, Index, Manifest};
use crate::platform::Platform;

/// How many indexes may stand between a name and a manifest.
const MAX_INDEXES: usize = 4;

/// An image that is open for reading.
#[derive(Clone, Debug)]
pub struct OpenedImage {
    /// Its manifest. That of a Docker archive which has none is made: the layers are those of the archive.
    pub manifest: Manifest,
    /// The bytes of the manifest.
    pub manifest_bytes: Vec<u8>,
    /// The digest of these.
    pub manifest_digest: Digest,
    /// Its configuration.
    pub config: ImageConfig,
    /// The bytes of the configuration, of the digest that the manifest says.
    pub config_bytes: Vec<u8>,
    /// Its layers and its configuration. They are checked while they are read.
    pub blobs: ImageBlobs,
}

/// The blobs of an image that is open. Its readers are [`Verified`].
#[derive(Clone, Debug)]
pub struct ImageBlobs {
    pub(super) source: Arc<Source>,
    /// Where blobs are that are not where a layout has them.
    pub(super) paths: Arc<BTreeMap<Digest, String>>,
}

/// A manifest, and the bytes that it was read from.
pub(super) type Found = (Manifest, Vec<u8>);

impl Blobs for ImageBlobs {
    /// Fails with `ImageInvalid` where there is no such blob, or one of another size.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let path = self.paths.get(&descriptor.digest).cloned().unwrap_or_else(|| blob_path(&descriptor.digest));
        let part = self.source.find(&path)?;
        let part = part.ok_or_else(|| invalid(&self.source.what, format!("`{path}` is missing")))?;
        if part.len() != descriptor.size {
            let reason = format!("`{path}` has {} bytes and should have {}", part.len(), descriptor.size);
            return Err(invalid(&self.source.what, reason));
        }
        Ok(Box::new(Verified::new(part, descriptor)))
    }
}

/// Opens an image for a platform.
///
/// Its manifest and its configuration are read and checked, its layers have to be there; their contents are checked when they
/// are read. An archive that is compressed is unpacked to a temporary file, and the layers of a Docker archive that are
/// compressed and have no manifest are read once.
///
/// Fails with `BaseMissing` where nothing is at the place, with `InvalidOption` where the place names no image or several,
/// with `PlatformMissing`, with `ImageInvalid` for what is damaged or lies, and with `Interrupted`.
pub fn open(place: &Place, platform: &Platform, cancel: &Cancel) -> Result<OpenedImage> {
    cancel.check()?;
    let source = Arc::new(Source::open(place, cancel)?);
    let blobs = ImageBlobs { source, paths: Arc::default() };
    match place.scheme {
        Scheme::DockerArchive => docker::open(blobs, place, platform, cancel),
        Scheme::OciLayout | Scheme::OciArchive => layout(blobs, place, platform),
    }
}

/// Opens the image of an OCI layout that a place names.
pub(super) fn layout(blobs: ImageBlobs, place: &Place, platform: &Platform) -> Result<OpenedImage> {
    let index = layout_index(&blobs.source)?;
    let descriptor = select::choose(&blobs.source, &index, place, platform)?;
    let (manifest, manifest_bytes) = resolve(&blobs, descriptor, place, platform)?;
    let config_bytes = read_document(&blobs, &manifest.config)?;
    opened(manifest, manifest_bytes, config_bytes, blobs)
}

/// The list of images of an OCI layout.
pub(super) fn layout_index(source: &Source) -> Result<Index> {
    let Some(version) = source.document(LAYOUT_FILE)? else {
        let docker = source.document(MANIFEST_FILE)?.is_some();
        let advice = if docker { "; write `docker-archive://` for a Docker archive" } else { "" };
        return Err(invalid(&source.what, format!("it has no file `{LAYOUT_FILE}`{advice}")));
    };
    check_version(&source.what, &version)?;
    let index = source.document(INDEX_FILE)?;
    let index = index.ok_or_else(|| invalid(&source.what, format!("it has no file `{INDEX_FILE}`")))?;
    match Document::parse(media::OCI_INDEX, &index)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => Err(invalid(&source.what, format!("`{INDEX_FILE}` is no index"))),
    }
}

/// Looks at what is in the file `oci-layout`.
pub(super) fn check_version(what: &str, bytes: &[u8]) -> Result<()> {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    match value.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
        Some(version) if version.starts_with("1.") => Ok(()),
        Some(version) => Err(invalid(what, format!("it is a layout of version {version}; version 1 is known"))),
        None => Err(invalid(what, format!("`{LAYOUT_FILE}` has no version"))),
    }
}

/// Follows a descriptor to the manifest of an image.
pub(super) fn resolve(
    blobs: &ImageBlobs,
    mut descriptor: Descriptor,
    place: &Place,
    platform: &Platform,
) -> Result<Found> {
    for _ in 0..=MAX_INDEXES {
        let bytes = read_document(blobs, &descriptor)?;
        match Document::parse(&descriptor.media_type, &bytes)? {
            Document::Manifest(manifest) => return Ok((*manifest, bytes)),
            Document::Index(index) => {
                let selected = index.select(platform).cloned();
                descriptor = selected.ok_or_else(|| select::missing(place, &index, platform))?;
            }
        }
    }
    Err(invalid(&blobs.source.what, "its indexes are too deep"))
}

/// Checks that the parts fit each other.
pub(super) fn opened(
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    config_bytes: Vec<u8>,
    blobs: ImageBlobs,
) -> Result<OpenedImage> {
    let wrong = |reason: String| invalid(&blobs.source.what, reason);
    if ![media::OCI_CONFIG, media::DOCKER_CONFIG, ""].contains(&manifest.config.media_type.as_str()) {
        return Err(wrong(format!("it holds no image, but a `{}`", manifest.config.media_type)));
    }
    let config = ImageConfig::parse(&config_bytes)?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(wrong(format!("the manifest has {layers} layers, the configuration {diff_ids}")));
    }
    for layer in &manifest.layers {
        if Compression::of_layer(&layer.media_type).is_none() {
            return Err(wrong(format!("`{}` is no layer of an image", layer.media_type)));
        }
        // Layers that are elsewhere do not have to be here.
        if layer.urls.is_empty() {
            blobs.open(layer)?;
        }
    }
    let manifest_digest = Digest::of(&manifest_bytes);
    Ok(OpenedImage { manifest, manifest_bytes, manifest_digest, config, config_bytes, blobs })
}
