//! File systems of images and stages, as COPY sees them.

use super::files::{FileId, Files, Item, ItemKind, Owner};
use super::owner::Account;
use crate::error::Result;
use crate::layer::Content;
use crate::rootfs::{Found, Node, NodeKind, View};

/// The file system of an image or a stage, under a name.
#[derive(Clone, Debug)]
pub struct ViewFiles {
    view: View,
    name: String,
}

impl ViewFiles {
    /// A view and what it is called in messages: "stage `build`".
    pub fn new(view: View, name: impl Into<String>) -> Self {
        Self { view, name: name.into() }
    }
}

/// What a view has at a path, with its content in a layer of the view.
fn item(found: Found) -> Item {
    let Found { path, node, layer, content_path } = found;
    let Node { kind, mode, uid, gid, mtime, xattrs } = node;
    let kind = match kind {
        NodeKind::File { size, digest } => {
            let first = (content_path != path).then(|| FileId { layer, path: content_path.clone() });
            let content = Content::InLayer { layer, path: content_path };
            ItemKind::File { size, content, digest: Some(digest), first }
        }
        NodeKind::Dir => ItemKind::Dir,
        NodeKind::Symlink { target } => ItemKind::Symlink { target },
        NodeKind::Fifo => ItemKind::Fifo,
        NodeKind::CharDevice { major, minor } => ItemKind::CharDevice { major, minor },
        NodeKind::BlockDevice { major, minor } => ItemKind::BlockDevice { major, minor },
    };
    Item { path, kind, mode, owner: Owner { uid, gid }, mtime, xattrs }
}

impl Files for View {
    fn find(&self, path: &[u8]) -> Option<Item> {
        Self::find(self, path).map(item)
    }

    fn children(&self, directory: &[u8]) -> Vec<Item> {
        Self::children(self, directory).into_iter().map(item).collect()
    }

    fn name(&self) -> String {
        "the image".to_owned()
    }
}

impl Files for ViewFiles {
    fn find(&self, path: &[u8]) -> Option<Item> {
        Files::find(&self.view, path)
    }

    fn children(&self, directory: &[u8]) -> Vec<Item> {
        Files::children(&self.view, directory)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Account for View {
    fn user(&self, name: &str) -> Result<Option<Owner>> {
        Ok(Self::user(self, name)?.map(|(uid, gid)| Owner { uid, gid }))
    }

    fn group(&self, name: &str) -> Result<Option<u32>> {
        Self::group(self, name)
    }
}
