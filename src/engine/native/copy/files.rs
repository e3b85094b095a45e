//! What COPY reads: trees of files, whatever they come from.

use std::fs::File;
use std::sync::Arc;

use crate::context::{Context, Entry, EntryId, Kind};
use crate::digest::Digest;
use crate::layer::Content;
use crate::mtime::Mtime;
use crate::rootfs::Xattrs;

/// A file system that things are copied from, or to. Paths are relative to its root, clean, `/` between their parts; the
/// root has the empty path. No link is followed.
pub trait Files {
    /// What is at a path. The root of any file system is a directory.
    fn find(&self, path: &[u8]) -> Option<Item>;

    /// What is in a directory, by the bytes of the names; nothing for what is no directory.
    fn children(&self, directory: &[u8]) -> Vec<Item>;

    /// What it is, for messages: "the build context".
    fn name(&self) -> String;

    /// Why it has nothing at a path, where there is more to say than that it is not there.
    fn why_missing(&self, _path: &[u8]) -> Option<String> {
        None
    }
}

/// What is at a path.
#[derive(Clone, Debug)]
pub struct Item {
    /// The path.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// Permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Whom it belongs to.
    pub owner: Owner,
    /// When it was modified.
    pub mtime: Mtime,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What an item is.
#[derive(Clone, Debug)]
pub enum ItemKind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Where the bytes come from.
        content: Content,
        /// Of the content, if it is known.
        digest: Option<Digest>,
        /// The first name of the file, if this is a further one.
        first: Option<FileId>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// The target as it is stored.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
}

/// Which file of a file system it is, whatever its name: the layer that it is in, and its first name there. Where there
/// are no layers, the number is 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The layer.
    pub layer: usize,
    /// The first name, a path.
    pub path: Vec<u8>,
}

impl Item {
    /// A directory of root's.
    pub(super) const fn directory(path: Vec<u8>) -> Self {
        let owner = Owner { uid: 0, gid: 0 };
        Self { path, kind: ItemKind::Dir, mode: 0o755, owner, mtime: Mtime::FIXED, xattrs: Xattrs::new() }
    }

    /// A file of the web, which `BuildKit` puts down with the mode 0600: its name, and where its bytes begin in a file of
    /// this machine. The beginning of 1970 is the time of one whose server tells none.
    pub fn of_web(name: &str, file: Arc<File>, size: u64, digest: Digest, mtime: Option<Mtime>) -> Self {
        let content = Content::Spool { file, offset: 0 };
        let kind = ItemKind::File { size, content, digest: Some(digest), first: None };
        let (path, owner) = (name.as_bytes().to_vec(), Owner::default());
        Self { path, kind, mode: 0o600, owner, mtime: mtime.unwrap_or_default(), xattrs: Xattrs::new() }
    }

    /// Whether it is a directory.
    pub const fn is_dir(&self) -> bool {
        matches!(self.kind, ItemKind::Dir)
    }
}

/// A file system with nothing in it.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Files for Nothing {
    fn find(&self, path: &[u8]) -> Option<Item> {
        path.is_empty().then(|| Item::directory(Vec::new()))
    }

    fn children(&self, _directory: &[u8]) -> Vec<Item> {
        Vec::new()
    }

    fn name(&self) -> String {
        "`scratch`".to_owned()
    }
}

/// The build context, a named one, or what was checked out of a git repository. Everything in it belongs to root.
#[derive(Clone, Debug)]
pub struct ContextFiles {
    context: Arc<Context>,
    name: String,
    time: Option<Mtime>,
}

impl ContextFiles {
    /// A context and what it is called in messages.
    pub fn new(context: Arc<Context>, name: impl Into<String>) -> Self {
        Self { context, name: name.into(), time: None }
    }

    /// The same, but everything in it was modified at this time: that of a commit.
    #[must_use]
    pub fn with_time(self, time: Mtime) -> Self {
        Self { time: Some(time), ..self }
    }

    fn item(&self, entry: Entry) -> Item {
        let id = entry.id();
        let kind = match entry.kind {
            Kind::File { size } => self.file(id, size, None),
            Kind::Hardlink { first, size } => self.file(id, size, Some(FileId { layer: 0, path: first })),
            Kind::Dir => ItemKind::Dir,
            Kind::Symlink { target } => ItemKind::Symlink { target },
            Kind::Fifo => ItemKind::Fifo,
            Kind::CharDevice { major, minor } => ItemKind::CharDevice { major, minor },
            Kind::BlockDevice { major, minor } => ItemKind::BlockDevice { major, minor },
        };
        let Entry { path, mode, mtime, .. } = entry;
        let mtime = self.time.unwrap_or(mtime);
        Item { path, kind, mode, owner: Owner::default(), mtime, xattrs: Xattrs::new() }
    }

    fn file(&self, id: EntryId, size: u64, first: Option<FileId>) -> ItemKind {
        ItemKind::File { size, content: Content::Context(Arc::clone(&self.context), id), digest: None, first }
    }
}

impl Files for ContextFiles {
    fn find(&self, path: &[u8]) -> Option<Item> {
        if path.is_empty() {
            return Some(Item::directory(Vec::new()));
        }
        self.context.find(path).map(|entry| self.item(entry))
    }

    fn children(&self, directory: &[u8]) -> Vec<Item> {
        self.context.children(directory).into_iter().map(|entry| self.item(entry)).collect()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn why_missing(&self, path: &[u8]) -> Option<String> {
        let pattern = self.context.excluded_by(path)?;
        let source = pattern.source.trim();
        Some(match &pattern.file {
            Some(file) => format!("line {} of `{file}` excludes it: `{source}`", pattern.line),
            None => format!("`{source}` excludes it"),
        })
    }
}
