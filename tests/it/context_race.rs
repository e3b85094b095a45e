//! Trees that change while they are read, and one that is too big for it to be done at once.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cooper::cancel::Cancel;
use cooper::context::{Context, Format};
use cooper::error::Error;
use cooper::request::DockerfileSpec;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::context_support::{in_child, open_dir, spec, tempdir_in_memory, write};

/// What must never be read: it is outside of the root.
const OUTSIDE: &[u8] = b"bytes from outside of the root";

/// Ends the racing thread when the test ends, in whatever way.
struct Stop(Cancel);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Runs `change` over and over on one thread, and `check` on another for a while. How often `check` was right and that it
/// was wrong in a way that is allowed is returned.
fn race(change: impl Fn() + Send, mut check: impl FnMut() -> Result<(), Error>) -> (u32, u32) {
    let stop = Stop(Cancel::new());
    let flag = stop.0.clone();
    let (mut right, mut changed) = (0, 0);
    std::thread::scope(|scope| {
        // Dropped before the scope waits for the thread.
        let stop = stop;
        scope.spawn(move || {
            while !flag.is_cancelled() {
                change();
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            match check() {
                Ok(()) => right += 1,
                Err(error) => {
                    assert_eq!(error.code(), "context-changed", "{error}");
                    changed += 1;
                }
            }
        }
        drop(stop);
    });
    (right, changed)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Opens a context and reads all of it in every way that there is; nothing of it may come from outside.
fn read_everything(root: &Path) -> Result<(), Error> {
    let context = Context::open(&spec(root), &DockerfileSpec::default(), &Cancel::new())?;
    for entry in context.entries() {
        assert!(!contains(&entry.path, b"outside"), "{}", entry.display_path());
        if entry.size() > 0 {
            let mut bytes = Vec::new();
            context.reader(&entry)?.read_to_end(&mut bytes).map_err(cooper::context::EntryReader::error)?;
            assert!(!contains(&bytes, OUTSIDE), "{}", entry.display_path());
        }
    }
    let mut archive = Vec::new();
    context.pack(Format::Tar, &mut archive, &Cancel::new())?;
    assert!(!contains(&archive, OUTSIDE));
    context.digest(None, &Cancel::new())?;
    let text = context.dockerfile()?.text;
    assert!(!contains(&text, OUTSIDE));
    Ok(())
}

#[test]
fn nothing_outside_is_read_while_directories_become_links() {
    let (dir, outside) = (tempdir_in_memory(), tempdir_in_memory());
    let root = dir.path();
    for number in 0..10 {
        write(root, &format!("d/sub/{number}"), "inside");
        write(outside.path(), &format!("sub/{number}"), OUTSIDE);
    }
    write(outside.path(), "sub/outside", OUTSIDE);
    write(root, "Dockerfile", "FROM scratch");
    symlink(outside.path(), root.join("link")).unwrap();
    let change = || {
        fs::rename(root.join("d"), root.join("real")).unwrap();
        fs::rename(root.join("link"), root.join("d")).unwrap();
        fs::rename(root.join("d"), root.join("link")).unwrap();
        fs::rename(root.join("real"), root.join("d")).unwrap();
    };
    let (right, changed) = race(change, || read_everything(root));
    assert!(right > 0 && changed > 0, "{right} contexts were read, {changed} had changed");
}

#[test]
fn nothing_outside_is_read_while_files_become_links_and_pipes() {
    let (dir, outside) = (tempdir_in_memory(), tempdir_in_memory());
    let root = dir.path();
    write(outside.path(), "secret", OUTSIDE);
    for name in ["a", "Dockerfile"] {
        write(root, name, "FROM scratch");
        symlink(outside.path().join("secret"), root.join(format!("{name}.link"))).unwrap();
        mknodat(CWD, root.join(format!("{name}.pipe")), FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    let exchange = |one: &str, two: &str| {
        rustix::fs::renameat_with(CWD, root.join(one), CWD, root.join(two), rustix::fs::RenameFlags::EXCHANGE).unwrap();
    };
    let change = || {
        for other in ["link", "pipe"] {
            for name in ["a", "Dockerfile", "a", "Dockerfile"] {
                exchange(name, &format!("{name}.{other}"));
            }
        }
    };
    let check = || match read_everything(root) {
        // A Dockerfile that is a link which leads out, a pipe, or not there.
        Err(Error::ContextPath { .. } | Error::ContextRead { .. } | Error::DockerfileMissing { .. }) => Ok(()),
        other => other,
    };
    let (right, changed) = race(change, check);
    assert!(right > 0 && changed > 0, "{right} contexts were read, {changed} had changed");
}

#[test]
fn files_that_come_go_grow_and_shrink_make_whole_archives_or_errors() {
    let dir = tempdir_in_memory();
    let root = dir.path();
    let long = vec![b'x'; 3 << 20];
    write(root, "z", "the last");
    let change = || {
        write(root, "new/inner", "here");
        File::create(root.join("size")).unwrap();
        fs::write(root.join("size"), &long).unwrap();
        fs::remove_dir_all(root.join("new")).unwrap();
        fs::remove_file(root.join("size")).unwrap();
    };
    let check = || {
        let context = Context::open(&spec(root), &DockerfileSpec::default(), &Cancel::new())?;
        let mut bytes = Vec::new();
        let packed = context.pack(Format::Tar, &mut bytes, &Cancel::new())?;
        assert_eq!(packed.bytes_out, bytes.len() as u64);
        // Every header is where the one before it says: the archive is read to its end, and the last file is whole.
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut last = String::new();
        for entry in archive.entries().unwrap() {
            last.clear();
            let mut entry = entry.unwrap();
            if entry.path_bytes().as_ref() == b"z" {
                entry.read_to_string(&mut last).unwrap();
            } else {
                io::copy(&mut entry, &mut io::sink()).unwrap();
            }
        }
        assert_eq!(last, "the last");
        Ok(())
    };
    let (right, changed) = race(change, check);
    assert!(right > 0 && changed > 0, "{right} contexts were packed, {changed} had changed");
}

/// In kilobytes.
#[cfg(target_os = "linux")]
fn memory(which: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_of_a_million_files_takes_little_memory() {
    const COUNT: u64 = 1_000_000;
    let plain = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    in_child("context_race::a_directory_of_a_million_files_takes_little_memory", plain, || {
        let dir = tempdir_in_memory();
        let at = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for number in 0..COUNT {
            mknodat(&at, format!("{number:07}.txt"), FileType::RegularFile, Mode::RUSR, 0).unwrap();
        }
        drop(open_dir(Path::new("/proc/self/fdinfo")));
        let before = memory("VmRSS");
        // From here on, the highest is counted anew.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let start = Instant::now();
        let context = open_dir(dir.path());
        let opened = start.elapsed();
        assert_eq!(context.summary().files, COUNT);
        let mut count = 0;
        for entry in context.entries() {
            count += u64::from(entry.path.len() == 11);
        }
        assert_eq!(count, COUNT);
        let grown = memory("VmHWM").saturating_sub(before);
        println!("{grown} kB, opened in {opened:?}");
        assert!(grown < 64 << 10, "{grown} kB");
    });
}
