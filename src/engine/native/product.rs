//! The image that a build made, and its manifest.

use super::config;
use super::layer::Layer;
use super::stage::Stage;
use crate::oci::media::{Compression, Family};
use crate::oci::{Descriptor, History, ImageConfig, Manifest, RootFs};
use crate::request::BuildOptions;

/// An image.
pub(super) struct Product {
    /// Its configuration.
    pub(super) config: ImageConfig,
    /// Its layers, the lowest first.
    pub(super) layers: Vec<Layer>,
    /// What its media types are of, unless an output wants others.
    pub(super) family: Family,
}

/// An image in the words of one family.
pub(super) struct Written {
    /// The manifest.
    pub(super) manifest: Manifest,
    /// Its bytes.
    pub(super) manifest_bytes: Vec<u8>,
    /// The configuration's bytes.
    pub(super) config_bytes: Vec<u8>,
}

impl Product {
    /// The image of a stage, with the labels of the request.
    pub(super) fn of(stage: &Stage, options: &BuildOptions) -> Self {
        let mut config = config::to_image(&stage.base, &stage.evaluated);
        config.config.labels.extend(options.labels.clone());
        config.created.clone_from(&stage.created);
        config.rootfs =
            RootFs { diff_ids: stage.layers.iter().map(|layer| layer.diff_id).collect(), ..RootFs::default() };
        config.history = history(&stage.history, stage.layers.len());
        let zstd = stage.layers.iter().any(|layer| layer.compression() == Compression::Zstd);
        // Docker's types have no name for Zstandard that everybody knows.
        let family = if zstd { Family::Oci } else { stage.family };
        Self { config, layers: stage.layers.clone(), family }
    }

    /// The image as a family writes it.
    pub(super) fn write(&self, family: Family) -> Written {
        let config_bytes = self.config.to_bytes();
        let config = Descriptor::of(family.config(), &config_bytes);
        let layers = self.layers.iter().map(|layer| layer.descriptor_in(family)).collect();
        let manifest = Manifest::new(family, config, layers);
        Written { manifest_bytes: manifest.to_bytes(), manifest, config_bytes }
    }
}

/// As many lines that made a layer as there are layers: some tools drop the history of an image, wholly or in part
/// (BuildKit's `normalizeLayersAndHistory`).
fn history(history: &[History], layers: usize) -> Vec<History> {
    let mut history = history.to_vec();
    let mut told = history.iter().filter(|line| !line.empty_layer).count();
    for line in history.iter_mut().rev().filter(|line| !line.empty_layer) {
        if told <= layers {
            break;
        }
        line.empty_layer = true;
        told -= 1;
    }
    let missing = (told..layers).map(|_| History::default());
    missing.chain(history).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_and_layers_agree() {
        let line =
            |text: &str, empty_layer| History { created_by: Some(text.to_owned()), empty_layer, ..History::default() };
        let lines = [line("a", false), line("b", true), line("c", false)];
        let count = |layers| history(&lines, layers).iter().filter(|line| !line.empty_layer).count();
        assert_eq!([count(0), count(1), count(2), count(4)], [0, 1, 2, 4]);
        assert_eq!(history(&lines, 2), lines);
        assert_eq!(history(&lines, 3)[0], History::default());
    }
}
