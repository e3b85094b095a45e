//! Contents out of layers.

use std::io::Read;
use std::os::unix::fs::FileExt as _;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::rootfs::{Extracted, Spool, Wanted, extract};
use tempfile::TempDir;

use crate::rootfs_support::Tar;

fn wanted(path: &str, text: &str) -> Wanted {
    Wanted { path: path.into(), size: text.len() as u64, digest: Digest::of(text.as_bytes()) }
}

fn spool() -> (TempDir, Spool) {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(dir.path()).unwrap();
    (dir, spool)
}

fn text(spool: &Spool, place: Extracted) -> String {
    let mut bytes = vec![0; usize::try_from(place.size).unwrap()];
    spool.file().read_exact_at(&mut bytes, place.offset).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn contents_come_in_the_order_in_which_they_are_wanted() {
    let big = "0123456789".repeat(50_000);
    let tar = Tar::default().file("./a", "first").dir("d").file("d/big", &big).file("e", "").file("f", "last").end();
    let (dir, mut spool) = spool();
    spool.append(b"before").unwrap();
    let all = [wanted("f", "last"), wanted("d/big", &big), wanted("a", "first"), wanted("e", ""), wanted("f", "last")];
    let places = extract(&tar[..], &all, &mut spool, &Cancel::new()).unwrap();
    let texts: Vec<String> = places.iter().map(|place| text(&spool, *place)).collect();
    assert_eq!(texts, ["last", &big, "first", "", "last"]);
    assert_eq!(spool.len(), 6 + 4 + 5 + big.len() as u64);
    // It has no name, and nothing is left of it.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Says how much was read.
struct Counting<'a>(&'a [u8], usize);

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1 += count;
        Ok(count)
    }
}

#[test]
fn nothing_is_read_behind_the_last_file() {
    let big = "x".repeat(4 << 20);
    let tar = Tar::default().file("a", "1").file("b", "2").file("big", &big).end();
    let (_dir, mut spool) = spool();
    let mut counting = Counting(&tar, 0);
    extract(&mut counting, &[wanted("b", "2"), wanted("a", "1")], &mut spool, &Cancel::new()).unwrap();
    assert!(counting.1 < 1 << 20, "{}", counting.1);
    let mut counting = Counting(&tar, 0);
    extract(&mut counting, &[wanted("none", "")], &mut spool, &Cancel::new()).unwrap();
    assert_eq!(counting.1, 0);
}

#[test]
fn of_several_entries_the_one_with_the_content_is_taken() {
    let tar = Tar::default().file("a", "old").link(b'1', "b", "a").file("a", "new").end();
    let (_dir, mut spool) = spool();
    let places = extract(&tar[..], &[wanted("a", "new"), wanted("a", "old")], &mut spool, &Cancel::new()).unwrap();
    assert_eq!((text(&spool, places[0]), text(&spool, places[1])), ("new".to_owned(), "old".to_owned()));
}

#[test]
fn what_is_not_what_the_index_says_is_refused() {
    let tar = Tar::default().file("a", "1").file("b", "2").end();
    let (_dir, mut spool) = spool();
    spool.append(b"before").unwrap();
    for refused in [wanted("a", "2"), wanted("a", "12"), wanted("c", "1")] {
        let all = [wanted("b", "2"), refused];
        let error = extract(&tar[..], &all, &mut spool, &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "image-invalid", "{error}");
        assert_eq!(spool.len(), 6);
    }
    let cut = &tar[..700];
    assert_eq!(extract(cut, &[wanted("b", "2")], &mut spool, &Cancel::new()).unwrap_err().code(), "image-invalid");
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(extract(&tar[..], &[wanted("b", "2")], &mut spool, &cancel).unwrap_err().code(), "interrupted");
    assert_eq!(Spool::new(std::path::Path::new("/nowhere")).unwrap_err().code(), "store");
}
