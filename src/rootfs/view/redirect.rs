//! Layers that name paths below a symbolic link.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::index::{IndexEntry, LayerIndex, RecordId, Shape, Tree};
use super::super::tar::invalid;
use super::{Applied, View, join};
use crate::error::Result;

/// The topmost layer of a view with every path where it ends up, if a path of it leads through a link: one of a lower layer,
/// where the layer has no directory of its own, or one of the layer itself.
pub(super) fn redirected(view: &View) -> Result<Option<Applied>> {
    let Some(Applied { index, .. }) = view.stack.last() else { return Ok(None) };
    if !index.has_passages() {
        return Ok(None);
    }
    let mut leads = false;
    for (_, path) in index.paths().filter(|(id, _)| index.is_passage(*id)) {
        if view.resolve(&path)? != path {
            leads = true;
            break;
        }
    }
    leads.then(|| rebuild(view, index)).transpose()
}

fn rebuild(view: &View, index: &LayerIndex) -> Result<Applied> {
    let mut tree = Tree::default();
    let mut moved = HashMap::new();
    // Where the parents of the entry are, from the root on: how long its path is in the layer, and the path where it leads.
    let mut parents: Vec<(usize, Vec<u8>)> = Vec::new();
    for (id, path) in index.paths() {
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (slash, &path[slash + 1..]),
            None => (0, &path[..]),
        };
        while parents.last().is_some_and(|(length, _)| *length > parent) {
            parents.pop();
        }
        let goes_to = parents.last().map_or_else(|| name.to_owned(), |(_, parent)| join(parent, name));
        let leads_to = if index.is_passage(id) { view.resolve(&goes_to)? } else { goes_to.clone() };
        for entry in index.entries(id) {
            // What makes a directory opaque is in it.
            let place = if entry == IndexEntry::Opaque { &leads_to } else { &goes_to };
            let is_node = !matches!(entry, IndexEntry::Opaque | IndexEntry::Whiteout);
            if !tree.add(place, entry) {
                return Err(invalid(format!("`{}` leads below a file", String::from_utf8_lossy(&path))));
            }
            if is_node && goes_to == path {
                moved.remove(&goes_to);
            } else if is_node {
                moved.insert(goes_to.clone(), path.clone());
            }
        }
        if index.is_parent(id) {
            parents.push((path.len(), leads_to));
        }
    }
    Ok(Applied { index: Arc::new(tree.finish()), moved: Some(Arc::new(moved)) })
}

impl LayerIndex {
    /// Whether paths of the layer lead over this record to where something else may say what it is.
    fn is_passage(&self, id: RecordId) -> bool {
        match self.shape(id) {
            Shape::Implied => true,
            Shape::Symlink => self.is_parent(id),
            Shape::Nothing | Shape::Dir | Shape::Other => false,
        }
    }

    fn is_parent(&self, id: RecordId) -> bool {
        !self.children(id).is_empty()
    }

    fn has_passages(&self) -> bool {
        self.ids().any(|id| self.is_passage(id))
    }
}
