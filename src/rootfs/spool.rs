//! A place for contents that are needed in this build only.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// A file without a name, which is gone with the last that has it open. Contents are put one behind the other.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    dir: PathBuf,
    length: u64,
}

impl Spool {
    /// A new one, on the file system of a directory. Fails with `NoSpace` or `Store`.
    pub fn new(dir: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(dir).map_err(|source| failed(dir, source))?;
        Ok(Self { file: Arc::new(file), dir: dir.to_owned(), length: 0 })
    }

    /// The file. What is in it stays as it is; read it with `read_at`.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// How much is in it: where the next content begins.
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes. Fails with `NoSpace` or `Store`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.length).map_err(|source| failed(&self.dir, source))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets all behind an offset: something that was not put in whole. It is written over.
    pub(super) fn forget(&mut self, offset: u64) {
        self.length = self.length.min(offset);
    }
}

fn failed(dir: &Path, source: io::Error) -> Error {
    let action = "write a temporary file";
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::NoSpace { message: format!("cannot {action} at `{}`: {source}", dir.display()) }
        }
        _ => Error::Store { path: dir.to_owned(), action: action.into(), source },
    }
}
