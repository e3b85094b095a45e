//! Reading the content of files.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::Content;
use crate::context::EntryReader;
use crate::error::{Error, Result};
use crate::rootfs::TreeFile;

/// Appends all of a small file. Fails with `ContextChanged` if a file of the context has another size by now.
pub(super) fn append(path: &[u8], from: &Content, size: u64, out: &mut Vec<u8>) -> Result<()> {
    if let Content::Context(context, id) = from {
        let entry = context.entry(*id);
        let start = out.len();
        if entry.size() == size && context.append_unchanged(&entry, out).is_some() {
            return Ok(());
        }
        out.truncate(start);
    }
    let length = usize::try_from(size).map_err(|_| Error::internal("a file is too big for a unit"))?;
    Source::open(path, from, size)?.append_to(out, 0, length)
}

/// The content of a file, whose size has been checked.
pub(super) enum Source {
    Memory(Bytes),
    Context(EntryReader),
    Spool { file: Arc<File>, start: u64, path: PathBuf },
    Tree(TreeFile),
}

impl Source {
    pub(super) fn open(path: &[u8], from: &Content, size: u64) -> Result<Self> {
        match from {
            Content::Bytes(bytes) if bytes.len() as u64 == size => Ok(Self::Memory(bytes.clone())),
            Content::Bytes(_) => Err(Error::internal("a file of a layer has another size than its bytes")),
            Content::Context(context, id) => {
                let entry = context.entry(*id);
                let reader = context.reader(&entry)?;
                if reader.size() == size {
                    return Ok(Self::Context(reader));
                }
                let (path, found) = (context.full_path(&entry), format!("had {}", reader.size()));
                Err(Error::ContextChanged { path, expected: size, found })
            }
            Content::Spool { file, offset } => {
                Ok(Self::Spool { file: Arc::clone(file), start: *offset, path: path_of(path) })
            }
            Content::Tree { files, stamp } => Ok(Self::Tree(files.file(path, size, *stamp)?)),
            Content::InLayer { .. } => Err(Error::internal("a file of a layer is still in another one")),
        }
    }

    /// Appends `length` bytes from a place in the content.
    pub(super) fn append_to(&self, out: &mut Vec<u8>, offset: u64, length: usize) -> Result<()> {
        match self {
            Self::Context(reader) => reader.append_to(out, offset, length),
            Self::Tree(file) => file.append_to(out, offset, length),
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = start.checked_add(length).and_then(|end| bytes.get(start..end));
                out.extend_from_slice(part.ok_or_else(|| Error::internal("more was read of a file than it has"))?);
                Ok(())
            }
            Self::Spool { file, start, path } => {
                let from = out.len();
                out.resize(from + length, 0);
                file.read_exact_at(&mut out[from..], start + offset).map_err(|source| match source.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        Error::StoreDamaged { path: path.clone(), reason: "its content ends too early".into() }
                    }
                    _ => Error::Store { path: path.clone(), action: "read a file".into(), source },
                })
            }
        }
    }
}

/// What a file that has other bytes than it should have is.
pub(super) fn changed(path: &[u8], from: &Content, size: u64) -> Error {
    match from {
        Content::Context(context, id) => {
            let path = context.full_path(&context.entry(*id));
            Error::ContextChanged { path, expected: size, found: "had others".into() }
        }
        _ => Error::StoreDamaged { path: path_of(path), reason: "its content is not what was put down".into() },
    }
}

fn path_of(path: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}
