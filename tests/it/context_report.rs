//! Digests and reports of contexts.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use cooper::cancel::Cancel;
use cooper::context::Warning;
use cooper::digest::Digest;

use crate::context_support::{extra, open, open_dir, spec, write};

fn digest(root: &Path) -> Digest {
    open_dir(root).digest(&Cancel::new()).unwrap()
}

fn tree(root: &Path) {
    write(root, "a", "1");
    write(root, "b/c", "2");
    write(root, "b/d", "2");
    symlink("a", root.join("l")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
}

#[test]
fn equal_content_has_one_digest() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(one.path());
    tree(two.path());
    fs::set_permissions(two.path().join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(two.path().join("b"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_file(two.path().join("b/d")).unwrap();
    fs::hard_link(two.path().join("b/c"), two.path().join("b/d")).unwrap();
    let time = std::time::UNIX_EPOCH;
    fs::File::open(two.path().join("a")).unwrap().set_modified(time).unwrap();
    assert_eq!(digest(one.path()), digest(two.path()));
}

#[test]
fn every_change_of_content_changes_the_digest() {
    let changes: [&dyn Fn(&Path); 8] = [
        &|_| {},
        &|root| write(root, "a", "2"),
        &|root| write(root, "a", "1\0"),
        &|root| fs::rename(root.join("a"), root.join("a2")).unwrap(),
        &|root| fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o755)).unwrap(),
        &|root| fs::remove_dir(root.join("empty")).unwrap(),
        &|root| {
            fs::remove_file(root.join("l")).unwrap();
            symlink("b", root.join("l")).unwrap();
        },
        &|root| {
            fs::remove_file(root.join("l")).unwrap();
            write(root, "l", "a");
        },
    ];
    let digests = changes.iter().map(|change| {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path());
        change(dir.path());
        digest(dir.path())
    });
    let mut digests: Vec<Digest> = digests.collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), changes.len());
}

#[test]
fn a_report_tells_sizes_and_what_patterns_did() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "# comment\n*.log\n\nbuild\n!build/keep\nunused\n");
    write(dir.path(), "data/big", vec![0; 5000]);
    write(dir.path(), "data/sub/small", "1");
    write(dir.path(), "x.log", "");
    write(dir.path(), "y.log", "");
    write(dir.path(), "build/gone", "");
    let report = open_dir(dir.path()).report();
    let patterns: Vec<_> =
        report.patterns.iter().map(|used| (used.line, used.pattern.as_str(), used.excluded)).collect();
    assert_eq!(patterns, [(2, "*.log", 2), (4, "build", 2), (5, "!build/keep", 0), (6, "unused", 0)]);
    let sizes: Vec<_> =
        report.largest_directories.iter().map(|size| (size.path.as_str(), size.bytes, size.files)).collect();
    assert_eq!(sizes, [("data", 5001, 2), ("data/sub", 1, 1)]);
    assert_eq!(report.largest_files[0].path, "data/big");
    assert_eq!((report.warnings.len(), report.summary.excluded), (0, 4));
    assert!(report.ignore_file.as_deref().unwrap().ends_with(".dockerignore"));
    assert_eq!(serde_json::to_value(&report).unwrap()["summary"]["bytes"], report.summary.bytes);
}

#[test]
fn what_looks_like_credentials_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = "-----BEGIN PRIVATE KEY-----\nabc\n";
    for path in [".env", "a/.env.prod", ".git/HEAD", "home/.aws/credentials", "x.p12"] {
        write(dir.path(), path, "");
    }
    write(dir.path(), "tls/server.key", key);
    for path in [".env.example", "tls/ca.pem", "aws/credentials", "environment", "tls/other.key"] {
        write(dir.path(), path, "-----BEGIN CERTIFICATE-----");
    }
    let mut spec = spec(dir.path());
    spec.extra_files = vec![extra("id_rsa", key)];
    let warnings = open(&spec).warnings();
    let paths: Vec<&str> = warnings
        .iter()
        .map(|warning| match warning {
            Warning::Secret { path, .. } => path.as_str(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(paths, [".env", ".git", "a/.env.prod", "home/.aws/credentials", "tls/server.key", "x.p12"]);
}

#[test]
fn a_large_context_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("big")).unwrap().set_len((50 << 20) + 1).unwrap();
    let warnings = open_dir(dir.path()).warnings();
    assert_eq!(warnings, [Warning::Large { bytes: (50 << 20) + 1, ignored: false }]);
    assert!(warnings[0].to_string().contains("51 MiB"), "{}", warnings[0]);
}
