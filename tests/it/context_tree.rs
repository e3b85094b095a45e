//! Contexts opened from real trees.

use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use cooper::cancel::Cancel;
use cooper::context::{Context, Kind, Notice};
use cooper::request::{ContextSpec, DockerfileSpec};

use crate::context_support::{as_ordinary_user, extra, open, open_dir, paths, spec, write};

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
    context.reader(&entry).unwrap().read_to_string(&mut text).unwrap();
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
fn a_dockerfile_in_the_context_is_below_its_root() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(outside.path(), "Dockerfile", "FROM scratch");
    symlink(outside.path().join("Dockerfile"), dir.path().join("Dockerfile")).unwrap();
    assert_eq!(open_dir(dir.path()).dockerfile().unwrap_err().code(), "context-path");
    for path in ["../Dockerfile", "/Dockerfile"] {
        let dockerfile = DockerfileSpec::InContext(path.into());
        let error = Context::open(&spec(dir.path()), &dockerfile, &Cancel::new()).unwrap_err();
        assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    }
    let context = open(&ContextSpec::default());
    assert_eq!(context.dockerfile().unwrap_err().code(), "dockerfile-missing");
    // Outside of the root it is given by its path on this machine.
    let dockerfile = DockerfileSpec::Path(outside.path().join("Dockerfile"));
    let text = Context::open(&spec(dir.path()), &dockerfile, &Cancel::new()).unwrap().dockerfile().unwrap();
    assert_eq!((&text.text[..], text.path_in_context), (&b"FROM scratch"[..], None));
}

#[test]
fn names_are_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
    fs::write(dir.path().join(name), "x").unwrap();
    fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o4751)).unwrap();
    let context = open_dir(dir.path());
    assert_eq!(context.entries().next().unwrap().path, b"caf\xe9");
    assert_eq!(context.entries().next().unwrap().mode, 0o4751);
}

#[test]
fn what_cannot_be_read_is_an_error_unless_it_is_excluded() {
    as_ordinary_user("context_tree::what_cannot_be_read_is_an_error_unless_it_is_excluded", || {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "closed/inner", "x");
        write(dir.path(), "open", "x");
        let close = |path: &str, mode| {
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        close("closed", 0o000);
        let refused = Context::open(&spec(dir.path()), &DockerfileSpec::default(), &Cancel::new()).unwrap_err();
        assert_eq!(refused.code(), "context-read");
        assert!(refused.to_string().contains("/closed`"), "{refused}");
        // Excluded: pruned, or looked into for what an exception could take back.
        for patterns in ["closed", "*\n!**/*.py"] {
            write(dir.path(), ".dockerignore", patterns);
            assert!(!paths(&open_dir(dir.path())).contains(&"closed".to_owned()));
        }
        fs::remove_file(dir.path().join(".dockerignore")).unwrap();
        close("closed", 0o755);
        close("open", 0o000);
        let context = open_dir(dir.path());
        let error = context.reader(&context.find(b"open").unwrap()).unwrap_err();
        assert_eq!(error.code(), "context-read");
        for format in cooper::context::Format::ALL {
            let error = context.pack(format, &mut std::io::sink(), &Cancel::new()).unwrap_err();
            assert!(error.code() == "context-read" && error.to_string().contains("/open`"), "{error}");
        }
        assert_eq!(context.digest(None, &Cancel::new()).unwrap_err().code(), "context-read");
        close("open", 0o644);
    });
}

#[test]
fn a_root_that_is_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "file", "");
    for path in ["missing", "file"] {
        let refused = Context::open(&spec(&dir.path().join(path)), &DockerfileSpec::default(), &Cancel::new());
        assert_eq!(refused.unwrap_err().code(), "context-root", "{path}");
    }
    // The root itself may be a link.
    symlink(".", dir.path().join("link")).unwrap();
    assert_eq!(paths(&open_dir(&dir.path().join("link"))), ["file", "link"]);
    // And there may be none.
    let only = ContextSpec { extra_files: vec![extra("Dockerfile", "FROM scratch")], ..ContextSpec::default() };
    let context = open(&only);
    assert_eq!(paths(&context), ["Dockerfile"]);
    assert_eq!(context.dockerfile().unwrap().path_in_context.as_deref(), Some("Dockerfile"));
}

#[test]
fn sockets_are_left_out_with_a_notice() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "hidden.sock\n");
    let _seen = std::os::unix::net::UnixListener::bind(dir.path().join("app.sock")).unwrap();
    let _hidden = std::os::unix::net::UnixListener::bind(dir.path().join("hidden.sock")).unwrap();
    let context = open_dir(dir.path());
    assert_eq!(paths(&context), [".dockerignore"]);
    assert_eq!(context.notices(), [Notice::SocketSkipped { path: "app.sock".into() }]);
}

#[test]
fn the_first_name_in_the_context_of_a_hard_linked_file_is_the_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "12345");
    for name in ["b", "c", "d"] {
        fs::hard_link(dir.path().join("a"), dir.path().join(name)).unwrap();
    }
    write(dir.path(), ".dockerignore", ".dockerignore\na\n");
    let mut spec = spec(dir.path());
    spec.extra_files = vec![extra("c", "other")];
    let context = open(&spec);
    assert_eq!(paths(&context), ["b", "c", "d"]);
    let kinds: Vec<Kind> = context.entries().map(|entry| entry.kind).collect();
    let link = Kind::Hardlink { first: b"b".to_vec(), size: 5 };
    assert_eq!(kinds, [Kind::File { size: 5 }, Kind::File { size: 5 }, link]);
    assert_eq!((context.summary().files, context.summary().bytes), (3, 10));
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(outside.path(), "sub/outside", "secret");
    let root = dir.path();
    for number in 0..20 {
        write(root, &format!("d/sub/inside{number}"), "");
    }
    symlink(outside.path(), root.join("link")).unwrap();
    let stop = Cancel::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.is_cancelled() {
                fs::rename(root.join("d"), root.join("real")).unwrap();
                fs::rename(root.join("link"), root.join("d")).unwrap();
                fs::rename(root.join("d"), root.join("link")).unwrap();
                fs::rename(root.join("real"), root.join("d")).unwrap();
            }
        });
        for _ in 0..300 {
            let context = open_dir(root);
            let leaked = paths(&context).into_iter().find(|path| path.contains("outside"));
            if let Some(path) = leaked {
                stop.cancel();
                panic!("{path} is not below the root");
            }
        }
        stop.cancel();
    });
}

#[test]
fn a_deep_and_a_wide_tree_are_walked() {
    let dir = tempfile::tempdir().unwrap();
    // Deeper than any path may be long, made step by step.
    let mut at = rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..40 {
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&at, "leaf", flags, rustix::fs::Mode::RUSR).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    for number in 0..2000 {
        fs::create_dir_all(dir.path().join(format!("wide/{number}/x"))).unwrap();
    }
    let context = open_dir(dir.path());
    assert_eq!(context.summary().dirs, 40 + 1 + 4000);
    let leaf = context.entries().find(|entry| entry.name() == b"leaf").unwrap();
    assert_eq!(leaf.path.len(), 40 * 201 + 4);
    let mut text = String::new();
    context.reader(&leaf).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "deep");
}
