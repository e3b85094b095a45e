//! Layers of images and stages, wherever they are.

use std::sync::Arc;

use crate::digest::Digest;
use crate::image::Blobs;
use crate::oci::Descriptor;
use crate::oci::media::{Compression, Family};
use crate::reference::Reference;

/// A layer. The store may have it besides its sources.
#[derive(Clone)]
pub(super) struct Layer {
    /// The layer as a manifest names it.
    pub(super) descriptor: Descriptor,
    /// The digest of its tar archive.
    pub(super) diff_id: Digest,
    /// Where it can be had.
    pub(super) sources: Vec<Source>,
}

/// Where a layer can be had.
#[derive(Clone)]
pub(super) enum Source {
    /// A repository.
    Registry(Reference),
    /// A layout or an archive on this machine.
    Image(Arc<dyn Blobs>),
}

impl Layer {
    /// How it is compressed.
    pub(super) fn compression(&self) -> Compression {
        Compression::of_layer(&self.descriptor.media_type).unwrap_or_default()
    }

    /// Its descriptor in a manifest of a family.
    pub(super) fn descriptor_in(&self, family: Family) -> Descriptor {
        let foreign = self.descriptor.media_type.contains("foreign") || self.descriptor.media_type.contains("nondist");
        let media_type = match (foreign, family.layer(self.compression())) {
            // Where it may not be pushed, its type says so.
            (true, _) => self.descriptor.media_type.clone(),
            (false, media_type) => media_type.to_owned(),
        };
        Descriptor { media_type, ..self.descriptor.clone() }
    }

    /// The repositories that have it.
    pub(super) fn repositories(&self) -> impl Iterator<Item = &Reference> {
        self.sources.iter().filter_map(|source| match source {
            Source::Registry(repository) => Some(repository),
            Source::Image(_) => None,
        })
    }
}
