//! Reading what `docker save` makes: `manifest.json`, which names the files of configurations and layers
//! (moby/docker-image-spec, spec.md, "Combined Image JSON + Filesystem Changeset Format").
//!
//! Newer engines put an OCI layout into the same archive. Then the layout's manifest is taken, if it is of the same image.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::open::{Found, ImageBlobs, OpenedImage, layout, layout_index, opened, resolve};
use super::place::{Place, Selector};
use super::source::{Packing, Part, Source};
use super::{BLOCK, MANIFEST_FILE, full_name, invalid, select};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::media::{Compression, Family};
use crate::oci::{Descriptor, ImageConfig, Manifest};
use crate::platform::Platform;
use crate::reference::Reference;

/// One image of an archive. Go writes `null` for what is empty.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Item {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }

    fn is_called(&self, name: &Reference) -> bool {
        self.tags().iter().any(|tag| tag.parse::<Reference>().is_ok_and(|tag| full_name(&tag) == full_name(name)))
    }

    /// The configuration, which has the digest that its name says, where it says one.
    fn config(&self, source: &Source) -> Result<Vec<u8>> {
        let bytes = source.document(&self.config)?;
        let bytes = bytes.ok_or_else(|| invalid(&source.what, format!("`{}` is missing", self.config)))?;
        let found = Digest::of(&bytes);
        if digest_of_name(&self.config).is_some_and(|named| named != found) {
            return Err(invalid(&source.what, format!("`{}` has the digest {found}", self.config)));
        }
        Ok(bytes)
    }
}

/// The digest in the name of a configuration: `HEX.json` of older Dockers, `blobs/sha256/HEX`, or `sha256:HEX` of others.
fn digest_of_name(path: &str) -> Option<Digest> {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let name = name.strip_suffix(".json").unwrap_or(name);
    format!("sha256:{}", name.strip_prefix("sha256:").unwrap_or(name)).parse().ok()
}

/// Opens the image of an archive that a place names.
pub(super) fn open(blobs: ImageBlobs, place: &Place, platform: &Platform, cancel: &Cancel) -> Result<OpenedImage> {
    let items = items(&blobs.source)?;
    let Some(item) = choose(&items, &blobs.source, place)? else {
        // The digest of a manifest, perhaps.
        let found = layout(blobs, place, platform);
        return found.map_err(|_| select::none(place, &names(&items)));
    };
    let config_bytes = item.config(&blobs.source)?;
    let config_digest = Digest::of(&config_bytes);
    let layers = item.layers.as_deref().unwrap_or_default();
    if let Some((manifest, bytes)) = same_image(&blobs, &config_digest, layers.len(), place, platform) {
        return opened(manifest, bytes, config_bytes, blobs);
    }
    let config = ImageConfig::parse(&config_bytes)?;
    let (count, diff_ids) = (layers.len(), &config.rootfs.diff_ids);
    if count != diff_ids.len() {
        let reason = format!("`{MANIFEST_FILE}` has {count} layers, the configuration {}", diff_ids.len());
        return Err(invalid(&blobs.source.what, reason));
    }
    let mut paths = BTreeMap::from([(config_digest, item.config.clone())]);
    let mut found = Vec::with_capacity(count);
    for (path, diff_id) in layers.iter().zip(diff_ids) {
        let layer = layer(&blobs.source, path, diff_id, cancel)?;
        paths.insert(layer.digest, path.clone());
        found.push(layer);
    }
    let manifest = made(config_digest, config_bytes.len() as u64, &found);
    let bytes = manifest.to_bytes();
    opened(manifest, bytes, config_bytes, ImageBlobs { paths: Arc::new(paths), ..blobs })
}

fn items(source: &Source) -> Result<Vec<Item>> {
    let Some(bytes) = source.document(MANIFEST_FILE)? else {
        let reason = if source.find("repositories")?.is_some() {
            "it was made by a Docker older than 1.10; load and save it with a newer one".to_owned()
        } else if source.find(super::LAYOUT_FILE)?.is_some() {
            format!("it has no file `{MANIFEST_FILE}`; write `oci-archive://` for an OCI archive")
        } else {
            format!("it has no file `{MANIFEST_FILE}`")
        };
        return Err(invalid(&source.what, reason));
    };
    serde_json::from_slice(&bytes).map_err(|error| invalid(&source.what, format!("`{MANIFEST_FILE}`: {error}")))
}

/// The image that is meant; `None` where a digest is that of no configuration.
fn choose<'a>(items: &'a [Item], source: &Source, place: &Place) -> Result<Option<&'a Item>> {
    let found: Vec<&Item> = match &place.selector {
        Selector::Digest(digest) => {
            for item in items {
                if Digest::of(&item.config(source)?) == *digest {
                    return Ok(Some(item));
                }
            }
            return Ok(None);
        }
        Selector::Name(name) => {
            let name: Reference = name.parse()?;
            items.iter().filter(|item| item.is_called(&name)).collect()
        }
        Selector::Any => {
            let is_latest = |item: &&Item| item.tags().iter().any(|tag| tag.ends_with(":latest"));
            let latest: Vec<&Item> = items.iter().filter(is_latest).collect();
            if latest.is_empty() { items.iter().collect() } else { latest }
        }
    };
    match found.as_slice() {
        [item] => Ok(Some(item)),
        [] => Err(select::none(place, &names(items))),
        [first, rest @ ..] if rest.iter().all(|item| item.config == first.config) => Ok(Some(first)),
        _ => Err(select::several(place, &names(items))),
    }
}

/// The names of images, as they can be asked for.
fn names(items: &[Item]) -> Vec<String> {
    let name = |item: &Item| item.tags().first().cloned().unwrap_or_else(|| item.config.clone());
    items.iter().map(name).collect()
}

/// The manifest of the image of a configuration, if the archive has an OCI layout with it. A layout that is wrong is none.
fn same_image(blobs: &ImageBlobs, config: &Digest, layers: usize, place: &Place, platform: &Platform) -> Option<Found> {
    let index = layout_index(&blobs.source).ok()?;
    index.manifests.into_iter().find_map(|descriptor| {
        let found = resolve(blobs, descriptor, place, platform).ok()?;
        (found.0.config.digest == *config && found.0.layers.len() == layers).then_some(found)
    })
}

/// The descriptor of a layer. One that is not compressed has the digest that the configuration says, which is checked when it
/// is read; others are read now.
fn layer(source: &Source, path: &str, diff_id: &Digest, cancel: &Cancel) -> Result<Descriptor> {
    let part = source.find(path)?.ok_or_else(|| invalid(&source.what, format!("`{path}` is missing")))?;
    let unreadable = |error: io::Error| invalid(&source.what, format!("cannot read `{path}`: {error}"));
    let compression = match Packing::of_part(&part).map_err(unreadable)? {
        Packing::None => Compression::None,
        Packing::Gzip => Compression::Gzip,
        Packing::Zstd => Compression::Zstd,
        Packing::Other(name) => {
            let reason = format!("`{path}` is compressed with {name}, as no layer of an image is");
            return Err(invalid(&source.what, reason));
        }
    };
    // The media type tells the compression until the family is known.
    let media_type = Family::Oci.layer(compression);
    if compression == Compression::None {
        return Ok(Descriptor::new(media_type, *diff_id, part.len()));
    }
    let size = part.len();
    let mut packed = Hashed { inner: part, hash: Sha256::new() };
    let unpacked = match compression {
        Compression::Gzip => digest(MultiGzDecoder::new(io::BufReader::with_capacity(BLOCK, &mut packed)), cancel),
        _ => zstd::stream::read::Decoder::new(&mut packed).map(|decoder| digest(decoder, cancel)).and_then(|read| read),
    };
    let found = unpacked.map_err(unreadable)?;
    cancel.check()?;
    if found != *diff_id {
        let reason = format!("`{path}` should be {diff_id} and is {found}");
        return Err(invalid(&source.what, reason));
    }
    // What stands behind the compressed data is part of the file.
    io::copy(&mut packed, &mut io::sink()).map_err(unreadable)?;
    let digest = Digest::from_bytes(packed.hash.finalize().into());
    Ok(Descriptor::new(media_type, digest, size))
}

/// The digest of all that a reader has, or of less where the flag is set.
fn digest(mut reader: impl Read, cancel: &Cancel) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    while !cancel.is_cancelled() {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}

/// A reader whose bytes are hashed.
struct Hashed {
    inner: Part,
    hash: Sha256,
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// A manifest for an image that has none: in Docker's words, which lack Zstandard.
fn made(config: Digest, size: u64, layers: &[Descriptor]) -> Manifest {
    let compression = |layer: &Descriptor| Compression::of_layer(&layer.media_type).unwrap_or_default();
    let zstd = layers.iter().any(|layer| compression(layer) == Compression::Zstd);
    let family = if zstd { Family::Oci } else { Family::Docker };
    let layer = |layer: &Descriptor| Descriptor::new(family.layer(compression(layer)), layer.digest, layer.size);
    Manifest::new(family, Descriptor::new(family.config(), config, size), layers.iter().map(layer).collect())
}
