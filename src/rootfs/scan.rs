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
pub(super) const MAX_ENTRIES: usize = 10_000_000;
/// And so are longer names, targets and extended attributes in all.
const MAX_TEXT: usize = 1 << 30;
/// How much of a content is read at once if it is not hashed.
const PLAIN: usize = 256 << 10;

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
            let mut tree = scan(tar, Room::Hashed(contents), &mut Nowhere, MAX_ENTRIES, cancel)?;
            tree.set_digests(digests.get()?);
            Ok(tree.finish())
        })
    }
}

/// What is done with the entries of a layer, beside making an index of them. Paths are clean, and whatever is on the way to
/// them is a directory or a link.
pub(super) trait Sink {
    /// Something that is no file and has no further names. `was` is what the layer had there until now.
    fn put(&mut self, path: &[u8], was: &Body, member: &Member) -> Result<()>;
    /// A file begins. Its content follows.
    fn begin(&mut self, path: &[u8], was: &Body, member: &Member) -> Result<()>;
    /// The next part of the content.
    fn content(&mut self, bytes: &[u8]) -> Result<()>;
    /// The file ends.
    fn end(&mut self) -> Result<()>;
    /// A further name of something that is no directory.
    fn link(&mut self, path: &[u8], was: &Body, first: &[u8]) -> Result<()>;
}

/// Nothing but an index is wanted.
struct Nowhere;

impl Sink for Nowhere {
    fn put(&mut self, _: &[u8], _: &Body, _: &Member) -> Result<()> {
        Ok(())
    }

    fn begin(&mut self, _: &[u8], _: &Body, _: &Member) -> Result<()> {
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    fn link(&mut self, _: &[u8], _: &Body, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

/// Where contents are read to.
pub(super) enum Room {
    /// To where they are hashed.
    Hashed(Contents),
    /// Their digests are of no interest.
    Plain(Vec<u8>),
}

impl Room {
    /// For contents that are not hashed.
    pub(super) fn plain() -> Self {
        Self::Plain(vec![0; PLAIN])
    }

    fn get(&mut self) -> Result<&mut [u8]> {
        match self {
            Self::Hashed(contents) => contents.room(),
            Self::Plain(room) => Ok(room),
        }
    }

    const fn filled(&mut self, count: usize) {
        if let Self::Hashed(contents) = self {
            contents.filled(count);
        }
    }

    fn end_file(&mut self) {
        if let Self::Hashed(contents) = self {
            contents.end_file();
        }
    }
}

struct Scan<'a, 's, R, S> {
    archive: Archive<'a, R>,
    room: Room,
    tree: Tree,
    sink: &'s mut S,
}

/// Reads an archive to its end. The digests of contents are yet to be set.
pub(super) fn scan<S: Sink>(tar: impl Read, room: Room, sink: &mut S, most: usize, cancel: &Cancel) -> Result<Tree> {
    let mut scan = Scan { archive: Archive::new(tar, cancel), room, tree: Tree::default(), sink };
    while let Some(member) = scan.archive.next()? {
        scan.take(&member)?;
        if scan.tree.len() > most || scan.tree.text() > MAX_TEXT {
            return Err(invalid("it has too many entries"));
        }
    }
    scan.archive.drain()?;
    if let Room::Hashed(contents) = scan.room {
        contents.finish()?;
    }
    Ok(scan.tree)
}

impl<R: Read, S: Sink> Scan<'_, '_, R, S> {
    fn take(&mut self, member: &Member) -> Result<()> {
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
        match cover {
            None => self.put(path, spot, member),
            Some(cover) if self.tree.cover(spot, cover) => Ok(()),
            Some(_) => Err(below_file()),
        }
    }

    fn put(&mut self, path: &[u8], spot: Spot, member: &Member) -> Result<()> {
        let Member { kind, mode, uid, gid, mtime, xattrs, .. } = member;
        let (was, _) = self.tree.at(spot);
        let was = was.clone();
        let (body, linked) = match kind {
            MemberKind::File { size } => {
                self.sink.begin(path, &was, member)?;
                (Body::File(self.content(path, *mode, *size)?), None)
            }
            MemberKind::Hardlink { target } => {
                let (body, meta) = self.linked(path, target)?;
                self.sink.link(path, &was, target)?;
                (body, Some(meta))
            }
            MemberKind::Dir => (Body::Dir, None),
            MemberKind::Symlink { target } => (Body::Symlink(target.as_slice().into()), None),
            MemberKind::Fifo => (Body::Fifo, None),
            MemberKind::CharDevice { major, minor } => (Body::CharDevice(*major, *minor), None),
            MemberKind::BlockDevice { major, minor } => (Body::BlockDevice(*major, *minor), None),
        };
        if !matches!(kind, MemberKind::File { .. } | MemberKind::Hardlink { .. }) {
            self.sink.put(path, &was, member)?;
        }
        // A further name of a file has the file's attributes, whatever its own entry says.
        let meta = linked.unwrap_or_else(|| Meta {
            mode: *mode,
            uid: *uid,
            gid: *gid,
            mtime: *mtime,
            xattrs: self.tree.xattrs(xattrs.clone()),
        });
        self.tree.put(spot, body, meta);
        Ok(())
    }

    /// Hands on the content of a file; its number.
    fn content(&mut self, path: &[u8], mode: u32, size: u64) -> Result<usize> {
        let mut kept = LayerIndex::keeps(path, mode, size).then(Vec::new);
        loop {
            let room = self.room.get()?;
            let count = self.archive.read_content(room)?;
            if count == 0 {
                break;
            }
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(&room[..count]);
            }
            self.sink.content(&room[..count])?;
            self.room.filled(count);
        }
        self.room.end_file();
        self.sink.end()?;
        if let Some(kept) = kept {
            self.tree.keep(path.to_owned(), kept);
        }
        Ok(self.tree.content(size, Digest::from_bytes([0; 32])))
    }

    /// What a hard link leads to.
    fn linked(&self, path: &[u8], target: &[u8]) -> Result<(Body, Meta)> {
        let missing = |what: &str| invalid(format!("the hard link `{}` leads to {what}", shown(path)));
        let found = self.tree.find(target).ok_or_else(|| missing("nothing that comes before it"))?;
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
