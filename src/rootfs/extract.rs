//! Contents of files, out of a layer.

use std::collections::HashMap;
use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::spool::Spool;
use super::tar::{Archive, Member, MemberKind, Place, invalid};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;

/// How much is copied at once.
const CHUNK: usize = 128 << 10;

/// A file whose content is needed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Its name in the layer ([`super::Found::content_path`]).
    pub path: Vec<u8>,
    /// Its size, by the index.
    pub size: u64,
    /// The digest of its content, by the index.
    pub digest: Digest,
}

/// Where a content is in a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// Where it begins.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// Takes contents of files out of a layer's archive, decompressed, and gives the places in the order of the files. The
/// archive is read once, and no further than to the last of them.
///
/// Every content is verified: fails with `ImageInvalid` if the layer has no such file with that content, or is malformed.
/// Nothing is in the spool then that was not there before.
pub fn extract(tar: impl Read, wanted: &[Wanted], out: &mut Spool, cancel: &Cancel) -> Result<Vec<Extracted>> {
    let start = out.len();
    let result = copy_all(tar, wanted, out, cancel);
    if result.is_err() {
        out.forget(start);
    }
    result
}

fn copy_all(tar: impl Read, wanted: &[Wanted], out: &mut Spool, cancel: &Cancel) -> Result<Vec<Extracted>> {
    let mut missing: HashMap<&[u8], Vec<&Wanted>> = HashMap::new();
    for file in wanted.iter().filter(|file| !is_empty(file)) {
        let of_path = missing.entry(&file.path).or_default();
        if !of_path.contains(&file) {
            of_path.push(file);
        }
    }
    let mut places: HashMap<&Wanted, u64> = HashMap::new();
    let mut archive = Archive::new(tar, cancel);
    while !missing.is_empty() {
        let Some(member) = archive.next()? else { break };
        let Member { place: Place::Path(path), kind: MemberKind::File { size }, .. } = member else { continue };
        // A layer may have several entries of one name: the one with the right content is meant.
        let Some(of_path) = missing.get_mut(path.as_slice()) else { continue };
        if !of_path.iter().any(|file| file.size == size) {
            continue;
        }
        let offset = out.len();
        let digest = copy(&mut archive, out)?;
        match of_path.iter().position(|file| file.digest == digest) {
            Some(at) => drop(places.insert(of_path.swap_remove(at), offset)),
            None => out.forget(offset),
        }
        if of_path.is_empty() {
            missing.remove(path.as_slice());
        }
    }
    if let Some(path) = missing.keys().min() {
        let path = String::from_utf8_lossy(path);
        return Err(invalid(format!("it has no `{path}` with the content that its index has")));
    }
    let place = |file: &Wanted| places.get(file).copied().unwrap_or(out.len());
    Ok(wanted.iter().map(|file| Extracted { offset: place(file), size: file.size }).collect())
}

/// Nothing needs to be read for it.
fn is_empty(file: &Wanted) -> bool {
    file.size == 0 && file.digest == Digest::of(b"")
}

fn copy<R: Read>(archive: &mut Archive<'_, R>, out: &mut Spool) -> Result<Digest> {
    let mut chunk = vec![0; CHUNK];
    let mut hash = Sha256::new();
    loop {
        let count = archive.read_content(&mut chunk)?;
        if count == 0 {
            return Ok(Digest::from_bytes(hash.finalize().into()));
        }
        hash.update(&chunk[..count]);
        out.append(&chunk[..count])?;
    }
}
