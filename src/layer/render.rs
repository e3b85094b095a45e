//! The making of a unit.

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::content;
use super::entry::{LayerEntry, LayerKind};
use super::header;
use super::plan::{BigFile, Part, Work};
use super::record::is_kept;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::{BLOCK, pad};

/// A unit before it is compressed.
pub(super) struct Rendered {
    pub(super) plain: Vec<u8>,
    /// What the unit is, and how it is compressed.
    pub(super) key: Digest,
    pub(super) what: What,
}

/// What is in a unit.
pub(super) enum What {
    /// These, and the digests of those that are files.
    Entries(Vec<Made>),
    /// A part of a big file, and where it is in the unit.
    Part { file: Arc<BigFile>, content: Range<usize>, last: bool },
    /// The end of the archive.
    End,
}

/// An entry that is in a unit.
pub(super) struct Made {
    pub(super) entry: LayerEntry,
    /// The digest of a file's content.
    pub(super) digest: Option<Digest>,
    /// The content, if an index keeps it.
    pub(super) kept: Option<Vec<u8>>,
}

/// Makes a unit in an empty buffer.
///
/// Its key is the digest of the recipe, the headers and the contents' digests, each framed. It says as much as the digest
/// of all bytes, and contents are hashed once.
pub(super) fn render(work: Work, recipe: &str, mut plain: Vec<u8>, cancel: &Cancel) -> Result<Rendered> {
    cancel.check()?;
    let mut key = Key::new(recipe);
    let what = match work {
        Work::End => {
            plain.resize(2 * BLOCK, 0);
            key.add(&plain, b"");
            What::End
        }
        Work::Part(part) => render_part(&part, &mut plain, &mut key)?,
        Work::Entries(entries) => {
            let mut done = Vec::with_capacity(entries.len());
            for entry in entries {
                cancel.check()?;
                done.push(render_entry(entry, &mut plain, &mut key)?);
            }
            What::Entries(done)
        }
    };
    Ok(Rendered { plain, key: key.finish(), what })
}

fn render_entry(entry: LayerEntry, plain: &mut Vec<u8>, key: &mut Key) -> Result<Made> {
    let start = plain.len();
    header::push(&entry, plain)?;
    let content = plain.len();
    let LayerKind::File { size, content: source, digest } = &entry.kind else {
        key.add(&plain[start..], b"");
        return Ok(Made { entry, digest: None, kept: None });
    };
    content::append(&entry.path, source, *size, plain)?;
    let found = key.add(&plain[start..content], &plain[content..]);
    if digest.is_some_and(|digest| digest != found) {
        return Err(content::changed(&entry.path, source, *size));
    }
    let kept = is_kept(&entry).then(|| plain[content..].to_vec());
    pad(plain, plain.len() - content);
    Ok(Made { entry, digest: Some(found), kept })
}

fn render_part(part: &Part, plain: &mut Vec<u8>, key: &mut Key) -> Result<What> {
    let length = usize::try_from(part.length).map_err(|_| Error::internal("a unit is too big"))?;
    if part.offset == 0 {
        header::push(&part.file.entry, plain)?;
    }
    let start = plain.len();
    part.file.source.append_to(plain, part.offset, length)?;
    key.add(&plain[..start], &plain[start..]);
    // Parts but the last are whole blocks.
    pad(plain, length);
    Ok(What::Part { file: Arc::clone(&part.file), content: start..start + length, last: part.is_last() })
}

/// The digest of what a unit is made of.
struct Key(Sha256);

impl Key {
    fn new(recipe: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.frame(recipe.as_bytes());
        key
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Adds a header and its content; the content's digest.
    fn add(&mut self, header: &[u8], content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.frame(header);
        self.0.update((content.len() as u64).to_be_bytes());
        self.0.update(digest.as_bytes());
        digest
    }

    fn finish(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}
