//! Archives made by hand, block by block, so that anything can be wrong with them.

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::mtime::Mtime;
use cooper::rootfs::{IndexEntry, LayerIndex, Node, NodeKind, Xattrs};

/// The time of everything here.
pub(crate) const TIME: Mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 0 };

/// A header that can still be changed.
pub(crate) struct Header(pub(crate) [u8; 512]);

impl Header {
    pub(crate) fn new(kind: u8, name: &str, size: usize) -> Self {
        let mut header = Self([0; 512]);
        header.put(0, name.as_bytes()).put(100, b"0000644\0").put(108, b"0000000\0").put(116, b"0000000\0");
        header.put(124, format!("{size:011o}\0").as_bytes());
        header.put(136, format!("{:011o}\0", TIME.seconds).as_bytes());
        header.put(156, &[kind]).put(257, b"ustar\x0000");
        header
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn sign(&mut self) -> &mut Self {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes())
    }
}

/// An archive without its end.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn header(mut self, mut header: Header, content: &[u8]) -> Self {
        self.0.extend_from_slice(&header.sign().0);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.header(Header::new(b'0', name, content.len()), content.as_bytes())
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        let mut header = Header::new(b'5', name, 0);
        header.put(100, b"0000755\0");
        self.header(header, b"")
    }

    /// A link: `1` is a hard one, `2` a symbolic one.
    pub(crate) fn link(self, kind: u8, name: &str, target: &str) -> Self {
        let mut header = Header::new(kind, name, 0);
        header.put(157, target.as_bytes());
        self.header(header, b"")
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body..body + 9).find(|length| body + length.to_string().len() == *length).unwrap();
            text.extend(format!("{length} {key}=").bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.header(Header::new(b'x', "pax", text.len()), &text)
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The archive with its end.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }

    pub(crate) fn index(self) -> LayerIndex {
        read(&self.end()).unwrap()
    }

    /// The code of the error and its text.
    pub(crate) fn refused(self) -> String {
        refused(&self.end())
    }
}

pub(crate) fn read(tar: &[u8]) -> cooper::Result<LayerIndex> {
    LayerIndex::read(tar, &Cancel::new())
}

/// What is said of an archive that is refused with `ImageInvalid`.
pub(crate) fn refused(tar: &[u8]) -> String {
    let error = read(tar).unwrap_err();
    assert_eq!(error.code(), "image-invalid", "{error}");
    error.to_string()
}

pub(crate) fn node(kind: NodeKind, mode: u32) -> IndexEntry {
    IndexEntry::Node(Node { kind, mode, uid: 0, gid: 0, mtime: TIME, xattrs: Xattrs::new() })
}

pub(crate) fn content(text: &str) -> NodeKind {
    NodeKind::File { size: text.len() as u64, digest: Digest::of(text.as_bytes()) }
}

pub(crate) fn file(text: &str) -> IndexEntry {
    node(content(text), 0o644)
}

pub(crate) fn dir() -> IndexEntry {
    node(NodeKind::Dir, 0o755)
}

pub(crate) fn symlink(target: &str) -> IndexEntry {
    node(NodeKind::Symlink { target: target.into() }, 0o644)
}

/// The paths that an index names, and what it says of them.
pub(crate) fn listed(index: &LayerIndex) -> Vec<(String, IndexEntry)> {
    index.iter().map(|(path, entry)| (String::from_utf8(path).unwrap(), entry)).collect()
}

/// What a reader gives.
pub(crate) fn all(mut reader: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}
