//! Layers: a list of entries becomes a tar archive, compressed, hashed twice on the way, and an index of what is in it.
//!
//! A layer is cut into units, which are made in parallel and compressed each for itself ([`crate::pack`]). Where the cuts
//! are depends on the paths and sizes of the entries nearby, so a change in one file leaves all units but its own as they
//! were, and their compressed form is taken from an earlier layer ([`Previous`]).
//!
//! [`archive`] reads what ADD unpacks; [`changes`] finds out what a command did; [`apply`] writes a file system to a directory.
//!
//! All of this blocks and knows nothing of tokio: asynchronous callers use `spawn_blocking`.

pub mod apply;
pub mod archive;
pub mod changes;
mod content;
mod entry;
mod header;
mod plan;
mod record;
mod render;
mod units;
mod write;

use crate::digest::Digest;
use crate::oci::media::Compression;
use crate::pack::{Codec, GZIP_LEVEL, ZSTD_LEVEL};
use crate::rootfs::LayerIndex;

pub use entry::{Content, LayerEntry, LayerKind};
pub use units::{Previous, PreviousLayer, Unit, Units};
pub use write::write;

/// How to write a layer. The default is gzip on all processors.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// How it is compressed.
    pub compression: Compression,
    /// Compression level, 1 (fast) to 12 (small) for gzip, 1 to 22 for zstd; `None` is 6 and 3.
    pub level: Option<i32>,
    /// How many threads read and compress; `None` is one for each processor. The bytes do not depend on it.
    pub threads: Option<usize>,
    /// Newer times become this one, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<u64>,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct WrittenLayer {
    /// Of the blob.
    pub digest: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the archive before it is compressed.
    pub diff_id: Digest,
    /// The size of the archive before it is compressed.
    pub uncompressed: u64,
    /// What is in the layer.
    pub index: LayerIndex,
    /// Regular files, further names of hard linked ones among them.
    pub files: u64,
    /// The units that the blob consists of; none if it is not compressed.
    pub units: Units,
    /// How many of them were taken from an earlier layer.
    pub reused: u64,
}

impl LayerOptions {
    fn codec(&self) -> Codec {
        match self.compression {
            Compression::None => Codec::Plain,
            Compression::Gzip => Codec::gzip(self.level.unwrap_or(GZIP_LEVEL)),
            Compression::Zstd => Codec::zstd(self.level.unwrap_or(ZSTD_LEVEL)),
        }
    }
}
