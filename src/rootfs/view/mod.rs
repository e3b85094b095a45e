//! A file system: layers, one over the other.
//!
//! A directory is a list of records, one in each layer that has part in it, from the top down to where lower layers are
//! covered. From there one step leads to a child: the records of its name in these layers decide what it is.

mod apart;
mod merge;
mod redirect;
mod resolve;
mod users;
mod walk;

use std::collections::HashMap;
use std::sync::Arc;

use super::index::LayerIndex;
use super::node::Node;
use crate::error::Result;
use merge::Settled;

pub(super) use apart::Implied;
pub use users::ExecUser;

/// A stack of layers, lowest first. A copy costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// As they were given.
    layers: Vec<Arc<LayerIndex>>,
    /// As they are applied.
    stack: Vec<Applied>,
}

/// A layer with every path where it ends up.
#[derive(Clone, Debug)]
struct Applied {
    index: Arc<LayerIndex>,
    /// The names in the layer of files that are elsewhere now: the layer's path leads through a link of a lower one.
    moved: Option<Arc<HashMap<Vec<u8>, Vec<u8>>>>,
}

/// Something in a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Relative to the root; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// The number of the layer that says so, from 0 for the lowest. 0 too for the root of no layers.
    pub layer: usize,
    /// The name under which that layer has its content: for a hard link, the file's first name.
    pub content_path: Vec<u8>,
}

impl View {
    /// Puts a layer on top.
    ///
    /// Entries of the layer that lead through a symbolic link of a lower layer (`bin/sh`, where `bin` is a link to `usr/bin`
    /// and the layer has no directory `bin`) are put where the link leads, as containerd and Docker do. Fails with
    /// `ImageInvalid` if links there lead in a circle, or below a file of the layer.
    pub fn push(&mut self, layer: Arc<LayerIndex>) -> Result<()> {
        self.stack.push(Applied { index: Arc::clone(&layer), moved: None });
        match redirect::redirected(self) {
            Ok(None) => {}
            Ok(Some(applied)) => {
                self.stack.pop();
                self.stack.push(applied);
            }
            Err(error) => {
                self.stack.pop();
                return Err(error);
            }
        }
        self.layers.push(layer);
        Ok(())
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<LayerIndex>] {
        &self.layers
    }

    /// What is at a path. No link is followed: where a part of the path is one, nothing is there.
    pub fn find(&self, path: &[u8]) -> Option<Found> {
        let settled = self.settle_path(path)?;
        let path: Vec<&[u8]> = parts(path).collect();
        Some(self.found(&settled, path.join(&b'/')))
    }

    /// What is in a directory, by name. Nothing is in what is no directory.
    pub fn children(&self, directory: &[u8]) -> Vec<Found> {
        let Some(Settled::Dir(dir)) = self.settle_path(directory) else { return Vec::new() };
        let directory: Vec<&[u8]> = parts(directory).collect();
        let directory = directory.join(&b'/');
        self.list(&dir).into_iter().map(|(name, settled)| self.found(&settled, join(&directory, name))).collect()
    }

    fn settle_path(&self, path: &[u8]) -> Option<Settled> {
        parts(path).try_fold(self.root(), |at, part| match at {
            Settled::Dir(dir) => self.step(&dir, part),
            Settled::Node(..) => None,
        })
    }

    fn found(&self, settled: &Settled, path: Vec<u8>) -> Found {
        let (layer, id) = settled.source();
        let node = id.and_then(|id| self.stack[layer].index.node(id)).unwrap_or(Node::directory(0o755));
        let content_path = match id.and_then(|id| self.stack[layer].index.first_name(id)) {
            Some(first) => first.to_owned(),
            None => self.stack.get(layer).and_then(|applied| applied.name_in_layer(&path)).unwrap_or(&path).to_owned(),
        };
        Found { path, node, layer, content_path }
    }
}

impl Applied {
    fn name_in_layer(&self, path: &[u8]) -> Option<&[u8]> {
        self.moved.as_ref()?.get(path).map(Vec::as_slice)
    }
}

/// The parts of a path.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// The path of something in a directory.
fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}
