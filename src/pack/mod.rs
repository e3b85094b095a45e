//! What archives are made with, those of contexts and those of layers: work in parallel units that is delivered in order,
//! compression of each unit for itself, and an output that is hashed on the way.

mod buffers;
mod compress;
mod output;
pub(crate) mod pipeline;

pub(crate) use buffers::Buffers;
pub(crate) use compress::{Codec, Encoder, GZIP_LEVEL, ZSTD_LEVEL};
pub(crate) use output::{Hasher, Output};

/// How much of an archive one unit holds at most: big enough to compress well (within 1 % of a single stream), small enough
/// to keep a few of them per thread in memory.
pub(crate) const UNIT: u64 = 1 << 20;
/// The room for a unit: what is in it may be compressed to a little more.
pub(crate) const ROOM: usize = (1 << 20) + (16 << 10);
/// The block size of tar.
pub(crate) const BLOCK: usize = 512;

/// More than these only wait for each other's turn to write, and each holds a unit or two in memory.
const MAX_THREADS: usize = 16;

/// How many threads read and compress; `None` is one for each processor.
pub(crate) fn threads(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).clamp(1, MAX_THREADS)
}

/// Fills the last block of a content with zeros.
pub(crate) fn pad(unit: &mut Vec<u8>, length: usize) {
    unit.resize(unit.len() + length.next_multiple_of(BLOCK) - length, 0);
}
