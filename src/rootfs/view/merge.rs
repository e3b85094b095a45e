//! What layers say of one path together.

use super::super::index::{Cover, ROOT, RecordId, Shape};
use super::View;

/// What is at a path.
#[derive(Clone, Debug)]
pub(super) enum Settled {
    /// A record of a layer that is no directory.
    Node(usize, RecordId),
    Dir(Dir),
}

/// A directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    /// The layers that have part in it and their records, from the top.
    parts: Vec<(usize, RecordId)>,
    /// The one whose attributes it has, unless it is only implied.
    attributes: Option<(usize, RecordId)>,
}

impl Settled {
    /// The layer that says what it is, and its record there; none if it is a directory that is only implied.
    pub(super) fn source(&self) -> (usize, Option<RecordId>) {
        match self {
            Self::Node(layer, id) | Self::Dir(Dir { attributes: Some((layer, id)), .. }) => (*layer, Some(*id)),
            Self::Dir(Dir { parts, .. }) => (parts.first().map_or(0, |(layer, _)| *layer), None),
        }
    }
}

impl Dir {
    /// The layers that have part in it, from the top.
    pub(super) fn layers(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().map(|(layer, _)| *layer)
    }
}

impl View {
    /// The root. It is always there.
    pub(super) fn root(&self) -> Settled {
        let records = (0..self.stack.len()).rev().map(|layer| (layer, ROOT));
        self.settle(records).unwrap_or(Settled::Dir(Dir::default()))
    }

    /// What has that name in a directory.
    pub(super) fn step(&self, dir: &Dir, name: &[u8]) -> Option<Settled> {
        self.settle(
            dir.parts.iter().filter_map(|(layer, id)| Some((*layer, self.stack[*layer].index.child(*id, name)?))),
        )
    }

    /// What is in a directory, by name.
    pub(super) fn list(&self, dir: &Dir) -> Vec<(&[u8], Settled)> {
        let mut records = Vec::new();
        for (layer, id) in &dir.parts {
            let index = &self.stack[*layer].index;
            records.extend(index.children(*id).map(|child| (index.name(child), *layer, child)));
        }
        // Stable: of one name, the records stay in the order of the layers.
        records.sort_by_key(|(name, ..)| *name);
        let same = records.chunk_by(|(left, ..), (right, ..)| left == right);
        same.filter_map(|records| {
            Some((records[0].0, self.settle(records.iter().map(|(_, layer, id)| (*layer, *id)))?))
        })
        .collect()
    }

    /// What records of one path, from the top, make of it.
    fn settle(&self, records: impl Iterator<Item = (usize, RecordId)>) -> Option<Settled> {
        let mut dir = Dir::default();
        let mut covered = false;
        for (layer, id) in records {
            let index = &self.stack[layer].index;
            match index.shape(id) {
                Shape::Symlink | Shape::Other if dir.parts.is_empty() => return Some(Settled::Node(layer, id)),
                // What a layer has below a link of a lower one does not replace it. See `redirect`.
                Shape::Symlink if dir.attributes.is_none() => return Some(Settled::Node(layer, id)),
                Shape::Nothing | Shape::Symlink | Shape::Other => break,
                Shape::Implied => {}
                Shape::Dir => dir.attributes = dir.attributes.or(Some((layer, id))),
            }
            if !covered {
                dir.parts.push((layer, id));
            }
            // Where only the children are covered, the attributes may still come from below.
            match index.cover(id) {
                Cover::None => {}
                Cover::Opaque => covered = true,
                Cover::Whiteout => break,
            }
            if covered && dir.attributes.is_some() {
                break;
            }
        }
        (!dir.parts.is_empty()).then_some(Settled::Dir(dir))
    }
}
