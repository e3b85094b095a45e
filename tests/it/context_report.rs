//! Digests and reports of contexts.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use cooper::cancel::Cancel;
use cooper::context::{Node, Report, Style, Warning};
use cooper::digest::Digest;

use crate::context_support::{NOBODY, extra, open, open_dir, spec, write};

fn digest(root: &Path) -> Digest {
    open_dir(root).digest(None, &Cancel::new()).unwrap().digest
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
fn checkouts_of_two_users_have_one_digest() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let original = dir.path().join("original");
    fs::create_dir(&original).unwrap();
    tree(&original);
    write(&original, "run.sh", "#!/bin/sh\n");
    fs::set_permissions(original.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let expected = digest(&original);
    // Each as the user who runs this, and as somebody else where this one may become somebody else; with other times and,
    // made in another order, with another order of names on disk.
    let users =
        if rustix::process::geteuid().is_root() { vec![0, NOBODY] } else { vec![rustix::process::geteuid().as_raw()] };
    for user in users {
        for umask in ["077", "002"] {
            let copy = dir.path().join(format!("elsewhere/{user}-{umask}"));
            let script = r#"umask "$2" && mkdir -p "$1" && cd "$0" && for name in run.sh l empty b a; do cp -R "$name" "$1/"; done
                find "$1" -type f -exec touch -d @86400 {} +"#;
            fs::create_dir_all(dir.path().join("elsewhere")).unwrap();
            fs::set_permissions(dir.path().join("elsewhere"), fs::Permissions::from_mode(0o777)).unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", script]).arg(&original).arg(&copy).arg(umask).uid(user);
            assert!(command.status().unwrap().success());
            let metadata = fs::metadata(copy.join("run.sh")).unwrap();
            assert_eq!((metadata.uid(), metadata.mode() & 0o777), (user, if umask == "077" { 0o700 } else { 0o755 }));
            assert_eq!(digest(&copy), expected, "user {user}, umask {umask}");
        }
    }
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

fn report(root: &Path) -> Report {
    open_dir(root).report(false, &Cancel::new()).unwrap()
}

fn warnings(root: &Path) -> Vec<Warning> {
    report(root).warnings
}

/// The warning's code, and the paths that it names.
fn names(warnings: &[Warning]) -> Vec<(&'static str, Vec<&str>)> {
    let one = |warning: &'_ Warning| match warning {
        Warning::Credentials(found)
        | Warning::History(found)
        | Warning::VirtualEnvironment(found)
        | Warning::Weights(found)
        | Warning::Notebook(found) => found.paths.clone(),
        other => panic!("{other}"),
    };
    let paths: Vec<Vec<String>> = warnings.iter().map(one).collect();
    let leaked = paths.into_iter().map(|paths| paths.into_iter().map(|path| &*path.leak()).collect());
    warnings.iter().map(Warning::code).zip(leaked).collect()
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
    let report = report(dir.path());
    let patterns: Vec<_> =
        report.patterns.iter().map(|used| (used.line, used.pattern.as_str(), used.excluded)).collect();
    assert_eq!(patterns, [(2, "*.log", 2), (4, "build", 2), (5, "!build/keep", 0), (6, "unused", 0)]);
    let sizes: Vec<_> =
        report.largest_directories.iter().map(|size| (size.path.as_str(), size.bytes, size.files)).collect();
    assert_eq!(sizes, [("data", 5001, 2), ("data/sub", 1, 1)]);
    assert_eq!(report.largest_files[0].path, "data/big");
    assert_eq!((report.warnings.len(), report.summary.excluded, report.removed.is_none()), (0, 4, true));
    assert!(report.ignore_file.as_deref().unwrap().ends_with(".dockerignore"));
    assert_eq!(serde_json::to_value(&report).unwrap()["summary"]["bytes"], report.summary.bytes);
}

/// No directory has less than what is in it. Returns how many nodes there are.
fn check(node: &Node) -> usize {
    assert!(node.children.iter().map(|child| child.size.bytes).sum::<u64>() <= node.size.bytes);
    1 + node.children.iter().map(check).sum::<usize>()
}

#[test]
fn the_tree_nests_what_is_largest() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/b/c/deep", vec![0; 3000]);
    write(dir.path(), "a/b.txt", vec![0; 100]);
    write(dir.path(), "z", vec![0; 2000]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    for number in 0..200 {
        write(dir.path(), &format!("many/{number}"), vec![0; 10]);
    }
    let report = report(dir.path());
    let shown = |node: &Node| (node.size.path.clone(), node.size.bytes, node.size.files);
    let children: Vec<_> = report.tree.children.iter().map(shown).collect();
    let expected = [("a", 3100, 2), ("z", 2000, 1), ("many", 2000, 200)];
    let mut expected: Vec<_> =
        expected.iter().map(|(path, bytes, files)| ((*path).to_owned(), *bytes, *files)).collect();
    expected[1..].sort();
    let mut sorted = children.clone();
    sorted[1..].sort();
    assert_eq!(sorted, expected);
    let mut deep = &report.tree.children[0];
    for path in ["a/b", "a/b/c", "a/b/c/deep"] {
        deep = &deep.children[0];
        assert_eq!(deep.size.path, path);
    }
    assert_eq!((report.tree.size.bytes, report.tree.size.files), (report.summary.bytes, report.summary.files));
    assert_eq!(check(&report.tree), 101);
}

#[test]
fn what_is_excluded_is_measured_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "big\n**/*.log\n!keep.log\nbig/x\nunused\n");
    write(dir.path(), "big/x/y", vec![0; 1000]);
    write(dir.path(), "big/z.log", vec![0; 50]);
    fs::hard_link(dir.path().join("big/x/y"), dir.path().join("big/link")).unwrap();
    write(dir.path(), "a/b.log", "12345");
    write(dir.path(), "keep.log", "1");
    let report = open_dir(dir.path()).report(true, &Cancel::new()).unwrap();
    let removed: Vec<_> = report.removed.unwrap();
    let numbers: Vec<_> = removed
        .iter()
        .map(|removed| (removed.pattern.as_str(), removed.files, removed.bytes, removed.matches))
        .collect();
    let expected =
        [("big", 3, 1050, 1), ("**/*.log", 1, 5, 3), ("!keep.log", 0, 0, 1), ("big/x", 0, 0, 1), ("unused", 0, 0, 0)];
    assert_eq!(numbers, expected);
    assert_eq!(removed[0].examples, ["big/"]);
    assert_eq!(removed[1].examples, ["a/b.log"]);
}

#[test]
fn what_looks_like_credentials_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let key = "-----BEGIN PRIVATE KEY-----\nabc\n";
    let account = r#"{"type": "service_account", "private_key": "-----BEGIN"}"#;
    for (path, content) in [
        (".env", "TOKEN=x\n"),
        ("a/.env.prod", "export A='y'"),
        ("deploy/prod.env", "A=1"),
        ("home/.aws/credentials", "[default]\naws_secret_access_key = x\n"),
        ("home/.docker/config.json", r#"{"auths": {"r": {"auth": "eA=="}}}"#),
        ("home/.kube/config", "users:\n- user:\n    token: abc\n"),
        (".netrc", "machine h login u password p"),
        (".npmrc", "//registry/:_authToken=abc"),
        (".pypirc", "[pypi]\npassword = x"),
        ("keys/any-name.json", account),
        ("tls/server.key", key),
        ("id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("x.p12", "1"),
        ("azure.json", r#"{"clientSecret": "x", "tenantId": "y"}"#),
        ("deploy_key", key),
        ("aws/credentials", "aws_secret_access_key = x"),
        ("secrets/credentials", "aws_secret_access_key = x"),
    ] {
        write(dir.path(), path, content);
    }
    for (path, content) in [
        (".env.example", "TOKEN=x"),
        ("example.env", "TOKEN=x"),
        ("b/.env", "# nothing\nTOKEN=\n"),
        ("tls/ca.pem", "-----BEGIN CERTIFICATE-----"),
        ("environment", "A=1"),
        ("c/.npmrc", "registry=https://r"),
        ("c/.docker/config.json", r#"{"auths": {}, "credsStore": "x"}"#),
        ("id_rsa.pub", "ssh-rsa x"),
        ("package.json", r#"{"name": "service_account"}"#),
        (".zen/.env", "A=1"),
        ("key_figures.txt", "42"),
        ("docs/credentials", "how to get some"),
        ("test_private_key.py", key),
    ] {
        write(dir.path(), path, content);
    }
    let mut spec = spec(dir.path());
    spec.extra_files = vec![extra("id_rsa", key)];
    let found = open(&spec).report(false, &Cancel::new()).unwrap().warnings;
    let mut paths: Vec<&str> = names(&found)
        .into_iter()
        .flat_map(|(code, paths)| {
            assert_eq!(code, "credentials");
            paths
        })
        .collect();
    paths.sort_unstable();
    let expected = [
        ".env",
        ".netrc",
        ".npmrc",
        ".pypirc",
        "a/.env.prod",
        "aws/credentials",
        "azure.json",
        "deploy/prod.env",
        "deploy_key",
        "home/.aws/credentials",
        "home/.docker/config.json",
        "home/.kube/config",
        "id_ed25519",
        "keys/any-name.json",
        "secrets/credentials",
        "tls/server.key",
        "x.p12",
    ];
    assert_eq!(paths, expected);
    let text: String = found.iter().map(ToString::to_string).collect();
    assert!(
        !text.contains("abc") && text.contains("`.env`, `a/.env.prod`, `deploy/prod.env` are in the build context")
    );
}

#[test]
fn looking_into_files_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let account = r#"{"type": "service_account", "private_key": "x"}"#;
    for number in 0..510 {
        write(dir.path(), &format!("{number:03}.json"), account);
    }
    // What a content can only confirm is not read when it is too large to be that.
    write(dir.path(), "large/000.json", format!("{account}{}", " ".repeat(20_000)));
    write(dir.path(), "tls/bundle.pem", format!("{}PRIVATE KEY-----", "x".repeat(70_000)));
    // Many of one kind do not hide another kind.
    write(dir.path(), "z/.env", "A=1");
    let found = warnings(dir.path());
    let [Warning::Credentials(found), Warning::Credentials(_)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (found.count, found.paths.as_slice()),
        (500, &["000.json", "001.json", "002.json"].map(String::from)[..])
    );
}

#[test]
fn what_an_image_does_not_need_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".git/HEAD", "ref");
    write(dir.path(), ".git/objects/x.key", "-----BEGIN PRIVATE KEY-----");
    write(dir.path(), ".venv/pyvenv.cfg", "home = /usr");
    write(dir.path(), ".venv/lib/.env", "A=1");
    write(dir.path(), "py311/bin/.env", "A=1");
    write(dir.path(), "py311/lib/x", vec![0; 500]);
    write(dir.path(), "py311/pyvenv.cfg", "home = /usr");
    write(dir.path(), "py311/share/.env", "A=1");
    write(dir.path(), "venv/module.py", "not an environment");
    write(dir.path(), "model.safetensors", "1");
    write(dir.path(), "small.pkl", "1");
    write(dir.path(), "large.pkl", vec![0; 5_000_000]);
    write(dir.path(), "__pycache__/x.pyc", "1");
    let outputs = format!(r#"{{"cells": [{{"outputs": ["{}"]}}]}}"#, "x".repeat(5_000_001));
    write(dir.path(), "large.ipynb", outputs);
    write(
        dir.path(),
        "long.ipynb",
        format!(r#"{{"cells": [{{"source": "{}", "outputs": []}}]}}"#, "x".repeat(5_000_001)),
    );
    let found = warnings(dir.path());
    assert_eq!(
        names(&found),
        [
            ("history", vec![".git"]),
            ("virtual-environment", vec![".venv", "py311"]),
            ("weights", vec!["large.pkl", "model.safetensors"]),
            ("notebook", vec!["large.ipynb"]),
        ]
    );
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "`.git` is in the build context and is the history of a repository (30 B)");
    assert_eq!(texts[1], "`.venv`, `py311` are in the build context and are virtual environments (531 B)");
}

#[test]
fn a_large_context_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::File::create(dir.path().join("data/big")).unwrap().set_len((50 << 20) + 1).unwrap();
    write(dir.path(), "a", "12");
    let warnings = warnings(dir.path());
    let [Warning::Large { bytes, files, ignored, largest }] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!((*bytes, *files, *ignored), ((50 << 20) + 3, 2, false));
    assert_eq!((largest[0].path.as_str(), largest.len()), ("data", 2));
    let text = warnings[0].to_string();
    assert!(text.contains("52.4 MB in 2 files, most of it in `data/` 52.4 MB, `a` 2 B"), "{text}");
}

#[test]
fn an_overview_names_what_is_largest() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/b/c", "12345");
    write(dir.path(), "d", "12");
    write(dir.path(), ".env", "A=1");
    let overview = open_dir(dir.path()).overview(&Cancel::new()).unwrap();
    let largest = overview.largest.unwrap();
    assert_eq!((largest.path.as_str(), largest.directory, largest.bytes), ("a", true, 5));
    assert_eq!((overview.warnings.len(), overview.summary.files), (1, 3));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(open_dir(empty.path()).overview(&Cancel::new()).unwrap().largest, None);
}

#[test]
fn looking_stops_when_it_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "1");
    let context = open_dir(dir.path());
    let cancel = Cancel::new();
    cancel.cancel();
    let errors = [
        context.report(false, &cancel).unwrap_err(),
        context.suggest(&cancel).unwrap_err(),
        context.list(Style::Names, &mut Vec::new(), &cancel).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| error.code() == "interrupted"));
}
