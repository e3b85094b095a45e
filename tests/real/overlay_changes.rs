//! Random changes through a real overlay, and the layers that come of them. It takes root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::layer::changes::Owners;
use cooper::oci::media::Compression;
use cooper::rootfs::{Form, IndexEntry, ItemKind, LayerIndex, Limits, Packed, View, unpack};
use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::change_ops::{Op, apply, changed, layer_of, listed, ops, seen, tree};

/// An overlay that is unmounted when it goes.
struct Overlay {
    _dir: tempfile::TempDir,
    merged: PathBuf,
    upper: PathBuf,
}

impl Overlay {
    /// `lowers` are archives, lowest first.
    fn new(lowers: &[Vec<u8>]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["upper", "work", "merged"] {
            fs::create_dir(at(name)).unwrap();
        }
        let mut names = Vec::new();
        for (number, tar) in lowers.iter().enumerate() {
            let name = format!("lower{number}");
            fs::create_dir(at(&name)).unwrap();
            unpack_to(tar, &at(&name));
            names.insert(0, at(&name).to_str().unwrap().to_owned());
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
            names.join(":"),
            at("upper").display(),
            at("work").display()
        );
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", at("merged"), "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        Self { merged: at("merged"), upper: at("upper"), _dir: dir }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.merged, UnmountFlags::DETACH);
    }
}

fn unpack_to(tar: &[u8], directory: &Path) {
    let layer = Packed { blob: tar, compression: Compression::None, diff_id: &Digest::of(tar), indexed: false };
    let done = unpack(layer, &Form::Root, directory, Limits::default(), &Cancel::new()).unwrap();
    assert!(!done.leads_elsewhere);
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED: overlays are mounted by root only, and this is not root");
    }
    root
}

/// A layer of what some changes make of nothing.
fn base(ops: &[Op]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    apply(ops, dir.path());
    layer_of(changed(dir.path(), None, &View::default(), &Owners::Real)).0
}

fn index(tar: &[u8]) -> Arc<LayerIndex> {
    Arc::new(LayerIndex::read(tar, &Cancel::new()).unwrap())
}

/// Names of the same file, for each file that has several.
fn linked(upper: &Path) -> Vec<Vec<Vec<u8>>> {
    let mut names: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    for item in listed(upper).0.into_iter().filter(|item| matches!(item.kind, ItemKind::File { .. })) {
        names.entry(item.inode).or_default().push(item.path);
    }
    names.into_values().filter(|names| names.len() > 1).collect()
}

/// The first name of a file in a layer.
fn first(index: &LayerIndex, path: &[u8]) -> Option<Vec<u8>> {
    match index.find(path)? {
        IndexEntry::Hardlink { first, .. } => Some(first),
        _ => Some(path.to_owned()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Three stages, each on the layers of those before: the view is what is there, and so is what is mounted of it.
    #[test]
    fn layers_are_what_happened(stages in prop::collection::vec(ops(), 3)) {
        if !is_root() {
            return Ok(());
        }
        let mut layers = vec![base(&stages[0])];
        let mut view = View::default();
        view.push(index(&layers[0])).unwrap();
        for ops in &stages[1..] {
            let overlay = Overlay::new(&layers);
            prop_assert_eq!(tree(&overlay.merged), seen(&view));
            apply(ops, &overlay.merged);
            let expected = tree(&overlay.merged);
            let names = linked(&overlay.upper);
            let (tar, written) = layer_of(changed(&overlay.upper, None, &view, &Owners::Real));
            let (again, _) = layer_of(changed(&overlay.upper, None, &view, &Owners::Real));
            prop_assert_eq!(&tar, &again);
            for names in names {
                let one: BTreeSet<_> = names.iter().map(|name| first(&written.index, name)).collect();
                prop_assert_eq!(one.len(), 1, "{:?}", names);
            }
            view.push(Arc::new(written.index)).unwrap();
            prop_assert_eq!(seen(&view), expected);
            layers.push(tar);
        }
    }
}

#[test]
fn a_command_that_changes_nothing_leaves_nothing() {
    if !is_root() {
        return;
    }
    let ops = ["a", "a/b", "c"].map(|path| Op::Mkdir(path.into()));
    let files = ["a/f", "a/b/g"].map(|path| Op::Write(path.into(), 1));
    let tar = base(&[ops.as_slice(), &files].concat());
    let mut view = View::default();
    view.push(index(&tar)).unwrap();
    let overlay = Overlay::new(&[tar]);
    let touched = [
        Op::Open("a/f".into()),
        Op::Write("new".into(), 1),
        Op::Remove("new".into()),
        Op::Mkdir("a/b/d".into()),
        Op::Remove("a/b/d".into()),
    ];
    apply(&touched, &overlay.merged);
    assert!(!listed(&overlay.upper).0.is_empty());
    let changes = changed(&overlay.upper, None, &view, &Owners::Real);
    assert!(changes.entries.is_empty(), "{:?}", changes.entries);
}
