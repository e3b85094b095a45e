//! Archives that go into files: what the kernel copies is what would have been read and written.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use cooper::cancel::Cancel;
use cooper::context::{Context, Format, PackOptions, Packed};
use cooper::error::Result;

use crate::context_support::{extra, in_child, open_dir, write};

/// No digest: with one, everything is read.
fn options(format: Format) -> PackOptions {
    PackOptions { digest: false, ..format.into() }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at % 251) ^ (at / 1000 % 4)).unwrap()).collect()
}

/// Packs into a file that has some bytes already.
fn into_file(context: &Context, options: PackOptions, append: bool) -> (Packed, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    fs::write(&path, "before").unwrap();
    let mut file = File::options().write(!append).append(append).open(&path).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    let packed = context.pack_to_file(options, &file, &Cancel::new()).unwrap();
    file.write_all(b"behind").unwrap();
    let bytes = fs::read(&path).unwrap();
    let inner = bytes.strip_prefix(b"before").unwrap().strip_suffix(b"behind").unwrap();
    (packed, inner.to_vec())
}

#[test]
fn a_file_gets_the_same_archive() {
    const MIB: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    for (number, size) in
        [0, 1, 700_000, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 511, 2 * MIB + 512].iter().enumerate()
    {
        write(dir.path(), &format!("d/{number}"), pattern(*size));
        write(dir.path(), &format!("d/{number}.small"), "x");
    }
    let content = String::from_utf8(vec![b'y'; MIB + 7]).unwrap();
    for format in Format::ALL {
        let options = PackOptions { also: vec![extra("extra", &content)], ..options(format) };
        let mut expected = Vec::new();
        let folder = open_dir(dir.path());
        let packed = folder.pack(options.clone(), &mut expected, &Cancel::new()).unwrap();
        assert_eq!(packed.bytes_out, expected.len() as u64);
        // The kernel copies nothing into a file that is open for appending.
        for append in [false, true] {
            let (other, bytes) = into_file(&folder, options.clone(), append);
            assert!(bytes == expected, "{} {append}", format.name());
            assert_eq!(other, packed);
        }
    }
}

/// Packs a file that is cut as soon as some of it has been packed.
fn cut_meanwhile(dir: &Path) -> Result<Packed> {
    let (big, out) = (dir.join("root/big"), dir.join("out"));
    write(dir, "root/big", "");
    let source = File::options().write(true).open(big).unwrap();
    source.set_len(256 << 20).unwrap();
    let context = open_dir(&dir.join("root"));
    let (file, ended) = (File::create(&out).unwrap(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) && fs::metadata(&out).unwrap().len() < 1 << 20 {
                std::hint::spin_loop();
            }
            source.set_len(1000).unwrap();
        });
        let packed = context.pack_to_file(options(Format::Tar), &file, &Cancel::new());
        ended.store(true, Ordering::Relaxed);
        packed
    })
}

#[test]
fn a_file_that_shrinks_while_it_is_copied_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever packs may be faster than whoever cuts.
    let error = (0..50).find_map(|_| cut_meanwhile(dir.path()).err()).unwrap();
    assert_eq!(error.code(), "context-changed");
    assert!(error.to_string().contains("root/big"), "{error}");
}

#[test]
fn a_file_that_may_not_grow_is_an_error_of_writing() {
    let wrap = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; ulimit -f 3000; exec \"$0\" \"$@\""]).arg(program).args(arguments);
        command
    };
    in_child("context_to_file::a_file_that_may_not_grow_is_an_error_of_writing", wrap, || {
        let dir = tempfile::tempdir().unwrap();
        for name in ["root/a", "root/b", "root/c", "root/d"] {
            write(dir.path(), name, vec![1; 1_000_000]);
        }
        let context = open_dir(&dir.path().join("root"));
        let path = dir.path().join("archive");
        let error = context.pack_to_path(options(Format::Tar), &path, &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "context-write");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    });
}
