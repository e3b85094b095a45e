//! The bytes of layers, and how others read them.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::process::Command;

use cooper::digest::Digest;
use cooper::layer::{LayerEntry, LayerKind, LayerOptions};
use cooper::mtime::{FIXED_TIME, Mtime};
use cooper::oci::media::Compression;

use crate::layer_support::{
    decompress, dir, entry, file, hardlink, options, pipe, plain, symlink, text, try_write, write, xattrs,
};

const LONG: &str = "long";

/// One of every kind, in order.
fn everything() -> Vec<LayerEntry> {
    let long = format!("{LONG}/{}", "n".repeat(96));
    vec![
        symlink("a link", "../far away"),
        entry("dev-block", LayerKind::BlockDevice { major: 8, minor: 17 }),
        entry("dev-char", LayerKind::CharDevice { major: 1, minor: 3 }),
        LayerEntry { mode: 0o1777, ..dir("dir") },
        LayerEntry { uid: 1000, gid: 100, mode: 0o4755, ..file("dir/file", "content\n") },
        hardlink("dir/twin", "dir/file"),
        LayerEntry { xattrs: xattrs(&[("user.b", b"\0\xff"), ("security.capability", b"cap=")]), ..file("ex", "x") },
        entry("gone", LayerKind::Whiteout),
        dir(LONG),
        file(&long[..100], "100"),
        file(&long, "101"),
        symlink(format!("{LONG}/to"), "t".repeat(150)),
        hardlink(format!("{LONG}/twin"), &long),
        LayerEntry { mtime: Mtime { seconds: -5, nanoseconds: 1 }, ..file("old", "") },
        LayerEntry { uid: 0o10_000_000, gid: u32::MAX, ..file("owner", "") },
        entry("pipe", LayerKind::Fifo),
        dir("void"),
        entry("void", LayerKind::Opaque),
        entry("void/inner", LayerKind::Whiteout),
        file(b"\xc3\x9cbung", "utf-8"),
        file(b"\xe9", "latin"),
    ]
}

/// The fields of every header, PAX headers among them, one line each.
fn listing(archive: &[u8]) -> String {
    let mut lines = String::new();
    let mut rest = archive;
    loop {
        let (block, after) = rest.split_at(512);
        let header = tar::Header::from_byte_slice(block);
        if block.iter().all(|byte| *byte == 0) {
            assert!(after.len() == 512 && after.iter().all(|byte| *byte == 0), "two zero blocks end an archive");
            return lines;
        }
        let text = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap().escape_ascii().to_string();
        let ustar = header.as_ustar().unwrap();
        assert_eq!((&ustar.uname, &ustar.gname), (&[0; 32], &[0; 32]));
        assert!(ustar.prefix.iter().all(|byte| *byte == 0));
        let size = header.entry_size().unwrap();
        write!(
            lines,
            "{} {} {}:{} {size} {} {}{}",
            char::from(block[156]),
            text(&ustar.mode),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            text(&ustar.name),
            if block[157] == 0 { String::new() } else { format!(" -> {}", text(&ustar.linkname)) },
        )
        .unwrap();
        if matches!(block[156], b'3' | b'4') {
            let device = (header.device_major().unwrap().unwrap(), header.device_minor().unwrap().unwrap());
            write!(lines, " {device:?}").unwrap();
        }
        let size = usize::try_from(size).unwrap();
        if block[156] == b'x' {
            write!(lines, " {}", after[..size].escape_ascii()).unwrap();
        }
        lines.push('\n');
        rest = &after[size.next_multiple_of(512)..];
    }
}

#[test]
fn bytes_are_golden() {
    let archive = plain(everything());
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/layer_golden.txt");
    let found = format!("{}\n{}", Digest::of(&archive), listing(&archive));
    if std::env::var_os("COOPER_REWRITE").is_some() {
        fs::write(golden, &found).unwrap();
    }
    assert_eq!(found, fs::read_to_string(golden).unwrap());
}

#[test]
fn compressed_bytes_are_golden() {
    let entries = || vec![file("big", text(3, 1_200_000)), file("small", text(4, 100_000))];
    let digest = |compression| write(entries(), &options(compression)).0.digest.to_string();
    let found = [Compression::None, Compression::Gzip, Compression::Zstd].map(digest);
    let golden = [
        "sha256:e47b484aa6206c070bb20f781cbb3ab37f1780fe55da979317f42481b09cf8a5",
        "sha256:add66d98e246e687d49e09c6423a4f0708007d52b0630340c82275f278225fdf",
        "sha256:50986f67925d272f93b57e8f133d1236a63f7b3544ccf4907d07e4d681a8859c",
    ];
    assert_eq!(found, golden, "if a compressor has another version now, `pack::Codec::recipe` has to say so");
}

#[test]
fn the_tar_crate_reads_it() {
    let archive = plain(everything());
    let mut archive = tar::Archive::new(&archive[..]);
    let mut seen = Vec::new();
    for (found, expected) in archive.entries().unwrap().zip(everything()) {
        let mut found = found.unwrap();
        let mut content = Vec::new();
        found.read_to_end(&mut content).unwrap();
        let mut path = found.path_bytes().into_owned();
        let link = found.link_name_bytes().map(std::borrow::Cow::into_owned);
        let header = found.header().clone();
        seen.push(header.entry_type());
        match &expected.kind {
            LayerKind::Dir => assert_eq!(path.pop(), Some(b'/')),
            LayerKind::Symlink { target } => assert_eq!(link.as_ref(), Some(target)),
            LayerKind::Hardlink { first, .. } => assert_eq!(link.as_ref(), Some(first)),
            LayerKind::CharDevice { major, minor } | LayerKind::BlockDevice { major, minor } => {
                let device = (header.device_major().unwrap(), header.device_minor().unwrap());
                assert_eq!(device, (Some(*major), Some(*minor)));
            }
            LayerKind::File { size, .. } => assert_eq!(content.len() as u64, *size),
            LayerKind::Whiteout | LayerKind::Opaque => {
                assert!(path.windows(4).any(|part| part == b".wh."));
                assert_eq!((header.mode().unwrap(), header.mtime().unwrap()), (0, FIXED_TIME.unsigned_abs()));
                continue;
            }
            LayerKind::Fifo => {}
        }
        assert_eq!(path, expected.path);
        assert_eq!(header.mode().unwrap(), expected.mode);
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (expected.uid.into(), expected.gid.into()));
        let read: Option<cooper::rootfs::Xattrs> = found.pax_extensions().unwrap().map(|records| {
            let records = records.map(|record| record.unwrap());
            let xattrs = records.filter(|record| record.key_bytes().starts_with(b"SCHILY.xattr."));
            xattrs.map(|record| (record.key_bytes()[13..].to_vec(), record.value_bytes().to_vec())).collect()
        });
        assert_eq!(read.unwrap_or_default(), expected.xattrs);
    }
    assert_eq!(seen.len(), everything().len());
}

#[test]
fn gnu_tar_lists_it() {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--xattrs", "--full-time", "--utc", "--quoting-style=literal", "-tvvf", "-"]);
    let listed = pipe(tar.env("LC_ALL", "C"), &plain(everything()));
    let listed = String::from_utf8_lossy(&listed);
    let listed: Vec<String> = listed
        .lines()
        .map(|line| line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "lrwxrwxrwx 0/0 0 2023-11-14 22:13:20 a link -> ../far away",
        "drwxrwxrwt 0/0 0 2023-11-14 22:13:20 dir/",
        "-rwsr-xr-x 1000/100 8 2023-11-14 22:13:20 dir/file",
        "hrw-r--r-- 0/0 0 2023-11-14 22:13:20 dir/twin link to dir/file",
        "brw-r--r-- 0/0 8,17 2023-11-14 22:13:20 dev-block",
        "crw-r--r-- 0/0 1,3 2023-11-14 22:13:20 dev-char",
        "-rw-r--r--* 0/0 1 2023-11-14 22:13:20 ex",
        "---------- 0/0 0 2000-01-01 00:00:00 .wh.gone",
        "-rw-r--r-- 0/0 0 1969-12-31 23:59:55 old",
        "-rw-r--r-- 2097152/4294967295 0 2023-11-14 22:13:20 owner",
        "prw-r--r-- 0/0 0 2023-11-14 22:13:20 pipe",
        "---------- 0/0 0 2000-01-01 00:00:00 void/.wh..wh..opq",
    ] {
        assert!(listed.iter().any(|found| found == line), "{line}\n\n{listed:#?}");
    }
    assert_eq!(listed.len(), everything().len(), "{listed:#?}");
}

#[test]
fn blobs_are_what_the_programs_read() {
    let entries = || (0..300_u64).map(|number| file(format!("{number:04}"), text(number, 9_000))).collect::<Vec<_>>();
    let archive = plain(entries());
    for (compression, program) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let (written, blob) = write(entries(), &options(compression));
        assert_eq!((written.digest, written.size), (Digest::of(&blob), blob.len() as u64));
        assert_eq!((written.diff_id, written.uncompressed), (Digest::of(&archive), archive.len() as u64));
        assert!(written.size < written.uncompressed * 2 / 3);
        assert!(pipe(Command::new(program).arg("-dc"), &blob) == archive, "{program}");
        assert!(decompress(compression, &blob) == archive);
    }
    let (written, blob) = write(entries(), &options(Compression::Gzip));
    // No flags, no time: neither a name nor when it was made.
    for unit in written.units.as_slice() {
        let start = usize::try_from(unit.offset).unwrap();
        assert_eq!(blob[start..start + 8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn times_are_clamped_to_whole_seconds() {
    let mut entries = vec![dir("a"), file("a/b", ""), entry("a/c", LayerKind::Whiteout)];
    entries[0].mtime = Mtime::FIXED;
    let times = |clamp_mtime| {
        let options = LayerOptions { compression: Compression::None, clamp_mtime, ..LayerOptions::default() };
        let archive = write(entries.clone(), &options).1;
        [0, 512, 1024].map(|at| tar::Header::from_byte_slice(&archive[at..at + 512]).mtime().unwrap())
    };
    let fixed = FIXED_TIME.unsigned_abs();
    assert_eq!(times(None), [fixed, 1_700_000_000, fixed]);
    assert_eq!(times(Some(1_600_000_000)), [fixed, 1_600_000_000, fixed]);
    assert_eq!(times(Some(7)), [7, 7, 7]);
    assert_eq!(times(Some(u64::MAX)), [fixed, 1_700_000_000, fixed]);
}

#[test]
fn what_an_archive_cannot_hold_is_refused() {
    let refused = [
        (vec![file("b", ""), file("a", "")], "internal"),
        (vec![file("a", ""), file("a", "")], "internal"),
        (vec![file("a.txt", ""), file("a/b", "")], "internal"),
        (vec![entry("a", LayerKind::Opaque), dir("a")], "internal"),
        (vec![hardlink("b", "a")], "internal"),
        (vec![hardlink("b", "z"), file("z", "")], "internal"),
        (vec![file("/a", "")], "internal"),
        (vec![file("a/../b", "")], "internal"),
        (vec![file("", "")], "internal"),
        (vec![file("d/.wh.x", "")], "image-invalid"),
        (vec![LayerEntry { xattrs: xattrs(&[("user.a=b", b"")]), ..file("a", "") }], "image-invalid"),
        (vec![entry("a", LayerKind::CharDevice { major: u32::MAX, minor: 0 })], "image-invalid"),
    ];
    for (number, (entries, code)) in refused.into_iter().enumerate() {
        let error = try_write(entries, &options(Compression::Gzip), None).unwrap_err();
        assert_eq!(error.code(), code, "case {number}: {error}");
    }
    let fine = vec![entry("", LayerKind::Opaque), entry("a", LayerKind::Whiteout), file("a", ""), file("a.b", "")];
    assert_eq!(write(fine, &options(Compression::Gzip)).0.files, 2);
}
