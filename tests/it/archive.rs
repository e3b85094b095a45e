//! Archives that ADD unpacks: made by GNU tar and its compressors, and by hand where they are hostile.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::layer::archive::open;
use cooper::layer::{Content, LayerEntry, LayerKind};
use cooper::mtime::Mtime;
use proptest::prelude::*;

const BLOCK: usize = 512;

fn read(bytes: &[u8]) -> Result<Option<Vec<LayerEntry>>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let result = open(&file, folder.path(), &Cancel::new());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "something stayed behind");
    result
}

fn entries(bytes: &[u8]) -> Vec<LayerEntry> {
    read(bytes).unwrap().expect("an archive")
}

fn paths(entries: &[LayerEntry]) -> Vec<&str> {
    entries.iter().map(|entry| str::from_utf8(&entry.path).unwrap()).collect()
}

fn find<'a>(entries: &'a [LayerEntry], path: &str) -> &'a LayerEntry {
    let found = entries.iter().rev().find(|entry| entry.path == path.as_bytes());
    found.unwrap_or_else(|| panic!("no {path} among {:?}", paths(entries)))
}

fn content(entry: &LayerEntry) -> Vec<u8> {
    let LayerKind::File { size, content: Content::Spool { file, offset }, .. } = &entry.kind else {
        panic!("no file in a spool: {entry:?}")
    };
    let mut bytes = vec![0; usize::try_from(*size).unwrap()];
    file.read_exact_at(&mut bytes, *offset).unwrap();
    bytes
}

/// What a program makes of its input.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program}");
    output.stdout
}

fn tar(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").current_dir(folder).args(["--create", "--sort=name"]).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A header by hand.
fn header(name: &[u8], kind: u8, size: usize, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0001750\0");
    block[116..124].copy_from_slice(b"0000144\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000144\0");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn member(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, data.len(), b"");
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

fn record(name: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", name.as_bytes(), b"=", value, b"\n"].concat();
    let length = (1..2000).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
    [length.to_string().as_bytes(), &rest].concat()
}

fn tree() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/a.txt"), "hello").unwrap();
    fs::hard_link(root.join("d/a.txt"), root.join("d/b.txt")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("big"), (0..300_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    fs::write(root.join(format!("{}.txt", "long".repeat(40))), "long").unwrap();
    symlink("d/a.txt", root.join("link")).unwrap();
    folder
}

#[test]
fn every_compression_and_format_of_gnu_tar_is_read() {
    let folder = tree();
    let common = ["--owner=:1234", "--group=:56", "--mtime=@1000000000.5", "--mode=u+x"];
    for format in ["gnu", "oldgnu", "posix"] {
        let plain = tar(folder.path(), &[&common[..], &[&format!("--format={format}"), "."]].concat());
        let packed: [(&str, &[&str]); 5] =
            [("cat", &[]), ("gzip", &["-c"]), ("bzip2", &["-c"]), ("xz", &["-c"]), ("zstd", &["-c", "-q"])];
        for (program, arguments) in packed {
            let found = entries(&pipe(program, arguments, &plain));
            let long = format!("{}.txt", "long".repeat(40));
            assert_eq!(paths(&found), ["big", "d", "d/a.txt", "d/b.txt", "empty", "link", &long], "{format} {program}");
            let file = find(&found, "d/a.txt");
            assert_eq!((content(file), file.uid, file.gid, file.mode & 0o700), (b"hello".to_vec(), 1234, 56, 0o700));
            assert_eq!(file.mtime, Mtime { seconds: 1_000_000_000, nanoseconds: 0 });
            assert_eq!(content(find(&found, "big")), fs::read(folder.path().join("big")).unwrap());
            assert_eq!(content(find(&found, &long)), b"long");
            assert!(matches!(&find(&found, "d/b.txt").kind,
                LayerKind::Hardlink { first, size: 5 } if first == b"d/a.txt"));
            assert!(matches!(&find(&found, "link").kind, LayerKind::Symlink { target } if target == b"d/a.txt"));
            assert!(matches!(find(&found, "d").kind, LayerKind::Dir));
        }
    }
}

#[test]
fn holes_are_read_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("holes")).unwrap();
    for (at, bytes) in [(1 << 20, "one"), (3 << 20, "two")] {
        file.write_all_at(bytes.as_bytes(), at).unwrap();
    }
    file.set_len(4 << 20).unwrap();
    fs::write(folder.path().join("next"), "next").unwrap();
    let expected = fs::read(folder.path().join("holes")).unwrap();
    let formats: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for format in formats {
        let bytes = tar(folder.path(), &[format, &["--sparse", "--hole-detection=raw", "holes", "next"]].concat());
        assert!(bytes.len() < 1 << 20, "{format:?} is not sparse");
        let found = entries(&bytes);
        assert_eq!(paths(&found), ["holes", "next"], "{format:?}");
        assert!(content(find(&found, "holes")) == expected, "{format:?}");
        assert_eq!(content(find(&found, "next")), b"next");
    }
}

#[test]
fn what_does_not_begin_like_an_archive_is_none() {
    let gzip = |bytes: &[u8]| pipe("gzip", &["-c"], bytes);
    let mut wrong = member(b"a", b'0', b"x");
    wrong[0] = b'b';
    let cases: [&[u8]; 9] = [
        b"",
        b"just text",
        &[0; 4096],
        &gzip(b"just text"),
        &gzip(b""),
        &member(b"a", b'0', b"x")[..300],
        &wrong,
        b"\x1f\x8b\x08 is no gzip",
        b"BZhis no bzip2",
    ];
    for bytes in cases {
        assert!(read(bytes).unwrap().is_none(), "{:?}", &bytes[..bytes.len().min(20)]);
    }
}

#[test]
fn no_name_leaves_the_root() {
    let names: [(&[u8], &str); 5] =
        [(b"../../x", "x"), (b"/etc/passwd", "etc/passwd"), (b"a/../../y", "y"), (b"./z", "z"), (b"a//b/.", "a/b")];
    for (name, path) in names {
        let found = entries(&[member(name, b'0', b"x"), end()].concat());
        assert_eq!(paths(&found), [path]);
        let link = header(b"link", b'1', 0, name);
        let found = entries(&[link, end()].concat());
        assert!(matches!(&found[0].kind, LayerKind::Hardlink { first, size: 0 } if first == path.as_bytes()));
    }
    // The root itself must not change where the archive goes.
    let roots = [member(b"./", b'5', b""), member(b"/", b'5', b""), member(b"..", b'5', b""), end()].concat();
    assert_eq!(entries(&roots).len(), 0);
}

#[test]
fn entries_come_as_they_stand_in_the_archive() {
    let archive = [
        member(b"b", b'0', b"one"),
        member(b"a/.wh.x", b'0', b""),
        member(b"b", b'0', b"two"),
        header(b"to", b'2', 0, b"/etc/../passwd"),
        member(b"old/", 0, b""),
        member(b"old/file", 0, b"x"),
        member(b"fast", b'7', b"y"),
        member(b"fifo", b'6', b""),
        // Links have no data, whatever they say.
        header(b"liar", b'1', 5000, b"b"),
        end(),
    ]
    .concat();
    let found = entries(&archive);
    assert_eq!(paths(&found), ["b", "a/.wh.x", "b", "to", "old", "old/file", "fast", "fifo", "liar"]);
    assert_eq!((content(&found[0]), content(&found[2])), (b"one".to_vec(), b"two".to_vec()));
    assert!(matches!(found[1].kind, LayerKind::File { size: 0, .. }));
    assert!(matches!(&found[3].kind, LayerKind::Symlink { target } if target == b"/etc/../passwd"));
    assert!(matches!((&found[4].kind, &found[7].kind), (LayerKind::Dir, LayerKind::Fifo)));
    assert_eq!((found[0].uid, found[0].gid, found[0].mode), (1000, 100, 0o644));
}

#[test]
fn devices_keep_their_numbers() {
    let device = |kind| {
        let mut block = header(b"device", kind, 0, b"");
        block[329..337].copy_from_slice(b"0000010\0");
        block[337..345].copy_from_slice(b"0000003\0");
        seal(&mut block);
        block
    };
    let found = entries(&[device(b'3'), device(b'4'), end()].concat());
    assert!(matches!(found[0].kind, LayerKind::CharDevice { major: 8, minor: 3 }));
    assert!(matches!(found[1].kind, LayerKind::BlockDevice { major: 8, minor: 3 }));
}

#[test]
fn records_come_before_headers() {
    let records = [
        record("path", b"dir/\xff\xfe name"),
        record("uid", b"3000000000"),
        record("gid", b"70000"),
        record("mtime", b"1350244992.999"),
        record("size", b"3"),
        record("SCHILY.xattr.security.capability", b"\x01\0\0\x02="),
        record("SCHILY.xattr.user.a", b"line\nline"),
        record("comment", b""),
    ]
    .concat();
    let mut file = member(b"short", b'0', b"abc");
    file[124..136].copy_from_slice(b"00000000000\0");
    seal(&mut file[..BLOCK]);
    let global = member(b"g", b'g', &record("uid", b"9"));
    let found = entries(&[global, member(b"x", b'x', &records), file, member(b"after", b'0', b""), end()].concat());
    assert_eq!(found[0].path, b"dir/\xff\xfe name");
    assert_eq!((found[0].uid, found[0].gid), (3_000_000_000, 70000));
    assert_eq!(found[0].mtime, Mtime { seconds: 1_350_244_992, nanoseconds: 0 });
    assert_eq!(content(&found[0]), b"abc");
    assert_eq!(found[0].xattrs[&b"security.capability"[..]], b"\x01\0\0\x02=");
    assert_eq!(found[0].xattrs[&b"user.a"[..]], b"line\nline");
    assert_eq!((found[1].path.as_slice(), found[1].uid), (&b"after"[..], 1000));
    let early = [member(b"x", b'x', &record("mtime", b"-5.5")), member(b"a", b'0', b""), end()].concat();
    assert_eq!(entries(&early)[0].mtime, Mtime::default());
}

#[test]
fn damaged_archives_are_errors_once_they_began() {
    let good = [member(b"a", b'0', &[b'x'; 2000]), member(b"b", b'0', b"y"), end()].concat();
    let mut damaged = good.clone();
    damaged[5 * BLOCK] = b'!';
    let owner = [member(b"x", b'x', &record("uid", b"-1")), member(b"c", b'0', b""), end()].concat();
    let unknown = [member(b"a", b'0', b""), member(b"c", b'Q', b""), end()].concat();
    let long = [member(b"a", b'0', b""), header(b"c", b'L', 2 << 20, b"")].concat();
    let mut packed = pipe("gzip", &["-c"], &good);
    let last = packed.len() - 6;
    packed[last] ^= 1;
    let followed = [member(b"a", b'0', b""), vec![0; BLOCK], member(b"b", b'0', b"")].concat();
    let cases: [&[u8]; 8] =
        [&damaged, &good[..1000], &good[..5 * BLOCK + 100], &owner, &unknown, &long, &packed, &followed];
    for (number, bytes) in cases.into_iter().enumerate() {
        let error = read(bytes).unwrap_err();
        assert_eq!(error.code(), "image-invalid", "{number}: {error}");
    }
    // Without its end, an archive is whole to Go; so it is with something behind its last member of gzip.
    assert_eq!(paths(&entries(&good[..good.len() - 2 * BLOCK])), ["a", "b"]);
    let packed = |bytes: &[u8]| pipe("gzip", &["-c"], bytes);
    assert_eq!(paths(&entries(&[packed(&good), b"junk".to_vec()].concat())), ["a", "b"]);
    assert_eq!(paths(&entries(&[packed(&good[..700]), packed(&good[700..])].concat())), ["a", "b"]);
}

#[test]
fn malformed_holes_are_errors() {
    let sparse = |map: &[u8], size: &[u8]| {
        let records = [
            record("GNU.sparse.major", b"0"),
            record("GNU.sparse.minor", b"1"),
            record("GNU.sparse.name", b"name"),
            record("GNU.sparse.size", size),
            record("GNU.sparse.map", map),
        ];
        [member(b"x", b'x', &records.concat()), member(b"y", b'0', b"abc"), end()].concat()
    };
    let found = [member(b"first", b'0', b""), sparse(b"5,3", b"10")].concat();
    let found = entries(&found);
    assert_eq!((found[1].path.as_slice(), content(&found[1])), (&b"name"[..], b"\0\0\0\0\0abc\0\0".to_vec()));
    for (map, size) in [
        ("5,4", "10"),
        ("5,3", "7"),
        ("5", "10"),
        ("x,3", "10"),
        ("2,2,1,1", "10"),
        ("9223372036854775807,3", "9223372036854775807"),
    ] {
        let archive = [member(b"first", b'0', b""), sparse(map.as_bytes(), size.as_bytes())].concat();
        assert_eq!(read(&archive).unwrap_err().code(), "image-invalid", "{map}");
    }
}

#[test]
fn the_caller_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[member(b"a", b'0', b"x"), end()].concat()).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(open(&file, folder.path(), &cancel).unwrap_err().code(), "interrupted");
}

proptest! {
    #[test]
    fn whatever_is_in_a_file_is_read_or_refused(
        names in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..4),
        kinds in prop::collection::vec(prop::sample::select(b"01234567xgLKS\0".to_vec()), 4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes: Vec<u8> =
            names.iter().zip(&kinds).flat_map(|(name, kind)| member(name, *kind, b"some data\n")).collect();
        bytes.extend(end());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            // The checksum shall not hide what is behind it.
            let start = at / BLOCK * BLOCK;
            seal(&mut bytes[start..start + BLOCK]);
        }
        if let Ok(Some(entries)) = read(&bytes) {
            for entry in entries {
                prop_assert!(!entry.path.is_empty());
                prop_assert!(entry.path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
            }
        }
    }
}
