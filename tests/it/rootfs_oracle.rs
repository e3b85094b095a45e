//! Views against a second reading of the same rules: layers are applied to a tree, entry by entry, as containerd applies
//! them to a directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use cooper::mtime::Mtime;
use cooper::rootfs::{IndexEntry, LayerIndex, Node, NodeKind, View, Xattrs};
use proptest::prelude::*;

use crate::rootfs_support::{Header, Tar, content, dir, listed, node, symlink};

/// What is at a path, and in which layer it was put there.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    node: Node,
    layer: usize,
}

/// A file system as a list of paths.
#[derive(Clone, Debug, Default)]
struct Tree(BTreeMap<String, Placed>);

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

fn implied() -> Node {
    Node { kind: NodeKind::Dir, mode: 0o755, uid: 0, gid: 0, mtime: Mtime::FIXED, xattrs: Xattrs::new() }
}

impl Tree {
    fn below(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        self.0.keys().filter(|key| path.is_empty() || key.starts_with(&prefix)).cloned().collect()
    }

    /// Follows every link, as a shell would.
    fn resolve(&self, path: &str) -> String {
        let mut done = String::new();
        let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done = done.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default();
                    continue;
                }
                _ => {}
            }
            let path = join(&done, &part);
            match self.0.get(&path).map(|placed| &placed.node.kind) {
                Some(NodeKind::Symlink { target }) => {
                    links += 1;
                    assert!(links < 255);
                    let target = std::str::from_utf8(target).unwrap();
                    if target.starts_with('/') {
                        done = String::new();
                    }
                    left.extend(target.split('/').rev().map(str::to_owned));
                }
                _ => done = path,
            }
        }
        done
    }

    /// `None` if something of the same layer is in the way. What a lower layer has there is replaced.
    fn make_parents(&mut self, path: &str, layer: usize) -> Option<()> {
        let slashes: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
        for end in slashes.into_iter().filter(|end| *end > 0) {
            let parent = &path[..end];
            match self.0.get(parent) {
                Some(placed) if placed.node.is_dir() => continue,
                Some(placed) if placed.layer == layer => return None,
                _ => self.remove(parent),
            }
            self.0.insert(parent.to_owned(), Placed { node: implied(), layer });
        }
        Some(())
    }

    fn remove(&mut self, path: &str) {
        for below in self.below(path) {
            self.0.remove(&below);
        }
        self.0.remove(path);
    }

    /// Removes what lower layers have at a path. Directories on the way to what this layer has become its own.
    fn remove_lower(&mut self, path: &str, layer: usize) {
        let mut all = self.below(path);
        all.push(path.to_owned());
        all.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in all {
            if self.0.get(&path).is_none_or(|placed| placed.layer == layer) {
                continue;
            }
            if self.below(&path).is_empty() {
                self.0.remove(&path);
            } else {
                self.0.insert(path, Placed { node: implied(), layer });
            }
        }
    }

    fn apply(&mut self, path: &str, entry: &IndexEntry, layer: usize) -> Option<()> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if *entry == IndexEntry::Opaque {
            let directory = self.resolve(path);
            self.make_parents(&directory, layer)?;
            for child in self.below(&directory) {
                self.remove_lower(&child, layer);
            }
            return Some(());
        }
        let parent = self.resolve(parent);
        self.make_parents(&parent, layer)?;
        let path = join(&parent, name);
        match entry {
            IndexEntry::Whiteout => self.remove_lower(&path, layer),
            IndexEntry::Node(node) | IndexEntry::Hardlink { node, .. } => {
                let both = node.is_dir() && self.0.get(&path).is_some_and(|placed| placed.node.is_dir());
                if !both {
                    self.remove(&path);
                }
                self.0.insert(path, Placed { node: node.clone(), layer });
            }
            IndexEntry::Opaque => unreachable!(),
        }
        Some(())
    }
}

/// `s` and `r` may be links; nothing else is one.
const NAMES: &[&str] = &["a", "a b", "t", "u", "s", "r"];
const TARGETS: &[&str] = &["/t", "/t/u", "/t/../t/a", "/none", "/t/none/a", "/u"];

/// Whether no link leads over another. Where a layer has paths that lead over a link, and replaces what is on the way, the
/// order of its entries would count, and an index has none: no layer here does that.
fn is_simple(path: &str) -> bool {
    let mut parts = path.split('/').skip_while(|part| part.starts_with('a'));
    match parts.next() {
        Some("s" | "r") => parts.all(|part| !matches!(part, "s" | "r")),
        _ => !path.split('/').any(|part| matches!(part, "s" | "r")),
    }
}

#[derive(Clone, Debug)]
enum Said {
    Node(IndexEntry),
    Whiteout,
    Opaque,
    New(IndexEntry),
    OpaqueDir(u32),
}

fn any_said() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => "[a-z]{0,3}".prop_map(|text| Said::Node(node(content(&text), 0o600))),
        3 => (0..8_u32).prop_map(|bits| Said::Node(node(NodeKind::Dir, 0o700 | bits))),
        2 => prop::sample::select(TARGETS).prop_map(|target| Said::Node(symlink(target))),
        1 => Just(Said::Node(node(NodeKind::Fifo, 0o600))),
        2 => Just(Said::Whiteout),
        1 => Just(Said::Opaque),
        1 => (0..8_u32).prop_map(|bits| Said::New(node(NodeKind::Dir, 0o700 | bits))),
        1 => (0..8_u32).prop_map(Said::OpaqueDir),
    ]
}

fn any_layer() -> impl Strategy<Value = Vec<(String, IndexEntry)>> {
    let path = prop::collection::vec(prop::sample::select(NAMES), 1..4).prop_map(|parts| parts.join("/"));
    let path = path.prop_map(|path| if is_simple(&path) { path } else { path.replace('r', "b").replace('s', "c") });
    prop::collection::btree_map(path, any_said(), 0..10).prop_map(|said| entries(&said))
}

/// The entries of a layer, in the order in which an archive has them. What is below a file is left out.
fn entries(said: &BTreeMap<String, Said>) -> Vec<(String, IndexEntry)> {
    let mut paths: Vec<&String> = said.keys().collect();
    paths.sort_by(|left, right| cooper::paths::compare_paths(left.as_bytes(), right.as_bytes()));
    // What makes a directory opaque is in it.
    let leads_over_link = said.iter().any(|(path, said)| {
        let path = if matches!(said, Said::Opaque) { format!("{path}/") } else { path.clone() };
        path.contains("s/") || path.contains("r/")
    });
    let mut files: Vec<String> = Vec::new();
    let mut entries = Vec::new();
    for path in paths {
        let on_the_way = leads_over_link
            && match &said[path] {
                Said::Node(IndexEntry::Node(node)) if node.is_dir() => false,
                Said::Node(_) => matches!(path.as_str(), "t" | "t/u" | "t/a" | "u"),
                _ => path.starts_with(['t', 'u']),
            };
        if on_the_way || files.iter().any(|file| path.starts_with(file)) {
            continue;
        }
        let may_be_link = matches!(path.rsplit('/').next(), Some("s" | "r"));
        let made: Vec<IndexEntry> = match said[path].clone() {
            Said::Node(IndexEntry::Node(node)) if matches!(node.kind, NodeKind::Symlink { .. }) && !may_be_link => {
                vec![]
            }
            Said::Node(entry) => vec![entry],
            Said::Whiteout => vec![IndexEntry::Whiteout],
            Said::Opaque => vec![IndexEntry::Opaque],
            Said::New(entry) => vec![IndexEntry::Whiteout, entry],
            Said::OpaqueDir(bits) => vec![node(NodeKind::Dir, 0o700 | bits), IndexEntry::Opaque],
        };
        if let Some(IndexEntry::Node(node)) = made.last()
            && !node.is_dir()
        {
            files.push(format!("{path}/"));
        }
        entries.extend(made.into_iter().map(|entry| (path.clone(), entry)));
    }
    entries
}

fn index(layer: &[(String, IndexEntry)]) -> LayerIndex {
    LayerIndex::new(layer.iter().map(|(path, entry)| (path.as_bytes().to_vec(), entry.clone())).collect())
}

fn tar(layer: &[(String, IndexEntry)], texts: &BTreeMap<String, String>) -> Vec<u8> {
    let mut tar = Tar::default();
    for (path, entry) in layer {
        let (parent, name) =
            path.rsplit_once('/').map_or((String::new(), path.as_str()), |(at, name)| (format!("{at}/"), name));
        tar = match entry {
            IndexEntry::Whiteout => tar.file(&format!("{parent}.wh.{name}"), ""),
            IndexEntry::Opaque => tar.file(&format!("{path}/.wh..wh..opq"), ""),
            IndexEntry::Hardlink { .. } => unreachable!(),
            IndexEntry::Node(node) => {
                let mode = format!("{:07o}\0", node.mode);
                let text = match &node.kind {
                    NodeKind::File { digest, .. } => texts[&digest.to_string()].as_str(),
                    _ => "",
                };
                let kind = match &node.kind {
                    NodeKind::File { .. } => b'0',
                    NodeKind::Dir => b'5',
                    NodeKind::Symlink { .. } => b'2',
                    _ => b'6',
                };
                let mut header = Header::new(kind, path, text.len());
                header.put(100, mode.as_bytes());
                if let NodeKind::Symlink { target } = &node.kind {
                    header.put(157, target);
                }
                tar.header(header, text.as_bytes())
            }
        };
    }
    tar.end()
}

/// Every text of up to three letters that a file may have here, by its digest.
fn texts(layers: &[Vec<(String, IndexEntry)>], all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let digests = layers.iter().flatten().filter_map(|(_, entry)| match entry {
        IndexEntry::Node(Node { kind: NodeKind::File { digest, .. }, .. }) => Some(digest.to_string()),
        _ => None,
    });
    digests.map(|digest| (digest.clone(), all[&digest].clone())).collect()
}

fn all_texts() -> BTreeMap<String, String> {
    let letters = || (b'a'..=b'z').map(|letter| char::from(letter).to_string());
    let two: Vec<String> =
        letters().flat_map(|first| letters().map(move |second| format!("{first}{second}"))).collect();
    let three = two.iter().flat_map(|start| letters().map(move |last| format!("{start}{last}")));
    let all = std::iter::once(String::new()).chain(letters()).chain(three.clone()).chain(two.iter().cloned());
    all.map(|text| (cooper::digest::Digest::of(text.as_bytes()).to_string(), text)).collect()
}

fn check(layers: &[Vec<(String, IndexEntry)>]) {
    let mut tree = Tree::default();
    let mut view = View::default();
    for (number, layer) in layers.iter().enumerate() {
        let applied = layer.iter().try_for_each(|(path, entry)| tree.apply(path, entry, number));
        let pushed = view.push(Arc::new(index(layer)));
        assert_eq!(pushed.is_ok(), applied.is_some(), "{pushed:?}");
        if applied.is_none() {
            return;
        }
    }
    let mut expected: Vec<(String, Node)> = tree.0.iter().map(|(path, at)| (path.clone(), at.node.clone())).collect();
    expected.sort_by(|left, right| cooper::paths::compare_paths(left.0.as_bytes(), right.0.as_bytes()));
    let found: Vec<_> = view.walk(b"").collect();
    let walked: Vec<(String, Node)> =
        found.iter().map(|found| (String::from_utf8(found.path.clone()).unwrap(), found.node.clone())).collect();
    assert_eq!(walked, expected);
    for found in &found {
        assert_eq!(view.find(&found.path).as_ref(), Some(found));
        if let NodeKind::File { .. } = found.node.kind {
            let in_layer = view.layers()[found.layer].find(&found.content_path);
            assert_eq!(in_layer, Some(IndexEntry::Node(found.node.clone())));
        }
        let below: Vec<_> = view.walk(&found.path).collect();
        let directly: Vec<_> =
            below.iter().filter(|below| !below.path[found.path.len() + 1..].contains(&b'/')).cloned().collect();
        assert_eq!(view.children(&found.path), directly);
    }
    for path in ["s/a", "/r/../a", "a/s/u/../s", "t/r", "../s/./u/none/..", "none/../s"] {
        assert_eq!(view.resolve(path.as_bytes()).unwrap(), tree.resolve(path).into_bytes(), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_are_what_applying_layers_gives(layers in prop::collection::vec(any_layer(), 1..5)) {
        check(&layers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn indexes_survive_archives_and_bytes(layers in prop::collection::vec(any_layer(), 1..12)) {
        static TEXTS: std::sync::LazyLock<BTreeMap<String, String>> = std::sync::LazyLock::new(all_texts);
        let texts = texts(&layers, &TEXTS);
        for layer in &layers {
            let index = index(layer);
            prop_assert_eq!(&crate::rootfs_support::read(&tar(layer, &texts)).unwrap(), &index);
            prop_assert_eq!(&LayerIndex::from_bytes(&index.to_bytes()).unwrap(), &index);
            prop_assert_eq!(&LayerIndex::new(index.iter().collect()), &index);
        }
    }
}

#[test]
fn the_oracle_knows_what_the_rules_say() {
    let mut tree = Tree::default();
    let layers: [&[(&str, IndexEntry)]; 2] = [
        &[("t", dir()), ("t/a", dir()), ("t/u", dir()), ("s", symlink("/t"))],
        &[("s/a", IndexEntry::Whiteout), ("s/b", dir()), ("t/u/x", dir())],
    ];
    for (number, layer) in layers.iter().enumerate() {
        for (path, entry) in *layer {
            tree.apply(path, entry, number).unwrap();
        }
    }
    assert_eq!(tree.0.keys().collect::<Vec<_>>(), ["s", "t", "t/b", "t/u", "t/u/x"]);
    assert_eq!(tree.0["t/u"].layer, 0);
    let layer: Vec<_> = layers[1].iter().map(|(path, entry)| ((*path).to_owned(), entry.clone())).collect();
    assert_eq!(listed(&index(&layer)).len(), 3);
}
