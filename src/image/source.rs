//! The files of a layout or an archive, by their paths.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags, openat};

use super::blobs::MAX_DOCUMENT;
use super::place::{Place, Scheme};
use super::tarball::Tarball;
use super::{BLOCK, invalid};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Something with files in it.
#[derive(Debug)]
pub(super) struct Source {
    /// What it is, for messages.
    pub(super) what: String,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Directory(OwnedFd),
    Archive { file: Arc<File>, tarball: Tarball },
}

/// A part of a file, read without moving anybody else's position.
#[derive(Clone, Debug)]
pub(super) struct Part {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Source {
    /// Opens a place. Fails with `BaseMissing` where nothing is there, `ImageInvalid` and `Interrupted`.
    pub(super) fn open(place: &Place, cancel: &Cancel) -> Result<Self> {
        let what = place.what();
        let there = fs::metadata(&place.path).map_err(|error| unreadable(place, &error))?;
        let inner = if place.scheme == Scheme::OciLayout {
            if !there.is_dir() {
                return Err(invalid(what, "it is no directory; write `oci-archive://` for an archive"));
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(&place.path, flags, Mode::empty());
            Inner::Directory(opened.map_err(|errno| unreadable(place, &errno.into()))?)
        } else {
            if !there.is_file() {
                let advice = if there.is_dir() { "; write `oci-layout://` for a directory" } else { "" };
                return Err(invalid(what, format!("it is no file{advice}")));
            }
            let file = File::open(&place.path).map_err(|error| unreadable(place, &error))?;
            let file = Arc::new(plain(file, &what, cancel)?);
            let tarball = Tarball::scan(&file, &what, cancel)?;
            Inner::Archive { file, tarball }
        };
        Ok(Self { what, inner })
    }

    /// The file at a path; `None` where there is none.
    pub(super) fn find(&self, path: &str) -> Result<Option<Part>> {
        match &self.inner {
            Inner::Directory(root) => self.in_directory(root, path),
            Inner::Archive { file, tarball } => {
                let found = tarball.find(path);
                Ok(found.map(|(offset, left)| Part { file: Arc::clone(file), offset, left }))
            }
        }
    }

    /// Only paths that we made come here; links in them may lead anywhere within the layout.
    fn in_directory(&self, root: &OwnedFd, path: &str) -> Result<Option<Part>> {
        let opened = open_within(root, path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) if metadata.is_file() => {
                Ok(Some(Part { file: Arc::new(file), offset: 0, left: metadata.len() }))
            }
            Ok(_) => Err(invalid(&self.what, format!("`{path}` is no file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::XDEV.raw_os_error()) => {
                Err(invalid(&self.what, format!("`{path}` is a link that leads out of it")))
            }
            Err(error) => Err(invalid(&self.what, format!("cannot read `{path}`: {error}"))),
        }
    }

    /// The whole of a small file; `None` where there is none.
    pub(super) fn document(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(mut part) = self.find(path)? else { return Ok(None) };
        if part.len() > MAX_DOCUMENT {
            let reason = format!("`{path}` has {} bytes; at most {MAX_DOCUMENT} are read", part.len());
            return Err(invalid(&self.what, reason));
        }
        let mut bytes = Vec::new();
        let read = part.read_to_end(&mut bytes);
        read.map_err(|error| invalid(&self.what, format!("cannot read `{path}`: {error}")))?;
        Ok(Some(bytes))
    }
}

impl Part {
    /// How much there is to read, in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.left
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn unreadable(place: &Place, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::BaseMissing { reference: place.to_string(), location: None, message: error.to_string() }
        }
        _ => invalid(place.what(), format!("cannot be read: {error}")),
    }
}

/// How a file is opened. Without NONBLOCK, a pipe in its place would make us wait.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Links are followed as long as they stay within the directory.
fn open_within(root: &OwnedFd, path: &str) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        use rustix::io::Errno;

        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match crate::scoped::open(root, path, FILE, resolve) {
            Ok(fd) => return Ok(fd.into()),
            Err(Errno::NOSYS | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    open_by_parts(root, path)
}

/// Where the kernel cannot keep us inside, no link is followed at all.
fn open_by_parts(root: &OwnedFd, path: &str) -> io::Result<File> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut parent = root.try_clone()?;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        parent = openat(&parent, part, flags, Mode::empty())?;
    }
    Ok(openat(&parent, name, FILE | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// The archive itself, or what is in it if it is compressed: in a file without a name, in the directory for temporary files.
fn plain(mut file: File, what: &str, cancel: &Cancel) -> Result<File> {
    let mut magic = [0; 6];
    let count = file.read_at(&mut magic, 0).map_err(|error| invalid(what, error.to_string()))?;
    let mut reader: Box<dyn Read + '_> = match Packing::of(&magic[..count]) {
        Packing::None => return Ok(file),
        Packing::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(BLOCK, &mut file))),
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::new(&mut file);
            Box::new(decoder.map_err(|error| invalid(what, error.to_string()))?)
        }
        Packing::Other(name) => return Err(invalid(what, format!("it is compressed with {name}; unpack it first"))),
    };
    let spool_failed =
        |source: io::Error| Error::OutputFailed { path: std::env::temp_dir().join("unpacked image"), source };
    let mut spool = tempfile::tempfile().map_err(spool_failed)?;
    let mut buffer = vec![0; BLOCK];
    loop {
        cancel.check()?;
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(invalid(what, format!("it cannot be unpacked: {error}"))),
        };
        spool.write_all(&buffer[..count]).map_err(spool_failed)?;
    }
    Ok(spool)
}

/// How something is compressed, told by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
    /// In a way that images are not.
    Other(&'static str),
}

impl Packing {
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            _ => Self::None,
        }
    }

    /// That of a part of a file.
    pub(super) fn of_part(part: &Part) -> io::Result<Self> {
        let mut magic = [0; 6];
        let count = part.clone().read(&mut magic)?;
        Ok(Self::of(&magic[..count]))
    }
}
