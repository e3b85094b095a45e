//! The index of a layer that is being written.

use sha2::{Digest as _, Sha256};

use super::content;
use super::entry::{LayerEntry, LayerKind};
use super::plan::BigFile;
use super::render::{Made, What};
use crate::context::compare_paths;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::rootfs::{IndexEntry, LayerIndex, Node, NodeKind};

/// What was written so far, in order.
#[derive(Default)]
pub(super) struct Recorder {
    entries: Vec<(Vec<u8>, IndexEntry)>,
    /// Contents that an index keeps.
    kept: Vec<(Vec<u8>, Vec<u8>)>,
    files: u64,
    /// The hash of a big file, of which some parts came.
    big: Sha256,
}

impl Recorder {
    /// Adds what is in the next unit.
    pub(super) fn add(&mut self, what: What, plain: &[u8]) -> Result<()> {
        match what {
            What::End => Ok(()),
            What::Entries(entries) => entries.into_iter().try_for_each(|made| self.add_entry(made)),
            What::Part { file, content, last } => {
                self.big.update(&plain[content.clone()]);
                if !last {
                    return Ok(());
                }
                let found = Digest::from_bytes(std::mem::take(&mut self.big).finalize().into());
                let BigFile { entry, content: source, size, digest, .. } = &*file;
                if digest.is_some_and(|digest| digest != found) {
                    return Err(content::changed(&entry.path, source, *size));
                }
                // One that came in parts has its end here only.
                let whole = (content.len() as u64 == *size).then(|| &plain[content]);
                let kept = whole.filter(|_| is_kept(entry)).map(<[u8]>::to_vec);
                self.add_entry(Made { entry: entry.clone(), digest: Some(found), kept })
            }
        }
    }

    fn add_entry(&mut self, made: Made) -> Result<()> {
        let Made { entry, digest, kept } = made;
        let path = entry.path.clone();
        let no_digest = || Error::internal("a file of a layer was not hashed");
        let made = match entry.kind.clone() {
            LayerKind::Whiteout => IndexEntry::Whiteout,
            LayerKind::Opaque => IndexEntry::Opaque,
            LayerKind::File { size, .. } => {
                self.files += 1;
                let digest = digest.ok_or_else(no_digest)?;
                IndexEntry::Node(node(entry, NodeKind::File { size, digest }))
            }
            LayerKind::Hardlink { first, .. } => {
                self.files += 1;
                let kind = self.file(&first)?;
                IndexEntry::Hardlink { first, node: node(entry, kind) }
            }
            LayerKind::Dir => IndexEntry::Node(node(entry, NodeKind::Dir)),
            LayerKind::Symlink { target } => IndexEntry::Node(node(entry, NodeKind::Symlink { target })),
            LayerKind::Fifo => IndexEntry::Node(node(entry, NodeKind::Fifo)),
            LayerKind::CharDevice { major, minor } => {
                IndexEntry::Node(node(entry, NodeKind::CharDevice { major, minor }))
            }
            LayerKind::BlockDevice { major, minor } => {
                IndexEntry::Node(node(entry, NodeKind::BlockDevice { major, minor }))
            }
        };
        if let Some(content) = kept {
            self.kept.push((path.clone(), content));
        }
        self.entries.push((path, made));
        Ok(())
    }

    /// The content of a file that stands before.
    fn file(&self, path: &[u8]) -> Result<NodeKind> {
        let from = self.entries.partition_point(|(other, _)| compare_paths(other, path).is_lt());
        let found = self.entries[from..].iter().take_while(|(other, _)| other == path);
        let kind = found.filter_map(|(_, entry)| match entry {
            IndexEntry::Node(node @ Node { kind: NodeKind::File { .. }, .. }) => Some(node.kind.clone()),
            _ => None,
        });
        let missing = || format!("no file `{}` stands before its hard link in a layer", String::from_utf8_lossy(path));
        kind.last().ok_or_else(|| Error::internal(missing()))
    }

    /// The index, and how many files are in it.
    pub(super) fn finish(self) -> (LayerIndex, u64) {
        let mut index = LayerIndex::new(self.entries);
        for (path, content) in self.kept {
            index.keep(&path, content);
        }
        (index, self.files)
    }
}

/// Whether an index keeps the content of a file.
pub(super) fn is_kept(entry: &LayerEntry) -> bool {
    matches!(entry.kind, LayerKind::File { size, .. } if LayerIndex::keeps(&entry.path, entry.mode, size))
}

fn node(entry: LayerEntry, kind: NodeKind) -> Node {
    let LayerEntry { mode, uid, gid, mtime, xattrs, .. } = entry;
    Node { kind, mode: mode & 0o7777, uid, gid, mtime, xattrs }
}
