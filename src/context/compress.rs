//! Compression of one unit at a time: each becomes a gzip member or a zstd frame of its own, so the result depends on the
//! units alone and not on who compressed them.

use libdeflater::{CompressionLvl, Compressor};

use super::archive::{Format, PackOptions};
use crate::error::{Error, Result};

/// What to do with the units of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Codec {
    Plain,
    Gzip(i32),
    Zstd(i32),
}

/// One thread's compressor.
pub(super) enum Encoder {
    Plain,
    Gzip(Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    pub(super) fn of(options: &PackOptions) -> Self {
        match options.format {
            Format::Tar | Format::Zip => Self::Plain,
            Format::TarGz => Self::Gzip(options.level()),
            Format::TarZst => Self::Zstd(options.level()),
        }
    }

    pub(super) fn encoder(self) -> Result<Encoder> {
        Ok(match self {
            Self::Plain => Encoder::Plain,
            Self::Gzip(level) => {
                let level = CompressionLvl::new(level).map_err(|_| Error::internal("no such gzip level"))?;
                Encoder::Gzip(Compressor::new(level))
            }
            Self::Zstd(level) => Encoder::Zstd(zstd::bulk::Compressor::new(level).map_err(failed)?),
        })
    }
}

impl Encoder {
    /// Compresses a unit.
    pub(super) fn encode(&mut self, unit: Vec<u8>) -> Result<Vec<u8>> {
        match self {
            Self::Plain => Ok(unit),
            Self::Gzip(compressor) => {
                let mut out = vec![0; compressor.gzip_compress_bound(unit.len())];
                let length = compressor.gzip_compress(&unit, &mut out).map_err(failed)?;
                out.truncate(length);
                Ok(out)
            }
            Self::Zstd(compressor) => compressor.compress(&unit).map_err(failed),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("compression failed: {error}"))
}
