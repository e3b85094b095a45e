//! What prune takes away from the store, and what it leaves.

use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::store::{Blob, KindUsage, Policy, Pruned, Store};
use proptest::prelude::*;

use crate::store::{files, new_store, unfinished};

const HOUR: Duration = Duration::from_secs(3600);

/// As if it had been used so many hours ago.
fn age(path: &Path, hours: u32) {
    let times = FileTimes::new().set_modified(SystemTime::now() - HOUR * hours);
    File::options().write(true).open(path).unwrap().set_times(times).unwrap();
}

/// A blob of a size that was used so many hours ago.
fn old(store: &Store, size: u8, hours: u32) -> Blob {
    let blob = store.put(&vec![size; usize::from(size)]).unwrap();
    age(blob.path(), hours);
    blob
}

fn prune(store: &Store, keep_bytes: Option<u64>, older_than: Option<Duration>) -> Pruned {
    store.prune(&Policy { keep_bytes, older_than }, &Cancel::new()).unwrap()
}

fn there(blobs: &[&Blob]) -> Vec<bool> {
    blobs.iter().map(|blob| blob.path().exists()).collect()
}

#[test]
fn what_was_not_used_for_the_longest_time_goes_first() {
    let (_dir, store) = new_store();
    let [a, b, c] = [old(&store, 10, 1), old(&store, 20, 3), old(&store, 30, 2)];
    let key = Digest::of(b"key");
    store.put_record("step", &key, b"value").unwrap();
    let record = files(&store.path().join("records")).remove(0);
    age(&record, 9);
    let size = record.metadata().unwrap().len();

    let pruned = prune(&store, Some(60 + size), None);
    assert_eq!((pruned.removed.count, pruned.kept.bytes), (0, 60 + size));
    let pruned = prune(&store, Some(59), None);
    // The record was not enough.
    let removed = KindUsage { count: 2, bytes: size + 20 };
    assert_eq!(pruned, Pruned { removed, kept: KindUsage { count: 2, bytes: 40 } });
    assert_eq!(store.usage(&Cancel::new()).unwrap().total, pruned.kept);
    assert_eq!(there(&[&a, &b, &c]), [true, false, true]);
    assert_eq!(store.record("step", &key).unwrap(), None);
    // To look for it is to use it.
    store.blob(c.digest()).unwrap().unwrap();
    prune(&store, Some(30), None);
    assert_eq!(there(&[&a, &b, &c]), [false, false, true]);
    assert_eq!(prune(&store, Some(0), None).kept, KindUsage::default());
    assert_eq!(unfinished(&store).len(), 0);
}

#[test]
fn what_is_too_old_goes() {
    let (_dir, store) = new_store();
    let [a, b, c] = [old(&store, 10, 1), old(&store, 20, 48), old(&store, 30, 72)];
    assert_eq!(prune(&store, None, None).removed.count, 0);
    assert_eq!(prune(&store, None, Some(HOUR * 60)).removed.count, 1);
    assert_eq!(there(&[&a, &b, &c]), [true, true, false]);
    // A record is used when it is read.
    let key = Digest::of(b"key");
    store.put_record("step", &key, b"value").unwrap();
    age(&files(&store.path().join("records"))[0], 48);
    store.record("step", &key).unwrap().unwrap();
    assert_eq!(prune(&store, Some(1000), Some(HOUR * 2)).removed, KindUsage { count: 1, bytes: 20 });
    assert!(store.record("step", &key).unwrap().is_some());
    // An age that no clock reaches back to.
    assert_eq!(prune(&store, None, Some(Duration::MAX)).removed.count, 0);
}

#[test]
fn what_was_used_under_a_lease_stays() {
    let (_dir, store) = new_store();
    let [read, looked_at, old] = [old(&store, 10, 5), old(&store, 20, 6), old(&store, 30, 1)];
    let key = Digest::of(b"key");
    store.put_record("step", &key, b"value").unwrap();
    age(&files(&store.path().join("records"))[0], 7);
    let later = Store::open(store.path()).unwrap();
    let lease = store.lease().unwrap();
    for blob in [&read, &looked_at] {
        store.blob(blob.digest()).unwrap().unwrap();
    }
    let second = later.lease().unwrap();
    let written = later.put(b"written").unwrap();
    store.record("step", &key).unwrap().unwrap();
    prune(&later, Some(0), Some(Duration::ZERO));
    assert_eq!(there(&[&read, &looked_at, &written, &old]), [true, true, true, false]);
    assert!(store.record("step", &key).unwrap().is_some());
    drop(lease);
    // The younger lease is not older than what was used under it, and the clock is not trusted to the second.
    prune(&later, Some(0), None);
    assert!(written.path().exists());
    drop(second);
    prune(&later, Some(0), None);
    assert_eq!(store.usage(&Cancel::new()).unwrap().total, KindUsage::default());
}

#[test]
fn a_build_prunes_when_it_is_due() {
    let (_dir, store) = new_store();
    let store = store.with_limit(1000);
    let blob = old(&store, 10, 5);
    let cancel = Cancel::new();
    // Nobody ever looked.
    assert_eq!(store.prune_if_due(&cancel).unwrap().unwrap().removed.count, 0);
    assert_eq!(store.prune_if_due(&cancel).unwrap(), None);
    // A good part of the limit was written since.
    store.put(&[1; 995]).unwrap();
    assert_eq!(store.prune_if_due(&cancel).unwrap().unwrap().removed, KindUsage { count: 1, bytes: 10 });
    assert!(!blob.path().exists());
    assert_eq!(store.prune_if_due(&cancel).unwrap(), None);
    // The last look was long ago.
    age(&store.path().join("pruned"), 1);
    assert!(store.prune_if_due(&cancel).unwrap().is_some());
    assert_eq!(store.prune_if_due(&cancel).unwrap(), None);
}

#[test]
fn a_cancelled_prune_takes_nothing_away() {
    let (_dir, store) = new_store();
    let blob = old(&store, 10, 5);
    let cancel = Cancel::new();
    cancel.cancel();
    let policy = Policy { keep_bytes: Some(0), older_than: None };
    assert_eq!(store.prune(&policy, &cancel).unwrap_err().code(), "interrupted");
    assert!(blob.path().exists());
}

#[test]
fn files_of_somebody_else_stay() {
    let (_dir, store) = new_store();
    let blob = store.put(b"content").unwrap();
    let own = [
        store.path().join("README"),
        blob.path().with_file_name("note.txt"),
        store.path().join("blobs/note"),
        store.path().join("records/note"),
    ];
    for path in &own {
        std::fs::write(path, "text").unwrap();
    }
    assert_eq!(store.usage(&Cancel::new()).unwrap().total, KindUsage { count: 1, bytes: 7 });
    prune(&store, Some(0), None);
    assert!(!blob.path().exists());
    assert!(own.iter().all(|path| path.exists()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// As many of the latest as there is room for, none that is too old, and more files than fit in a batch.
    #[test]
    fn the_latest_stay(count in 1_u8..200, keep in 0_u64..25_000, hours in 0_u32..250) {
        let (_dir, store) = new_store();
        let blobs: Vec<Blob> = (1..=count).map(|size| old(&store, size, u32::from(size))).collect();
        let pruned = prune(&store, Some(keep), Some(HOUR * hours + HOUR / 2));
        let mut total = 0;
        let expected: Vec<&Blob> = blobs
            .iter()
            .take_while(|blob| { total += blob.size(); total <= keep })
            .take(hours as usize)
            .collect();
        let left: Vec<&Blob> = blobs.iter().filter(|blob| blob.path().exists()).collect();
        prop_assert_eq!(left.len(), expected.len());
        prop_assert!(left.iter().zip(&expected).all(|(left, expected)| left.digest() == expected.digest()));
        prop_assert_eq!(pruned.kept, store.usage(&Cancel::new()).unwrap().total);
        prop_assert_eq!(pruned.removed.count + pruned.kept.count, u64::from(count));
        prop_assert_eq!(unfinished(&store).len(), 0);
    }
}
