//! Reading the content of an entry.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::{Buf as _, Bytes};
use rustix::io::Errno;

use super::entry::{Entry, Kind, Source};
use super::root::Root;
use crate::error::{Error, Result};

/// The content of one regular file: exactly [`size`](Self::size) bytes, or an error.
///
/// The size is the file's when it was opened for reading. It is [`Entry::size`] unless something wrote to the file after
/// the context was opened. A file that grows while it is read ends after `size` bytes; one that shrinks is a
/// `ContextChanged`, which the `Read` implementation wraps in an [`io::Error`] ([`EntryReader::error`] unwraps it).
#[derive(Debug)]
pub struct EntryReader {
    content: Content,
    size: u64,
    left: u64,
}

#[derive(Debug)]
enum Content {
    Disk { file: File, path: PathBuf },
    Memory(Bytes),
}

impl EntryReader {
    /// Opens a regular file. Fails with `ContextChanged` when it has gone or has become something else, and with
    /// `ContextRead` when it cannot be opened.
    pub(super) fn open(root: Option<&Root>, entry: &Entry) -> Result<Self> {
        if !matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. }) {
            return Err(Error::internal(format!("`{}` has no content to read", entry.display_path())));
        }
        match (&entry.source, root) {
            (Source::Memory(content), _) => {
                let size = content.len() as u64;
                Ok(Self { content: Content::Memory(content.clone()), size, left: size })
            }
            (Source::Disk { .. }, Some(root)) => Self::open_file(root, entry),
            (Source::Disk { .. }, None) => Err(Error::internal("an entry on disk in a context without a root")),
        }
    }

    fn open_file(root: &Root, entry: &Entry) -> Result<Self> {
        let path = root.join(&entry.path);
        let changed =
            |path, found: &str| Error::ContextChanged { path, expected: entry.size(), found: found.to_owned() };
        let file = match root.open_file(&entry.path) {
            Ok(file) => file,
            Err(error) => {
                return Err(match Errno::from_io_error(&error) {
                    Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => changed(path, "was gone"),
                    _ => Error::ContextRead { path, source: error },
                });
            }
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => {
                Ok(Self { content: Content::Disk { file, path }, size: metadata.len(), left: metadata.len() })
            }
            Ok(_) => Err(changed(path, "was no file")),
            Err(source) => Err(Error::ContextRead { path, source }),
        }
    }

    /// How many bytes there are in all.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads some bytes; 0 only when `size` bytes have been read or `buffer` is empty.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let count = match &mut self.content {
            Content::Memory(bytes) => {
                bytes.copy_to_slice(&mut buffer[..most]);
                most
            }
            Content::Disk { file, path } => loop {
                match file.read(&mut buffer[..most]) {
                    Ok(0) => {
                        let found = format!("ended after {}", self.size - self.left);
                        return Err(Error::ContextChanged { path: path.clone(), expected: self.size, found });
                    }
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(Error::ContextRead { path: path.clone(), source }),
                }
            },
        };
        self.left -= count as u64;
        Ok(count)
    }

    /// The error inside of one that the `Read` implementation returned.
    pub fn error(error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::ContextWrite { source },
        }
    }
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::other)
    }
}
