//! File systems in memory, written as lists: what COPY reads, and what it makes of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use cooper::Error;
use cooper::cancel::Cancel;
use cooper::context::compare_paths;
use cooper::dockerfile::step::{Action, CopyStep};
use cooper::dockerfile::{Dockerfile, Inputs, Start};
use cooper::engine::native::copy::{
    Account, CopyMistake, Failure, FileId, Files, Item, ItemKind, Owner, owner, place, select,
};
use cooper::layer::{Content, LayerEntry, LayerKind};
use cooper::mtime::Mtime;
use cooper::rootfs::Xattrs;

/// A file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(pub(crate) BTreeMap<Vec<u8>, Item>);

impl Memory {
    /// Reads a list: a line is a path and what is there, directories that are not in the list are root's.
    ///
    /// `a/` is a directory, `a = text` a file, `a -> b` a link, `a == b` another name of the file `b`, `a |` a pipe. Behind
    /// it may stand a mode and an owner: `a/ 0700 1:2`.
    pub(crate) fn new(list: &str) -> Self {
        let mut files = Self::default();
        for line in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
            files.add(line);
        }
        files
    }

    fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let (path, rest) = (words[0], &words[1..]);
        let file = |content: &str, first| ItemKind::File {
            size: content.len() as u64,
            content: Content::Bytes(Bytes::copy_from_slice(content.as_bytes())),
            digest: None,
            first,
        };
        let (path, kind, used) = match rest {
            ["=", content, ..] => (path, file(content, None), 2),
            ["==", first, ..] => {
                let ItemKind::File { content: Content::Bytes(content), .. } = &self.0[first.as_bytes()].kind else {
                    panic!("{first} is no file");
                };
                let id = FileId { layer: 0, path: first.as_bytes().to_vec() };
                (path, file(std::str::from_utf8(content).unwrap(), Some(id)), 2)
            }
            ["->", target, ..] => (path, ItemKind::Symlink { target: target.as_bytes().to_vec() }, 2),
            ["|", ..] => (path, ItemKind::Fifo, 1),
            _ => (path.strip_suffix('/').expect(line), ItemKind::Dir, 0),
        };
        let mode = match kind {
            ItemKind::Symlink { .. } => 0o777,
            ItemKind::Dir => 0o755,
            _ => 0o644,
        };
        let mode = rest.get(used).map_or(mode, |mode| u32::from_str_radix(mode, 8).unwrap());
        let owner = rest.get(used + 1).map_or(Owner::default(), |owner| {
            let (uid, gid) = owner.split_once(':').unwrap();
            Owner { uid: uid.parse().unwrap(), gid: gid.parse().unwrap() }
        });
        let parts: Vec<&str> = path.split('/').collect();
        for end in 1..parts.len() {
            self.0.entry(parts[..end].join("/").into_bytes()).or_insert_with_key(|path| directory(path));
        }
        let path = path.as_bytes().to_vec();
        let item = Item { path: path.clone(), kind, mode, owner, mtime: Mtime::default(), xattrs: Xattrs::new() };
        self.0.insert(path, item);
    }

    /// What is there, a line for each path, as lists are written.
    pub(crate) fn show(&self) -> Vec<String> {
        self.0.values().map(show).collect()
    }

    /// What a layer makes of it, as containerd applies it.
    pub(crate) fn apply(mut self, entries: &[LayerEntry]) -> Self {
        for entry in entries {
            let path = entry.path.clone();
            let is_dir = matches!(entry.kind, LayerKind::Dir);
            if !(is_dir && self.0.get(&path).is_some_and(Item::is_dir)) {
                let below = [&path[..], b"/"].concat();
                self.0.retain(|other, _| *other != path && !other.starts_with(&below));
            }
            let above = path.iter().rposition(|byte| *byte == b'/').map(|at| &path[..at]);
            let above = above.map_or(Some(true), |above| self.0.get(above).map(Item::is_dir));
            assert_eq!(above, Some(true), "{} has no directory", String::from_utf8_lossy(&path));
            let item = self.item(entry);
            self.0.insert(path, item);
        }
        self
    }

    fn item(&self, entry: &LayerEntry) -> Item {
        let kind = match &entry.kind {
            LayerKind::File { size, content, .. } => {
                ItemKind::File { size: *size, content: content.clone(), digest: None, first: None }
            }
            LayerKind::Hardlink { first, .. } => match &self.0[first].kind {
                ItemKind::File { size, content, .. } => {
                    let first = Some(FileId { layer: 0, path: first.clone() });
                    ItemKind::File { size: *size, content: content.clone(), digest: None, first }
                }
                _ => panic!("a link to what is no file"),
            },
            LayerKind::Dir => ItemKind::Dir,
            LayerKind::Symlink { target } => ItemKind::Symlink { target: target.clone() },
            LayerKind::Fifo => ItemKind::Fifo,
            other => panic!("{other:?} is not in these tests"),
        };
        let LayerEntry { path, mode, uid, gid, mtime, xattrs, .. } = entry.clone();
        Item { path, kind, mode, owner: Owner { uid, gid }, mtime, xattrs }
    }
}

fn directory(path: &[u8]) -> Item {
    let owner = Owner::default();
    let (mtime, xattrs) = (Mtime::default(), Xattrs::new());
    Item { path: path.to_vec(), kind: ItemKind::Dir, mode: 0o755, owner, mtime, xattrs }
}

/// One line of a list. Modes and owners that are usual are left out.
fn show(item: &Item) -> String {
    let path = String::from_utf8_lossy(&item.path);
    let (what, usual) = match &item.kind {
        ItemKind::File { first: Some(id), .. } => (format!("{path} == {}", String::from_utf8_lossy(&id.path)), 0o644),
        ItemKind::File { content: Content::Bytes(content), .. } => {
            (format!("{path} = {}", String::from_utf8_lossy(content)), 0o644)
        }
        ItemKind::File { size, .. } => (format!("{path} = {size} bytes"), 0o644),
        ItemKind::Dir => (format!("{path}/"), 0o755),
        ItemKind::Symlink { target } => (format!("{path} -> {}", String::from_utf8_lossy(target)), 0o777),
        ItemKind::Fifo => (format!("{path} |"), 0o644),
        other => panic!("{other:?} is not in these tests"),
    };
    match (item.mode, item.owner) {
        (mode, Owner { uid: 0, gid: 0 }) if mode == usual => what,
        (mode, Owner { uid: 0, gid: 0 }) => format!("{what} {mode:04o}"),
        (mode, Owner { uid, gid }) => format!("{what} {mode:04o} {uid}:{gid}"),
    }
}

impl Files for Memory {
    fn find(&self, path: &[u8]) -> Option<Item> {
        if path.is_empty() { Some(directory(b"")) } else { self.0.get(path).cloned() }
    }

    fn children(&self, directory: &[u8]) -> Vec<Item> {
        let prefix = if directory.is_empty() { Vec::new() } else { [directory, b"/"].concat() };
        let is_child = |path: &Vec<u8>| path.strip_prefix(&prefix[..]).is_some_and(|rest| !rest.contains(&b'/'));
        self.0.iter().filter(|(path, _)| is_child(path)).map(|(_, item)| item.clone()).collect()
    }

    fn name(&self) -> String {
        "the build context".to_owned()
    }
}

/// The step of an instruction. `origin` is a stage that it may copy from; the working directory is `/work`.
pub(crate) fn step(instruction: &str) -> Action {
    let text = format!("FROM scratch AS origin\nFROM scratch\nWORKDIR /work\n{instruction}\n");
    let inputs = Inputs::new("linux/amd64".parse().unwrap());
    let dockerfile = Dockerfile::parse("Dockerfile", text.as_bytes()).unwrap();
    let plan = dockerfile.plan(&inputs).unwrap();
    let mut stage = plan.evaluate(1, Start::Empty).unwrap_or_else(|error| panic!("{instruction}: {error}"));
    stage.steps.pop().unwrap().action
}

/// COPY or ADD.
pub(crate) fn copy_step(instruction: &str) -> CopyStep {
    match step(instruction) {
        Action::Copy(step) => *step,
        other => panic!("{instruction} is {other:?}"),
    }
}

/// The entries of the layer that an instruction makes.
pub(crate) fn entries(instruction: &str, origin: &Memory, base: &Memory) -> Result<Vec<LayerEntry>, CopyMistake> {
    let (step, cancel) = (copy_step(instruction), Cancel::new());
    let mistake = |failure| match failure {
        Failure::Mistake(mistake) => mistake,
        Failure::Other(error) => panic!("{instruction}: {error}"),
    };
    let selection = select(&step, origin, &BTreeMap::new(), &cancel).map_err(mistake)?;
    let owner = step.chown.as_deref().map(|text| owner(text, &Accounts).unwrap().owner);
    let entries = place(&step, &selection, base, owner, None, &cancel).map_err(mistake)?;
    let sorted = entries.is_sorted_by(|left, right| compare_paths(&left.path, &right.path).is_lt());
    assert!(sorted, "{instruction}: {entries:?}");
    Ok(entries)
}

/// What an instruction makes of a base: a list of everything in it.
pub(crate) fn copied(instruction: &str, origin: &str, base: &str) -> Result<Vec<String>, CopyMistake> {
    let base = Memory::new(base);
    let entries = entries(instruction, &Memory::new(origin), &base)?;
    Ok(base.apply(&entries).show())
}

/// Users and groups of the tests' images.
pub(crate) struct Accounts;

impl Account for Accounts {
    fn user(&self, name: &str) -> Result<Option<Owner>, Error> {
        Ok((name == "app").then_some(Owner { uid: 1000, gid: 1001 }))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Error> {
        Ok((name == "staff").then_some(50))
    }
}
