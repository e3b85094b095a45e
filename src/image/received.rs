//! An image that comes as the archive of an OCI layout, put into a layout in a directory while it comes.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::Path;

use tar::{Archive, EntryType};

use super::blobs::MAX_DOCUMENT;
use super::layout::Layout;
use super::{INDEX_FILE, blob_path, invalid};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Document, media};

/// What archives are called in messages.
const WHAT: &str = "the archive that the builder sent";

/// An image whose blobs are in a layout, and which is not in its list yet. Dropped before, it leaves nothing behind. Nobody
/// else writes to the layout meanwhile.
pub struct Received {
    layout: Layout,
    entries: Vec<Descriptor>,
}

/// Takes the blobs out of an archive. Nothing else of it is written, and every blob has the digest that names it.
///
/// Fails with `OutputFailed`, with `ImageInvalid` where the archive is none of an OCI layout or the directory another kind of
/// layout, and with `Interrupted`.
pub fn receive_layout(archive: &mut dyn Read, directory: &Path, cancel: &Cancel) -> Result<Received> {
    let mut layout = Layout::lock(directory, cancel)?;
    layout.check()?;
    layout.directories()?;
    let (mut index, mut blobs) = (None, BTreeSet::new());
    let mut tar = Archive::new(archive);
    for entry in tar.entries().map_err(damaged)? {
        cancel.check()?;
        let mut entry = entry.map_err(damaged)?;
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let (path, size) = (String::from_utf8_lossy(&entry.path_bytes()).into_owned(), entry.size());
        if path == INDEX_FILE {
            index = Some(document(&mut entry, size)?);
        } else if let Some(digest) = blob(&path) {
            layout.put(&digest, size, &mut entry, cancel)?;
            blobs.insert(digest.hex());
        }
    }
    // What is behind its end belongs to the stream as well.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(damaged)?;
    let index = index.ok_or_else(|| invalid(WHAT, format!("it has no `{INDEX_FILE}`")))?;
    let Document::Index(index) = Document::parse(media::OCI_INDEX, &index)? else {
        return Err(invalid(WHAT, format!("`{INDEX_FILE}` is no index")));
    };
    match index.manifests.iter().find(|entry| !blobs.contains(&entry.digest.hex())) {
        Some(missing) => Err(invalid(WHAT, format!("it lists {}, which is not in it", missing.digest))),
        None => Ok(Received { layout, entries: index.manifests }),
    }
}

impl Received {
    /// Puts the image into the list. Fails with `OutputFailed`, `ImageInvalid` and `Interrupted`.
    pub fn keep(mut self, cancel: &Cancel) -> Result<()> {
        self.layout.list(&self.entries, cancel)?;
        self.layout.keep();
        Ok(())
    }
}

fn document(entry: &mut dyn Read, size: u64) -> Result<Vec<u8>> {
    if size > MAX_DOCUMENT {
        return Err(invalid(WHAT, format!("`{INDEX_FILE}` is too big")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

/// The digest that a path is the place of.
fn blob(path: &str) -> Option<Digest> {
    let digest: Digest = format!("sha256:{}", path.rsplit_once('/')?.1).parse().ok()?;
    (path == blob_path(&digest)).then_some(digest)
}

fn damaged(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => invalid(WHAT, error.to_string()),
    }
}
