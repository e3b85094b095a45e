//! What is where in a tar archive. Nothing is unpacked: names are keys, and contents are parts of the archive.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use tar::{EntryType, Header};

use super::invalid;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// More entries than the archive of any image has: three for each of its 127 layers, and many images.
const MAX_ENTRIES: usize = 1 << 18;
/// The largest header that describes the next one, in bytes: a long name, or PAX records.
const MAX_EXTENSION: u64 = 1 << 20;
/// The unit of a tar archive.
const RECORD: u64 = 512;
/// How many links are followed from one name to a file.
const MAX_LINKS: usize = 8;

/// The files of an archive.
#[derive(Debug, Default)]
pub(super) struct Tarball {
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    /// Where its content begins, and how long it is.
    File { offset: u64, length: u64 },
    /// Another name of the file at this path.
    Link(String),
    /// Something that no file of an image is.
    Other,
}

/// What is known of the next entry before its header.
#[derive(Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Tarball {
    /// Reads all headers. `what` is the archive in messages. Fails with `ImageInvalid` and `Interrupted`.
    pub(super) fn scan(file: &File, what: &str, cancel: &Cancel) -> Result<Self> {
        let end = file.metadata().map_err(|error| invalid(what, error.to_string()))?.len();
        let scan = Scan { file, what, end };
        let mut tarball = Self::default();
        let (mut at, mut extension) = (0, Extension::default());
        while let Some(header) = scan.header(at)? {
            cancel.check()?;
            let own = header.entry_size().map_err(|error| scan.invalid(error.to_string()))?;
            let kind = header.entry_type();
            if is_extension(kind) {
                scan.extend(&mut extension, kind, at + RECORD, own)?;
                at = scan.after(at, own)?;
                continue;
            }
            let known = std::mem::take(&mut extension);
            let size = known.size.unwrap_or(own);
            let length = if kind.is_hard_link() || kind.is_symlink() || kind.is_dir() { 0 } else { size };
            let next = scan.after(at, length)?;
            tarball.insert(&scan, &header, known, at + RECORD, length)?;
            at = next;
        }
        Ok(tarball)
    }

    fn insert(&mut self, scan: &Scan<'_>, header: &Header, known: Extension, offset: u64, length: u64) -> Result<()> {
        let own = || String::from_utf8_lossy(&header.path_bytes()).into_owned();
        // A name that leads out of the archive names nothing in it.
        let Some(path) = clean("", &known.path.unwrap_or_else(own)) else { return Ok(()) };
        let own = || header.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let target = || known.link.or_else(own).unwrap_or_default();
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let entry = match header.entry_type() {
            EntryType::Directory => return Ok(()),
            EntryType::Regular | EntryType::Continuous => Entry::File { offset, length },
            EntryType::Symlink => clean(parent, &target()).map_or(Entry::Other, Entry::Link),
            EntryType::Link => clean("", &target()).map_or(Entry::Other, Entry::Link),
            _ => Entry::Other,
        };
        if self.entries.len() >= MAX_ENTRIES {
            return Err(scan.invalid(format!("it has more than {MAX_ENTRIES} entries")));
        }
        if self.entries.insert(path.clone(), entry).is_some() {
            return Err(scan.invalid(format!("it has `{path}` twice")));
        }
        Ok(())
    }

    /// Where a file begins, and how long it is; links within the archive are followed.
    pub(super) fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = clean("", path)?;
        for _ in 0..=MAX_LINKS {
            match self.entries.get(&path)? {
                Entry::File { offset, length } => return Some((*offset, *length)),
                Entry::Link(target) => path.clone_from(target),
                Entry::Other => return None,
            }
        }
        None
    }
}

const fn is_extension(kind: EntryType) -> bool {
    matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink)
}

/// A path from a directory of the archive, without `.`, `..` and doubled slashes; `None` where it leads out, or nowhere.
fn clean(parent: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

struct Scan<'a> {
    file: &'a File,
    what: &'a str,
    /// The size of the archive.
    end: u64,
}

impl Scan<'_> {
    fn invalid(&self, reason: impl Into<String>) -> Error {
        invalid(self.what, reason)
    }

    /// The header at an offset; `None` at the end.
    fn header(&self, at: u64) -> Result<Option<Header>> {
        if at >= self.end {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.read(at, header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The field of the sum counts as spaces.
        let (before, after) = (&bytes[..148], &bytes[156..]);
        let sum: u32 = before.iter().chain(after).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(self.invalid(if at == 0 {
                "it is no tar archive"
            } else {
                "it is damaged: a checksum is wrong"
            }));
        }
        Ok(Some(header))
    }

    /// Where the next header is. The content has to be there.
    fn after(&self, at: u64, length: u64) -> Result<u64> {
        let start = at + RECORD;
        let end = start.checked_add(length).filter(|end| *end <= self.end);
        let end = end.ok_or_else(|| self.invalid("it is cut off"))?;
        Ok(end.next_multiple_of(RECORD))
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, at).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.invalid("it is cut off"),
            _ => self.invalid(error.to_string()),
        })
    }

    fn extend(&self, extension: &mut Extension, kind: EntryType, at: u64, size: u64) -> Result<()> {
        // What a global header says is about all entries; nothing that matters here can be.
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        if size > MAX_EXTENSION {
            return Err(self.invalid("a name in it is too long"));
        }
        self.after(at - RECORD, size)?;
        let mut content = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read(at, &mut content)?;
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        match kind {
            EntryType::GNULongName => extension.path = Some(text(&content)),
            EntryType::GNULongLink => extension.link = Some(text(&content)),
            _ => {
                for record in tar::PaxExtensions::new(&content) {
                    let record = record.map_err(|error| self.invalid(error.to_string()))?;
                    match record.key_bytes() {
                        b"path" => extension.path = Some(text(record.value_bytes())),
                        b"linkpath" => extension.link = Some(text(record.value_bytes())),
                        b"size" => {
                            let size = text(record.value_bytes()).parse().ok();
                            extension.size = Some(size.ok_or_else(|| self.invalid("a size in it is no number"))?);
                        }
                        key if key.starts_with(b"GNU.sparse.") => {
                            return Err(self.invalid("it has sparse files, which no image's archive has"));
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let cases = [
            ("", "a/b", Some("a/b")),
            ("", "./a//b/", Some("a/b")),
            ("a/b", "../c/layer.tar", Some("a/c/layer.tar")),
            ("a", "../..", None),
            ("", "../a", None),
            ("", "a/../../b", None),
            ("a", "/etc/passwd", None),
            ("", ".", None),
        ];
        for (parent, path, expected) in cases {
            assert_eq!(clean(parent, path).as_deref(), expected, "{parent} {path}");
        }
    }
}
