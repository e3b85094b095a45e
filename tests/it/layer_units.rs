//! Units: the same bytes whoever makes them, and taken from an earlier layer where nothing changed.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

use bytes::Bytes;
use cooper::digest::Digest;
use cooper::layer::{Content, LayerEntry, LayerKind, LayerOptions, Previous, PreviousLayer, Units, WrittenLayer};
use cooper::oci::media::Compression;

use crate::layer_support::{decompress, dir, file, options, text, try_write, write};

const COMPRESSED: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

/// Some 10 MB: small files, and a big one in the middle.
fn tree() -> Vec<LayerEntry> {
    let mut entries = Vec::new();
    for number in 0..12_u64 {
        entries.push(dir(format!("d{number:02}")));
        for inner in 0..40 {
            let size = usize::try_from((number * 40 + inner) * 7919 % 30_000).unwrap();
            entries.push(file(format!("d{number:02}/f{inner:02}"), text(number * 40 + inner, size)));
        }
        if number == 6 {
            entries.push(file("d06/model", text(99, 3_300_000)));
        }
    }
    entries
}

fn position(entries: &[LayerEntry], path: &str) -> usize {
    entries.iter().position(|entry| entry.path == path.as_bytes()).unwrap()
}

fn previous(written: &WrittenLayer, blob: &[u8]) -> PreviousLayer {
    PreviousLayer::new(&Units::from_bytes(&written.units.to_bytes()).unwrap(), kept(blob))
}

fn kept(blob: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(blob).unwrap();
    file.rewind().unwrap();
    file
}

/// The units of one layer that another lacks.
fn missing(of: &WrittenLayer, from: &WrittenLayer) -> usize {
    let known: HashSet<Digest> = from.units.as_slice().iter().map(|unit| unit.key).collect();
    of.units.as_slice().iter().filter(|unit| !known.contains(&unit.key)).count()
}

#[test]
fn threads_make_no_difference() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let written = [1, 2, 7].map(|threads| {
            let options = LayerOptions { threads: Some(threads), ..options(compression) };
            let (written, blob) = write(tree(), &options);
            assert_eq!(written.digest, Digest::of(&blob));
            assert_eq!(written.diff_id, Digest::of(&decompress(compression, &blob)));
            (written.digest, written.units, written.index)
        });
        assert!(written[0] == written[1] && written[1] == written[2]);
        assert_eq!(written[0].1.as_slice().is_empty(), compression == Compression::None);
    }
}

#[test]
fn levels_are_different_layers() {
    for compression in COMPRESSED {
        let layers = [1, 9].map(|level| {
            let options = LayerOptions { level: Some(level), ..options(compression) };
            let (written, blob) = write(tree(), &options);
            (written, blob)
        });
        assert_ne!(layers[0].0.digest, layers[1].0.digest);
        assert_eq!(layers[0].0.diff_id, layers[1].0.diff_id);
        // Nothing of one level is taken for another.
        let previous = previous(&layers[0].0, &layers[0].1);
        let options = LayerOptions { level: Some(9), ..options(compression) };
        let (again, _) = try_write(tree(), &options, Some(&previous)).unwrap();
        assert_eq!((again.reused, again.digest), (0, layers[1].0.digest));
    }
}

#[test]
fn units_are_members_without_gaps() {
    for compression in COMPRESSED {
        let (written, blob) = write(tree(), &options(compression));
        let mut end = 0;
        let mut plain = 0;
        for unit in written.units.as_slice() {
            assert_eq!(unit.offset, end);
            end += unit.length;
            let bytes = &blob[usize::try_from(unit.offset).unwrap()..usize::try_from(end).unwrap()];
            assert_eq!(unit.digest, Digest::of(bytes));
            let size = decompress(compression, bytes).len();
            assert!(size <= (1 << 20) + 4096, "{size}");
            plain += size as u64;
        }
        assert_eq!((end, plain), (written.size, written.uncompressed));
        assert!(written.units.as_slice().len() > 10, "{}", written.units.as_slice().len());
    }
}

#[test]
fn what_is_reused_is_what_would_be_made() {
    for compression in COMPRESSED {
        let options = options(compression);
        let (first, blob) = write(tree(), &options);
        let previous = previous(&first, &blob);
        let (again, same) = try_write(tree(), &options, Some(&previous)).unwrap();
        assert!(same == blob);
        assert_eq!(again.reused, first.units.as_slice().len() as u64);
        assert_eq!((again.digest, again.diff_id, &again.units), (first.digest, first.diff_id, &first.units));
        assert_eq!(again.index, first.index);

        // Every kind of change: the blob is the one that would be made without the earlier layer.
        for (number, entries) in changes().into_iter().enumerate() {
            let (fresh, expected) = write(entries.clone(), &options);
            let (reused, found) = try_write(entries, &options, Some(&previous)).unwrap();
            assert!(found == expected, "change {number}");
            assert_eq!((reused.digest, reused.diff_id, &reused.index), (fresh.digest, fresh.diff_id, &fresh.index));
            assert_eq!(reused.units.as_slice().len() as u64 - reused.reused, missing(&fresh, &first) as u64);
            assert_eq!(missing(&fresh, &first), [1, 2, 1, 1, 1, 1][number], "change {number}");
        }
    }
}

/// One change each: a content, a part of a big file, a mode, a new file, a file less, a bigger file.
fn changes() -> [Vec<LayerEntry>; 6] {
    std::array::from_fn(|number| {
        let mut entries = tree();
        let at = position(&entries, "d03/f20");
        match number {
            0 => entries[at] = file("d03/f20", text(7777, content_size(&entries[at]))),
            1 => {
                let mut content = text(99, 3_300_000);
                // The last byte of one part and the first of the next.
                content[(2 << 20) - 1] ^= 1;
                content[2 << 20] ^= 1;
                let model = position(&entries, "d06/model");
                entries[model] = file("d06/model", content);
            }
            2 => entries[at].mode = 0o600,
            3 => entries.insert(at + 1, file("d03/f20.new", text(5, 3000))),
            4 => drop(entries.remove(at)),
            _ => entries[at] = file("d03/f20", text(7777, content_size(&entries[at]) + 9000)),
        }
        entries
    })
}

fn content_size(entry: &LayerEntry) -> usize {
    let LayerKind::File { size, .. } = entry.kind else { unreachable!() };
    usize::try_from(size).unwrap()
}

#[test]
fn a_damaged_or_foreign_blob_is_not_used() {
    let options = options(Compression::Gzip);
    let (first, blob) = write(tree(), &options);
    let damaged = kept(&blob);
    let unit = first.units.as_slice()[3];
    damaged.write_all_at(&[!blob[usize::try_from(unit.offset).unwrap() + 30]], unit.offset + 30).unwrap();
    let (again, found) = try_write(tree(), &options, Some(&PreviousLayer::new(&first.units, damaged))).unwrap();
    assert!(found == blob);
    assert_eq!(again.reused, first.units.as_slice().len() as u64 - 1);
    for foreign in [kept(b""), kept(&vec![0; blob.len()]), kept(&blob[1..])] {
        let (again, found) = try_write(tree(), &options, Some(&PreviousLayer::new(&first.units, foreign))).unwrap();
        assert!(found == blob);
        assert_eq!(again.reused, 0);
    }
}

#[test]
fn lists_of_units_survive_and_damage_is_seen() {
    let (written, _) = write(tree(), &options(Compression::Zstd));
    let bytes = written.units.to_bytes();
    assert_eq!(Units::from_bytes(&bytes), Some(written.units));
    assert_eq!(Units::from_bytes(&Units::default().to_bytes()), Some(Units::default()));
    assert!(Units::default().as_slice().is_empty());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(Units::from_bytes(&damaged), None, "byte {at}");
        assert_eq!(Units::from_bytes(&bytes[..at]), None);
    }
    // Of another version, or cut between two records, though sealed.
    for list in [&b"cooper layer units 2\n"[..], &bytes[..bytes.len() - 33]] {
        let sealed = [list, Digest::of(list).as_bytes()].concat();
        assert_eq!(Units::from_bytes(&sealed), None);
    }
}

#[test]
fn only_the_keys_of_this_layer_are_looked_for() {
    struct Asked(Mutex<HashSet<Digest>>);
    impl Previous for Asked {
        fn read(&self, key: &Digest, into: &mut Vec<u8>) -> bool {
            // What is left behind by one who has nothing does no harm.
            into.extend_from_slice(b"rubbish");
            self.0.lock().unwrap().insert(*key);
            false
        }
    }
    let asked = Asked(Mutex::default());
    let (written, blob) = try_write(tree(), &options(Compression::Gzip), Some(&asked)).unwrap();
    assert_eq!(written.digest, Digest::of(&blob));
    assert_eq!(asked.0.into_inner().unwrap(), written.units.as_slice().iter().map(|unit| unit.key).collect());
}

#[test]
fn content_that_could_be_a_header_has_a_key_of_its_own() {
    // Two layers whose archives would be equal were headers and contents not told apart are no problem as long as equal
    // keys mean equal bytes; what has to differ is everything else.
    let key = |entries| write(entries, &options(Compression::Gzip)).0.units.as_slice().iter().next().unwrap().key;
    let keys: HashSet<Digest> = [
        key(vec![file("a", "x")]),
        key(vec![file("a", "y")]),
        key(vec![file("b", "x")]),
        key(vec![file("a", "x"), file("b", "")]),
        key(vec![file("a", ""), file("b", "x")]),
        key(vec![dir("a")]),
    ]
    .into();
    assert_eq!(keys.len(), 6);
}

#[test]
fn digests_that_are_known_are_checked() {
    let with = |content: &[u8], digest| {
        let content = Bytes::copy_from_slice(content);
        let kind = LayerKind::File { size: content.len() as u64, content: Content::Bytes(content), digest };
        vec![LayerEntry { kind, ..file("a", "") }]
    };
    for size in [0, 10, 600_000, 2_500_000] {
        let content = text(1, size);
        let right = with(&content, Some(Digest::of(&content)));
        let unknown = with(&content, None);
        let options = options(Compression::Gzip);
        assert_eq!(write(right, &options).0.index, write(unknown, &options).0.index);
        let wrong = try_write(with(&content, Some(Digest::of(b"else"))), &options, None).unwrap_err();
        assert_eq!(wrong.code(), "store-damaged");
    }
}
