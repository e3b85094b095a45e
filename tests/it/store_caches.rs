//! Directories of cache mounts in the store.

use std::fs;
use std::time::{Duration, Instant};

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::store::{CacheDirectory, CacheKey, CacheSharing, Policy, Store};

fn key(id: &str) -> CacheKey {
    CacheKey { id: Digest::of(id.as_bytes()), form: "root".into() }
}

fn take(store: &Store, sharing: CacheSharing) -> CacheDirectory {
    store.cache_directory(&key("pip"), sharing, &Cancel::new()).unwrap()
}

fn make(directory: &CacheDirectory) {
    if let Some(new) = directory.or_new(&Cancel::new()).unwrap() {
        fs::create_dir(new.path()).unwrap();
        fs::write(new.path().join("wheel"), "12345").unwrap();
        new.finish().unwrap();
    }
}

#[test]
fn who_shares_shares_and_others_get_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let [one, two] = [take(&store, CacheSharing::Shared), take(&store, CacheSharing::Shared)];
    assert_eq!(one.path(), two.path());
    let private = take(&store, CacheSharing::Private);
    assert_ne!(private.path(), one.path());
    let path = one.path();
    drop((one, two));
    assert_eq!(take(&store, CacheSharing::Private).path(), path, "it is free again");
    let other = store.cache_directory(&key("apt"), CacheSharing::Shared, &Cancel::new()).unwrap();
    assert_ne!(other.path(), path);
}

#[test]
fn who_locks_waits_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = take(&store, CacheSharing::Locked);
    let (cancel, path) = (Cancel::new(), first.path());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.cache_directory(&key("pip"), CacheSharing::Locked, &cancel));
        std::thread::sleep(Duration::from_millis(60));
        assert!(!waiting.is_finished());
        let stopped = Instant::now();
        cancel.cancel();
        assert_eq!(waiting.join().unwrap().unwrap_err().code(), "interrupted");
        assert!(stopped.elapsed() < Duration::from_millis(200));
        let waiting = scope.spawn(|| take(&store, CacheSharing::Locked));
        std::thread::sleep(Duration::from_millis(60));
        drop(first);
        assert_eq!(waiting.join().unwrap().path(), path);
    });
}

#[test]
fn it_is_made_once_and_goes_when_nobody_uses_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let used = take(&store, CacheSharing::Shared);
    // Somebody began to make it and was killed.
    drop(used.or_new(&Cancel::new()).unwrap().unwrap());
    make(&used);
    assert!(used.or_new(&Cancel::new()).unwrap().is_none());
    let usage = store.usage(&Cancel::new()).unwrap();
    assert_eq!((usage.kinds["caches"].count, usage.kinds["caches"].bytes), (1, 5));
    assert!(store.kept_cache(&key("pip")).unwrap().is_none(), "somebody uses it");
    let all = Policy { keep_bytes: Some(0), older_than: None };
    store.prune(&all, &Cancel::new()).unwrap();
    assert!(used.path().join("wheel").exists());
    let path = used.path();
    drop(used);
    assert_eq!(store.kept_cache(&key("pip")).unwrap().unwrap().path(), path);
    assert_eq!(store.prune(&all, &Cancel::new()).unwrap().removed.bytes, 5);
    assert!(!path.exists());
}
