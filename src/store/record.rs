//! One record: a line that names the format, a checksum, the value.
//!
//! The checksum is a SHA-256 of the kind, the key and the value, so that a file in the wrong place is found out too.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::failure::failed;
use super::files::{self, Layout, discard, touch};
use super::lock;
use crate::digest::Digest;
use crate::error::Result;

/// Begins every record. The number changes with the format.
const MAGIC: &[u8] = b"cooper record 1\n";
/// Before the value: the magic and the checksum.
const HEAD: usize = MAGIC.len() + 32;

/// Reads a record. The caller holds the shared lock.
pub(super) fn read(path: &Path, kind: &str, key: &Digest) -> Result<Option<Vec<u8>>> {
    let content = || {
        let Some(mut file) = files::open(path)? else { return Ok(None) };
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(Some(content))
    };
    let Some(content) = content().map_err(|source| failed(path, "read a record", source))? else { return Ok(None) };
    let value = decode(content, kind, key);
    if value.is_some() {
        touch(path);
    } else {
        discard(path);
    }
    Ok(value)
}

/// Writes a record, which then needs its name.
pub(super) fn write(layout: &Layout, kind: &str, key: &Digest, value: &[u8]) -> Result<NamedTempFile> {
    let write = || -> io::Result<NamedTempFile> {
        let mut file = lock::held_file(&layout.tmp())?;
        file.write_all(&[MAGIC, &checksum(kind, key, value)].concat())?;
        file.write_all(value)?;
        Ok(file)
    };
    write().map_err(|source| failed(&layout.dir, "write a record", source))
}

fn decode(mut content: Vec<u8>, kind: &str, key: &Digest) -> Option<Vec<u8>> {
    let value = content.get(HEAD..)?;
    let sound = content.starts_with(MAGIC) && content[MAGIC.len()..HEAD] == checksum(kind, key, value);
    content.drain(..HEAD);
    sound.then_some(content)
}

fn checksum(kind: &str, key: &Digest, value: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((kind.len() as u64).to_le_bytes());
    hash.update(kind);
    hash.update(key.as_bytes());
    hash.update(value);
    hash.finalize().into()
}
