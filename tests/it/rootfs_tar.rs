//! Layers from somewhere else: what is read of them, and what is refused.

use std::io::Write as _;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::error::Error;
use cooper::mtime::Mtime;
use cooper::oci::media::Compression;
use cooper::rootfs::{IndexEntry, LayerIndex, NodeKind, decompress};

use crate::rootfs_support::{Header, Tar, all, content, dir, file, listed, read, refused, symlink};

fn found(index: &LayerIndex, path: &str) -> cooper::rootfs::Node {
    match index.find(path.as_bytes()) {
        Some(IndexEntry::Node(node) | IndexEntry::Hardlink { node, .. }) => node,
        other => panic!("`{path}` is {other:?}"),
    }
}

#[test]
fn names_are_cleaned() {
    let index = Tar::default().dir("./").dir("./a/").file("./a/b", "1").file("/c//d", "2").file("e/../f", "3").index();
    let expected = [("a", dir()), ("a/b", file("1")), ("c/d", file("2")), ("f", file("3"))];
    assert_eq!(listed(&index), expected.map(|(path, entry)| (path.to_owned(), entry)));
    for name in ["..", "../a", "a/../../b", "/../a"] {
        let said = Tar::default().file(name, "").refused();
        assert!(said.contains("leaves the root"), "{said}");
    }
}

#[test]
fn whiteouts_are_no_files() {
    let index = Tar::default()
        .dir("a")
        .file("a/.wh..wh..opq", "")
        .file("a/b", "1")
        .file(".wh.c", "")
        .file("d/.wh.e", "")
        .file("d/e", "2")
        .file(".wh..wh.aufs", "")
        .file(".wh..wh.plnk/12.34", "x")
        .index();
    let expected = [
        ("a", IndexEntry::Opaque),
        ("a", dir()),
        ("a/b", file("1")),
        ("c", IndexEntry::Whiteout),
        // It hides what is below it with or without its whiteout.
        ("d/e", file("2")),
    ];
    assert_eq!(listed(&index), expected.map(|(path, entry)| (path.to_owned(), entry)));
    for name in [".wh.", "a/.wh..", ".wh...", ".wh.a/b"] {
        assert!(Tar::default().file(name, "").refused().contains("whiteout"), "{name}");
    }
}

#[test]
fn the_last_entry_of_a_path_counts() {
    let index = Tar::default().file("a", "old").file("a", "new").dir("b").file("b/c", "1").file("b", "2").index();
    assert_eq!(listed(&index), [("a".to_owned(), file("new")), ("b".to_owned(), file("2"))]);
    // The file had replaced what lower layers have in a directory of that name.
    let index = Tar::default().file("a", "old").dir("a").file("a/b", "1").index();
    let expected = [("a", IndexEntry::Opaque), ("a", dir()), ("a/b", file("1"))];
    assert_eq!(listed(&index), expected.map(|(path, entry)| (path.to_owned(), entry)));
    for below in ["a/b", "a/b/c", "a/.wh.b", "a/.wh..wh..opq"] {
        let said = Tar::default().file("a", "").file(below, "").refused();
        assert!(said.contains("below a file"), "{said}");
    }
}

#[test]
fn hard_links_have_the_content_of_their_first_name() {
    let index = Tar::default()
        .file("a", "text")
        .link(b'1', "b", "/a")
        .link(b'1', "c", "./b")
        .link(b'2', "l", "a")
        .link(b'1', "m", "l")
        .index();
    let first = |path: &str| match index.find(path.as_bytes()) {
        Some(IndexEntry::Hardlink { first, node }) => (String::from_utf8(first).unwrap(), node.kind),
        other => panic!("{other:?}"),
    };
    assert_eq!(first("b"), ("a".to_owned(), content("text")));
    assert_eq!(first("c").1, content("text"));
    assert_eq!(index.find(b"m"), Some(symlink("a")));
    for target in ["none", "d", "../a", ""] {
        Tar::default().dir("d").file("a", "").link(b'1', "b", target).refused();
    }
    // What comes later under the first name is another file.
    let index = Tar::default().file("a", "old").link(b'1', "b", "a").file("a", "new").index();
    assert_eq!(found(&index, "b").kind, content("old"));
}

#[test]
fn pax_records_override_headers() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(300));
    let index = Tar::default()
        .header(Header::new(b'g', "global", 19), b"19 path=everywhere\n")
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4000000000"),
            ("gid", b"3"),
            ("mtime", b"1.5"),
            ("size", b"5"),
            ("SCHILY.xattr.security.capability", b"\x01\0\n9 uid=1\n"),
        ])
        .header(Header::new(b'0', "short", 0), b"12345")
        .pax(&[("linkpath", long.as_bytes())])
        .link(b'2', "l", "short")
        .index();
    let node = found(&index, &long);
    assert_eq!((node.uid, node.gid), (4_000_000_000, 3));
    assert_eq!(node.mtime, Mtime { seconds: 1, nanoseconds: 500_000_000 });
    assert_eq!(node.kind, content("12345"));
    assert_eq!(node.xattrs[&b"security.capability"[..]], b"\x01\0\n9 uid=1\n");
    assert_eq!(found(&index, "l").kind, NodeKind::Symlink { target: long.into() });
}

#[test]
fn gnu_long_names_and_big_numbers_are_read() {
    let long = "n".repeat(4000);
    let name = format!("{long}\0");
    let mut header = Header::new(b'0', "short", 3);
    header.put(108, b"\x80\0\0\0\xff\0\0\0").put(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe");
    header.put(257, b"ustar  \0").put(100, b"0104755\0");
    let index = Tar::default()
        .header(Header::new(b'L', "././@LongLink", name.len()), name.as_bytes())
        .header(header, b"abc")
        .header(Header::new(b'K', "././@LongLink", name.len()), name.as_bytes())
        .link(b'2', "l", "x")
        .index();
    let node = found(&index, &long);
    assert_eq!((node.uid, node.mode, node.mtime.seconds), (0xff00_0000, 0o4755, -2));
    assert_eq!(found(&index, "l").kind, NodeKind::Symlink { target: long.into() });
    // A prefix, a device, a pipe.
    let mut prefixed = Header::new(b'0', "name", 0);
    prefixed.put(345, b"some/dir");
    let mut device = Header::new(b'3', "null", 0);
    device.put(329, b"0000001\0").put(337, b"0000003\0");
    let index =
        Tar::default().header(prefixed, b"").header(device, b"").header(Header::new(b'6', "pipe", 0), b"").index();
    assert_eq!(found(&index, "some/dir/name").kind, content(""));
    assert_eq!(found(&index, "null").kind, NodeKind::CharDevice { major: 1, minor: 3 });
    assert_eq!(found(&index, "pipe").kind, NodeKind::Fifo);
}

#[test]
fn what_is_cut_off_is_refused_wherever_it_is() {
    let tar = Tar::default().pax(&[("uid", b"5")]).file("a", &"text".repeat(300)).dir("b").end();
    let headers = [0, 1024, 2048 + 512, 3072];
    for at in 1..tar.len() - 1024 {
        let cut = &tar[..at];
        // Between two entries, an archive may end without its end.
        if at == 3072 || at == 3584 {
            assert!(read(cut).is_ok(), "{at}");
        } else {
            assert!(refused(cut).contains("cut off") || headers.contains(&at), "{at}");
        }
    }
    // Sizes that lie.
    for size in [1025_usize, 1 << 20, 0o77_777_777_777] {
        Tar::default().header(Header::new(b'0', "a", size), b"").refused();
    }
    let mut header = Header::new(b'0', "a", 0);
    header.put(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    Tar::default().header(header, b"").refused();
}

#[test]
fn ends_may_be_long_and_followed_by_anything() {
    let tar = Tar::default().file("a", "1");
    let index = tar.clone().index();
    assert_eq!(read(&tar.clone().raw(&[0; 10_240]).0).unwrap(), index);
    assert_eq!(read(&tar.clone().raw(&[0; 1024]).raw(b"garbage").0).unwrap(), index);
    assert_eq!(read(&tar.clone().raw(&[0; 1024]).file("b", "").0).unwrap(), index);
    assert_eq!(read(&tar.clone().raw(&[0; 512]).0).unwrap(), index);
    assert!(tar.raw(&[0; 512]).file("b", "").refused().contains("empty block"));
    assert!(read(b"").unwrap().is_empty());
}

#[test]
fn headers_that_mean_nothing_are_refused() {
    let mut tar = Tar::default().file("a", "1").end();
    tar[0] ^= 1;
    assert!(refused(&tar).contains("checksum"));
    assert!(refused(&[b'x'; 2048]).contains("header"));
    assert!(Tar::default().header(Header::new(b'S', "a", 0), b"").refused().contains("sparse"));
    assert!(Tar::default().pax(&[("GNU.sparse.major", b"1")]).file("a", "").refused().contains("sparse"));
    assert!(Tar::default().header(Header::new(b'V', "a", 0), b"").refused().contains("unknown type `V`"));
    assert!(Tar::default().pax(&[("path", b"a")]).refused().contains("belongs to no entry"));
    assert!(Tar::default().header(Header::new(b'x', "a", 4), b"nope").file("a", "").refused().contains("PAX"));
    assert!(Tar::default().header(Header::new(b'L', "a", 2 << 20), &vec![b'a'; 2 << 20]).refused().contains("1 MiB"));
    assert!(Tar::default().pax(&[("path", &vec![b'a'; 20_000])]).file("a", "").refused().contains("too long"));
    assert!(Tar::default().pax(&[("uid", b"4294967296")]).file("a", "").refused().contains("uid"));
    let mut negative = Header::new(b'0', "a", 0);
    negative.put(108, b"\xff\xff\xff\xff\xff\xff\xff\xff");
    assert!(Tar::default().header(negative, b"").refused().contains("owner"));
    Tar::default().link(b'2', "a", "").refused();
}

#[test]
fn damage_is_refused_or_read_but_never_more() {
    let tar = Tar::default().pax(&[("SCHILY.xattr.a", b"1")]).file("a", "text").link(b'1', "b", "a").dir("c").end();
    let mut refused = 0;
    for at in 0..tar.len() {
        for bit in [1, 0x80] {
            let mut damaged = tar.clone();
            damaged[at] ^= bit;
            match read(&damaged) {
                Ok(index) => assert!(index.len() <= 4),
                Err(error) => {
                    assert_eq!(error.code(), "image-invalid");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn many_files_get_their_own_digests() {
    // More than one batch, with files over the edges of batches.
    let sizes = (0..200).map(|number| number * 37 % 9_001).chain([300 << 10, 0, 1, 1 << 20, 0]);
    let mut tar = Tar::default();
    let mut expected = Vec::new();
    for (number, size) in sizes.enumerate() {
        let text = format!("{number}{}", "x".repeat(size));
        expected.push((format!("{number:05}"), content(&text)));
        tar = tar.file(&format!("{number:05}"), &text);
    }
    let index = tar.index();
    assert_eq!(index.len(), expected.len());
    for (path, kind) in expected {
        assert_eq!(found(&index, &path).kind, kind, "{path}");
    }
}

#[test]
fn small_files_with_names_of_users_are_kept() {
    let big = "x".repeat((1 << 20) + 1);
    let mut program = Header::new(b'0', "usr/bin/passwd", 3);
    program.put(100, b"0004755\0");
    let index = Tar::default()
        .file("etc/passwd", "old")
        .file("etc/passwd", "root:x:0:0")
        .file("etc/group", &big)
        .file("usr/lib/group", "g")
        .header(program, b"ELF")
        .file("other", "x")
        .index();
    assert_eq!(index.small_file(b"etc/passwd"), Some(&b"root:x:0:0"[..]));
    assert_eq!(index.small_file(b"usr/lib/group"), Some(&b"g"[..]));
    for path in ["etc/group", "usr/bin/passwd", "other"] {
        assert_eq!(index.small_file(path.as_bytes()), None, "{path}");
    }
    assert_eq!(LayerIndex::from_bytes(&index.to_bytes()).unwrap(), index);
    let mut many = Tar::default();
    for number in 0..100 {
        many = many.file(&format!("{number}/passwd"), "x");
    }
    let index = many.file("etc/passwd", "root").index();
    let kept = (0..100).filter(|number| index.small_file(format!("{number}/passwd").as_bytes()).is_some()).count();
    assert_eq!(kept, 16);
    assert_eq!(index.small_file(b"etc/passwd"), Some(&b"root"[..]));
}

/// Fails with an error of ours after some bytes.
struct Failing<'a>(&'a [u8]);

impl std::io::Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match std::io::Read::read(&mut self.0, buffer)? {
            0 => Err(std::io::Error::other(Error::TimedOut { action: "x".into(), after: std::time::Duration::ZERO })),
            count => Ok(count),
        }
    }
}

#[test]
fn errors_of_readers_and_cancelling_come_through() {
    let tar = Tar::default().file("a", "1").0;
    assert_eq!(LayerIndex::read(Failing(&tar), &Cancel::new()).unwrap_err().code(), "timed-out");
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(LayerIndex::read(&tar[..], &cancel).unwrap_err().code(), "interrupted");
}

#[test]
fn layers_are_decompressed() {
    let tar = Tar::default().file("a", &"text".repeat(10_000)).end();
    let (front, back) = tar.split_at(20_000);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let gzip = [gzip(front), gzip(back)].concat();
    // A frame that is to be skipped, as zstd:chunked has them.
    let zstd = [zstd(front), zstd(back), b"\x50\x2a\x4d\x18\x02\0\0\0ab".to_vec()].concat();
    for (bytes, compression) in [(&tar, Compression::None), (&gzip, Compression::Gzip), (&zstd, Compression::Zstd)] {
        assert_eq!(Digest::of(&all(decompress(&bytes[..], compression)).unwrap()), Digest::of(&tar), "{compression:?}");
        if compression != Compression::None {
            let cut = decompress(&bytes[..bytes.len() / 3], compression);
            assert_eq!(LayerIndex::read(cut, &Cancel::new()).unwrap_err().code(), "image-invalid");
            let damaged = decompress(&tar[..], compression);
            assert_eq!(LayerIndex::read(damaged, &Cancel::new()).unwrap_err().code(), "image-invalid");
        }
    }
}

#[test]
fn a_window_that_would_take_all_memory_is_refused() {
    // A frame header with a window of 2^31 bytes and one raw block.
    let frame = b"\x28\xb5\x2f\xfd\x00\xa8\x09\x00\x00a";
    let error = all(decompress(&frame[..], Compression::Zstd)).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}
