//! A build context as a directory that a daemon may sync.

use std::io::Read;
use std::sync::Arc;

use super::packet::FileType;
use super::source::{Node, SyncDir};
use crate::context::{Context, Entry, Kind, Mtime};
use crate::error::{Error, Result};

/// Serves the entries of a context.
pub struct ContextDir(Arc<Context>);

impl ContextDir {
    /// Serves all of `context`: what its ignore file excludes is not in it.
    pub fn new(context: Arc<Context>) -> Self {
        Self(context)
    }

    fn first_name(&self, entry: &Entry) -> Option<&Entry> {
        match entry.kind {
            Kind::Hardlink { first } => self.0.entries().get(first),
            _ => None,
        }
    }
}

impl SyncDir for ContextDir {
    fn len(&self) -> usize {
        self.0.entries().len()
    }

    fn node(&self, index: usize) -> Node<'_> {
        let entry = &self.0.entries()[index];
        let first = self.first_name(entry);
        let (kind, device) = match entry.kind {
            Kind::File { .. } | Kind::Hardlink { .. } => (FileType::File, (0, 0)),
            Kind::Dir => (FileType::Dir, (0, 0)),
            Kind::Symlink { .. } => (FileType::Symlink, (0, 0)),
            Kind::Fifo => (FileType::Fifo, (0, 0)),
            Kind::CharDevice { major, minor } => (FileType::CharDevice, (major, minor)),
            Kind::BlockDevice { major, minor } => (FileType::BlockDevice, (major, minor)),
        };
        let target = if let Kind::Symlink { target } = &entry.kind { target.as_slice() } else { b"" };
        Node {
            path: entry.path.as_slice().into(),
            kind,
            mode: entry.mode,
            size: first.unwrap_or(entry).size(),
            mtime: nanoseconds(entry.mtime),
            target: target.into(),
            link_to: first.map(|first| first.path.as_slice().into()),
            device,
        }
    }

    fn open(&self, index: usize) -> Result<Box<dyn Read + '_>> {
        let entry = &self.0.entries()[index];
        let reader = self.0.reader(entry)?;
        let expected = self.node(index).size;
        if reader.size() != expected {
            // The daemon has been told the other size, and would keep the new content under the old time.
            let found = format!("{} bytes", reader.size());
            return Err(Error::ContextChanged { path: entry.as_path().to_owned(), expected, found });
        }
        Ok(Box::new(reader))
    }
}

/// Times that do not fit (before 1678 or after 2262) are cut; they are only compared.
fn nanoseconds(time: Mtime) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanoseconds))
}
