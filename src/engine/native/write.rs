//! Layers that are made now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::key::Key;
use super::layer::Layer;
use super::progress::Running;
use super::shared::Shared;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::layer::{Content, LayerEntry, LayerKind, LayerOptions, Previous, PreviousLayer, Units, WrittenLayer};
use crate::oci::Descriptor;
use crate::oci::media::{Compression, Family};
use crate::request::CompressionAlgorithm;
use crate::rootfs::{IndexEntry, LayerIndex, NodeKind, Spool, Wanted, decompress, extract};
use crate::store::Store;

/// The kind of the records that say what the units of an instruction's last layer were.
const UNITS: &str = "layer-units";
/// The one extended attribute that layers keep, as those of containerd and so of BuildKit do (containerd,
/// `pkg/archive/tar.go`).
const CAPABILITY: &[u8] = b"security.capability";

impl Shared {
    fn layer_options(&self) -> LayerOptions {
        let options = &self.request.options;
        let compression = match options.compression.map(|spec| spec.algorithm) {
            Some(CompressionAlgorithm::Zstd) => Compression::Zstd,
            Some(CompressionAlgorithm::Gzip) | None => Compression::Gzip,
        };
        LayerOptions {
            compression,
            level: options.compression.and_then(|spec| spec.level),
            threads: None,
            clamp_mtime: options.source_date_epoch,
        }
    }

    /// Writes a layer into the store. What an earlier one of the same instruction has in common with it is taken from there.
    pub(super) async fn write_layer(
        &self,
        mut entries: Vec<LayerEntry>,
        text: &str,
        running: &Running,
    ) -> Result<Layer> {
        for entry in &mut entries {
            entry.xattrs.retain(|name, _| name == CAPABILITY);
        }
        let options = self.layer_options();
        let slot = self.slot(text);
        let (store, cancel, report) = (self.store.clone(), self.job.cancel.clone(), running.reporter());
        let total = entries.iter().map(size).sum();
        let compression = options.compression;
        let written = blocking(move || {
            let previous = previous(&store, &slot)?;
            let previous = previous.as_ref().map(|previous| previous as &dyn Previous);
            let mut out = store.writer()?;
            let progress = |bytes| report(bytes, total);
            let written = crate::layer::write(entries.into_iter(), &options, previous, &mut out, &progress, &cancel)?;
            out.finish(Some((&written.digest, written.size)))?;
            keep_units(&store, &slot, &written)?;
            Ok(written)
        })
        .await?;
        self.keep_index(written.diff_id, Arc::new(written.index)).await?;
        let descriptor = Descriptor::new(Family::Oci.layer(compression), written.digest, written.size);
        Ok(Layer { descriptor, diff_id: written.diff_id, sources: Vec::new() })
    }

    /// Where an instruction of this context leaves word of its last layer.
    pub(super) fn slot(&self, text: &str) -> Digest {
        let root = self.request.context.root.as_ref().and_then(|root| std::fs::canonicalize(root).ok());
        let root = root.map(|root| root.into_os_string().into_encoded_bytes()).unwrap_or_default();
        Key::new("slot").bytes(&root).text(&self.opened.file.name).text(text).finish()
    }

    /// Takes contents out of the layers that they are in, for the time of the build.
    pub(super) async fn take_out(&self, mut entries: Vec<LayerEntry>, layers: &[Layer]) -> Result<Vec<LayerEntry>> {
        let mut wanted: BTreeMap<usize, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for entry in &entries {
            if let LayerKind::File { content: Content::InLayer { layer, path }, .. } = &entry.kind {
                wanted.entry(*layer).or_default().insert(path.clone());
            }
        }
        if wanted.is_empty() {
            return Ok(entries);
        }
        let mut sources = Vec::new();
        for (number, paths) in wanted {
            let layer = layers.get(number).ok_or_else(|| Error::internal("a layer that is not there"))?;
            let index = self.index(layer).await?;
            let wanted = paths.into_iter().map(|path| self::wanted(&index, path)).collect::<Result<Vec<_>>>()?;
            sources.push((number, wanted, self.blob(layer).await?, layer.compression()));
        }
        let (directory, cancel) = (self.store.path().to_owned(), self.job.cancel.clone());
        blocking(move || {
            let mut spool = Spool::new(&directory)?;
            let mut places = BTreeMap::new();
            for (number, wanted, blob, compression) in sources {
                let tar = decompress(Box::new(blob.open()?), compression);
                let found = extract(tar, &wanted, &mut spool, &cancel)?;
                let found = wanted.into_iter().zip(found);
                places.extend(found.map(|(wanted, found)| ((number, wanted.path), found.offset)));
            }
            let file = spool.file();
            for entry in &mut entries {
                let LayerKind::File { content, .. } = &mut entry.kind else { continue };
                let Content::InLayer { layer, path } = content else { continue };
                let offset = places.get(&(*layer, std::mem::take(path)));
                let offset = *offset.ok_or_else(|| Error::internal("a content that was not taken out"))?;
                *content = Content::Spool { file: Arc::clone(&file), offset };
            }
            Ok(entries)
        })
        .await
    }
}

/// A file of a layer.
fn wanted(index: &LayerIndex, path: Vec<u8>) -> Result<Wanted> {
    let Some(IndexEntry::Node(node) | IndexEntry::Hardlink { node, .. }) = index.find(&path) else {
        return Err(Error::internal("a content that is in no layer"));
    };
    match node.kind {
        NodeKind::File { size, digest } => Ok(Wanted { path, size, digest }),
        _ => Err(Error::internal("a content of something that is no file")),
    }
}

fn size(entry: &LayerEntry) -> u64 {
    match entry.kind {
        LayerKind::File { size, .. } => size,
        _ => 0,
    }
}

/// The last layer of an instruction.
fn previous(store: &Store, slot: &Digest) -> Result<Option<PreviousLayer>> {
    let Some(record) = store.record(UNITS, slot)? else { return Ok(None) };
    let Some((digest, units)) = record.split_first_chunk() else { return Ok(None) };
    let Some(units) = Units::from_bytes(units) else { return Ok(None) };
    let Some(blob) = store.blob(&Digest::from_bytes(*digest))? else { return Ok(None) };
    Ok(Some(PreviousLayer::new(&units, blob.open_at(0)?)))
}

fn keep_units(store: &Store, slot: &Digest, written: &WrittenLayer) -> Result<()> {
    store.put_record(UNITS, slot, &[written.digest.as_bytes().as_slice(), &written.units.to_bytes()].concat())
}
