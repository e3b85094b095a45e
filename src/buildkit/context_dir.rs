//! A build context as a directory that a daemon may sync.

use std::io::Read;
use std::sync::Arc;

use super::packet::FileType;
use super::source::{Node, SyncDir};
use crate::cancel::Cancel;
use crate::context::{Context, Entry, EntryId, Index, Kind, Mtime};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Serves the entries of a context.
pub struct ContextDir {
    context: Arc<Context>,
    /// The entries by the number that the daemon knows them by.
    ids: Vec<EntryId>,
    /// What the files hashed to the last time.
    index: Option<Index>,
}

impl ContextDir {
    /// Serves all of `context`: what its ignore file excludes is not in it. With an index, files that did not change since
    /// an earlier build are not read to know their digests.
    pub fn new(context: Arc<Context>, index: Option<Index>) -> Self {
        let ids = context.entries().map(|entry| entry.id()).collect();
        Self { context, ids, index }
    }

    /// The entry whose content has to be hashed for this one: a hard link's first name, so that a file is read once.
    fn hashed(&self, id: EntryId) -> Option<EntryId> {
        let entry = self.context.entry(id);
        if entry.is_extra() {
            return None;
        }
        match &entry.kind {
            Kind::File { .. } => Some(id),
            Kind::Hardlink { first, .. } => {
                let origin = self.context.find(first).filter(|first| is_file(first) && !first.is_extra());
                Some(origin.map_or(id, |first| first.id()))
            }
            _ => None,
        }
    }
}

impl SyncDir for ContextDir {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn node(&self, index: usize) -> Node<'_> {
        let entry = self.context.entry(self.ids[index]);
        let size = content_size(&entry);
        let (kind, device) = match entry.kind {
            Kind::File { .. } | Kind::Hardlink { .. } => (FileType::File, (0, 0)),
            Kind::Dir => (FileType::Dir, (0, 0)),
            Kind::Symlink { .. } => (FileType::Symlink, (0, 0)),
            Kind::Fifo => (FileType::Fifo, (0, 0)),
            Kind::CharDevice { major, minor } => (FileType::CharDevice, (major, minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, (major, minor)),
        };
        let (target, link_to) = match entry.kind {
            Kind::Symlink { target } => (target, None),
            Kind::Hardlink { first, .. } => (Vec::new(), Some(first.into())),
            _ => (Vec::new(), None),
        };
        let (path, target) = (entry.path.into(), target.into());
        Node { path, kind, mode: entry.mode, size, mtime: nanoseconds(entry.mtime), target, link_to, device }
    }

    fn digests(&self, indexes: &[usize], cancel: &Cancel) -> Result<Vec<Option<Digest>>> {
        let hashed: Vec<Option<EntryId>> = indexes.iter().map(|index| self.hashed(self.ids[*index])).collect();
        let ids: Vec<EntryId> = hashed.iter().flatten().copied().collect();
        let digests = self.context.file_digests(&ids, self.index.as_ref(), cancel)?;
        let mut digests = digests.into_iter();
        Ok(hashed.into_iter().map(|id| id.and_then(|_| digests.next())).collect())
    }

    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>> {
        let entry = self.context.entry(self.ids[index]);
        let reader = self.context.reader(&entry)?;
        let expected = content_size(&entry);
        if reader.size() != expected {
            // The daemon has been told the other size, and would keep the new content under the old time.
            let found = format!("{} bytes", reader.size());
            return Err(Error::ContextChanged { path: entry.as_path().to_owned(), expected, found });
        }
        Ok(Box::new(reader))
    }
}

const fn is_file(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File { .. })
}

/// The size of a regular file, whichever of its names this is.
const fn content_size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::Hardlink { size, .. } => size,
        _ => entry.size(),
    }
}

/// Times that do not fit (before 1678 or after 2262) are cut; they are only compared.
fn nanoseconds(time: Mtime) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanoseconds))
}
