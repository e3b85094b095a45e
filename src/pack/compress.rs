//! Compression of one unit at a time: each becomes a gzip member or a zstd frame of its own, so the result depends on the
//! units alone and not on who compressed them.

use libdeflater::{CompressionLvl, Compressor};

use super::buffers::Buffers;
use crate::error::{Error, Result};

/// At most 2.1 % more than Python's gzip at its level 9, on source code alone; less than that on every tree of
/// `benches/context.py`. Levels 5 and 4 have 3.6 % and 6.2 % more on source code.
pub(crate) const GZIP_LEVEL: i32 = 6;
/// Zstandard's own default.
pub(crate) const ZSTD_LEVEL: i32 = 3;

/// Who compresses, and by which rules of [`Gzip`].
const GZIP_VERSION: &str = "libdeflate-sys 1.26.1, rules 1";
const ZSTD_VERSION: &str = "zstd-sys 2.1.3+zstd.1.5.7";

/// How many places of a unit a sample is taken from, and how much from each.
const PIECES: usize = 16;
const PIECE: usize = 1 << 10;

/// What to do with the units of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Codec {
    Plain,
    Gzip(i32),
    Zstd(i32),
}

/// One thread's compressor.
pub(crate) enum Encoder {
    Plain,
    Gzip(Box<Gzip>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    /// gzip at a level from 1 (fast) to 12 (small).
    pub(crate) fn gzip(level: i32) -> Self {
        Self::Gzip(level.clamp(1, 12))
    }

    /// Zstandard at a level from 1 (fast) to 22 (small).
    pub(crate) fn zstd(level: i32) -> Self {
        Self::Zstd(level.clamp(1, 22))
    }

    /// Changes whenever the same unit may be compressed to other bytes.
    pub(crate) fn recipe(self) -> String {
        match self {
            Self::Plain => "plain".into(),
            Self::Gzip(level) => format!("gzip {level} {GZIP_VERSION}"),
            Self::Zstd(level) => format!("zstd {level} {ZSTD_VERSION}"),
        }
    }

    pub(crate) fn encoder(self) -> Result<Encoder> {
        Ok(match self {
            Self::Plain => Encoder::Plain,
            Self::Gzip(level) => Encoder::Gzip(Box::new(Gzip::new(level)?)),
            Self::Zstd(level) => Encoder::Zstd(zstd::bulk::Compressor::new(level).map_err(failed)?),
        })
    }
}

impl Encoder {
    /// Compresses a unit. The buffer that is not returned is given back.
    pub(crate) fn encode(&mut self, unit: Vec<u8>, buffers: &Buffers) -> Result<Vec<u8>> {
        if matches!(self, Self::Plain) {
            return Ok(unit);
        }
        let mut out = buffers.take();
        self.compress(&unit, &mut out)?;
        buffers.give(unit);
        Ok(out)
    }

    /// Makes `out` a unit's compressed form.
    pub(crate) fn compress(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Plain => {
                out.clear();
                out.extend_from_slice(unit);
            }
            Self::Gzip(gzip) => gzip.compress(unit, out)?,
            Self::Zstd(compressor) => {
                out.resize(zstd::zstd_safe::compress_bound(unit.len()), 0);
                let length = compressor.compress_to_buffer(unit, &mut out[..]).map_err(failed)?;
                out.truncate(length);
            }
        }
        Ok(())
    }
}

/// A compressor that looks at a sample first. Trying hard where nothing is to be gained takes most of the time of an archive
/// of models, images and packages: noise is stored (ten times as fast and more), and what shrinks a little only, such as
/// floating point numbers, is compressed at the first level (a third faster, and as small).
pub(crate) struct Gzip {
    stored: Compressor,
    fast: Compressor,
    wanted: Compressor,
    sample: Vec<u8>,
    probed: Vec<u8>,
}

impl Gzip {
    fn new(level: i32) -> Result<Self> {
        let compressor = |level| {
            let level = CompressionLvl::new(level).map_err(|_| Error::internal("no such gzip level"))?;
            Ok(Compressor::new(level))
        };
        let (stored, fast, wanted) = (compressor(0)?, compressor(1)?, compressor(level)?);
        Ok(Self { stored, fast, wanted, sample: Vec::new(), probed: Vec::new() })
    }

    fn compress(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let compressor = match self.thousandths_left(unit)? {
            990.. => &mut self.stored,
            850.. => &mut self.fast,
            _ => &mut self.wanted,
        };
        out.resize(compressor.gzip_compress_bound(unit.len()), 0);
        let length = compressor.gzip_compress(unit, out).map_err(failed)?;
        out.truncate(length);
        Ok(())
    }

    /// What fast compression leaves of a sample of the unit, in thousandths; 0 for a unit that is not much more than a sample.
    fn thousandths_left(&mut self, unit: &[u8]) -> Result<usize> {
        if unit.len() < 4 * PIECES * PIECE {
            return Ok(0);
        }
        self.sample.clear();
        for piece in unit.chunks(unit.len() / PIECES).take(PIECES) {
            self.sample.extend_from_slice(&piece[..PIECE]);
        }
        self.probed.resize(self.fast.deflate_compress_bound(self.sample.len()), 0);
        let left = self.fast.deflate_compress(&self.sample, &mut self.probed).map_err(failed)?;
        Ok(left * 1000 / self.sample.len())
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("compression failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        for version in [GZIP_VERSION, ZSTD_VERSION] {
            let (name, version) = version.split_once(' ').unwrap();
            let version = version.split(',').next().unwrap();
            let package = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&package), "compression may have changed: {name} is not {version} any more");
        }
    }
}
