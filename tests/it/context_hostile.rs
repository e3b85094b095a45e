//! Trees that nobody would make on purpose. What each of them comes to is in `docs/context-rules.md`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cooper::cancel::Cancel;
use cooper::context::{Context, Format, Kind, Mtime, PackOptions};
use cooper::digest::Digest;
use cooper::request::DockerfileSpec;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, makedev, mkdirat, mknodat, openat, utimensat,
};

use crate::context_support::{as_ordinary_user, in_child, open_dir, paths, spec, tempdir_in_memory, write};

fn pack(context: &Context, options: impl Into<PackOptions>) -> Vec<u8> {
    let mut bytes = Vec::new();
    context.pack(options, &mut bytes, &Cancel::new()).unwrap();
    bytes
}

/// What is in a tar archive: path, kind and content or link.
fn unpacked(bytes: &[u8]) -> Vec<(Vec<u8>, u8, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if let Some(link) = entry.link_name_bytes() {
            content.extend_from_slice(&link);
        }
        (entry.path_bytes().into_owned(), entry.header().entry_type().as_byte(), content)
    };
    archive.entries().unwrap().map(read).collect()
}

fn digest(context: &Context) -> Digest {
    context.digest(None, &Cancel::new()).unwrap().digest
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
}

#[test]
fn loops_of_links_are_links() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let links =
        [("self", "self"), ("here", "."), ("a/b/up", "../.."), ("a/x", "b/y"), ("a/b/y", "../x"), ("a/root", "/")];
    for (link, target) in links {
        symlink(target, dir.path().join(link)).unwrap();
    }
    let context = open_dir(dir.path());
    assert_eq!(paths(&context), ["a", "a/b", "a/b/up", "a/b/y", "a/root", "a/x", "here", "self"]);
    for (link, target) in links {
        let kind = context.find(link.as_bytes()).unwrap().kind;
        assert_eq!(kind, Kind::Symlink { target: target.as_bytes().to_vec() });
    }
    let packed = unpacked(&pack(&context, Format::Tar));
    assert_eq!(packed.iter().filter(|(_, kind, _)| *kind == b'2').count(), links.len());
    digest(&context);
}

#[cfg(target_os = "linux")]
#[test]
fn any_name_that_a_file_can_have_is_packed() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(255);
    let mut names: Vec<&[u8]> = vec![
        b"new\nline",
        b"\n",
        b"carriage\rreturn",
        b"tab\t",
        b" ",
        b"bell\x07\x1b[31m",
        b"\xff\xfe",
        b"\xe9",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"-rf",
        b"*",
        b"\\",
        b"\"'`$(x)",
        b"...",
        b"~",
        b"README",
        b"readme",
        b"com\xef\xbb\xbf1",
        b"\x7f",
    ];
    names.push(long.as_bytes());
    for name in &names {
        fs::write(dir.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    names.sort_unstable();
    let context = open_dir(dir.path());
    let mut found = Vec::new();
    for entry in context.entries() {
        found.push(entry.path.clone());
    }
    assert_eq!(found, names);
    let packed = unpacked(&pack(&context, Format::Tar));
    assert!(
        packed.iter().map(|(path, _, content)| (&path[..], &content[..])).eq(names.iter().map(|name| (*name, *name)))
    );
    // GNU tar's reading of it.
    let (out, archive) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    context.pack_to_path(Format::TarGz, archive.path(), &Cancel::new()).unwrap();
    let status = Command::new("tar").arg("-xzf").arg(archive.path()).arg("-C").arg(out.path()).status().unwrap();
    assert!(status.success());
    assert_eq!(digest(&open_dir(out.path())), digest(&context));
}

#[test]
fn a_path_longer_than_4096_bytes_is_walked_packed_and_digested() {
    let dir = tempfile::tempdir().unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
    let name = "d".repeat(255);
    for _ in 0..20 {
        mkdirat(&at, &name, Mode::RWXU).unwrap();
        at = openat(&at, &name, flags, Mode::empty()).unwrap();
    }
    let file = openat(&at, "leaf", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    File::from(file).write_all(b"deep").unwrap();
    rustix::fs::symlinkat("leaf", &at, "link").unwrap();
    let context = open_dir(dir.path());
    let leaf = format!("{}leaf", format!("{name}/").repeat(20)).into_bytes();
    assert!(leaf.len() > 5000);
    assert_eq!(context.find(&leaf).unwrap().kind, Kind::File { size: 4 });
    let packed = unpacked(&pack(&context, Format::Tar));
    assert_eq!(packed.len(), 22);
    assert!(packed.contains(&(leaf, b'0', b"deep".to_vec())));
    digest(&context);
    // A zip's names have two bytes for their length.
    assert!(!pack(&context, Format::Zip).is_empty());
}

#[test]
fn unreadable_entries_of_excluded_directories_are_left_out_if_they_are_excluded() {
    as_ordinary_user(
        "context_hostile::unreadable_entries_of_excluded_directories_are_left_out_if_they_are_excluded",
        || {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "listed/a.txt", "");
            write(dir.path(), "listed/inner/b.txt", "");
            write(dir.path(), "closed/c.py", "");
            write(dir.path(), "file", "");
            write(dir.path(), ".dockerignore", "*\n!**/*.py\n");
            // One can be listed and no more, the other not even that.
            chmod(&dir.path().join("listed"), 0o444);
            chmod(&dir.path().join("closed"), 0o111);
            chmod(&dir.path().join("file"), 0o000);
            assert_eq!(paths(&open_dir(dir.path())), Vec::<String>::new());
            chmod(&dir.path().join("listed"), 0o755);
            write(dir.path(), "listed/d.py", "");
            chmod(&dir.path().join("listed"), 0o444);
            // Not excluded, and nobody can tell what it is.
            let error = Context::open(&spec(dir.path()), &DockerfileSpec::default(), &Cancel::new()).unwrap_err();
            assert!(error.code() == "context-read" && error.to_string().contains("/listed/d.py`"), "{error}");
            chmod(&dir.path().join("listed"), 0o755);
            chmod(&dir.path().join("closed"), 0o755);
            assert_eq!(paths(&open_dir(dir.path())), ["closed", "closed/c.py", "listed", "listed/d.py"]);
        },
    );
}

#[test]
fn special_files_are_listed_and_never_opened() {
    let dir = tempfile::tempdir().unwrap();
    fifo(&dir.path().join("pipe"));
    let device = |name: &str, kind, major, minor| {
        mknodat(CWD, dir.path().join(name), kind, Mode::from_raw_mode(0o644), makedev(major, minor))
    };
    // What everybody may make, since overlay file systems need it, and what only root may, if that.
    device("whiteout", FileType::CharacterDevice, 0, 0).unwrap();
    let zero = device("zero", FileType::CharacterDevice, 1, 5).is_ok();
    let context = open_dir(dir.path());
    assert_eq!(context.find(b"pipe").unwrap().kind, Kind::Fifo);
    assert_eq!(context.find(b"whiteout").unwrap().kind, Kind::CharDevice { major: 0, minor: 0 });
    if zero {
        assert_eq!(context.find(b"zero").unwrap().kind, Kind::CharDevice { major: 1, minor: 5 });
    }
    assert_eq!(context.summary().special, 2 + u64::from(zero));
    assert_eq!(context.reader(&context.find(b"pipe").unwrap()).unwrap_err().code(), "internal");
    let packed = unpacked(&pack(&context, Format::Tar));
    assert_eq!(packed[0], (b"pipe".to_vec(), b'6', Vec::new()));
    assert_eq!(packed[1], (b"whiteout".to_vec(), b'3', Vec::new()));
    digest(&context);
    // A zip cannot hold them, and says so.
    let packed = context.pack(Format::Zip, &mut io::sink(), &Cancel::new()).unwrap();
    assert_eq!(packed.notices.len(), 2 + usize::from(zero));
}

#[test]
fn a_pipe_or_a_directory_is_no_ignore_file_and_no_dockerfile() {
    let dir = tempfile::tempdir().unwrap();
    let refused =
        |dockerfile: DockerfileSpec| Context::open(&spec(dir.path()), &dockerfile, &Cancel::new()).unwrap_err().code();
    for name in [".dockerignore", "Dockerfile.dockerignore"] {
        fifo(&dir.path().join(name));
        assert_eq!(refused(DockerfileSpec::default()), "ignore-file");
        assert_eq!(refused(DockerfileSpec::Path(dir.path().join("Dockerfile"))), "ignore-file");
        fs::remove_file(dir.path().join(name)).unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        assert_eq!(refused(DockerfileSpec::default()), "ignore-file");
        fs::remove_dir(dir.path().join(name)).unwrap();
    }
    fifo(&dir.path().join("Dockerfile"));
    assert_eq!(open_dir(dir.path()).dockerfile().unwrap_err().code(), "context-read");
    fs::remove_file(dir.path().join("Dockerfile")).unwrap();
    // Not a text: it would fill the memory.
    File::create(dir.path().join("Dockerfile")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(open_dir(dir.path()).dockerfile().unwrap_err().code(), "context-read");
    symlink("/dev/zero", dir.path().join(".dockerignore")).unwrap();
    assert_eq!(refused(DockerfileSpec::default()), "context-path");
}

#[test]
fn a_sparse_file_is_packed_with_its_holes_as_zeros() {
    const SIZE: u64 = 200 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut file = File::create(dir.path().join("sparse")).unwrap();
    file.set_len(SIZE).unwrap();
    for (at, text) in [(0, "start"), (SIZE / 2 - 2, "middle"), (SIZE - 3, "end")] {
        file.seek(io::SeekFrom::Start(at)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    let context = open_dir(dir.path());
    let start = Instant::now();
    let bytes = pack(&context, Format::Tar);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(bytes.len() as u64, 512 + SIZE + 1024);
    let inner = &bytes[512..512 + usize::try_from(SIZE).unwrap()];
    assert!(inner.starts_with(b"start") && inner.ends_with(b"end"));
    assert_eq!(&inner[inner.len() / 2 - 2..][..6], b"middle");
    assert_eq!(inner.iter().filter(|byte| **byte != 0).count(), 14);
    // The same content without holes is the same context.
    let whole = tempfile::tempdir().unwrap();
    fs::write(whole.path().join("sparse"), inner).unwrap();
    assert_eq!(digest(&open_dir(whole.path())), digest(&context));
}

#[test]
fn times_before_1970_and_after_2262_count_for_nothing_in_archives() {
    let dir = tempdir_in_memory();
    let times = [("old", -2_000_000_000), ("epoch", 0), ("far", 12_000_000_000)];
    for (name, seconds) in times {
        write(dir.path(), name, name);
        let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, dir.path().join(name), &times, AtFlags::empty()).unwrap();
    }
    let context = open_dir(dir.path());
    let time = |name: &str| context.find(name.as_bytes()).unwrap().mtime;
    assert_eq!(time("old"), Mtime { seconds: -2_000_000_000, nanoseconds: 5 });
    assert_eq!(time("epoch"), Mtime { seconds: 0, nanoseconds: 5 });
    // Nanoseconds in 64 bits, which is what BuildKit has, end on 2262-04-11.
    assert_eq!(time("far"), Mtime { seconds: 9_223_372_036, nanoseconds: 854_775_807 });
    let same = tempfile::tempdir().unwrap();
    for (name, _) in times {
        write(same.path(), name, name);
    }
    for format in Format::ALL {
        assert!(pack(&context, format) == pack(&open_dir(same.path()), format), "{}", format.name());
    }
}

#[test]
fn a_root_that_goes_away_or_is_replaced_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    write(&root, "a", "first");
    let context = open_dir(&root);
    // Another directory in its place: the context is that which was opened.
    fs::rename(&root, dir.path().join("moved")).unwrap();
    write(&root, "a", "OTHER");
    assert_eq!(unpacked(&pack(&context, Format::Tar)), [(b"a".to_vec(), b'0', b"first".to_vec())]);
    fs::remove_dir_all(dir.path().join("moved")).unwrap();
    for format in Format::ALL {
        let error = context.pack(format, &mut io::sink(), &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "context-changed", "{}", format.name());
    }
    assert_eq!(context.digest(None, &Cancel::new()).unwrap_err().code(), "context-changed");
}

/// A shell that mounts a small file system of its own at its first argument, if this user may, and goes on.
fn with_mount(size: &'static str) -> impl FnOnce(&Path, &[&str]) -> Command {
    move |program, arguments| {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = r#"mkdir -p "$1" && mount -t tmpfs -o size="$2" none "$1" && shift 2 && exec "$@""#;
        let mount = program.with_file_name("mount");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(&mount).arg(size).arg(program).args(arguments);
        command.env("COOPER_TEST_MOUNT", mount);
        command
    }
}

fn mount() -> std::path::PathBuf {
    std::env::var_os("COOPER_TEST_MOUNT").unwrap().into()
}

#[cfg(target_os = "linux")]
#[test]
fn other_file_systems_below_the_root_are_part_of_the_context() {
    in_child("context_hostile::other_file_systems_below_the_root_are_part_of_the_context", with_mount("64k"), || {
        write(&mount(), "inner/file", "mounted");
        let context = open_dir(mount().parent().unwrap());
        assert_eq!(paths(&context)[..3], ["mount", "mount/inner", "mount/inner/file"]);
        let mut text = String::new();
        let file = context.find(b"mount/inner/file").unwrap();
        context.reader(&file).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "mounted");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
    in_child("context_hostile::a_full_disk_is_an_error_and_leaves_nothing_behind", with_mount("64k"), || {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "big", vec![7; 200_000]);
        write(
            dir.path(),
            "noise",
            (0..40_000_u32).flat_map(|n| Digest::of(&n.to_be_bytes()).as_bytes()[..8].to_vec()).collect::<Vec<_>>(),
        );
        let context = open_dir(dir.path());
        for format in Format::ALL {
            let error = context.pack_to_path(format, &mount().join("archive"), &Cancel::new()).unwrap_err();
            assert!(error.code() == "context-write" && error.to_string().contains("No space left"), "{error}");
            assert_eq!(fs::read_dir(mount()).unwrap().count(), 0, "{}", format.name());
            let error = context.pack_to_path(format, Path::new("/dev/full"), &Cancel::new()).unwrap_err();
            assert_eq!(error.code(), "context-write", "{}", format.name());
        }
    });
}

#[test]
fn a_directory_that_may_not_be_written_to_gets_no_archive() {
    as_ordinary_user("context_hostile::a_directory_that_may_not_be_written_to_gets_no_archive", || {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "root/a", "x");
        let output = dir.path().join("output");
        fs::create_dir(&output).unwrap();
        chmod(&output, 0o555);
        let context = open_dir(&dir.path().join("root"));
        for format in Format::ALL {
            let error = context.pack_to_path(format, &output.join("archive"), &Cancel::new()).unwrap_err();
            assert!(error.code() == "context-write" && error.to_string().contains("denied"), "{error}");
        }
        assert_eq!(fs::read_dir(&output).unwrap().count(), 0);
        chmod(&output, 0o755);
    });
}

#[test]
fn no_temporary_directory_is_needed() {
    let without = |program: &Path, arguments: &[&str]| {
        let dir = program.parent().unwrap();
        write(dir, "root/a", vec![7; 5_000_000]);
        let mut command = Command::new(program);
        command.args(arguments).env("TMPDIR", "/dev/null").env("COOPER_TEST_DIR", dir);
        command
    };
    in_child("context_hostile::no_temporary_directory_is_needed", without, || {
        assert!(tempfile::tempdir().is_err());
        let dir = std::path::PathBuf::from(std::env::var_os("COOPER_TEST_DIR").unwrap());
        let context = open_dir(&dir.join("root"));
        for format in Format::ALL {
            let packed = context.pack_to_path(format, &dir.join("archive"), &Cancel::new()).unwrap();
            assert_eq!(packed.bytes_out, fs::metadata(dir.join("archive")).unwrap().len());
        }
    });
}
