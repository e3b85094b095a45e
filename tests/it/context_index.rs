//! The index of digests: files that did not change are not read again, and all others are.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

use cooper::cancel::Cancel;
use cooper::context::{ContextDigest, Index};
use cooper::digest::Digest;
use proptest::prelude::*;

use crate::context_support::{as_ordinary_user, open, open_dir, spec, write};

fn digest(root: &Path, index: &Index) -> ContextDigest {
    open_dir(root).digest(Some(index), &Cancel::new()).unwrap()
}

fn fresh(root: &Path) -> Digest {
    open_dir(root).digest(None, &Cancel::new()).unwrap().digest
}

/// Longer than the clock of a local file system needs to tick.
fn settle() {
    thread::sleep(Duration::from_millis(150));
}

fn tree(root: &Path) {
    for number in 0..300 {
        write(root, &format!("package/{}/{number}.py", number % 7), format!("value = {number}\n"));
    }
    write(root, "README.md", "# read me\n");
    settle();
}

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path());
    let index = Index::at(cache.path().join("not/there/yet"));
    let first = digest(root.path(), &index);
    assert_eq!((first.hashed_files, first.digest), (301, fresh(root.path())));
    let second = digest(root.path(), &index);
    assert_eq!((second.hashed_files, second.hashed_bytes, second.digest), (0, 0, first.digest));
    // Every way to the root leads to its index.
    let link = cache.path().join("link");
    std::os::unix::fs::symlink(root.path(), &link).unwrap();
    assert_eq!(digest(&link, &index).hashed_files, 0);

    write(root.path(), "package/3/3.py", "value = 4\n");
    write(root.path(), "package/3/new.py", "");
    fs::remove_file(root.path().join("package/4/4.py")).unwrap();
    let third = digest(root.path(), &index);
    assert_eq!((third.hashed_files, third.digest), (2, fresh(root.path())));
    settle();
    digest(root.path(), &index);
    assert_eq!(digest(root.path(), &index).hashed_files, 0);
}

#[test]
fn a_change_that_hides_is_found() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path());
    let index = Index::at(cache.path());
    digest(root.path(), &index);
    // The same size, and the time put back.
    let path = root.path().join("README.md");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "# hide me\n").unwrap();
    File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_modified(modified)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
    let found = digest(root.path(), &index);
    assert_eq!((found.hashed_files, found.digest), (1, fresh(root.path())));
    // Another file with everything the same but the inode and the content.
    settle();
    digest(root.path(), &index);
    let other = root.path().join("other");
    fs::write(&other, "# swap me\n").unwrap();
    File::options().write(true).open(&other).unwrap().set_times(FileTimes::new().set_modified(modified)).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(digest(root.path(), &index).digest, fresh(root.path()));
}

#[test]
fn a_write_in_the_same_tick_is_found() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let index = Index::at(cache.path());
    let path = root.path().join("file");
    let mut same_tick = 0;
    for round in 0..400 {
        fs::write(&path, format!("{round:08}")).unwrap();
        let before = fs::metadata(&path).unwrap();
        digest(root.path(), &index);
        fs::write(&path, format!("{:08}", round + 1_000_000)).unwrap();
        let after = fs::metadata(&path).unwrap();
        same_tick += u32::from((before.ctime(), before.ctime_nsec()) == (after.ctime(), after.ctime_nsec()));
        assert_eq!(digest(root.path(), &index).digest, fresh(root.path()), "{round}");
    }
    // Newer kernels hand out finer times to whoever looks; then there is nothing to be fooled by.
    println!("{same_tick} of 400 writes left the times as they were");
}

#[test]
fn contexts_of_one_root_share_an_index() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path());
    let index = Index::at(cache.path());
    let digest_with = |patterns: &str| {
        let file = cache.path().join("ignore");
        fs::write(&file, patterns).unwrap();
        let mut spec = spec(root.path());
        spec.ignore_file = Some(file);
        open(&spec).digest(Some(&index), &Cancel::new()).unwrap().hashed_files
    };
    assert_eq!(digest_with("package/1\n"), 301 - 43);
    assert_eq!(digest_with("package/2\n"), 43);
    assert_eq!(digest_with("package/1\n"), 0);
    assert_eq!(digest_with(""), 0);
}

#[test]
fn damage_costs_time_only() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path());
    let index = Index::at(cache.path());
    let expected = digest(root.path(), &index).digest;
    let file = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&file).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        fs::write(&file, &damaged).unwrap();
        assert_eq!(digest(root.path(), &index).digest, expected, "byte {at}");
        fs::write(&file, &whole[..at]).unwrap();
        assert_eq!(digest(root.path(), &index).digest, expected, "cut at {at}");
        assert_eq!(digest(root.path(), &index).hashed_files, 0, "mended after {at}");
    }
    // Somebody else could have written it.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(digest(root.path(), &index).hashed_files, 301);
}

#[test]
fn an_index_that_cannot_be_written_is_done_without() {
    as_ordinary_user("context_index::an_index_that_cannot_be_written_is_done_without", || {
        let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(root.path());
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o500)).unwrap();
        for folder in [cache.path().to_owned(), cache.path().join("inner"), "/dev/null/index".into()] {
            let index = Index::at(folder);
            for _ in 0..2 {
                let found = digest(root.path(), &index);
                assert_eq!((found.hashed_files, found.digest), (301, fresh(root.path())));
            }
        }
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
    });
}

#[test]
fn many_at_once_agree() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path());
    let index = Index::at(cache.path());
    let expected = fresh(root.path());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(digest(root.path(), &index).digest, expected);
                }
            });
        }
    });
    assert_eq!(digest(root.path(), &index).hashed_files, 0);
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens between two digests, and however fast: the index never changes the result.
    #[test]
    fn the_index_never_changes_a_digest(
        steps in prop::collection::vec((0_u8..6, 0_usize..12, 0_usize..12, any::<bool>()), 1..40),
    ) {
        let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let index = Index::at(cache.path());
        let path = |number: usize| root.path().join(format!("d{}/f{number}", number % 3));
        for directory in 0..3 {
            fs::create_dir(root.path().join(format!("d{directory}"))).unwrap();
        }
        for (step, one, two, wait) in steps {
            // What fails because there is no such file changes nothing.
            let _ = match step {
                0 => fs::write(path(one), format!("{two:02}")),
                1 => fs::rename(path(one), path(two)),
                2 => fs::remove_file(path(one)),
                3 => fs::hard_link(path(one), path(two)),
                4 => fs::set_permissions(path(one), fs::Permissions::from_mode(if wait { 0o755 } else { 0o644 })),
                _ => {
                    if wait {
                        settle();
                    }
                    prop_assert_eq!(digest(root.path(), &index).digest, fresh(root.path()));
                    Ok(())
                }
            };
        }
        prop_assert_eq!(digest(root.path(), &index).digest, fresh(root.path()));
    }
}
