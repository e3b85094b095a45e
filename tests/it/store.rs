//! The store: what goes in comes out, or is not there.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::environment::Environment;
use cooper::store::{Blob, DEFAULT_LIMIT, Store, Usage};
use proptest::prelude::*;

use crate::context_support::{as_ordinary_user, tempdir_in_memory};

/// A store in a new directory.
pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
    let dir = tempdir_in_memory();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// Every file below a directory.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Files that are being written, and leases.
pub(crate) fn unfinished(store: &Store) -> Vec<PathBuf> {
    ["tmp", "leases"].iter().flat_map(|folder| files(&store.path().join(folder))).collect()
}

fn record_path(store: &Store, kind: &str, key: &Digest) -> PathBuf {
    store.path().join("records").join(kind).join(&key.hex()[..2]).join(key.hex())
}

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
}

/// A way to read a damaged blob.
type Reads = fn(&Blob) -> Error;

fn code(error: std::io::Error) -> &'static str {
    error.downcast::<Error>().unwrap().code()
}

#[test]
fn blobs_and_records_come_back() {
    let (_dir, store) = new_store();
    let digest = Digest::of(b"content");
    assert!(store.blob(&digest).unwrap().is_none());
    let mut writer = store.writer().unwrap();
    writer.write_all(b"con").unwrap();
    writer.append(b"tent").unwrap();
    assert_eq!(writer.size(), 7);
    let blob = writer.finish(Some((&digest, 7))).unwrap();
    assert_eq!((*blob.digest(), blob.size(), fs::read(blob.path()).unwrap()), (digest, 7, b"content".to_vec()));

    let found = Store::open(store.path()).unwrap().blob(&digest).unwrap().unwrap();
    assert_eq!(found.read().unwrap(), b"content");
    found.verify(&Cancel::new()).unwrap();
    let mut tail = String::new();
    found.open_at(3).unwrap().read_to_string(&mut tail).unwrap();
    assert_eq!(tail, "tent");
    // Once more is nothing new, and nothing wrong.
    assert_eq!(store.put(b"content").unwrap().path(), blob.path());
    assert_eq!(store.put(b"").unwrap().read().unwrap(), b"");

    assert_eq!(store.record("layer-index", &digest).unwrap(), None);
    store.put_record("layer-index", &digest, b"one").unwrap();
    store.put_record("layer-index", &digest, b"two").unwrap();
    store.put_record("step", &digest, b"").unwrap();
    assert_eq!(store.record("layer-index", &digest).unwrap().unwrap(), b"two");
    assert_eq!(store.record("step", &digest).unwrap().unwrap(), b"");
    assert_eq!(store.record("step", &Digest::of(b"")).unwrap(), None);
    let usage = store.usage(&Cancel::new()).unwrap();
    let count = |kind: &str| usage.kinds.get(kind).map(|kind| kind.count);
    assert_eq!([count("blobs"), count("layer-index"), count("step")], [Some(2), Some(1), Some(1)]);
    assert_eq!((usage.kinds["blobs"].bytes, usage.total.count), (7, 4));
    assert_eq!(unfinished(&store), [""; 0].map(PathBuf::from));
}

#[test]
fn nothing_is_kept_of_what_was_not_finished_or_not_expected() {
    let (_dir, store) = new_store();
    let mut writer = store.writer().unwrap();
    writer.write_all(&vec![1; 300_000]).unwrap();
    assert_eq!(unfinished(&store).len(), 1);
    drop(writer);
    for (digest, size) in [(Digest::of(b"other"), 4), (Digest::of(b"this"), 5)] {
        let mut writer = store.writer().unwrap();
        writer.append(b"this").unwrap();
        let error = writer.finish(Some((&digest, size))).unwrap_err();
        assert_eq!(error.code(), "image-invalid", "{error}");
    }
    assert_eq!(store.usage(&Cancel::new()).unwrap(), Usage::default());
    assert_eq!(unfinished(&store).len(), 0);
    assert_eq!(store.put_record("../step", &Digest::of(b""), b"").unwrap_err().code(), "internal");
}

#[test]
fn a_damaged_blob_is_found_and_removed() {
    let content: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(&content);
    let (_dir, store) = new_store();
    let fresh = || store.put(&content).unwrap();
    let gone = |how: &str| assert!(store.blob(&digest).unwrap().is_none(), "{how}");

    // The size is wrong: it is not there.
    for size in [0, 1, content.len() as u64 - 1, content.len() as u64 + 1] {
        let blob = fresh();
        File::options().write(true).open(blob.path()).unwrap().set_len(size).unwrap();
        gone("size");
        assert!(!blob.path().exists());
    }
    // The content is wrong: whoever reads it all is told, however they do.
    let readers: [(&str, Reads); 4] = [
        ("read", |blob| blob.read().unwrap_err()),
        ("verify", |blob| blob.verify(&Cancel::new()).unwrap_err()),
        ("finish", |blob| blob.open().unwrap().finish().unwrap_err()),
        ("exactly its size", |blob| {
            let mut content = vec![0; usize::try_from(blob.size()).unwrap()];
            blob.open().unwrap().read_exact(&mut content).unwrap_err().downcast().unwrap()
        }),
    ];
    for at in [0, 123_456, content.len() - 1] {
        for (how, read) in readers {
            let blob = fresh();
            flip(blob.path(), at);
            let found = store.blob(&digest).unwrap().unwrap();
            assert_eq!(read(&found).code(), "store-damaged", "{how}");
            gone(how);
        }
    }
    // It changes while it is read.
    let blob = fresh();
    let mut reader = blob.open().unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    File::options().write(true).open(blob.path()).unwrap().set_len(5000).unwrap();
    assert_eq!(code(std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err()), "store-damaged");
    gone("cut");
    let blob = fresh();
    let reader = blob.open().unwrap();
    File::options().append(true).open(blob.path()).unwrap().write_all(b"x").unwrap();
    assert_eq!(reader.finish().unwrap_err().code(), "store-damaged");
    // It is gone altogether.
    let blob = fresh();
    fs::remove_file(blob.path()).unwrap();
    assert_eq!(blob.open().unwrap_err().code(), "store-damaged");
    assert_eq!(fresh().read().unwrap(), content);
}

#[test]
fn a_damaged_record_is_not_there() {
    let (_dir, store) = new_store();
    let key = Digest::of(b"key");
    let path = record_path(&store, "step", &key);
    let check = |what: &str| {
        assert_eq!(store.record("step", &key).unwrap(), None, "{what}");
        assert!(!path.exists(), "{what}");
        store.put_record("step", &key, b"a value").unwrap();
        assert_eq!(store.record("step", &key).unwrap().unwrap(), b"a value", "{what}");
    };
    check("nothing");
    let size = fs::metadata(&path).unwrap().len();
    for at in 0..usize::try_from(size).unwrap() {
        flip(&path, at);
        check("flipped");
    }
    for size in (0..size).chain([size + 1]) {
        File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        check("cut");
    }
    // A sound record in the wrong place.
    let other = Digest::of(b"other");
    store.put_record("step", &other, b"of another key").unwrap();
    fs::rename(record_path(&store, "step", &other), &path).unwrap();
    check("moved");
    store.put_record("other", &key, b"of another kind").unwrap();
    fs::rename(record_path(&store, "other", &key), &path).unwrap();
    check("of another kind");
}

#[test]
fn only_this_user_can_look_inside() {
    let (_dir, store) = new_store();
    let _lease = store.lease().unwrap();
    let _writer = store.writer().unwrap();
    store.put(b"secret").unwrap();
    store.put_record("step", &Digest::of(b""), b"secret").unwrap();
    store.prune_if_due(&Cancel::new()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(store.path()), 0o700);
    let found = files(store.path());
    assert_eq!(found.len(), 6, "{found:?}");
    for file in found {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        let folders = file.ancestors().skip(1).take_while(|path| path.starts_with(store.path()));
        folders.for_each(|folder| assert_eq!(mode(folder), 0o700, "{}", folder.display()));
    }
}

#[test]
fn a_directory_that_others_may_write_to_is_no_store() {
    let dir = tempdir_in_memory();
    for mode in [0o770, 0o702, 0o1777] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert_eq!(error.code(), "store");
        assert!(error.to_string().contains("others may write to it"), "{error}");
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Store::open(dir.path()).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    assert_eq!(Store::open(&dir.path().join("file")).unwrap_err().code(), "store");
}

#[test]
fn a_store_that_cannot_be_written_to_can_be_read() {
    as_ordinary_user("store::a_store_that_cannot_be_written_to_can_be_read", || {
        let (_dir, store) = new_store();
        let digest = *store.put(b"content").unwrap().digest();
        store.put_record("step", &digest, b"value").unwrap();
        let folders = || {
            let parts = files(store.path()).into_iter().map(|file| file.parent().unwrap().to_owned());
            parts.chain(["tmp", "leases", ""].map(|name| store.path().join(name)))
        };
        let all = |mode| folders().for_each(|dir| fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap());
        all(0o500);
        let again = Store::open(store.path()).unwrap();
        assert_eq!(again.blob(&digest).unwrap().unwrap().read().unwrap(), b"content");
        assert_eq!(again.record("step", &digest).unwrap().unwrap(), b"value");
        assert_eq!(again.usage(&Cancel::new()).unwrap().total.count, 2);
        for error in [
            again.writer().err(),
            again.put(b"x").err(),
            again.put_record("step", &digest, b"x").err(),
            again.lease().err(),
        ] {
            let error = error.unwrap();
            assert_eq!(error.code(), "store");
            let text = error.to_string();
            assert!(text.contains("Permission denied") && text.contains(again.path().to_str().unwrap()), "{text}");
        }
        assert_eq!(Store::open(&store.path().join("new")).unwrap_err().code(), "store");
        all(0o700);
    });
}

#[test]
fn the_users_store_is_where_the_environment_says() {
    let dir = tempdir_in_memory();
    let home = dir.path().to_str().unwrap();
    let open = |variables: &[(&str, &str)]| Store::of_user(&Environment::with("/", variables.iter().copied()));
    assert_eq!(open(&[("HOME", home)]).unwrap().path(), dir.path().join(".cache/zenml-cooper/store"));
    let named = dir.path().join("named");
    let store = open(&[("COOPER_CACHE_DIR", named.to_str().unwrap()), ("COOPER_CACHE_SIZE", "2g")]).unwrap();
    assert_eq!((store.path(), store.limit()), (&*named.join("store"), 2 << 30));
    assert_eq!(open(&[("HOME", home)]).unwrap().limit(), DEFAULT_LIMIT);
    let no_place = open(&[]).unwrap_err();
    assert_eq!(no_place.code(), "store");
    assert!(no_place.to_string().contains("HOME is not set"), "{no_place}");
    let no_size = open(&[("HOME", home), ("COOPER_CACHE_SIZE", "much")]).unwrap_err();
    assert_eq!(
        no_size.to_string(),
        "build option `COOPER_CACHE_SIZE`: `much` is no size; write bytes, or a number with k, m, g or t"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn whatever_is_written_is_read(pieces in prop::collection::vec((0_u8..4, 0_usize..300_000), 0..8), step in 1_usize..70_000) {
        let (_dir, store) = new_store();
        let content: Vec<u8> = pieces.iter().flat_map(|(byte, length)| std::iter::repeat_n(*byte, *length)).collect();
        let mut writer = store.writer().unwrap();
        for (byte, length) in &pieces {
            writer.write_all(&vec![*byte; *length]).unwrap();
        }
        let blob = writer.finish(None).unwrap();
        prop_assert_eq!(*blob.digest(), Digest::of(&content));
        let mut reader = store.blob(blob.digest()).unwrap().unwrap().open().unwrap();
        let (mut read, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            let count = reader.read(&mut piece).unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&piece[..count]);
        }
        prop_assert!(read == content);
        let mut at = blob.open_at(blob.size() / 2).unwrap();
        prop_assert_eq!(at.stream_position().unwrap(), blob.size() / 2);
    }
}
