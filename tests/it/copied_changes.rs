//! Random changes of a root that is a copy, and the layers that come of them. Any user may run this.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::layer::changes::Owners;
use cooper::oci::media::Compression;
use cooper::rootfs::{Contents, Form, LayerIndex, Limits, Packed, Scanned, View, copy_layers, scan, unpack};
use proptest::prelude::*;

use crate::change_ops::{Op, apply, changed, layer_of, listed, ops, seen, tree};
use crate::unpack_support::open_up;

/// Removed whatever the modes in it are.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        open_up(self.path());
    }
}

fn unpack_to(tar: &[u8], directory: &Path) {
    fs::create_dir(directory).unwrap();
    let layer = Packed { blob: tar, compression: Compression::None, diff_id: &Digest::of(tar), indexed: false };
    let done = unpack(layer, &Form::Chroot, directory, Limits::default(), &Cancel::new()).unwrap();
    assert!(!done.leads_elsewhere);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_are_what_happened(stages in prop::collection::vec(ops(), 3)) {
        let dir = Dir::new();
        let mut view = View::default();
        let mut layers = Vec::new();
        for (number, ops) in stages.iter().enumerate() {
            let root = dir.path().join(format!("root{number}"));
            fs::create_dir(&root).unwrap();
            copy_layers(layers.iter().map(std::path::PathBuf::as_path), &root, &Cancel::new()).unwrap();
            prop_assert_eq!(tree(&root), seen(&view));
            let before = listed(&root);
            apply(ops, &root);
            let expected = tree(&root);
            let changes = changed(&root, Some(&before), &view, &Owners::Real);
            let (tar, written) = layer_of(changes);
            prop_assert_eq!(&LayerIndex::read(&tar[..], &Cancel::new()).unwrap(), &written.index);
            view.push(Arc::new(written.index)).unwrap();
            prop_assert_eq!(seen(&view), expected);
            layers.push(dir.path().join(format!("layer{number}")));
            unpack_to(&tar, &layers[number]);
        }
    }
}

#[test]
fn a_command_that_changes_nothing_leaves_nothing() {
    let dir = Dir::new();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let made = [Op::Write("a".into(), 1), Op::Mkdir("b/c".into()), Op::Link("a".into(), "b/d e".into())];
    apply(&made, &root);
    let mut view = View::default();
    let (tar, written) = layer_of(changed(&root, None, &view, &Owners::Real));
    view.push(Arc::new(written.index)).unwrap();
    unpack_to(&tar, &dir.path().join("layer"));
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    copy_layers([dir.path().join("layer").as_path()], &copy, &Cancel::new()).unwrap();
    let before = listed(&copy);
    apply(&[Op::Write("new".into(), 1), Op::Remove("new".into()), Op::Chmod("a".into(), 0o600)], &copy);
    apply(&[Op::Chmod("a".into(), 0o644)], &copy);
    assert_ne!(listed(&copy), before);
    let changes = changed(&copy, Some(&before), &view, &Owners::Real);
    assert!(changes.entries.is_empty(), "{:?}", changes.entries);
}

#[test]
fn a_list_goes_from_one_process_to_another() {
    let dir = Dir::new();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    apply(&[Op::Write("a".into(), 1), Op::Mkdir("b".into()), Op::Symlink("b/c".into(), "x".into())], &root);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    scan(&root, &Contents::Nothing, &first, &Cancel::new()).unwrap();
    scan(&root, &Contents::Since(first.clone()), &second, &Cancel::new()).unwrap();
    for directory in [&first, &second] {
        let found = Scanned::read(directory).unwrap();
        assert_eq!(found.listing, listed(&root));
        assert_eq!(found.spool.metadata().unwrap().len(), 0);
    }
}
