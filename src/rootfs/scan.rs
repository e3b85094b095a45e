//! The index of a layer that comes from somewhere else.

use std::io::Read;
use std::thread;

use super::hashing::{self, Contents};
use super::index::{Body, Cover, LayerIndex, Meta, Place as Spot, Tree};
use super::tar::{Archive, Member, MemberKind, Place, invalid};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;

/// More paths, with the directories on the way to them, are no layer but an attack.
const MAX_ENTRIES: usize = 10_000_000;
/// And so are longer names, targets and extended attributes in all.
const MAX_TEXT: usize = 1 << 30;

impl LayerIndex {
    /// Reads a layer's archive, decompressed, to its very end, and hashes the files in it. Rules for names and headers are
    /// those of containerd, which refuses what would leave the root; a later entry of a path replaces an earlier one.
    ///
    /// Memory is bounded by the number of entries. Fails with `ImageInvalid` if the archive is malformed or cut off, if a
    /// path leaves the root or leads through a file, if a hard link has no target before it, or if there are too many
    /// entries. An error of ours that the reader wraps in an [`std::io::Error`] comes out as it is.
    pub fn read(tar: impl Read, cancel: &Cancel) -> Result<Self> {
        thread::scope(|scope| {
            let (contents, digests) = hashing::start(scope)?;
            let mut tree = scan(tar, contents, cancel)?;
            tree.set_digests(digests.get()?);
            Ok(tree.finish())
        })
    }
}

struct Scan<'a, R> {
    archive: Archive<'a, R>,
    contents: Contents,
    tree: Tree,
}

fn scan(tar: impl Read, contents: Contents, cancel: &Cancel) -> Result<Tree> {
    let mut scan = Scan { archive: Archive::new(tar, cancel), contents, tree: Tree::default() };
    while let Some(member) = scan.archive.next()? {
        scan.take(member)?;
        if scan.tree.len() > MAX_ENTRIES || scan.tree.text() > MAX_TEXT {
            return Err(invalid("it has too many entries"));
        }
    }
    scan.archive.drain()?;
    scan.contents.finish()?;
    Ok(scan.tree)
}

impl<R: Read> Scan<'_, R> {
    fn take(&mut self, member: Member) -> Result<()> {
        let (path, cover) = match &member.place {
            // The root is the image's, not a layer's.
            Place::Nothing => return Ok(()),
            Place::Path(path) if path.is_empty() => return Ok(()),
            Place::Path(path) => (path, None),
            Place::Whiteout(path) => (path, Some(Cover::Whiteout)),
            Place::Opaque(path) => (path, Some(Cover::Opaque)),
        };
        let below_file = || invalid(format!("`{}` is below a file", shown(path)));
        let spot = self.tree.place(path).ok_or_else(below_file)?;
        if let Some(cover) = cover {
            return if self.tree.cover(spot, cover) { Ok(()) } else { Err(below_file()) };
        }
        let path = path.clone();
        self.put(&path, spot, member)
    }

    fn put(&mut self, path: &[u8], spot: Spot, member: Member) -> Result<()> {
        let Member { kind, mode, uid, gid, mtime, xattrs, .. } = member;
        let (body, linked) = match kind {
            MemberKind::File { size } => (Body::File(self.content(path, mode, size)?), None),
            MemberKind::Dir => (Body::Dir, None),
            MemberKind::Symlink { target } => (Body::Symlink(target.into()), None),
            MemberKind::Hardlink { target } => {
                let (body, meta) = self.linked(path, target)?;
                (body, Some(meta))
            }
            MemberKind::Fifo => (Body::Fifo, None),
            MemberKind::CharDevice { major, minor } => (Body::CharDevice(major, minor), None),
            MemberKind::BlockDevice { major, minor } => (Body::BlockDevice(major, minor), None),
        };
        // A further name of a file has the file's attributes, whatever its own entry says.
        let meta = match linked {
            Some(meta) => meta,
            None => Meta { mode, uid, gid, mtime, xattrs: self.tree.xattrs(xattrs) },
        };
        self.tree.put(spot, body, meta);
        Ok(())
    }

    /// Hashes the content of a file; its number.
    fn content(&mut self, path: &[u8], mode: u32, size: u64) -> Result<usize> {
        let mut kept = LayerIndex::keeps(path, mode, size).then(Vec::new);
        loop {
            let room = self.contents.room()?;
            let count = self.archive.read_content(room)?;
            if count == 0 {
                break;
            }
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&room[..count]);
            }
            self.contents.filled(count);
        }
        self.contents.end_file();
        if let Some(kept) = kept {
            self.tree.keep(path.to_owned(), kept);
        }
        Ok(self.tree.content(size, Digest::from_bytes([0; 32])))
    }

    /// What a hard link leads to.
    fn linked(&self, path: &[u8], target: Vec<u8>) -> Result<(Body, Meta)> {
        let missing = |what: &str| invalid(format!("the hard link `{}` leads to {what}", shown(path)));
        let found = self.tree.find(&target).ok_or_else(|| missing("nothing that comes before it"))?;
        let (body, meta) = self.tree.at(found);
        match body {
            Body::Nothing | Body::Implied | Body::Dir => Err(missing("no file")),
            Body::File(content) => Ok((Body::Hardlink(*content, target.into()), meta)),
            // Whatever has no content is as good as the first of its names.
            other => Ok((other.clone(), meta)),
        }
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned()
}
