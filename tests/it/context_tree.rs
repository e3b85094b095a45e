//! Contexts opened from real trees.

use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use cooper::context::Kind;

use crate::context_support::{extra, open, open_dir, paths, spec, write};

#[test]
fn entries_come_in_the_order_of_a_walk() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["b/c", "b.txt", "b/a/z", "a", "b c", "b/a!"] {
        write(dir.path(), path, path);
    }
    fs::create_dir(dir.path().join("empty")).unwrap();
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let context = open_dir(dir.path());
    assert_eq!(paths(&context), ["a", "b", "b/a", "b/a/z", "b/a!", "b/c", "b c", "b.txt", "dangling", "empty"]);
    assert_eq!(context.find(b"dangling").unwrap().kind, Kind::Symlink { target: b"nowhere".to_vec() });
    assert_eq!((context.summary().files, context.summary().dirs, context.summary().symlinks), (6, 3, 1));
}

#[test]
fn an_excluded_directory_comes_in_with_what_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "*\n!**/*.py\n");
    for path in ["a.py", "b/c/d.py", "b/c/e.txt", "x/y.txt"] {
        write(dir.path(), path, "");
    }
    let context = open_dir(dir.path());
    assert_eq!(paths(&context), ["a.py", "b", "b/c", "b/c/d.py"]);
    // .dockerignore, e.txt, x and y.txt
    assert_eq!(context.summary().excluded, 4);
}

#[test]
fn extra_files_override_and_are_never_excluded() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "secret\n");
    write(dir.path(), "app.py", "old");
    let mut spec = spec(dir.path());
    spec.extra_files = vec![extra("app.py", "new"), extra("secret/key", "k")];
    spec.omit_ignore_file = true;
    let context = open(&spec);
    assert_eq!(paths(&context), ["app.py", "secret", "secret/key"]);
    let entry = context.find(b"app.py").unwrap();
    let mut text = String::new();
    context.reader(entry).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), entry.mode), ("new", 0o755));
}

#[test]
fn the_dockerfile_is_found_even_if_it_is_excluded() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "Dockerfile\n");
    write(dir.path(), "Dockerfile", "FROM scratch\n");
    let text = open_dir(dir.path()).dockerfile().unwrap();
    assert_eq!((&text.text[..], text.path_in_context), (&b"FROM scratch\n"[..], None));
    write(dir.path(), "Dockerfile.dockerignore", "nothing\n");
    let text = open_dir(dir.path()).dockerfile().unwrap();
    assert_eq!(text.path_in_context.as_deref(), Some("Dockerfile"));
}

#[test]
fn names_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(dir.path().join(name), "x").unwrap();
    fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o4751)).unwrap();
    let context = open_dir(dir.path());
    assert_eq!(context.entries()[0].path, b"caf\xe9");
    assert_eq!(context.entries()[0].mode, 0o4751);
}
