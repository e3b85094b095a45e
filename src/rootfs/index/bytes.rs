//! An index as bytes, for keeping.
//!
//! After the magic line comes a Zstandard frame with a checksum. In it, each number is little-endian base 128; signed ones
//! are folded (0, -1, 1, -2 …); a text is its length and its bytes. First the number of entries, then the entries in the
//! order of a walk: how many bytes of the path are those of the path before, the rest of it, what it is (one byte) and what
//! that has. Then the files that are kept: how many, and of each the path and the content.

use std::io::{self, Read};

use super::super::node::{Node, NodeKind, Xattrs};
use super::{IndexEntry, LayerIndex};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::mtime::Mtime;

/// Begins all of them. The number changes with the format.
const MAGIC: &[u8] = b"cooper layer index 1\n";
/// zstd's usual level: an index is read more often than it is written.
const LEVEL: i32 = 3;
/// No text of an index is longer.
const MAX_TEXT: u64 = 1 << 21;

/// What an entry is.
mod tag {
    pub(super) const WHITEOUT: u8 = 0;
    pub(super) const OPAQUE: u8 = 1;
    pub(super) const FILE: u8 = 2;
    pub(super) const HARDLINK: u8 = 3;
    pub(super) const DIR: u8 = 4;
    pub(super) const SYMLINK: u8 = 5;
    pub(super) const FIFO: u8 = 6;
    pub(super) const CHAR: u8 = 7;
    pub(super) const BLOCK: u8 = 8;
}

impl LayerIndex {
    /// The index as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.number(self.iter().count() as u64);
        let mut last = Vec::new();
        for (path, entry) in self.iter() {
            let same = last.iter().zip(&path).take_while(|(left, right)| left == right).count();
            out.number(same as u64);
            out.text(&path[same..]);
            out.entry(&entry);
            last = path;
        }
        out.number(self.small.len() as u64);
        for (path, content) in &self.small {
            out.text(path);
            out.text(content);
        }
        // Nothing but memory can run out; what is empty is no index, so that it is made again.
        compress(&out.0).unwrap_or_default()
    }

    /// The index of such bytes. Fails with `ImageInvalid` if they are damaged, or of another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let invalid = |reason: String| Error::ImageInvalid { what: "index of a layer".into(), reason };
        let frame = bytes.strip_prefix(MAGIC).ok_or_else(|| invalid("it has another format".into()))?;
        decode(frame).map_err(|error| invalid(error.to_string()))
    }
}

fn compress(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(MAGIC.to_vec(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(body.len() as u64))?;
    io::Write::write_all(&mut encoder, body)?;
    encoder.finish()
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }

    fn entry(&mut self, entry: &IndexEntry) {
        match entry {
            IndexEntry::Whiteout => self.0.push(tag::WHITEOUT),
            IndexEntry::Opaque => self.0.push(tag::OPAQUE),
            IndexEntry::Hardlink { first, node } => self.node(node, Some(first)),
            IndexEntry::Node(node) => self.node(node, None),
        }
    }

    fn node(&mut self, node: &Node, first: Option<&[u8]>) {
        match &node.kind {
            NodeKind::File { size, digest } => {
                self.0.push(if first.is_some() { tag::HARDLINK } else { tag::FILE });
                self.number(*size);
                self.0.extend_from_slice(digest.as_bytes());
                if let Some(first) = first {
                    self.text(first);
                }
            }
            NodeKind::Dir => self.0.push(tag::DIR),
            NodeKind::Symlink { target } => {
                self.0.push(tag::SYMLINK);
                self.text(target);
            }
            NodeKind::Fifo => self.0.push(tag::FIFO),
            NodeKind::CharDevice { major, minor } => self.device(tag::CHAR, *major, *minor),
            NodeKind::BlockDevice { major, minor } => self.device(tag::BLOCK, *major, *minor),
        }
        for number in [node.mode, node.uid, node.gid, node.mtime.nanoseconds] {
            self.number(number.into());
        }
        self.number((node.mtime.seconds << 1 ^ node.mtime.seconds >> 63).cast_unsigned());
        self.number(node.xattrs.len() as u64);
        for (name, value) in &node.xattrs {
            self.text(name);
            self.text(value);
        }
    }

    fn device(&mut self, tag: u8, major: u32, minor: u32) {
        self.0.push(tag);
        self.number(major.into());
        self.number(minor.into());
    }
}

fn decode(frame: &[u8]) -> io::Result<LayerIndex> {
    let mut input = Decoder(io::BufReader::new(zstd::Decoder::with_buffer(frame)?));
    let mut tree = super::Tree::default();
    let mut path = Vec::new();
    for _ in 0..input.number()? {
        let same = usize::try_from(input.number()?).ok().filter(|same| *same <= path.len());
        path.truncate(same.ok_or_else(damaged)?);
        path.extend(input.text()?);
        if !tree.add(&path, input.entry()?) {
            return Err(damaged());
        }
    }
    let mut index = tree.finish();
    for _ in 0..input.number()? {
        let path = input.text()?;
        index.keep(&path, input.text()?);
    }
    // The checksum is looked at where the frame ends.
    if input.0.read(&mut [0])? > 0 { Err(damaged()) } else { Ok(index) }
}

fn damaged() -> io::Error {
    io::Error::other("it is damaged")
}

struct Decoder<R>(R);

impl<R: Read> Decoder<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn small(&mut self) -> io::Result<u32> {
        u32::try_from(self.number()?).map_err(|_| damaged())
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        let mut text = Vec::new();
        if length > MAX_TEXT || self.0.by_ref().take(length).read_to_end(&mut text)? as u64 != length {
            return Err(damaged());
        }
        Ok(text)
    }

    fn entry(&mut self) -> io::Result<IndexEntry> {
        let mut first = None;
        let kind = match self.byte()? {
            tag::WHITEOUT => return Ok(IndexEntry::Whiteout),
            tag::OPAQUE => return Ok(IndexEntry::Opaque),
            tag @ (tag::FILE | tag::HARDLINK) => {
                let size = self.number()?;
                let mut digest = [0; 32];
                self.0.read_exact(&mut digest)?;
                if tag == tag::HARDLINK {
                    first = Some(self.text()?);
                }
                NodeKind::File { size, digest: Digest::from_bytes(digest) }
            }
            tag::DIR => NodeKind::Dir,
            tag::SYMLINK => NodeKind::Symlink { target: self.text()? },
            tag::FIFO => NodeKind::Fifo,
            tag::CHAR => NodeKind::CharDevice { major: self.small()?, minor: self.small()? },
            tag::BLOCK => NodeKind::BlockDevice { major: self.small()?, minor: self.small()? },
            _ => return Err(damaged()),
        };
        let node = self.node(kind)?;
        Ok(match first {
            Some(first) => IndexEntry::Hardlink { first, node },
            None => IndexEntry::Node(node),
        })
    }

    fn node(&mut self, kind: NodeKind) -> io::Result<Node> {
        let (mode, uid, gid, nanoseconds) = (self.small()?, self.small()?, self.small()?, self.small()?);
        let folded = self.number()?;
        let seconds = (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed();
        let mut xattrs = Xattrs::new();
        for _ in 0..self.number()? {
            let name = self.text()?;
            xattrs.insert(name, self.text()?);
        }
        Ok(Node { kind, mode, uid, gid, mtime: Mtime { seconds, nanoseconds }, xattrs })
    }
}
