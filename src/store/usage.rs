//! What is in a store, and how much of it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::census::Info;
use super::failure::failed;
use super::files::{Layout, list, size_in};
use crate::cancel::Cancel;
use crate::error::Result;

/// The kind of blobs, beside the kinds of records.
const BLOBS: &str = "blobs";
/// And unpacked layers.
const TREES: &str = "trees";
/// And directories of cache mounts.
const CACHES: &str = "caches";

/// How much a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// `blobs`, `trees` (unpacked layers), `caches` (what commands keep in cache mounts), and each kind of records.
    pub kinds: BTreeMap<String, KindUsage>,
    /// All of them together.
    pub total: KindUsage,
}

/// How much there is of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindUsage {
    /// How many.
    pub count: u64,
    /// The sizes of their files.
    pub bytes: u64,
}

impl KindUsage {
    pub(super) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// A blob, a record, an unpacked layer or a cache that is kept. Ordered by last use.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) used: SystemTime,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Counts everything.
pub(super) fn of(layout: &Layout, cancel: &Cancel) -> Result<Usage> {
    let mut usage = Usage::default();
    each(layout, cancel, &mut |kind, item| {
        usage.kinds.entry(kind.to_owned()).or_default().add(item.bytes);
        usage.total.add(item.bytes);
    })?;
    Ok(usage)
}

/// Everything, in no order.
pub(super) fn items(layout: &Layout, cancel: &Cancel) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    each(layout, cancel, &mut |_, item| items.push(item))?;
    Ok(items)
}

fn each(layout: &Layout, cancel: &Cancel, take: &mut dyn FnMut(&str, Item)) -> Result<()> {
    let mut look = |folder: &Path, kind: &str| {
        let failed = |source| failed(&layout.dir, "list it", source);
        for part in list(folder).map_err(failed)? {
            let (_, part) = part.map_err(failed)?;
            // Nobody else's files are counted, or pruned.
            if !part.is_dir() {
                continue;
            }
            for file in list(&part).map_err(failed)? {
                cancel.check()?;
                let (name, path) = file.map_err(failed)?;
                let known = match kind {
                    BLOBS => size_in(&name).is_some(),
                    TREES | CACHES => name.len() >= 64,
                    _ => name.len() == 64,
                };
                if !known {
                    continue;
                }
                if let Some(item) = item(path).map_err(failed)? {
                    take(kind, item);
                }
            }
        }
        Ok(())
    };
    look(&layout.blobs(), BLOBS)?;
    for kind in list(&layout.records()).map_err(|source| failed(&layout.dir, "list it", source))? {
        let (name, folder) = kind.map_err(|source| failed(&layout.dir, "list it", source))?;
        if folder.is_dir() {
            look(&folder, &name)?;
        }
    }
    for (place, kind) in [(layout.trees(), TREES), (layout.caches(), CACHES)] {
        for form in list(&place).map_err(|source| failed(&layout.dir, "list it", source))? {
            let (_, folder) = form.map_err(|source| failed(&layout.dir, "list it", source))?;
            if folder.is_dir() {
                look(&folder, kind)?;
            }
        }
    }
    Ok(())
}

/// A file, an unpacked layer or a cache as it is now; `None` if it is gone.
fn item(path: PathBuf) -> io::Result<Option<Item>> {
    match path.symlink_metadata() {
        Ok(metadata) => {
            let bytes = if metadata.is_dir() { directory_size(&path) } else { metadata.len() };
            Ok(Some(Item { used: metadata.modified()?, bytes, path }))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// When something was last used; `None` if it is gone.
pub(super) fn last_use(path: &Path) -> io::Result<Option<SystemTime>> {
    match path.symlink_metadata().and_then(|metadata| metadata.modified()) {
        Ok(used) => Ok(Some(used)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The size of an unpacked layer, which is noted. That of a cache is not: commands change it. What somebody else may not look
/// at, or is about to change, does not count.
fn directory_size(path: &Path) -> u64 {
    let noted = Info::read(path);
    let info = noted.or_else(|| if path.join("lock").exists() { Info::of(&path.join("tree")).ok() } else { None });
    info.map_or(0, |info| info.bytes)
}
