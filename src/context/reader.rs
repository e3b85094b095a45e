//! Reading the content of an entry.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Stat, sendfile};
use rustix::io::{Errno, pread};

use super::entry::{Entry, Kind, Source};
use super::output::write_error;
use super::root::Root;
use crate::error::{Error, Result};
use crate::pack::Buffers;

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
            (Source::Disk, Some(root)) => Self::open_file(root, entry),
            (Source::Disk, None) => Err(Error::internal("an entry on disk in a context without a root")),
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

    /// What the file system says of the file now; `None` for what is in memory.
    pub(super) fn stat(&self) -> Option<Stat> {
        match &self.content {
            Content::Disk { file, .. } => rustix::fs::fstat(file).ok(),
            Content::Memory(_) => None,
        }
    }

    /// Reads some bytes; 0 only when `size` bytes have been read or `buffer` is empty.
    pub fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        self.read_at(&mut buffer[..most], self.size - self.left)?;
        self.left -= most as u64;
        Ok(most)
    }

    /// Fills the buffer from a place in the content, whatever has been read so far.
    pub(super) fn read_at(&self, mut buffer: &mut [u8], mut offset: u64) -> Result<()> {
        match &self.content {
            Content::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let part = start.checked_add(buffer.len()).and_then(|end| bytes.get(start..end));
                buffer.copy_from_slice(part.ok_or_else(|| Error::internal("more was read of a file than it has"))?);
            }
            Content::Disk { file, path } => {
                while !buffer.is_empty() {
                    match file.read_at(buffer, offset) {
                        Ok(0) => return Err(self.ended(path, offset)),
                        Ok(count) => {
                            buffer = &mut buffer[count..];
                            offset += count as u64;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(source) => return Err(Error::ContextRead { path: path.clone(), source }),
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends `length` bytes from a place in the content to a buffer, which is not cleared for them before.
    pub(crate) fn append_to(&self, buffer: &mut Vec<u8>, offset: u64, length: usize) -> Result<()> {
        let Content::Disk { file, path } = &self.content else {
            let start = buffer.len();
            buffer.resize(start + length, 0);
            return self.read_at(&mut buffer[start..], offset);
        };
        let end = buffer.len() + length;
        buffer.reserve_exact(length);
        while buffer.len() < end {
            let at = offset + (length - (end - buffer.len())) as u64;
            match pread(file, spare_capacity(buffer), at) {
                Ok(0) => return Err(self.ended(path, at)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::ContextRead { path: path.clone(), source: errno.into() }),
            }
        }
        // The buffer may have had more room than asked for, and the file more content.
        buffer.truncate(end);
        Ok(())
    }

    /// Writes a part of the content to a file; no longer than a buffer.
    ///
    /// Between files on disk the kernel copies. Where it does not, it is not asked why: the rest is read and written, which
    /// fails with the right error if it must.
    pub(super) fn copy_to(&self, mut to: &File, offset: u64, length: u64, buffers: &Buffers) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        if let Content::Disk { file, .. } = &self.content {
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX);
                // The call moves `at`.
                match sendfile(to, file, Some(&mut at), left) {
                    Ok(1..) | Err(Errno::INTR) => {}
                    Ok(0) | Err(_) => break,
                }
            }
        }
        if at < end {
            let mut buffer = buffers.take();
            let rest = usize::try_from(end - at).map_err(|_| Error::internal("a part is too big"))?;
            self.append_to(&mut buffer, at, rest)?;
            to.write_all(&buffer).map_err(write_error)?;
            buffers.give(buffer);
        }
        Ok(())
    }

    fn ended(&self, path: &Path, at: u64) -> Error {
        Error::ContextChanged { path: path.to_owned(), expected: self.size, found: format!("ended after {at}") }
    }

    /// The error inside of one that the `Read` implementation returned.
    pub fn error(error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::ContextWrite { source },
        }
    }
}

/// Appends all of a small file to a buffer, in one call, if it has the size that the entry has; else nothing is promised
/// about the buffer.
///
/// The file's own size is not asked for: it is a call for each file, and the end of the content tells it.
pub(super) fn append_unchanged(root: &Root, entry: &Entry, buffer: &mut Vec<u8>) -> Option<usize> {
    let expected = usize::try_from(entry.size()).ok()?;
    // An empty file may be a pipe by now, whose content has no end.
    if expected == 0 {
        return None;
    }
    let file = root.open_file(&entry.path).ok()?;
    // Room for one byte more than there should be.
    buffer.reserve_exact(expected + 1);
    let start = buffer.len();
    pread(&file, spare_capacity(buffer), 0).ok()?;
    (buffer.len() - start == expected).then_some(expected)
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(io::Error::other)
    }
}
