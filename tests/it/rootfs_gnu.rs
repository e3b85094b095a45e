//! Against the real thing: layers that GNU tar makes and unpacks, one over the other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::rootfs::{IndexEntry, LayerIndex, NodeKind, View};

/// What one can see of a file: its mode (but for links), its time and what it is.
type Seen = (u32, i64, u32, String);

fn tar(directory: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar").arg("-C").arg(directory).args(arguments).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn write(path: &Path, text: &str, mode: u32, time: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let status = Command::new("touch").args(["-d", time]).arg(path).status().unwrap();
    assert!(status.success());
}

fn seen_on_disk(directory: &Path) -> BTreeMap<String, Seen> {
    let mut seen = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let what = if stat.is_dir() {
                left.push(path.clone());
                "dir".to_owned()
            } else if stat.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if stat.is_file() {
                Digest::of(&fs::read(&path).unwrap()).to_string()
            } else {
                "pipe".to_owned()
            };
            let mode = if stat.is_symlink() { 0 } else { stat.mode() & 0o7777 };
            // What tar puts into a directory that is there already gives it a new time.
            let (seconds, nanoseconds) =
                if stat.is_dir() { (0, 0) } else { (stat.mtime(), u32::try_from(stat.mtime_nsec()).unwrap()) };
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            seen.insert(name, (mode, seconds, nanoseconds, what));
        }
    }
    seen
}

fn seen_in_view(view: &View) -> BTreeMap<String, Seen> {
    view.walk(b"")
        .map(|found| {
            let (what, mode) = match &found.node.kind {
                NodeKind::Dir => ("dir".to_owned(), found.node.mode),
                NodeKind::Symlink { target } => (format!("-> {}", String::from_utf8_lossy(target)), 0),
                NodeKind::File { digest, .. } => (digest.to_string(), found.node.mode),
                _ => ("pipe".to_owned(), found.node.mode),
            };
            let mtime =
                if found.node.is_dir() { (0, 0) } else { (found.node.mtime.seconds, found.node.mtime.nanoseconds) };
            (String::from_utf8(found.path).unwrap(), (mode, mtime.0, mtime.1, what))
        })
        .collect()
}

/// A tree with all that a tar may have trouble with.
fn base(directory: &Path) {
    let long = format!("{}/{}", "long".repeat(30), "name".repeat(40));
    write(&directory.join("usr/bin/tool"), "tool", 0o4755, "2020-01-02 03:04:05.25Z");
    write(&directory.join("usr/lib/a lib"), &"lib".repeat(100_000), 0o644, "1969-12-31 23:59:58Z");
    write(&directory.join(&long), "long", 0o600, "2038-02-03 00:00:00Z");
    write(&directory.join("etc/caf\u{e9}"), "", 0o444, "2001-09-09Z");
    write(&directory.join("etc/gone/deep/file"), "1", 0o644, "2001-09-09Z");
    write(&directory.join("var/opaque/old"), "1", 0o644, "2001-09-09Z");
    write(&directory.join("var/opaque/kept"), "1", 0o644, "2001-09-09Z");
    symlink("usr/bin", directory.join("bin")).unwrap();
    symlink(&long, directory.join("etc/link")).unwrap();
    fs::hard_link(directory.join("usr/bin/tool"), directory.join("usr/bin/twin")).unwrap();
    assert!(Command::new("mkfifo").arg("-m640").arg(directory.join("pipe")).status().unwrap().success());
    for dir in [".", "usr", "etc"] {
        fs::set_permissions(directory.join(dir), fs::Permissions::from_mode(0o750)).unwrap();
    }
}

/// Changes of the second layer, and what it removes.
fn upper(directory: &Path) -> &'static [&'static str] {
    write(&directory.join("bin/tool"), "new tool", 0o755, "2022-01-01Z");
    write(&directory.join("bin/other"), "other", 0o755, "2022-01-01Z");
    write(&directory.join("var/opaque/kept"), "2", 0o644, "2022-01-01Z");
    write(&directory.join("usr/lib/new/file"), "3", 0o644, "2022-01-01Z");
    write(&directory.join("etc/link"), "no link", 0o644, "2022-01-01Z");
    write(&directory.join("etc/.wh.gone"), "", 0o644, "2022-01-01Z");
    write(&directory.join("var/opaque/.wh..wh..opq"), "", 0o644, "2022-01-01Z");
    fs::set_permissions(directory.join("usr"), fs::Permissions::from_mode(0o711)).unwrap();
    &["etc/gone", "var/opaque/old", "var/opaque/kept"]
}

#[test]
fn layers_of_gnu_tar_are_what_gnu_tar_unpacks() {
    for format in ["pax", "gnu"] {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, out] = ["one", "two", "out"].map(|name| dir.path().join(name));
        for path in [&one, &two, &out] {
            fs::create_dir(path).unwrap();
        }
        base(&one);
        let removed = upper(&two);
        let format = format!("--format={format}");
        let lower = tar(&one, &["-c", &format, "."]);
        // The directory `bin` is not in the layer, as it is a link in the one below.
        let changed = tar(
            &two,
            &[
                "-c",
                &format,
                "--no-recursion",
                "usr",
                "etc",
                "bin/tool",
                "bin/other",
                "usr/lib/new",
                "usr/lib/new/file",
                "etc/link",
                "etc/.wh.gone",
                "var/opaque/kept",
                "var/opaque/.wh..wh..opq",
            ],
        );

        let mut view = View::default();
        for layer in [&lower, &changed] {
            view.push(Arc::new(LayerIndex::read(&layer[..], &Cancel::new()).unwrap())).unwrap();
        }
        let unpack = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            tar(&out, &["-xpf", path.to_str().unwrap(), "--no-same-owner", "--exclude=.wh.*"]);
        };
        unpack("lower.tar", &lower);
        for path in removed {
            let path = out.join(path);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        unpack("upper.tar", &changed);
        assert_eq!(seen_in_view(&view), seen_on_disk(&out), "{format}");
        assert!(
            matches!(view.layers()[0].find(b"usr/bin/twin"), Some(IndexEntry::Hardlink { .. }))
                != matches!(view.layers()[0].find(b"usr/bin/tool"), Some(IndexEntry::Hardlink { .. }))
        );
        assert_eq!(view.find(b"usr/bin/other").unwrap().content_path, b"bin/other");
    }
}
