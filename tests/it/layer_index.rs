//! The index of a layer that was written is the one that is read from it.

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::layer::{LayerEntry, LayerKind, LayerOptions};
use cooper::oci::media::Compression;
use cooper::rootfs::LayerIndex;
use proptest::prelude::*;

use crate::layer_support::{decompress, file, text, write, xattrs};

/// The index as it is read from an archive.
fn read(archive: &[u8]) -> LayerIndex {
    LayerIndex::read(archive, &Cancel::new()).unwrap()
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-d]".prop_map(String::into_bytes),
        1 => "[ -.0-~]{1,12}".prop_filter("no name", |name| name != "." && name != ".." && !name.starts_with(".wh."))
            .prop_map(String::into_bytes),
        1 => "[a-z]{90,120}".prop_map(String::into_bytes),
        1 => prop::collection::vec(prop_oneof![Just(0xe9_u8), Just(0xc3), Just(b'x')], 1..4),
    ]
}

/// What an entry is, but for hard links, which are made of files.
fn kind() -> impl Strategy<Value = LayerKind> {
    let content = |content: Vec<u8>| file("", content).kind;
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(content),
        1 => (0_u64..9, 400_000_usize..2_200_000).prop_map(move |(seed, size)| content(text(seed, size))),
        3 => Just(LayerKind::Dir),
        2 => prop::collection::vec(1_u8.., 1..160).prop_map(|target| LayerKind::Symlink { target }),
        1 => Just(LayerKind::Fifo),
        1 => (0_u32..4096, 0_u32..1_048_576).prop_map(|(major, minor)| LayerKind::CharDevice { major, minor }),
        1 => (0_u32..4096, 0_u32..1_048_576).prop_map(|(major, minor)| LayerKind::BlockDevice { major, minor }),
        1 => Just(LayerKind::Whiteout),
    ]
}

fn entries() -> impl Strategy<Value = Vec<LayerEntry>> {
    let owner = prop_oneof![3 => 0_u32..70_000, 1 => any::<u32>()];
    let seconds = prop_oneof![3 => 0_i64..2_000_000_000, 1 => -10_000_000_000_i64..100_000_000_000];
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let attribute = prop_oneof![4 => Just(None), 1 => value.prop_map(Some)];
    let one = (prop::collection::vec(name(), 1..4), kind(), 0_u32..0o10_000, owner.clone(), owner, seconds, attribute);
    prop::collection::vec(one, 0..40).prop_map(|list| {
        let list = list.into_iter().map(|(names, kind, mode, uid, gid, seconds, attribute)| {
            let mtime = cooper::mtime::Mtime { seconds, nanoseconds: 5 };
            let xattrs = attribute.map(|value| xattrs(&[("user.x", &value)])).unwrap_or_default();
            LayerEntry { path: names.join(&b'/'), kind, mode, uid, gid, mtime, xattrs }
        });
        consistent(list.collect())
    })
}

/// Sorts entries and takes those out that a file system could not have.
fn consistent(mut entries: Vec<LayerEntry>) -> Vec<LayerEntry> {
    entries.sort_by(|left, right| cooper::context::compare_paths(&left.path, &right.path));
    entries.dedup_by(|left, right| left.path == right.path);
    let mut kept: Vec<LayerEntry> = Vec::new();
    for entry in entries {
        let below = |other: &LayerEntry| entry.path.starts_with(&[&other.path[..], b"/"].concat());
        if !kept.iter().any(|other| below(other) && !matches!(other.kind, LayerKind::Dir)) {
            kept.push(entry);
        }
    }
    // Every third file behind the first becomes a link to it.
    let first = kept.iter().find(|entry| matches!(entry.kind, LayerKind::File { .. })).cloned();
    let files = kept.iter_mut().filter(|entry| matches!(entry.kind, LayerKind::File { .. }));
    for (number, entry) in files.enumerate() {
        if let Some(LayerEntry { path, mode, uid, gid, mtime, xattrs, .. }) = first.as_ref().filter(|_| number % 3 == 2)
        {
            let kind = LayerKind::Hardlink { first: path.clone(), size: 0 };
            *entry = LayerEntry {
                path: entry.path.clone(),
                kind,
                mode: *mode,
                uid: *uid,
                gid: *gid,
                mtime: *mtime,
                xattrs: xattrs.clone(),
            };
        }
    }
    // And every second directory is opaque.
    let mut all = Vec::new();
    for (number, entry) in kept.into_iter().enumerate() {
        let opaque = matches!(entry.kind, LayerKind::Dir) && number % 2 == 0;
        all.push(entry.clone());
        if opaque {
            all.push(LayerEntry { kind: LayerKind::Opaque, ..entry });
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_written_is_what_is_read(entries in entries(), threads in 1_usize..4) {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let options = LayerOptions { compression, threads: Some(threads), ..LayerOptions::default() };
            let (written, blob) = write(entries.clone(), &options);
            let archive = decompress(compression, &blob);
            prop_assert_eq!(written.diff_id, Digest::of(&archive));
            prop_assert_eq!(written.uncompressed, archive.len() as u64);
            prop_assert_eq!(written.digest, Digest::of(&blob));
            prop_assert_eq!(read(&archive), written.index);
        }
    }
}
