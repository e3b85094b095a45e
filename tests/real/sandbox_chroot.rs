//! Commands in another root directory, where nothing can be mounted: what is put into it is taken away again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::sandbox::{Exit, Level, Mount, Root, Spec};

use crate::sandbox_bed::{Bed, Ran, Who, running};

/// `None` if this is not root.
fn bed() -> Option<Bed> {
    if rustix::process::geteuid().is_root() {
        return Some(Bed::new((Who::Me, Level::Chroot)));
    }
    eprintln!("NOT TESTED: another root directory is for root, and this is not root");
    None
}

fn spec(bed: &Bed, script: &str) -> Spec {
    Spec { root: Root::Directory(bed.path("lower")), ..bed.shell(script) }
}

fn run(bed: &Bed, spec: &Spec) -> Ran {
    let ran = bed.run(spec);
    assert!(!bed.path("lower.aside").exists());
    ran
}

/// Everything in a tree: what it is, and its inode.
fn tree(root: &Path) -> BTreeMap<String, (u32, u64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let metadata = entry.path().symlink_metadata().unwrap();
            found.insert(entry.path().display().to_string(), (metadata.mode(), metadata.ino()));
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn a_root_is_as_it_was_but_for_what_the_command_did() {
    let Some(bed) = bed() else { return };
    fs::create_dir_all(bed.path("lower/etc")).unwrap();
    fs::write(bed.path("lower/etc/hosts"), "of the image").unwrap();
    fs::create_dir_all(bed.path("lower/dev/kept")).unwrap();
    let before = tree(&bed.path("lower"));
    let ran = run(&bed, &spec(&bed, "id -u; cat /etc/hosts | head -n 1; echo x > /dev/null; ls /dev | wc -l"));
    assert_eq!(ran.out, "0\n127.0.0.1\tlocalhost buildkitsandbox\n13\n", "{ran:?}");
    assert_eq!(tree(&bed.path("lower")), before);
    assert_eq!(fs::read_to_string(bed.path("lower/etc/hosts")).unwrap(), "of the image");
    let ran = run(&bed, &spec(&bed, "echo y > /tmp/y; rm /bin/mv; exit 4"));
    assert_eq!(ran.finished.exit, Exit::Code(4));
    let after = tree(&bed.path("lower"));
    assert_eq!(after.len(), before.len());
    assert!(bed.path("lower/tmp/y").exists() && !bed.path("lower/bin/mv").exists());
}

#[test]
fn mounts_are_put_in_and_taken_out() {
    let Some(bed) = bed() else { return };
    for name in ["cache", "data"] {
        fs::create_dir(bed.path(name)).unwrap();
        fs::write(bed.path(name).join("file"), name).unwrap();
    }
    let script = "cat /c/file /d/file /run/secrets/s; echo new > /c/new; echo lost > /d/lost; echo t > /t/t; stat -c %a /run/secrets/s";
    let mut spec = spec(&bed, script);
    spec.mounts = vec![
        Mount::Bind { source: bed.path("cache"), target: "/c".into(), read_only: false },
        Mount::Bind { source: bed.path("data"), target: "/d".into(), read_only: true },
        Mount::File { content: b"hush\n".into(), target: "/run/secrets/s".into(), mode: 0o400, uid: 0, gid: 0 },
        Mount::Tmpfs { target: "/t".into(), size: None, mode: 0o1777 },
    ];
    let before = tree(&bed.path("lower"));
    let ran = run(&bed, &spec);
    assert_eq!(ran.out, "cachedatahush\n400\n", "{ran:?}");
    assert_eq!(fs::read_to_string(bed.path("cache/new")).unwrap(), "new\n");
    assert!(!bed.path("data/lost").exists());
    assert_eq!(tree(&bed.path("lower")), before);
}

#[test]
fn nothing_is_left_of_a_command() {
    let Some(bed) = bed() else { return };
    let mark = format!("96{}", std::process::id());
    let started = Instant::now();
    run(&bed, &spec(&bed, &format!("(sleep {mark} &); sleep {mark} &")));
    assert!(started.elapsed() < Duration::from_secs(5));
    let (spec, cancel) = (spec(&bed, &format!("(sleep {mark} &); sleep {mark}")), Cancel::new());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| bed.sandboxes.run(&spec, &mut |_, _| {}, &cancel));
        std::thread::sleep(Duration::from_millis(300));
        let started = Instant::now();
        cancel.cancel();
        assert!(matches!(run.join().unwrap(), Err(Error::Interrupted)));
        assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    });
    assert_eq!(running(&mark), 0);
}

#[test]
fn a_root_of_layers_is_refused() {
    let Some(bed) = bed() else { return };
    let error = bed.sandboxes.run(&bed.shell("true"), &mut |_, _| {}, &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "sandbox");
    assert!(error.to_string().contains("needs mounts"), "{error}");
}
