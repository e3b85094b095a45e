//! Archives that ADD unpacks: what becomes of their entries in a base. The rules are those of `Unpack` in Moby's `go-archive`.

use std::collections::BTreeMap;

use cooper::cancel::Cancel;
use cooper::engine::native::copy::{CopyMistake, Failure, Item, ItemKind, owner, place, select};
use cooper::layer::{LayerEntry, LayerKind};

use crate::copy_support::{Accounts, Memory, copy_step};

/// The entries of an archive, in its order: lines as in the lists of [`Memory`].
fn archive(list: &str) -> Vec<LayerEntry> {
    let mut before = Memory::default();
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| entry(line, &mut before)).collect()
}

fn entry(line: &str, before: &mut Memory) -> LayerEntry {
    let words: Vec<&str> = line.split(' ').collect();
    let path = words[0].trim_end_matches('/').as_bytes().to_vec();
    if let ["==", first] = words[1..] {
        let kind = LayerKind::Hardlink { first: first.as_bytes().to_vec(), size: 1 };
        return made(before.0[first.as_bytes()].clone(), path, kind);
    }
    let item = Memory::new(line).0.remove(&path).unwrap();
    before.0.insert(path.clone(), item.clone());
    let kind = match &item.kind {
        ItemKind::File { size, content, .. } => LayerKind::File { size: *size, content: content.clone(), digest: None },
        ItemKind::Symlink { target } => LayerKind::Symlink { target: target.clone() },
        _ => LayerKind::Dir,
    };
    made(item, path, kind)
}

fn made(item: Item, path: Vec<u8>, kind: LayerKind) -> LayerEntry {
    let Item { mode, owner, mtime, xattrs, .. } = item;
    LayerEntry { path, kind, mode, uid: owner.uid, gid: owner.gid, mtime, xattrs }
}

/// What an archive makes of a base.
fn unpacked(instruction: &str, list: &str, base: &str) -> Result<Vec<String>, CopyMistake> {
    let (step, cancel, base) = (copy_step(instruction), Cancel::new(), Memory::new(base));
    let origin = Memory::new("a.tar = 1 0600 9:9\nb = 2");
    let mut selection = select(&step, &origin, &BTreeMap::new(), &cancel).unwrap();
    let candidates: Vec<(usize, Vec<u8>)> =
        selection.archives().map(|(number, item)| (number, item.path.clone())).collect();
    for (number, _) in candidates.iter().filter(|(_, path)| path == b"a.tar") {
        selection.unpack(*number, archive(list));
    }
    let owner = step.chown.as_deref().map(|text| owner(text, &Accounts).unwrap().owner);
    match place(&step, &selection, &base, owner, None, &cancel) {
        Ok(entries) => Ok(base.apply(&entries).show()),
        Err(Failure::Mistake(mistake)) => Err(mistake),
        Err(Failure::Other(error)) => panic!("{error}"),
    }
}

#[test]
fn archives_are_merged_into_the_destination() {
    let cases: &[(&str, &str, &str, &[&str])] = &[
        ("ADD a.tar /x", "f = 1 0600 5:6\nd/ 0700\nd/g = 2", "", &["x/", "x/d/ 0700", "x/d/g = 2", "x/f = 1 0600 5:6"]),
        // A directory that is there gets the attributes of the archive's, the destination itself keeps its own.
        ("ADD a.tar /x", "d/ 0700 5:6", "x/ 0711\nx/d/\nx/d/g = 1", &["x/ 0711", "x/d/ 0700 5:6", "x/d/g = 1"]),
        // testDockerfileAddArchiveWithImpliedParentDir: root's, whatever --chown says.
        ("ADD --chown=1:2 a.tar /x", "d/f = 1", "", &["x/ 0755 1:2", "x/d/", "x/d/f = 1 0644 1:2"]),
        // --chmod is for what is copied: archives have modes of their own.
        ("ADD --chmod=600 a.tar /x", "f = 1", "", &["x/", "x/f = 1"]),
        // What is in the way is removed.
        ("ADD a.tar /", "d = 1", "d/a/b = 2", &["d = 1"]),
        ("ADD a.tar /", "d/\nd/f = 1", "d = 2", &["d/", "d/f = 1"]),
        ("ADD a.tar /", "l -> new", "l -> old", &["l -> new"]),
        ("ADD a.tar /", "f = 1\nf = 2", "", &["f = 2"]),
        // testDockerfileAddArchiveThroughAbsoluteSymlink: links lead within the destination.
        (
            "ADD a.tar /",
            "var/run/act/\nvar/run/act/f = 1",
            "run/\nvar/run -> /run",
            &["run/", "run/act/", "run/act/f = 1", "var/", "var/run -> /run"],
        ),
        ("ADD a.tar /x", "l -> /d\nd/\nl/f = 1", "", &["x/", "x/d/", "x/d/f = 1", "x/l -> /d"]),
        ("ADD a.tar /x", "a = 1\nd/b == a", "", &["x/", "x/a = 1", "x/d/", "x/d/b == x/a"]),
        // Of several sources, each is what it is.
        ("ADD a.tar b /x/", "f = 1", "", &["x/", "x/b = 2", "x/f = 1"]),
        ("ADD --unpack=false a.tar /x/", "f = 1", "", &["x/", "x/a.tar = 1 0600 9:9"]),
        ("COPY a.tar /x/", "f = 1", "", &["x/", "x/a.tar = 1 0600 9:9"]),
    ];
    for (instruction, list, base, expected) in cases {
        let found =
            unpacked(instruction, list, base).unwrap_or_else(|mistake| panic!("{instruction}: {}", mistake.message));
        assert_eq!(found, *expected, "{instruction} of {list}");
    }
}

#[test]
fn the_destination_of_an_archive_is_a_directory() {
    let mistake = unpacked("ADD a.tar /x", "f = 1", "x = 2").unwrap_err();
    assert_eq!(mistake.message, "`/x` is no directory");
}
