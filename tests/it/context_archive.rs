//! Archives, read back by the programs that will read them: GNU tar and Python.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cooper::cancel::Cancel;
use cooper::context::{Context, FIXED_TIME, Format, Modes, Notice, PackOptions, Packed};
use cooper::digest::Digest;
use rustix::fs::{CWD, FileType, Mode};

use crate::context_support::{extra, open_dir, spec, write};

fn pack(context: &Context, options: impl Into<PackOptions>) -> (Packed, Vec<u8>) {
    let mut bytes = Vec::new();
    let packed = context.pack(options, &mut bytes, &Cancel::new()).unwrap();
    (packed, bytes)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

/// A tree with everything that an archive has to carry.
fn everything(root: &Path) {
    write(root, "script.sh", "#!/bin/sh\n");
    chmod(&root.join("script.sh"), 0o755);
    write(root, "secret", "s");
    chmod(&root.join("secret"), 0o600);
    write(root, "nothing", "");
    write(root, "big", (0..3_500_000_u32).map(|number| number.to_be_bytes()[2]).collect::<Vec<_>>());
    write(root, &format!("long/{}/{}/file", "d".repeat(200), "e".repeat(200)), "deep");
    write(root, &format!("exact/{}", "n".repeat(93)), "99 bytes in all");
    write(root, &format!("exact/{}", "n".repeat(94)), "100 bytes in all");
    fs::create_dir(root.join("empty")).unwrap();
    chmod(&root.join("empty"), 0o700);
    symlink("nowhere/at all", root.join("dangling")).unwrap();
    symlink("t".repeat(300), root.join("far")).unwrap();
    symlink("script.sh", root.join("link")).unwrap();
    fs::hard_link(root.join("script.sh"), root.join("twin")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9")), "latin").unwrap();
    fs::create_dir(root.join(OsStr::from_bytes(b"dir\xe9"))).unwrap();
    write(root, "Übung/ñ", "utf-8");
}

/// Everything that can be seen of a tree, one line an entry.
fn picture(root: &Path) -> Vec<String> {
    fn visit(root: &Path, dir: &Path, lines: &mut Vec<String>) {
        let mut children: Vec<_> = fs::read_dir(dir).unwrap().map(|child| child.unwrap().path()).collect();
        children.sort();
        for path in children {
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
            let what = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if metadata.is_file() {
                format!(
                    "{:o} x{} {}",
                    metadata.mode() & 0o7777,
                    metadata.nlink(),
                    Digest::of(&fs::read(&path).unwrap())
                )
            } else {
                format!("{:o}", metadata.mode())
            };
            lines.push(format!("{name} {what}"));
            if metadata.is_dir() {
                visit(root, &path, lines);
            }
        }
    }
    let mut lines = Vec::new();
    visit(root, root, &mut lines);
    lines
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

fn python(program: &str, archive: &[u8], dir: &Path) -> String {
    let path = dir.join("archive");
    fs::write(&path, archive).unwrap();
    let output = run(Command::new("python3").args(["-c", program]).arg(&path), b"");
    String::from_utf8(output).unwrap()
}

#[test]
fn gnu_tar_unpacks_what_was_packed() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    everything(dir.path());
    fifo(&dir.path().join("pipe"));
    let context = open_dir(dir.path());
    for (format, flag) in [(Format::Tar, "-xpf-"), (Format::TarGz, "-xpzf-")] {
        let target = out.path().join(format.name());
        fs::create_dir(&target).unwrap();
        let (packed, bytes) = pack(&context, PackOptions { digest: true, ..PackOptions::sending(format) });
        run(Command::new("tar").arg(flag).arg("-C").arg(&target), &bytes);
        assert_eq!(picture(&target), picture(dir.path()), "{}", format.name());
        assert_eq!(packed.digest, Some(Digest::of(&bytes)));
        assert_eq!(packed.bytes_out, bytes.len() as u64);
        assert_eq!((packed.files, packed.entries), (context.summary().files, context.len() as u64));
        assert_eq!(packed.bytes_in, context.summary().bytes);
    }
}

#[test]
fn zstd_holds_the_same_tar() {
    let dir = tempfile::tempdir().unwrap();
    everything(dir.path());
    let context = open_dir(dir.path());
    let (_, plain) = pack(&context, Format::Tar);
    let (_, compressed) = pack(&context, Format::TarZst);
    let mut unpacked = Vec::new();
    zstd::stream::read::Decoder::new(&compressed[..]).unwrap().read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain);
}

#[test]
fn python_reads_tar_and_gzip() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    everything(dir.path());
    let program = "
import sys, tarfile
names = []
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, '', ''), member
        assert member.mtime == 946684800, member.mtime
        assert member.mode in ((0o755, 0o644) if not member.issym() else (0o777,)), oct(member.mode)
        names.append(member.name.encode(errors='surrogateescape').hex() + ' ' + member.type.decode())
    script = archive.getmember('twin')
    assert script.islnk() and script.linkname == 'script.sh'
    assert archive.getmember('script.sh').mode == 0o755 and archive.getmember('secret').mode == 0o644
    assert len(archive.extractfile('big').read()) == 3500000
print('\\n'.join(names))
";
    let context = open_dir(dir.path());
    let expected: Vec<String> = context.entries().map(|entry| hex::encode(&entry.path)).collect();
    for format in [Format::Tar, Format::TarGz] {
        let names = python(program, &pack(&context, format).1, out.path());
        let names: Vec<&str> = names.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn gzip_tries_hard_only_where_it_pays() {
    let dir = tempfile::tempdir().unwrap();
    let text: Vec<u8> = (0..400_000_u32).flat_map(|number| format!("{}\n", number % 9973).into_bytes()).collect();
    // Noise of seven bits in a byte: an eighth is to be gained, and nothing more.
    let weak: Vec<u8> = noise(2 << 20).into_iter().map(|byte| byte >> 1).collect();
    for (name, content) in [("noise", &noise(3 << 20)), ("text", &text), ("weak", &weak)] {
        write(dir.path(), &format!("{name}/file"), content);
        let context = open_dir(&dir.path().join(name));
        let sizes = [1, 9].map(|level| {
            let (packed, bytes) = pack(&context, PackOptions { level: Some(level), ..Format::TarGz.into() });
            let path = dir.path().join("archive.gz");
            fs::write(&path, &bytes).unwrap();
            let plain = Command::new("gzip").arg("-dc").arg(&path).output().unwrap().stdout;
            assert!(plain == pack(&context, Format::Tar).1, "{name}");
            packed.bytes_out
        });
        let size = content.len() as u64;
        match name {
            "noise" => assert!(sizes[0] == sizes[1] && sizes[0] < size + size / 1000, "{sizes:?} of {size}"),
            "weak" => assert!(sizes[0] == sizes[1] && sizes[0] < size * 9 / 10, "{sizes:?} of {size}"),
            _ => assert!(sizes[1] < sizes[0] && sizes[0] < size / 2, "{sizes:?} of {size}"),
        }
    }
}

#[test]
fn python_reads_zip() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    everything(dir.path());
    fifo(&dir.path().join("pipe"));
    let program = "
import stat, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    entries = {entry.filename: entry for entry in archive.infolist()}
    mode = lambda name: entries[name].external_attr >> 16
    assert stat.S_ISLNK(mode('dangling')) and archive.read('dangling') == b'nowhere/at all'
    assert archive.read('far') == b't' * 300
    assert mode('script.sh') == 0o100755 and mode('secret') == 0o100600, oct(mode('secret'))
    assert stat.S_ISDIR(mode('empty/')) and mode('empty/') & 0o7777 == 0o700
    assert archive.read('twin') == archive.read('script.sh') == b'#!/bin/sh\\n'
    assert len(archive.read('big')) == 3500000 and archive.read('nothing') == b''
    assert archive.read('\\u00dcbung/\\u00f1') == b'utf-8'
    assert 'caf\\u0398' in entries and entries['dir\\u0398/'].is_dir() and 'pipe' not in entries  # byte e9 in code page 437
    assert {entry.date_time for entry in entries.values()} == {(2000, 1, 1, 0, 0, 0)}
    print(len(entries))
";
    let context = open_dir(dir.path());
    let options = PackOptions { modes: Modes::Keep, ..Format::Zip.into() };
    let (packed, bytes) = pack(&context, options);
    assert_eq!(packed.notices, [Notice::SpecialSkipped { path: "pipe".into() }]);
    let count: usize = python(program, &bytes, out.path()).trim().parse().unwrap();
    assert_eq!(count, context.len() - 1);
    assert_eq!((packed.digest, packed.bytes_out), (Some(Digest::of(&bytes)), bytes.len() as u64));
}

#[test]
fn archives_do_not_depend_on_threads_times_places_or_umasks() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (dir, file_mode, dir_mode) in [(&one, 0o664, 0o775), (&two, 0o600, 0o700)] {
        for number in 0..400_usize {
            let path = format!("d{}/f{number}", number % 13);
            write(dir.path(), &path, format!("{number}").repeat(number * 40));
            chmod(&dir.path().join(&path), file_mode);
            chmod(&dir.path().join(format!("d{}", number % 13)), dir_mode);
        }
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000 + u64::from(file_mode));
        File::open(dir.path().join("d1/f1")).unwrap().set_modified(time).unwrap();
    }
    for format in Format::ALL {
        let digest = |root: &Path, threads| {
            pack(&open_dir(root), PackOptions { threads: Some(threads), ..format.into() }).0.digest
        };
        let expected = digest(one.path(), 1);
        for (root, threads) in [(&one, 2), (&one, 7), (&two, 1), (&two, 3)] {
            assert_eq!(digest(root.path(), threads), expected, "{}", format.name());
        }
    }
}

#[test]
fn times_are_what_the_options_say() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "a");
    let (_, bytes) = pack(&open_dir(dir.path()), PackOptions { mtime: 1_600_000_000, ..Format::Tar.into() });
    let header = tar::Header::from_byte_slice(&bytes[..512]);
    assert_eq!(header.mtime().unwrap(), 1_600_000_000);
    assert_eq!(FIXED_TIME, 946_684_800);
}

#[test]
fn further_files_join_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "old");
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    fs::hard_link(dir.path().join("a"), dir.path().join("c")).unwrap();
    let also = vec![extra("a", "new"), extra("0/Dockerfile", "FROM scratch")];
    let (packed, bytes) = pack(&open_dir(dir.path()), PackOptions { also, ..Format::Tar.into() });
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string()).unwrap_or_default();
        found.push((entry.path().unwrap().display().to_string(), text, link));
    }
    let expected =
        [("0/", "", ""), ("0/Dockerfile", "FROM scratch", ""), ("a", "new", ""), ("b", "old", ""), ("c", "", "b")];
    assert_eq!(found, expected.map(|(path, text, link)| (path.to_owned(), text.to_owned(), link.to_owned())));
    assert_eq!(packed.files, 4);
}

/// Calls a function at the first write.
struct Trap<F> {
    trap: Option<F>,
    bytes: Vec<u8>,
}

impl<F: FnOnce() -> io::Result<()>> Write for Trap<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(buffer);
        self.trap.take().map_or(Ok(()), |trap| trap())?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn trap<F: FnOnce() -> io::Result<()>>(trap: F) -> Trap<F> {
    Trap { trap: Some(trap), bytes: Vec::new() }
}

fn sparse(path: &Path, size: u64) -> File {
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.set_len(size).unwrap();
    file
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(step).take(size / 8).flat_map(u64::to_le_bytes).collect()
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let content = noise(24 << 20);
    for format in Format::ALL {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "big", &content);
        let file = File::options().write(true).open(dir.path().join("big")).unwrap();
        let mut out = trap(|| file.set_len(1000));
        let options = PackOptions { threads: Some(2), ..PackOptions::sending(format) };
        let error = open_dir(dir.path()).pack(options, &mut out, &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "context-changed", "{}", format.name());
        assert!(error.to_string().contains("big"), "{error}");
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let file = sparse(&dir.path().join("big"), 64 << 20);
    write(dir.path(), "zz", "behind it");
    let mut out = trap(|| file.set_len(65 << 20));
    open_dir(dir.path()).pack(Format::Tar, &mut out, &Cancel::new()).unwrap();
    let mut archive = tar::Archive::new(&out.bytes[..]);
    let sizes: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
    assert_eq!(sizes, [64 << 20, 9]);
}

#[test]
fn what_changes_between_listing_and_reading_is_read_as_it_is_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b/c", "d"] {
        write(dir.path(), name, "1234");
    }
    let context = open_dir(dir.path());
    write(dir.path(), "a", "much longer than before");
    write(dir.path(), "d", "1");
    let (packed, bytes) = pack(&context, Format::Tar);
    let mut archive = tar::Archive::new(&bytes[..]);
    let sizes: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
    assert_eq!((sizes, packed.bytes_in), (vec![23, 0, 4, 1], 28));

    let changes: [&dyn Fn(&Path); 4] = [
        &|path| fs::remove_file(path.join("a")).unwrap(),
        // A pipe would make us wait for a writer.
        &|path| fifo(&path.join("a")),
        &|path| {
            fs::remove_file(path.join("a")).unwrap();
            symlink("d", path.join("a")).unwrap();
        },
        &|path| {
            fs::remove_file(path.join("a")).unwrap();
            write(path, "a", "");
            fs::rename(path.join("b"), path.join("real")).unwrap();
            symlink("real", path.join("b")).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        change(dir.path());
        for format in Format::ALL {
            let error = context.pack(format, &mut io::sink(), &Cancel::new()).unwrap_err();
            assert_eq!(error.code(), "context-changed", "change {number}, {}", format.name());
        }
    }
}

#[test]
fn a_failed_archive_looks_like_none() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "x");
    write(dir.path(), "b", "x");
    let context = open_dir(dir.path());
    fs::remove_file(dir.path().join("b")).unwrap();
    for format in Format::ALL {
        let mut bytes = Vec::new();
        context.pack(format, &mut bytes, &Cancel::new()).unwrap_err();
        assert!(!bytes.windows(4).any(|window| window == b"PK\x05\x06"), "{}", format.name());

        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("archive");
        fs::write(&path, "the old one").unwrap();
        context.pack_to_path(format, &path, &Cancel::new()).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"the old one");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
        let mut full = trap(|| Err(io::ErrorKind::StorageFull.into()));
        write(dir.path(), "b", "y");
        assert_eq!(context.pack(format, &mut full, &Cancel::new()).unwrap_err().code(), "context-write");
        let packed = context.pack_to_path(format, &path, &Cancel::new()).unwrap();
        assert_eq!(packed.digest, Some(Digest::of(&fs::read(&path).unwrap())));
        fs::remove_file(dir.path().join("b")).unwrap();
    }
}

#[test]
fn a_file_of_nine_gibibytes_has_its_size() {
    let dir = tempfile::tempdir().unwrap();
    sparse(&dir.path().join("huge"), 9 << 30);
    let context = open_dir(dir.path());
    let mut out = trap(|| Err(io::ErrorKind::StorageFull.into()));
    context.pack(Format::Tar, &mut out, &Cancel::new()).unwrap_err();
    let header = tar::Header::from_byte_slice(&out.bytes[..512]);
    assert_eq!(header.size().unwrap(), 9 << 30);
    assert_eq!(context.summary().bytes, 9 << 30);
}

#[test]
fn cancelling_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    sparse(&dir.path().join("huge"), 64 << 30);
    let context = open_dir(dir.path());
    for format in Format::ALL {
        // The best of three: a busy machine may let a thread wait, whatever we do.
        let late = (0..3).map(|_| lateness(&context, format)).min().unwrap();
        assert!(late.as_millis() < 200, "{}: {late:?}", format.name());
    }
    let cancel = Cancel::new();
    cancel.cancel();
    let opened = Context::open(&spec(dir.path()), &cooper::request::DockerfileSpec::default(), &cancel);
    assert_eq!(opened.unwrap_err().code(), "interrupted");
}

/// How long packing goes on after it was cancelled.
fn lateness(context: &Context, format: Format) -> Duration {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let timer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        flag.cancel();
        Instant::now()
    });
    let error = context.pack(format, &mut io::sink(), &cancel).unwrap_err();
    assert_eq!(error.code(), "interrupted");
    let ended = Instant::now();
    ended.duration_since(timer.join().unwrap())
}
