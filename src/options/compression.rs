//! How layers are compressed, as users write it.

use super::read::{Given, invalid};
use crate::error::Result;
use crate::request::{CompressionAlgorithm, CompressionSpec};

impl Given {
    /// `gzip`, `zstd`, or one of them with a level: `zstd:5`.
    pub(super) fn compression(self) -> Result<CompressionSpec> {
        let name = self.name.clone();
        let text = self.text()?;
        let (algorithm, level) = text.split_once(':').map_or((text.as_str(), None), |(a, level)| (a, Some(level)));
        let (algorithm, highest) = match algorithm {
            "gzip" => (CompressionAlgorithm::Gzip, CompressionSpec::HIGHEST_GZIP),
            "zstd" => (CompressionAlgorithm::Zstd, CompressionSpec::HIGHEST_ZSTD),
            _ => return invalid(&name, "it is neither `gzip` nor `zstd`, with a level or without: `zstd:5`"),
        };
        let number = level.map(|level| level.parse().ok().filter(|level| (1..=highest).contains(level)));
        match number {
            Some(None) => invalid(&name, format!("the level is no whole number from 1 to {highest}")),
            number => Ok(CompressionSpec { algorithm, level: number.flatten() }),
        }
    }
}
