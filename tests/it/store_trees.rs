//! Unpacked layers in the store: whole or not there, shared, kept by leases, found out when damaged.

use std::fs::{self, File, FileTimes};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::store::{NewTree, Policy, Remover, Store, Tree, TreeKey, TreeState};

use crate::store::new_store;

/// Set in a process that makes a tree in the store there.
const STORE: &str = "COOPER_TEST_TREE_STORE";
/// What that process prints when it is in the middle.
const HALF: &str = "half of the tree is there";

fn key(text: &str) -> TreeKey {
    TreeKey { diff_id: Digest::of(text.as_bytes()), form: "single".into(), variant: None }
}

fn state(store: &Store, key: &TreeKey) -> TreeState {
    store.tree_or_new(key, &Cancel::new()).unwrap()
}

fn missing(store: &Store, key: &TreeKey) -> NewTree {
    match state(store, key) {
        TreeState::Missing(new) => new,
        TreeState::Ready(tree) => panic!("{tree:?} is there"),
    }
}

fn fill(directory: &Path) {
    fs::create_dir_all(directory.join("usr/closed")).unwrap();
    fs::write(directory.join("usr/file"), vec![1; 1000]).unwrap();
    fs::hard_link(directory.join("usr/file"), directory.join("again")).unwrap();
    fs::set_permissions(directory.join("usr/closed"), fs::Permissions::from_mode(0o000)).unwrap();
}

fn make(store: &Store, key: &TreeKey) -> Tree {
    let new = missing(store, key);
    fill(&new.path());
    new.finish().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn scratch(store: &Store) -> Vec<String> {
    names(&store.path().join("scratch"))
}

fn prune_all(store: &Store) -> u64 {
    store.prune(&Policy { keep_bytes: Some(0), older_than: None }, &Cancel::new()).unwrap().removed.count
}

#[test]
fn a_tree_is_there_when_it_is_whole() {
    let (_dir, store) = new_store();
    let key = key("layer");
    assert_eq!(store.tree(&key).unwrap(), None);
    let new = missing(&store, &key);
    fill(&new.path());
    assert_eq!(store.tree(&key).unwrap(), None);
    drop(new);
    assert_eq!((store.tree(&key).unwrap(), scratch(&store)), (None, Vec::new()));

    let tree = make(&store, &key);
    assert_eq!(store.tree(&key).unwrap().as_ref(), Some(&tree));
    assert!(matches!(state(&store, &key), TreeState::Ready(found) if found == tree));
    assert_eq!(scratch(&store), Vec::<String>::new());
    for other in [
        TreeKey { form: "root".into(), ..key.clone() },
        TreeKey { variant: Some(Digest::of(b"variant")), ..key.clone() },
    ] {
        assert_eq!(store.tree(&other).unwrap(), None);
        make(&store, &other);
    }
    let usage = store.usage(&Cancel::new()).unwrap();
    assert_eq!((usage.kinds["trees"].count, usage.kinds["trees"].bytes), (3, 3000));
    assert_eq!(store.tree(&TreeKey { form: "../x".into(), ..key }).unwrap_err().code(), "internal");
}

#[test]
fn eight_who_want_a_tree_make_it_once() {
    let (_dir, store) = new_store();
    let made = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = Store::open(store.path()).unwrap();
                let _lease = store.lease().unwrap();
                let tree = match state(&store, &key("shared")) {
                    TreeState::Ready(tree) => tree,
                    TreeState::Missing(new) => {
                        made.fetch_add(1, Ordering::Relaxed);
                        fill(&new.path());
                        thread::sleep(Duration::from_millis(50));
                        new.finish().unwrap()
                    }
                };
                assert_eq!(fs::read(tree.path().join("again")).unwrap().len(), 1000);
            });
        }
    });
    assert_eq!(made.into_inner(), 1);
    assert_eq!(scratch(&store), Vec::<String>::new());
}

#[test]
fn whoever_waits_can_be_cancelled() {
    let (_dir, store) = new_store();
    let _new = missing(&store, &key("slow"));
    let cancel = Cancel::new();
    thread::scope(|scope| {
        let waits = scope.spawn(|| store.tree_or_new(&key("slow"), &cancel).map(drop).unwrap_err().code());
        thread::sleep(Duration::from_millis(30));
        cancel.cancel();
        assert_eq!(waits.join().unwrap(), "interrupted");
    });
}

#[test]
fn prune_takes_trees_but_not_those_of_a_lease() {
    let (_dir, store) = new_store();
    let tree = make(&store, &key("old"));
    let lease = store.lease().unwrap();
    assert!(store.tree(&key("old")).unwrap().is_some());
    assert_eq!(prune_all(&store), 0);
    drop(lease);
    assert_eq!(prune_all(&store), 1);
    assert!(!tree.path().exists());
    assert_eq!(scratch(&store), Vec::<String>::new());
    make(&store, &key("old"));
}

/// Notes what it is asked for, and opens it up, as whoever is root in a namespace can.
#[derive(Debug, Default)]
struct Opener(Mutex<Vec<PathBuf>>);

impl Remover for Opener {
    fn remove(&self, directories: &[PathBuf]) {
        for directory in directories {
            self.0.lock().unwrap().push(directory.clone());
            set_immutable(&directory.join("tree/usr"), false);
        }
    }
}

/// What only the remover can remove. It takes root to try, as owners that are not ours do.
fn set_immutable(path: &Path, immutable: bool) {
    let flag = if immutable { "+i" } else { "-i" };
    Command::new("chattr").arg(flag).arg(path).status().unwrap();
}

#[test]
fn what_cannot_be_removed_here_is_left_to_the_remover() {
    let (_dir, store) = new_store();
    make(&store, &key("others"));
    let tree = store.tree(&key("others")).unwrap().unwrap().path();
    set_immutable(&tree.join("usr"), true);
    if fs::remove_file(tree.join("usr/file")).is_ok() {
        eprintln!("NOT TESTED: files cannot be made immutable here");
        return;
    }
    assert_eq!(prune_all(&store), 1);
    assert_eq!(store.tree(&key("others")).unwrap(), None);
    let left = scratch(&store);
    assert!(left.len() == 1 && left[0].starts_with("pruned-"), "{left:?}");
    // Opening the store tries again, and fails at nothing.
    let store = Store::open(store.path()).unwrap();
    assert_eq!(scratch(&store), left);
    let opener = Arc::new(Opener::default());
    prune_all(&store.clone().with_remover(opener.clone()));
    assert_eq!(opener.0.lock().unwrap().len(), 1);
    assert_eq!(scratch(&store), Vec::<String>::new());
}

#[test]
fn a_tree_is_looked_at_after_a_start_of_the_machine() {
    let (_dir, store) = new_store();
    let tree = make(&store, &key("layer"));
    let info = tree.path().with_file_name("info");
    let text = fs::read_to_string(&info).unwrap();
    let before = |text: &str| {
        let boot = text.lines().last().unwrap();
        text.replace(boot, "another-start")
    };
    // All is as it was: that is noted.
    fs::write(&info, before(&text)).unwrap();
    assert!(store.tree(&key("layer")).unwrap().is_some());
    assert_eq!(fs::read_to_string(&info).unwrap(), text);
    // A file that was not written out.
    File::options().write(true).open(tree.path().join("usr/file")).unwrap().set_len(0).unwrap();
    assert!(store.tree(&key("layer")).unwrap().is_some(), "it is not looked at twice");
    fs::write(&info, before(&text)).unwrap();
    assert_eq!(store.tree(&key("layer")).unwrap(), None);
    assert!(!tree.path().exists());
    assert_eq!(scratch(&store), Vec::<String>::new());
    // The note itself.
    let tree = make(&store, &key("layer"));
    fs::write(tree.path().with_file_name("info"), "").unwrap();
    assert_eq!(store.tree(&key("layer")).unwrap(), None);
}

#[test]
fn a_scratch_directory_goes_with_whoever_made_it() {
    let (_dir, store) = new_store();
    let scratch_dir = store.scratch().unwrap();
    fill(scratch_dir.path());
    let path = scratch_dir.path().to_owned();
    // It is in use, whatever others do.
    Store::open(store.path()).unwrap();
    prune_all(&store);
    assert!(path.join("usr/file").exists());
    drop(scratch_dir);
    assert!(!path.exists());
}

#[test]
fn what_a_killed_process_left_goes() {
    if let Some(store) = std::env::var_os(STORE) {
        let store = Store::open(Path::new(&store)).unwrap();
        let (new, _scratch) = (missing(&store, &key("killed")), store.scratch().unwrap());
        fill(&new.path());
        println!("{HALF}");
        thread::sleep(Duration::from_secs(60));
        unreachable!("nobody killed this process");
    }
    let (_dir, store) = new_store();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "store_trees::what_a_killed_process_left_goes"]);
    let mut child = command.env(STORE, store.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(HALF)));
    assert_eq!(scratch(&Store::open(store.path()).unwrap()).len(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
    // Whoever waited goes on at once; whoever opens the store cleans up.
    let new = missing(&store, &key("killed"));
    assert_eq!(scratch(&Store::open(store.path()).unwrap()).len(), 2);
    fill(&new.path());
    let tree = new.finish().unwrap();
    assert!(tree.path().join("again").exists());
    assert_eq!(scratch(&store), Vec::<String>::new());
}

#[test]
fn an_old_store_has_no_trees_and_gets_them() {
    let (_dir, store) = new_store();
    assert!(!store.path().join("trees").exists() && !store.path().join("scratch").exists());
    let tree = make(&store, &key("first"));
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::open(tree.path().parent().unwrap()).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
    let policy = Policy { keep_bytes: None, older_than: Some(Duration::from_secs(1800)) };
    assert!(store.tree(&key("first")).unwrap().is_some(), "which is a use of it");
    assert_eq!(store.prune(&policy, &Cancel::new()).unwrap().removed.count, 0);
}
