//! What the files of a context hashed to the last time, so that an unchanged file is not read again.
//!
//! There is one index file for each root, in a folder of the user's cache. It maps a path and a [`Stamp`] to the SHA-256
//! of the content. The rules that keep it honest:
//!
//! - A hash is used only where the stamp is the same: size, inode, mode, times of modification and of change.
//! - A hash is kept only if the file's times lie far enough in the past that a later write could not leave them as they
//!   are (`clock`), and the file was the same before and after it was read. This is what git calls racily clean.
//! - An index file is written beside the old one and renamed. Processes that write at once both write whole files; one of
//!   them wins, and nothing in either is wrong. Each block has a checksum: what a crash or a disk damaged is not used.
//! - Only files that belong to this user and that nobody else may write are read.
//! - An index file, and the folder, are bounded in size; a file that was not seen for a month is forgotten.
//!
//! Nothing here fails a digest: where the index cannot be read or written, everything is hashed.

mod clock;
mod file;
mod folder;

use std::path::{Path, PathBuf};

use super::root::Root;
use super::stamp::Stamp;
use crate::digest::Digest;
use crate::environment::Environment;

pub(super) use clock::Clock;
pub(super) use file::Record;
use file::{Reader, Writer};

/// The folder of the index files.
#[derive(Clone, Debug)]
pub struct Index {
    folder: PathBuf,
}

impl Index {
    /// An index in a folder, which is made when something is kept.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The one in the user's cache; `None` where there is no such place.
    pub fn of_user(environment: &Environment) -> Option<Self> {
        environment.cache_dir().map(|cache| Self::at(cache.join("contexts")))
    }

    /// What is known of the files below a root.
    pub(super) fn lookup(&self, root: &Root) -> Lookup {
        Lookup { reader: self.read(root) }
    }

    /// Collects what is found out about the files below a root.
    pub(super) fn recorder(&self, root: &Root) -> Recorder<'_> {
        let path = folder::canonical(root);
        Recorder { index: self, root: path, writer: None, failed: false, same: true }
    }

    fn begin(&self, root: &Path) -> Option<Writer> {
        folder::create(&self.folder).ok()?;
        let path = folder::file(&self.folder, root);
        Writer::create(&path, root, Reader::open(&path, root)).ok()
    }

    fn read(&self, root: &Root) -> Option<Reader> {
        let path = folder::canonical(root)?;
        Reader::open(&folder::file(&self.folder, &path), &path)
    }
}

/// Finds hashes by path, asked in the order of a walk.
pub(super) struct Lookup {
    reader: Option<Reader>,
}

impl Lookup {
    /// The hash of a file, if it is known and the file has not changed since.
    pub(super) fn find(&mut self, path: &[u8], stamp: Stamp) -> Option<Digest> {
        let record = self.reader.as_mut()?.seek(path)?;
        (record.stamp == stamp).then_some(record.content)
    }
}

/// Writes a new index file, once there is something new.
pub(super) struct Recorder<'a> {
    index: &'a Index,
    root: Option<PathBuf>,
    writer: Option<Writer>,
    failed: bool,
    /// Whether all that came was known.
    same: bool,
}

impl Recorder<'_> {
    /// Takes the next file, in the order of a walk. `known` is whether the hash came from the index.
    pub(super) fn put(&mut self, record: &Record, known: bool) {
        if self.failed || (known && self.writer.is_none()) {
            return;
        }
        self.same = false;
        if self.writer.is_none() {
            self.writer = self.root.as_deref().and_then(|root| self.index.begin(root));
        }
        self.failed = self.writer.as_mut().is_none_or(|writer| writer.put(record).is_err());
    }

    /// Keeps what was collected.
    pub(super) fn finish(self) {
        let Some(root) = &self.root else { return };
        if self.same {
            folder::touch(&folder::file(&self.index.folder, root));
        } else if !self.failed
            && let Some(writer) = self.writer
            && writer.finish().is_ok()
        {
            folder::shrink(&self.index.folder, folder::MAX_BYTES);
        }
    }
}
