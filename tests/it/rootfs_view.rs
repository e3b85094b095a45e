//! Layers over each other.

use std::sync::Arc;

use cooper::rootfs::{IndexEntry, LayerIndex, View};

use crate::rootfs_support::{Tar, dir, file, symlink};

fn view(layers: &[&[(&str, IndexEntry)]]) -> View {
    let mut view = View::default();
    for layer in layers {
        let entries = layer.iter().map(|(path, entry)| (path.as_bytes().to_vec(), entry.clone())).collect();
        view.push(Arc::new(LayerIndex::new(entries))).unwrap();
    }
    view
}

fn paths(view: &View) -> Vec<String> {
    view.walk(b"").map(|found| String::from_utf8(found.path).unwrap()).collect()
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below() {
    let base =
        [("a", dir()), ("a/1", file("1")), ("a/2", file("2")), ("b", dir()), ("b/1", file("1")), ("c", file("c"))];
    let upper = [
        ("a/1", IndexEntry::Whiteout),
        ("b", dir()),
        ("b", IndexEntry::Opaque),
        ("b/2", file("2")),
        ("c", IndexEntry::Whiteout),
        ("d", dir()),
    ];
    let view = view(&[&base, &upper]);
    assert_eq!(paths(&view), ["a", "a/2", "b", "b/2", "d"]);
    assert!(view.find(b"c").is_none());
    assert_eq!(view.find(b"a").unwrap().layer, 0);
    assert_eq!(view.find(b"b/2").unwrap().layer, 1);
}

#[test]
fn paths_through_a_link_of_a_lower_layer_go_where_it_leads() {
    let base = [("usr", dir()), ("usr/bin", dir()), ("usr/bin/sh", file("old")), ("bin", symlink("usr/bin"))];
    let upper = [("bin/sh", file("new")), ("bin/env", file("env"))];
    let view = view(&[&base, &upper]);
    assert_eq!(paths(&view), ["bin", "usr", "usr/bin", "usr/bin/env", "usr/bin/sh"]);
    let found = view.find(b"usr/bin/sh").unwrap();
    assert_eq!((found.layer, found.content_path.as_slice()), (1, &b"bin/sh"[..]));
    assert!(view.find(b"bin/sh").is_none());
    assert_eq!(view.resolve(b"/bin/sh").unwrap(), b"usr/bin/sh");
    // Of layers that are given, nothing changes.
    assert!(view.layers()[1].find(b"bin/sh").is_some());
}

#[test]
fn a_directory_of_the_layer_replaces_a_link() {
    let base = [("usr/bin/sh", file("old")), ("bin", symlink("usr/bin"))];
    let view = view(&[&base, &[("bin", dir()), ("bin/sh", file("new"))]]);
    assert_eq!(paths(&view), ["bin", "bin/sh", "usr", "usr/bin", "usr/bin/sh"]);
}

#[test]
fn directories_that_are_only_implied_are_those_of_lower_layers() {
    let base = [("a", file("")), ("b/c", file("")), ("d", dir())];
    let view = view(&[&base, &[("a/x", file("")), ("b/x", file("")), ("d/x", file(""))]]);
    assert_eq!(paths(&view), ["a", "a/x", "b", "b/c", "b/x", "d", "d/x"]);
    let implied = cooper::rootfs::Node::directory(0o755);
    assert_eq!(view.find(b"a").unwrap().node, implied);
    assert_eq!(view.find(b"b").unwrap().node, implied);
    assert_ne!(view.find(b"d").unwrap().node, implied);
    assert_eq!(view.find(b"").unwrap().node, implied);
}

#[test]
fn the_root_of_no_layers_is_empty() {
    let view = View::default();
    assert!(view.find(b"").unwrap().node.is_dir());
    assert!(view.children(b"").is_empty());
    assert_eq!(view.walk(b"").count(), 0);
    assert_eq!(view.resolve(b"/a/../b/").unwrap(), b"b");
    assert_eq!(view.user("root").unwrap(), None);
}

#[test]
fn resolving_stays_in_the_root() {
    let layer = [
        ("a", dir()),
        ("a/up", symlink("../../../..")),
        ("a/abs", symlink("/b/./c")),
        ("a/rel", symlink("abs/../d")),
        ("b", symlink("real")),
        ("loop", symlink("pool")),
        ("pool", symlink("loop")),
        ("file", file("")),
    ];
    let view = view(&[&layer]);
    for (path, expected) in [
        ("a/up", ""),
        ("a/up/a", "a"),
        ("a/abs", "real/c"),
        ("a/rel", "real/d"),
        ("b", "real"),
        ("/b/x/y", "real/x/y"),
        ("../../b", "real"),
        ("file/x", "file/x"),
        ("", ""),
    ] {
        assert_eq!(view.resolve(path.as_bytes()).unwrap(), expected.as_bytes(), "{path}");
    }
    assert_eq!(view.resolve_parent(b"b/b").unwrap(), b"real/b");
    assert_eq!(view.resolve_parent(b"b").unwrap(), b"b");
    assert_eq!(view.resolve_parent(b"a/rel/..").unwrap(), b"real");
    assert_eq!(view.resolve(b"a/../loop/x").unwrap_err().code(), "image-invalid");
    let mut looped = view.clone();
    let through = LayerIndex::new(vec![(b"loop/x".to_vec(), file(""))]);
    assert_eq!(looped.push(Arc::new(through)).unwrap_err().code(), "image-invalid");
    assert_eq!((looped.layers().len(), paths(&looped)), (1, paths(&view)));
    // As many links as are allowed, and one more.
    let chain: Vec<_> = (0..256).map(|number| (format!("l{number}"), symlink(&format!("l{}", number + 1)))).collect();
    let chain: Vec<_> = chain.iter().map(|(path, entry)| (path.as_str(), entry.clone())).collect();
    let view = self::view(&[&chain]);
    assert_eq!(view.resolve(b"l1").unwrap(), b"l256");
    assert!(view.resolve(b"l0").is_err());
}

#[test]
fn hard_links_name_the_layer_and_the_first_name() {
    let base = Tar::default().file("a", "text").link(b'1', "b", "a").index();
    let mut view = View::default();
    view.push(Arc::new(base)).unwrap();
    view.push(Arc::new(LayerIndex::new(vec![(b"a".to_vec(), IndexEntry::Whiteout)]))).unwrap();
    let found = view.find(b"b").unwrap();
    assert_eq!((found.layer, found.content_path.as_slice()), (0, &b"a"[..]));
    assert!(view.find(b"a").is_none());
}

const PASSWD: &str = "\n  root:x:0:0:root:/root:/bin/sh \nbroken\nann:x:1000:100::/:\nann:x:7:7::/:\nbob:x:what:5\n\
                      1234:x:9:9::/:\nno:x:-1:0\nfive:x:1234:5";
const GROUP: &str = "root:x:0:\n#out:x:3:\nstaff:x:50:ann,bob\nstaff:x:51:\n77:x:8:\nshort";

fn users(links: bool) -> View {
    let tar = Tar::default();
    let tar = if links {
        tar.file("usr/lib/passwd", PASSWD).file("srv/group", GROUP).link(b'2', "etc", "usr/etc").link(
            b'2',
            "usr/etc/passwd",
            "../lib/passwd",
        )
    } else {
        tar.file("etc/passwd", PASSWD)
    };
    let tar = if links { tar.link(b'2', "usr/etc/group", "/srv/group") } else { tar.file("etc/group", GROUP) };
    let mut view = View::default();
    view.push(Arc::new(tar.index())).unwrap();
    view
}

#[test]
fn users_and_groups_have_numbers() {
    for links in [false, true] {
        let view = users(links);
        for (name, expected) in [
            ("root", Some((0, 0))),
            ("ann", Some((1000, 100))),
            ("bob", Some((0, 5))),
            ("broken", Some((0, 0))),
            ("none", None),
            ("no", None),
            ("", None),
            // A number is never a name, and need not be in the file.
            ("1234", Some((1234, 5))),
            ("1000", Some((1000, 100))),
            ("+1000", Some((1000, 100))),
            ("4321", Some((4321, 0))),
            ("2147483647", Some((2_147_483_647, 0))),
            ("2147483648", None),
            ("99999999999999999999999", None),
            ("-1", None),
        ] {
            assert_eq!(view.user(name).unwrap(), expected, "{name}");
        }
        for (name, expected) in [
            ("root", Some(0)),
            ("staff", Some(50)),
            ("#out", None),
            ("out", None),
            ("77", Some(77)),
            ("short", Some(0)),
            ("none", None),
            ("2147483648", None),
        ] {
            assert_eq!(view.group(name).unwrap(), expected, "{name}");
        }
    }
}

#[test]
fn who_runs_a_command() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:5:6:Ann:/home/ann:/bin/sh\nbob:x:7:8\n";
    let groups = "root:x:0:root\nstaff:x:50:ann,bob\nadm:x:4:ann\n#out:x:9:ann\nlone:x:8:\n";
    let mut view = View::default();
    view.push(Arc::new(Tar::default().dir("etc").file("etc/passwd", passwd).file("etc/group", groups).index()))
        .unwrap();
    let run = |text: &str| {
        let user = view.exec_user(text).unwrap()?;
        Some((user.uid, user.gid, user.groups, user.home))
    };
    let root = Some((0, 0, vec![0], "/root".to_owned()));
    assert_eq!((run(""), run("0"), run("root")), (root.clone(), root.clone(), root));
    let ann = Some((5, 6, vec![50, 4], "/home/ann".to_owned()));
    assert_eq!((run("ann"), run("5")), (ann.clone(), ann));
    assert_eq!(run("ann:staff"), Some((5, 50, vec![], "/home/ann".to_owned())));
    assert_eq!(run("ann:77"), Some((5, 77, vec![], "/home/ann".to_owned())));
    assert_eq!(run(":4"), Some((0, 4, vec![], "/root".to_owned())));
    assert_eq!(run("bob"), Some((7, 8, vec![50], "/".to_owned())));
    assert_eq!(run("1000"), Some((1000, 0, vec![], "/".to_owned())));
    assert_eq!(run("1000:1001"), Some((1000, 1001, vec![], "/".to_owned())));
    assert_eq!((run("eve"), run("ann:eve"), run("99999999999")), (None, None, None));
    // No file of users at all: root is known anyway.
    assert_eq!(View::default().exec_user("").unwrap().unwrap().home, "/");
    assert_eq!(View::default().exec_user("root").unwrap(), None);
}

#[test]
fn the_topmost_file_of_users_counts() {
    let mut view = users(false);
    view.push(Arc::new(Tar::default().file("etc/passwd", "eve:x:5:6").index())).unwrap();
    assert_eq!((view.user("eve").unwrap(), view.user("ann").unwrap()), (Some((5, 6)), None));
    view.push(Arc::new(Tar::default().file("etc/.wh.passwd", "").index())).unwrap();
    assert_eq!((view.user("eve").unwrap(), view.user("12").unwrap()), (None, Some((12, 0))));
    // It is there, and nobody kept it.
    view.push(Arc::new(LayerIndex::new(vec![(b"etc/passwd".to_vec(), file("x"))]))).unwrap();
    assert_eq!(view.user("eve").unwrap_err().code(), "image-invalid");
}

#[test]
fn damaged_indexes_are_refused() {
    let index = Tar::default().dir("a").file("a/b", "1").link(b'1', "c", "a/b").link(b'2', "d", "c").index();
    let bytes = index.to_bytes();
    assert_eq!(LayerIndex::from_bytes(&bytes).unwrap(), index);
    for at in 0..bytes.len() {
        assert_eq!(LayerIndex::from_bytes(&bytes[..at]).unwrap_err().code(), "image-invalid", "{at}");
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        // A few bits of a frame's header mean nothing.
        match LayerIndex::from_bytes(&damaged) {
            Ok(same) => assert_eq!(same, index, "{at}"),
            Err(error) => assert_eq!(error.code(), "image-invalid", "{at}"),
        }
    }
    assert!(LayerIndex::from_bytes(&[&bytes[..], b"more"].concat()).is_err());
}
