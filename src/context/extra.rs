//! Files that exist in memory only, and how they join the walked ones.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, FIXED_TIME, Kind, Mtime, Source, compare_paths};
use super::stamp::Stamp;
use super::tree::EntryId;
use crate::error::{Error, Result};
use crate::request::ExtraFile;

/// The mode of a directory that exists for the sake of an extra file.
const DIRECTORY_MODE: u32 = 0o755;

/// Turns extra files into entries, with a directory for every parent, in the order of a walk.
///
/// The last of several files with one path counts. Fails with `ContextPath` for a path that is empty, absolute, ends with
/// `/` or has a `..`, and for a file that another one needs as a directory.
pub(super) fn entries(files: &[ExtraFile]) -> Result<Vec<Entry>> {
    let mut found: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for file in files {
        let path = normalize(&file.path)?;
        found.insert(path.clone(), file_entry(path, file));
    }
    let paths: Vec<Vec<u8>> = found.keys().cloned().collect();
    for path in paths {
        for parent in parents(&path) {
            match found.get(parent) {
                None => drop(found.insert(parent.to_vec(), directory_entry(parent))),
                Some(entry) if entry.is_dir() => {}
                Some(entry) => {
                    let reason = format!("the extra file `{}` needs a directory of that name", lossy(&path));
                    return Err(Error::ContextPath { path: lossy(&entry.path), reason });
                }
            }
        }
    }
    let mut entries: Vec<Entry> = found.into_values().collect();
    entries.sort_by(|left, right| compare_paths(&left.path, &right.path));
    Ok(entries)
}

/// Drops `.` and doubled slashes.
pub(super) fn normalize(path: &str) -> Result<Vec<u8>> {
    let refuse = |reason: &str| Err(Error::ContextPath { path: path.to_owned(), reason: reason.to_owned() });
    if path.starts_with('/') {
        return refuse("it is absolute; paths of extra files start at the root of the context");
    }
    if path.contains('\0') {
        return refuse("it has a NUL character");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return refuse("it leads out of the context");
    }
    if parts.is_empty() {
        return refuse("it is empty");
    }
    if path.ends_with('/') || path.ends_with("/.") {
        return refuse("it names a directory, and an extra file is a file");
    }
    Ok(parts.join("/").into_bytes())
}

fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

fn file_entry(path: Vec<u8>, file: &ExtraFile) -> Entry {
    Entry {
        path,
        kind: Kind::File { size: file.content.len() as u64 },
        mode: file.mode & 0o7777,
        mtime: content_time(&file.content),
        source: Source::Memory(file.content.clone()),
        stamp: Stamp(0),
        id: EntryId::default(),
    }
}

fn directory_entry(path: &[u8]) -> Entry {
    Entry {
        path: path.to_vec(),
        kind: Kind::Dir,
        mode: DIRECTORY_MODE,
        mtime: Mtime { seconds: FIXED_TIME, nanoseconds: 0 },
        source: Source::Memory(Bytes::new()),
        stamp: Stamp(0),
        id: EntryId::default(),
    }
}

/// A time that changes with the content: a receiver that compares sizes and times then never takes another content of
/// the same size for unchanged.
fn content_time(content: &[u8]) -> Mtime {
    let hash = Sha256::digest(content);
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    Mtime { seconds: FIXED_TIME, nanoseconds: number % 1_000_000_000 }
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, content: &str) -> ExtraFile {
        ExtraFile { path: path.into(), content: Bytes::copy_from_slice(content.as_bytes()), mode: 0o644 }
    }

    fn paths(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| lossy(&entry.path)).collect()
    }

    #[test]
    fn parents_are_made_up_in_order() {
        let entries = entries(&[file("a.txt", ""), file("a/b/c", "1"), file("./a//b/c", "22")]).unwrap();
        assert_eq!(paths(&entries), ["a", "a/b", "a/b/c", "a.txt"]);
        assert_eq!(entries[2].kind, Kind::File { size: 2 });
    }

    #[test]
    fn bad_paths_are_refused() {
        for path in ["", "/a", "../a", "a/../b", ".", "a/", "a/.", "./", "a\0b"] {
            assert_eq!(entries(&[file(path, "")]).unwrap_err().code(), "context-path", "{path:?}");
        }
        assert_eq!(entries(&[file("a", ""), file("a/b", "")]).unwrap_err().code(), "context-path");
    }

    #[test]
    fn time_follows_content() {
        let times = entries(&[file("a", "1"), file("b", "2"), file("c", "1")]).unwrap();
        assert_ne!(times[0].mtime, times[1].mtime);
        assert_eq!(times[0].mtime, times[2].mtime);
    }
}
