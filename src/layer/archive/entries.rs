//! Members of an archive as entries of a layer.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pax;
use super::reader::{Member, Reader};
use super::{damaged, invalid};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::{Content, LayerEntry, LayerKind};
use crate::mtime::Mtime;

/// Copied at a time.
const BUFFER: usize = 64 << 10;

/// The entries so far.
pub(super) struct Entries<'a> {
    list: Vec<LayerEntry>,
    sizes: HashMap<Vec<u8>, u64>,
    spool: Spool<'a>,
}

/// Contents, one after the other.
struct Spool<'a> {
    file: Arc<File>,
    directory: PathBuf,
    end: u64,
    cancel: &'a Cancel,
}

impl<'a> Entries<'a> {
    pub(super) fn new(directory: &Path, cancel: &'a Cancel) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).map_err(|error| unwritten(directory, error))?;
        let spool = Spool { file: Arc::new(file), directory: directory.to_owned(), end: 0, cancel };
        Ok(Self { list: Vec::new(), sizes: HashMap::new(), spool })
    }

    pub(super) fn add(&mut self, member: &Member, reader: &mut Reader<'_>) -> Result<()> {
        let name = member.map.as_ref().and_then(|map| map.name.as_ref()).unwrap_or(&member.name);
        let path = clean(name);
        if path.is_empty() {
            return Ok(());
        }
        let kind = self.kind(member, &path, reader)?;
        let owner =
            |number: i64| u32::try_from(number).map_err(|_| invalid(format!("`{}` belongs to {number}", shown(&path))));
        self.list.push(LayerEntry {
            kind,
            mode: u32::try_from(member.mode & 0o7777).unwrap_or_default(),
            uid: owner(member.uid)?,
            gid: owner(member.gid)?,
            // go-archive's `boundTime`.
            mtime: Mtime { seconds: member.mtime.max(0), nanoseconds: 0 },
            xattrs: pax::xattrs(&member.records),
            path,
        });
        Ok(())
    }

    fn kind(&mut self, member: &Member, path: &[u8], reader: &mut Reader<'_>) -> Result<LayerKind> {
        let device =
            |number: i64| u32::try_from(number).map_err(|_| invalid(format!("`{}` is device {number}", shown(path))));
        Ok(match member.kind {
            // The second is what POSIX calls high-performance; everybody reads it as a file.
            b'0' | b'7' => {
                let content = self.spool.take(member, reader)?;
                self.sizes.insert(path.to_owned(), member.size);
                LayerKind::File { size: member.size, content, digest: None }
            }
            b'1' => {
                let first = clean(&member.link);
                let size = self.sizes.get(&first).copied().unwrap_or(0);
                LayerKind::Hardlink { first, size }
            }
            b'2' if member.link.is_empty() => return Err(invalid(format!("`{}` is a link to nothing", shown(path)))),
            b'2' => LayerKind::Symlink { target: member.link.clone() },
            b'3' => LayerKind::CharDevice { major: device(member.device.0)?, minor: device(member.device.1)? },
            b'4' => LayerKind::BlockDevice { major: device(member.device.0)?, minor: device(member.device.1)? },
            b'5' => LayerKind::Dir,
            b'6' => LayerKind::Fifo,
            other => {
                let what = char::from(other).escape_default();
                return Err(invalid(format!("`{}` is of an unknown type: {what}", shown(path))));
            }
        })
    }

    pub(super) fn finish(self) -> Vec<LayerEntry> {
        self.list
    }
}

impl Spool<'_> {
    /// The content of a member. Holes stay holes.
    fn take(&mut self, member: &Member, reader: &mut Reader<'_>) -> Result<Content> {
        let start = self.end;
        let content = Content::Spool { file: Arc::clone(&self.file), offset: start };
        let whole = [(0, member.size)];
        let pieces = member.map.as_ref().map_or(&whole[..], |map| &map.pieces);
        let too_big = || invalid("a file is too big");
        self.end = start.checked_add(member.size).filter(|end| i64::try_from(*end).is_ok()).ok_or_else(too_big)?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(member.size).unwrap_or(BUFFER))];
        for (offset, length) in pieces {
            let (mut at, end) = (start + offset, start + offset + length);
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(BUFFER).min(buffer.len());
                let read = reader.read(&mut buffer[..most]).map_err(|error| damaged(&error, self.cancel))?;
                if read == 0 {
                    return Err(invalid("it is cut off"));
                }
                let written = self.file.write_all_at(&buffer[..read], at);
                written.map_err(|error| unwritten(&self.directory, error))?;
                at += read as u64;
            }
        }
        if member.map.is_some() {
            // A hole at the end.
            self.file.set_len(self.end).map_err(|error| unwritten(&self.directory, error))?;
        }
        Ok(content)
    }
}

/// A path from the archive's root, which `..` does not leave. Moby unpacks below a changed root, with the same effect.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn unwritten(directory: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { message: format!("unpacking an archive: {error}") }
        }
        _ => Error::Store { path: directory.to_owned(), action: "unpack an archive".into(), source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leaves_the_root() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"a/b", b"a/b"),
            (b"./a//b/", b"a/b"),
            (b"/etc/passwd", b"etc/passwd"),
            (b"../../etc", b"etc"),
            (b"a/../../b", b"b"),
            (b"./", b""),
            (b"..", b""),
            (b"\xff", b"\xff"),
        ];
        for (name, path) in cases {
            assert_eq!(clean(name), *path);
        }
    }
}
