//! Whether something is what it was: BuildKit's `sameDirent`.

use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use super::Left;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::rootfs::{Item, ItemKind, Node, NodeKind, Stamp};

/// The only attribute that is compared, and that gets into a layer, as with containerd.
pub(super) const CAPABILITY: &[u8] = b"security.capability";
/// How much is compared at once.
const CHUNK: usize = 1 << 20;

/// Whether an item is what lower layers have at its path. Times of directories do not count. Where a time has no fraction of a
/// second, a change within the second would not show, and contents are compared.
pub(super) fn same(
    left: &Left<'_>,
    item: &Item,
    (uid, gid): (u32, u32),
    lower: &Node,
    cancel: &Cancel,
) -> Result<bool> {
    let capability = lower.xattrs.get(CAPABILITY);
    if (item.mode, uid, gid) != (lower.mode, lower.uid, lower.gid) && !is_link(item)
        || is_link(item) && (uid, gid) != (lower.uid, lower.gid)
        || item.capability.as_ref() != capability
    {
        return Ok(false);
    }
    if matches!((&item.kind, &lower.kind), (ItemKind::Dir { .. }, NodeKind::Dir)) {
        return Ok(true);
    }
    if item.mtime != lower.mtime {
        return Ok(false);
    }
    match (&item.kind, &lower.kind) {
        (ItemKind::File { size, spooled }, NodeKind::File { size: lower_size, digest }) => {
            if size != lower_size {
                return Ok(false);
            }
            if item.mtime.nanoseconds != 0 {
                return Ok(true);
            }
            Ok(hash(left, item, *size, *spooled, cancel)? == *digest)
        }
        (ItemKind::Symlink { target }, NodeKind::Symlink { target: lower }) => Ok(target == lower),
        (ItemKind::Fifo, NodeKind::Fifo) => Ok(true),
        (ItemKind::CharDevice { major, minor }, NodeKind::CharDevice { major: other, minor: another })
        | (ItemKind::BlockDevice { major, minor }, NodeKind::BlockDevice { major: other, minor: another }) => {
            Ok((major, minor) == (other, another))
        }
        _ => Ok(false),
    }
}

/// Modes of links are what the system says, and what archives say of them differs.
const fn is_link(item: &Item) -> bool {
    matches!(item.kind, ItemKind::Symlink { .. })
}

fn hash(left: &Left<'_>, item: &Item, size: u64, spooled: Option<u64>, cancel: &Cancel) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut chunk = Vec::new();
    let mut at = 0;
    let spool = spooled.zip(left.spool.as_ref());
    let file = if spool.is_none() { Some(left.files.file(&item.path, size, Stamp::of(item))?) } else { None };
    while at < size {
        cancel.check()?;
        let most = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        chunk.clear();
        if let Some(file) = &file {
            file.append_to(&mut chunk, at, most)?;
        } else if let Some((start, spool)) = spool {
            chunk.resize(most, 0);
            let path = || std::path::PathBuf::from(String::from_utf8_lossy(&item.path).into_owned());
            spool.read_exact_at(&mut chunk, start + at).map_err(|source| Error::Store {
                path: path(),
                action: "read a file".into(),
                source,
            })?;
        }
        hash.update(&chunk);
        at += most as u64;
    }
    Ok(Digest::from_bytes(hash.finalize().into()))
}
