//! Layers of a view, each for itself: whether what one says is all that has to be known to unpack it.

use std::sync::Arc;

use super::super::index::{LayerIndex, Shape};
use super::super::node::Node;
use super::View;
use super::merge::Settled;
use crate::digest::Digest;

/// A directory that a layer only names on the way to something, with what lower layers make of it.
pub(in super::super) type Implied = (Vec<u8>, Node);

impl View {
    /// What lower layers make of a layer, if it cannot be unpacked without knowing them: where its paths lead that go through
    /// links, and what directories are like that it has things in and says nothing of. `None` for nearly every layer.
    ///
    /// Times of such directories do not count.
    pub fn variant(&self, layer: usize) -> Option<Digest> {
        let moved = self.stack[layer].moved.as_ref();
        let implied = self.implied(layer);
        if moved.is_none() && implied.is_empty() {
            return None;
        }
        let mut moved: Vec<(&Vec<u8>, &Vec<u8>)> = moved.iter().flat_map(|moved| moved.iter()).collect();
        moved.sort();
        let mut text = Vec::new();
        let mut add = |part: &[u8]| {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        };
        for (to, from) in moved {
            add(to);
            add(from);
        }
        for (path, node) in implied {
            add(&path);
            add(format!("{:o} {}:{}", node.mode, node.uid, node.gid).as_bytes());
        }
        Some(Digest::of(&text))
    }

    /// The directories that a layer only implies, where they are not what they would be without lower layers.
    pub(in super::super) fn implied(&self, layer: usize) -> Vec<Implied> {
        let index = &self.stack[layer].index;
        let below = Self { layers: self.layers[..=layer].to_vec(), stack: self.stack[..=layer].to_vec() };
        let plain = Node::directory(0o755);
        let implied = index.paths().filter(|(id, path)| !path.is_empty() && index.shape(*id) == Shape::Implied);
        let nodes = implied.filter_map(|(_, path)| Some((below.find(&path)?.node, path)));
        let differs = |node: &Node| (node.mode, node.uid, node.gid) != (plain.mode, plain.uid, plain.gid);
        nodes.filter(|(node, _)| node.is_dir() && differs(node)).map(|(node, path)| (path, node)).collect()
    }

    /// The numbers of the layers that have part in a directory, the top one first; nothing for what is no directory. Their
    /// trees, one over the other, are the directory, but for its attributes.
    pub fn layers_of(&self, directory: &[u8]) -> Vec<usize> {
        match self.settle_path(directory) {
            Some(Settled::Dir(dir)) => dir.layers().collect(),
            _ => Vec::new(),
        }
    }

    /// A layer with every path where it ends up.
    pub(in super::super) fn applied(&self, layer: usize) -> &Arc<LayerIndex> {
        &self.stack[layer].index
    }

    /// The name that the layer itself has for the file at a path of [`View::applied`].
    pub(in super::super) fn name_in_layer<'a>(&'a self, layer: usize, path: &'a [u8]) -> &'a [u8] {
        self.stack[layer].name_in_layer(path).unwrap_or(path)
    }
}
