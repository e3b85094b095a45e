//! The part of a cache key that says what is copied.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::files::{Item, ItemKind, Owner};
use super::select::{Root, Selection};
use super::{Failure, join};
use crate::cancel::Cancel;
use crate::context::{Context, EntryId, Index};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::layer::Content;
use crate::rootfs::Xattrs;

/// Changes whenever the way of digesting does.
const VERSION: &[u8] = b"cooper copy 1";

impl Selection {
    /// The digest of all that the result depends on besides the instruction and its base: names in the destination, kinds,
    /// modes, link targets, contents and extended attributes, and owners unless `--chown` sets them. Times do not count, nor
    /// which files are hard links of each other. Everything is framed by its length.
    ///
    /// Files of a context that the index knows are not read. The selection keeps the digests: a file that has changed by
    /// the time when its layer is written is found out. Fails as [`Context::file_digests`] does, and with `Internal` where
    /// the digest of a fetched file is not known.
    pub fn digest(&mut self, index: Option<&Index>, cancel: &Cancel) -> std::result::Result<Digest, Failure> {
        self.learn(index, cancel)?;
        let mut hash = Hash { hash: Sha256::new(), owners: self.owners };
        hash.frame(VERSION);
        hash.number(self.roots.len() as u64);
        for root in &self.roots {
            hash.root(root)?;
        }
        Ok(Digest::from_bytes(hash.hash.finalize().into()))
    }

    /// The files that are copied, by their names among what is copied; those whose digests are known.
    pub fn files(&self) -> Vec<(Vec<u8>, Digest)> {
        let digest = |item: &Item| match &item.kind {
            ItemKind::File { digest, .. } => *digest,
            _ => None,
        };
        let mut files = Vec::new();
        for root in &self.roots {
            files.extend(digest(&root.item).map(|digest| (root.name.clone(), digest)));
            let prefix = if root.contents { &[] } else { root.name.as_slice() };
            let inside = root.inside.iter();
            files.extend(inside.filter_map(|selected| Some((join(prefix, &selected.path), digest(&selected.item)?))));
        }
        files
    }

    /// Finds out the digests of all files.
    fn learn(&mut self, index: Option<&Index>, cancel: &Cancel) -> Result<()> {
        for (context, ids) in self.unknown() {
            let mut digests = context.file_digests(&ids, index, cancel)?.into_iter();
            for (content, digest) in self.contents() {
                if matches!(content, Content::Context(origin, _) if Arc::ptr_eq(origin, &context)) && digest.is_none() {
                    *digest = digests.next();
                }
            }
        }
        for (content, digest) in self.contents() {
            if let (Content::Bytes(bytes), None) = (content, &digest) {
                *digest = Some(Digest::of(bytes));
            }
        }
        Ok(())
    }

    /// The files of each context whose digests are not known, in their order.
    fn unknown(&mut self) -> Vec<(Arc<Context>, Vec<EntryId>)> {
        let mut unknown: Vec<(Arc<Context>, Vec<EntryId>)> = Vec::new();
        for (content, digest) in self.contents() {
            if let (Content::Context(context, id), None) = (content, digest) {
                match unknown.iter_mut().find(|(known, _)| Arc::ptr_eq(known, context)) {
                    Some((_, ids)) => ids.push(*id),
                    None => unknown.push((Arc::clone(context), vec![*id])),
                }
            }
        }
        unknown
    }

    /// The files, and what is known of their contents.
    fn contents(&mut self) -> impl Iterator<Item = (&Content, &mut Option<Digest>)> {
        let items = self.roots.iter_mut().flat_map(|root| {
            let inside = root.inside.iter_mut().map(|selected| &mut selected.item);
            std::iter::once(&mut root.item).chain(inside)
        });
        items.filter_map(|item| match &mut item.kind {
            ItemKind::File { content, digest, .. } => Some((&*content, digest)),
            _ => None,
        })
    }
}

struct Hash {
    hash: Sha256,
    owners: bool,
}

impl Hash {
    fn root(&mut self, root: &Root) -> Result<()> {
        self.hash.update([u8::from(root.contents), u8::from(root.unpack)]);
        if root.contents && root.item.is_dir() {
            // Neither its name nor its attributes come into the image.
            self.hash.update(b"c");
        } else {
            self.frame(&root.name);
            self.item(&root.item)?;
        }
        self.number(root.inside.len() as u64);
        for selected in &root.inside {
            self.frame(&selected.path);
            self.hash.update([u8::from(selected.passed)]);
            self.item(&selected.item)?;
        }
        Ok(())
    }

    fn item(&mut self, item: &Item) -> Result<()> {
        match &item.kind {
            ItemKind::File { digest, .. } => {
                self.hash.update(b"f");
                let digest = digest.ok_or_else(|| Error::internal("a file to be copied has no digest"))?;
                self.hash.update(digest.as_bytes());
            }
            ItemKind::Dir => self.hash.update(b"d"),
            ItemKind::Symlink { target } => {
                self.hash.update(b"l");
                self.frame(target);
            }
            ItemKind::Fifo => self.hash.update(b"p"),
            ItemKind::CharDevice { major, minor } => self.device(b"c", *major, *minor),
            ItemKind::BlockDevice { major, minor } => self.device(b"b", *major, *minor),
        }
        let mode = if matches!(item.kind, ItemKind::Symlink { .. }) { 0o777 } else { item.mode };
        self.hash.update(mode.to_be_bytes());
        if self.owners {
            let Owner { uid, gid } = item.owner;
            self.hash.update([uid.to_be_bytes(), gid.to_be_bytes()].concat());
        }
        self.xattrs(&item.xattrs);
        Ok(())
    }

    fn device(&mut self, kind: &[u8], major: u32, minor: u32) {
        self.hash.update(kind);
        self.hash.update([major.to_be_bytes(), minor.to_be_bytes()].concat());
    }

    fn xattrs(&mut self, xattrs: &Xattrs) {
        self.number(xattrs.len() as u64);
        for (name, value) in xattrs {
            self.frame(name);
            self.frame(value);
        }
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_be_bytes());
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.hash.update(bytes);
    }
}
