//! One layer becomes one directory, in the form that overlayfs takes as a lower one.
//!
//! The archive is read once: a thread decompresses it, one hashes that for the diff id, one hashes the contents for the
//! [`LayerIndex`], and the calling one writes. What a name in it means is decided where an index is made, so that both agree
//! in everything; what is on disk is reached through open directories by single names ([`Folders`]), so that no link leads
//! anywhere.
//!
//! While it is written, a directory is ours alone. Modes and times of directories, whiteouts (character devices 0:0) and the
//! marks of opaque directories come at the end, by the index. That of the root stands for nothing: overlayfs asks the upper
//! directory for the root's attributes, and hides nothing below an opaque root ([`LayerIndex::hides_all`]).

mod finish;
mod form;
mod guided;
mod limits;
mod own;
mod stream;
mod writer;

use std::io::Read;
use std::path::Path;
use std::thread;

use super::hashing;
use super::index::LayerIndex;
use super::scan::{Room, scan};
use super::tar::invalid;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::media::Compression;
use crate::pack::Buffers;

pub use form::{Form, OWNER};
pub use guided::{InView, unpack_in_view};
pub use limits::Limits;
pub use own::{Fix, Fixes, own};
use stream::Stream;
use writer::Writer;
pub(super) use writer::set_xattr;

/// A layer that is to be unpacked.
pub struct Packed<'a, R> {
    /// Its blob.
    pub blob: R,
    /// How that is compressed.
    pub compression: Compression,
    /// The digest of its archive. With another one, the layer is refused.
    pub diff_id: &'a Digest,
    /// Whether an index is wanted; else contents are not hashed.
    pub indexed: bool,
}

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// What is in the layer, if that was wanted.
    pub index: Option<LayerIndex>,
    /// What has to be done inside a user namespace yet.
    pub fixes: Fixes,
    /// What could not be made by this user, to be told to them.
    pub left_out: Vec<String>,
    /// Whether the layer has paths below links of its own. They are left out: where they lead is for the view to say, and
    /// the tree is of no use alone (see [`super::View::variant`], [`unpack_in_view`]).
    pub leads_elsewhere: bool,
    /// Regular files, and further names of them.
    pub files: u64,
    /// The sizes of all files, each once.
    pub bytes: u64,
}

/// Unpacks a layer into an empty directory, which has to be on the file system where it will be used.
///
/// Fails with `ImageInvalid` for a layer that [`LayerIndex::read`] refuses, one that has another digest or more than the
/// limits say, and names that Linux does not take; with `NoSpace` or `Store` if it cannot be written; with `Interrupted`. What
/// was written by then is of no use. Blocks.
pub fn unpack<R: Read + Send>(
    layer: Packed<'_, R>,
    form: &Form,
    directory: &Path,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Unpacked> {
    let mut writer = Writer::open(directory, form)?;
    let Packed { blob, compression, diff_id, indexed } = layer;
    let buffers = Buffers::new(stream::BLOCK);
    let (tree, found) = thread::scope(|scope| {
        let (room, digests) = if indexed {
            let (contents, digests) = hashing::start(scope)?;
            (Room::Hashed(contents), Some(digests))
        } else {
            (Room::plain(), None)
        };
        let mut stream = Stream::start(scope, blob, compression, limits, &buffers)?;
        let mut tree = scan(&mut stream, room, &mut writer, limits.entries, cancel)?;
        if let Some(digests) = digests {
            tree.set_digests(digests.get()?);
        }
        Ok::<_, crate::error::Error>((tree, stream.finish()?))
    })?;
    if found != *diff_id {
        return Err(invalid(format!("its archive is {found} and should be {diff_id}")));
    }
    let index = tree.finish();
    finish::finish(&mut writer, &index, Vec::new(), cancel)?;
    let fixes = Fixes::of(form, &index);
    let (left_out, leads_elsewhere) = (writer.left_out(), writer.leads_elsewhere);
    let Writer { files: count, bytes, .. } = writer;
    Ok(Unpacked { index: indexed.then_some(index), fixes, left_out, leads_elsewhere, files: count, bytes })
}
