//! One layer on disk: everything that a tar stream can say, and what it may not do.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::oci::media::Compression;
use cooper::rootfs::{Fix, Fixes, Form, InView, Limits, Packed, View, unpack, unpack_in_view};

use crate::rootfs_support::{Header, Tar};
use crate::unpack_support::{OnDisk, assert_matches, try_unpack, unpacked, xattr};

fn with(kind: u8, name: &str, mode: u32, uid: u32, gid: u32) -> Header {
    let mut header = Header::new(kind, name, 0);
    header.put(100, format!("{mode:07o}\0").as_bytes());
    header.put(108, format!("{uid:07o}\0").as_bytes());
    header.put(116, format!("{gid:07o}\0").as_bytes());
    if kind == b'2' {
        header.put(157, b"target");
    }
    header
}

fn single(tar: Tar) -> OnDisk {
    unpacked(tar, &Form::Single)
}

/// What is said of a layer that is refused.
fn refused(tar: Tar) -> String {
    refused_by(tar, Limits::default())
}

fn refused_by(tar: Tar, limits: Limits) -> String {
    let error = try_unpack(&tar.end(), &Form::Single, limits).map(drop).unwrap_err();
    assert_eq!(error.code(), "image-invalid", "{error}");
    error.to_string()
}

#[test]
fn everything_is_there_as_it_was() {
    let layer = single(
        Tar::default()
            .dir("etc")
            .file("etc/passwd", "root:x:0:0\n")
            .link(b'2', "etc/link", "/nowhere")
            .link(b'1', "etc/passwd2", "etc/passwd")
            .header(with(b'6', "etc/pipe", 0o620, 0, 0), b"")
            .header(with(b'5', "etc/closed", 0o000, 0, 0), b"")
            .file("etc/closed/inside", "x")
            .header(with(b'5', "tmp", 0o1777, 0, 0), b"")
            .header(with(b'0', "etc/sudo", 0o4755, 0, 0), b"")
            .pax(&[("mtime", b"1700000000.123456789")])
            .dir("nano")
            .file("deep/er/and/deeper/file", "implied parents"),
    );
    assert_eq!(fs::metadata(layer.path("etc/passwd")).unwrap().nlink(), 2);
    assert_eq!((layer.done.files, layer.done.bytes), (5, 27));
    assert!(layer.done.fixes.is_empty() && layer.done.left_out.is_empty());
}

#[test]
fn later_entries_replace_earlier_ones() {
    single(Tar::default().file("a", "1").file("a", "2"));
    single(Tar::default().dir("a").file("a/b", "1").dir("a"));
    single(Tar::default().dir("a").file("a/b/c", "1").file("a", "a file where a directory was"));
    single(Tar::default().dir("a").file("a/b/c", "1").link(b'2', "a", "/etc").dir("z"));
    single(Tar::default().file("a", "1").dir("a").file("a/b", "a directory where a file was"));
    single(Tar::default().link(b'2', "a", "b").dir("a").file("a/b", "where a link was"));
    single(Tar::default().file("a", "1").link(b'1', "b", "a").file("a", "the link keeps the old content"));
    single(Tar::default().file("a", "1").file("b", "2").link(b'1', "b", "a").link(b'1', "b", "b"));
    single(Tar::default().dir("a").file("a/b", "kept by its new name").link(b'1', "a", "a/b"));
    single(Tar::default().header(with(b'5', "a", 0o000, 0, 0), b"").file("a/b", "1").file("a", "2"));
}

#[test]
fn whiteouts_may_come_in_any_order() {
    single(Tar::default().file("a/.wh.b", "").file(".wh.c", "").dir("d").file("d/.wh..wh..opq", "").file("d/e", ""));
    single(Tar::default().file("d/e", "").file("d/.wh..wh..opq", "").file(".wh.x", "").file("x/y", "made anew"));
    single(Tar::default().dir("x").file("x/y", "stays").file(".wh.x", ""));
    single(Tar::default().file("x", "stays").file(".wh.x", "").file("y/.wh..wh..opq", ""));
    single(Tar::default().file(".wh.x", "").link(b'2', "x", "y").file(".wh..wh.plnk", "").file(".wh..wh.aufs", ""));
    let layer = single(Tar::default().file(".wh..wh..opq", "").file("a", ""));
    assert!(layer.index().hides_all());
    assert!(!single(Tar::default().file("a", "")).index().hides_all());
}

#[test]
fn nothing_leaves_the_directory() {
    for name in ["../x", "a/../../x", "/../x"] {
        assert!(refused(Tar::default().file(name, "")).contains("leaves the root"), "{name}");
        assert!(refused(Tar::default().file("a", "").link(b'1', "b", name)).contains("leaves the root"), "{name}");
    }
    // Absolute paths begin at the layer's root.
    single(Tar::default().file("/etc/cooper-was-here", "x").file("//a//b/./c", "y"));
    assert!(!std::path::Path::new("/etc/cooper-was-here").exists());
    assert!(refused(Tar::default().link(b'1', "a", "/etc/passwd")).contains("nothing that comes before it"));
    assert!(refused(Tar::default().file("a", "").file("a/b", "")).contains("below a file"));
    assert!(refused(Tar::default().dir("a").link(b'1', "b", "a")).contains("no file"));
    assert!(refused(Tar::default().file("a", "").file("a/.wh.b", "")).contains("below a file"));
}

#[test]
fn no_link_is_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "untouched").unwrap();
    let target = outside.path().to_str().unwrap();
    let hostile = [
        Tar::default().link(b'2', "l", target).file("l/new", "x"),
        Tar::default().link(b'2', "l", target).dir("l/new").file("l/new/er", "x"),
        Tar::default().link(b'2', "l", target).file("l/kept", "x").link(b'1', "x", "l/kept"),
        Tar::default().link(b'2', "l", target).file("l/.wh.kept", "").file("l/.wh..wh..opq", ""),
        Tar::default().file("x", "y").link(b'2', "l", target).link(b'1', "l/x", "x"),
        Tar::default().link(b'2', "l", target).link(b'2', "l/m", "kept").file("l/m/z", ""),
        Tar::default().link(b'2', "l", "../../..").file("l/etc/x", "").header(with(b'6', "l/p", 0o666, 0, 0), b""),
        Tar::default().link(b'2', "l", target).file("l/a", "").dir("l").file("l/b", ""),
    ];
    for (number, tar) in hostile.into_iter().enumerate() {
        let layer = single(tar);
        assert!(layer.done.leads_elsewhere, "{number}");
        let names: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["kept"], "{number}");
        assert_eq!(fs::read_to_string(outside.path().join("kept")).unwrap(), "untouched", "{number}");
        assert_eq!(fs::metadata(outside.path().join("kept")).unwrap().nlink(), 1, "{number}");
        assert!(!layer.path(".wh..linking").exists());
    }
    // A link to a link is the link, not the file.
    let layer = single(Tar::default().link(b'2', "l", target).link(b'1', "hard", "l"));
    assert!(layer.path("hard").symlink_metadata().unwrap().is_symlink() && !layer.done.leads_elsewhere);
}

#[test]
fn attributes_of_ours_and_of_overlayfs_are_not_believed() {
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.cooper.owner", b"0:0"),
        ("SCHILY.xattr.user.kept", b"yes"),
    ];
    let layer = single(Tar::default().pax(records).header(with(b'5', "d", 0o755, 7, 8), b""));
    let path = layer.path("d");
    assert_eq!(xattr(&path, "user.overlay.opaque"), None);
    assert_eq!(xattr(&path, "user.overlay.redirect"), None);
    assert_eq!(xattr(&path, "user.cooper.owner").as_deref(), Some(&b"7:8"[..]));
    assert_eq!(xattr(&path, "user.kept").as_deref(), Some(&b"yes"[..]));
}

#[test]
fn owners_are_noted_or_left_for_later() {
    let capability: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = || {
        Tar::default()
            .header(with(b'0', "setuid", 0o4711, 0, 5), b"")
            .header(with(b'2', "link", 0o777, 3, 4), b"")
            .header(with(b'5', "dir", 0o2750, 1, 1), b"")
            .pax(&[("SCHILY.xattr.security.capability", capability)])
            .file("ping", "x")
            .file("plain", "")
    };
    let fix = |path: &str, owner, mode, capability: Option<&[u8]>| Fix {
        path: path.into(),
        owner,
        mode,
        capability: capability.map(Into::into),
    };
    let layer = unpacked(tar(), &Form::Subordinate { map: Digest::of(b"map") });
    let fixes = &layer.done.fixes;
    let expected = [
        fix("dir", Some((1, 1)), Some(0o2750), None),
        fix("link", Some((3, 4)), None, None),
        fix("ping", None, None, Some(capability)),
        fix("setuid", Some((0, 5)), Some(0o4711), None),
    ];
    assert_eq!(fixes.0, expected);
    assert_eq!(&Fixes::from_bytes(&fixes.to_bytes()).unwrap(), fixes);
    assert_eq!(xattr(&layer.path("setuid"), "user.cooper.owner"), None);

    let layer = single(tar());
    assert_eq!(layer.done.fixes.0, [fix("ping", None, None, Some(capability))]);
    assert_eq!(xattr(&layer.path("setuid"), "user.cooper.owner").as_deref(), Some(&b"0:5"[..]));
    assert_eq!(xattr(&layer.path("dir"), "user.cooper.owner").as_deref(), Some(&b"1:1"[..]));
    assert_eq!(xattr(&layer.path("plain"), "user.cooper.owner"), None);
}

#[test]
fn devices_are_left_out_and_told() {
    let tar = Tar::default()
        .header(with(b'3', "null", 0o666, 0, 0), b"")
        .header(with(b'4', "disk", 0o660, 0, 6), b"")
        .link(b'1', "null2", "null")
        .file("a", "");
    let layer = single(tar);
    assert_eq!(layer.done.left_out, ["`null` and 1 more: a device, which only root can make"]);
    assert!(!layer.path("null").exists() && !layer.path("null2").exists() && layer.path("a").exists());
}

#[test]
fn there_are_limits() {
    let limits = Limits { bytes: 4096, ..Limits::default() };
    assert!(refused_by(Tar::default().file("a", &"x".repeat(8192)), limits).contains("more than 4096 bytes"));
    let limits = Limits { entries: 5, ..Limits::default() };
    assert!(refused_by(Tar::default().file("a/b/c/d/e/f", ""), limits).contains("too many entries"));
    let long = vec!["n".repeat(250); 17].join("/");
    assert!(refused(Tar::default().pax(&[("path", long.as_bytes())]).file("x", "")).contains("too long"));
    let name = "n".repeat(255);
    single(Tar::default().pax(&[("path", name.as_bytes())]).file("x", "fits"));
    let name = "n".repeat(256);
    assert!(refused(Tar::default().pax(&[("path", name.as_bytes())]).file("x", "")).contains("too long"));
    let deep = vec!["d"; 2000].join("/");
    let tar = Tar::default().pax(&[("path", deep.as_bytes())]).file("x", "deep").file("y", "").end();
    let layer = try_unpack(&tar, &Form::Single, Limits::default()).unwrap();
    cooper_removes(&layer);
}

/// A tree that `rm -r` has trouble with.
fn cooper_removes(layer: &OnDisk) {
    let store = tempfile::tempdir().unwrap();
    let scratch = cooper::store::Store::open(&store.path().join("store")).unwrap().scratch().unwrap();
    let path = scratch.path().to_owned();
    fs::rename(layer.path(""), path.join("tree")).unwrap();
    drop(scratch);
    assert!(!path.exists());
}

#[test]
fn a_bomb_does_not_go_off() {
    // Half a gigabyte of zeros in Zstandard frames is some kilobytes; a layer may not be made of that.
    let zeros = vec![0; 64 << 20];
    let frame = zstd::encode_all(&zeros[..], 1).unwrap();
    let mut header = Header::new(b'0', "zeros", 2 << 30);
    let mut bomb = zstd::encode_all(&header.sign().0[..], 1).unwrap();
    for _ in 0..32 {
        bomb.extend_from_slice(&frame);
    }
    let dir = tempfile::tempdir().unwrap();
    let layer = Packed { blob: &bomb[..], compression: Compression::Zstd, diff_id: &Digest::of(b""), indexed: false };
    let error = unpack(layer, &Form::Single, dir.path(), Limits::default(), &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("more than 1100 times"), "{error}");
}

#[test]
fn another_archive_than_expected_is_refused() {
    let tar = Tar::default().file("a", "x").end();
    let dir = tempfile::tempdir().unwrap();
    let packed = zstd::encode_all(&tar[..], 1).unwrap();
    for (blob, diff_id, words) in
        [(&packed[..], Digest::of(b"another"), "should be"), (&packed[..packed.len() - 1], Digest::of(&tar), "cut off")]
    {
        let tree = dir.path().join(words);
        fs::create_dir(&tree).unwrap();
        let layer = Packed { blob, compression: Compression::Zstd, diff_id: &diff_id, indexed: false };
        let error = unpack(layer, &Form::Single, &tree, Limits::default(), &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), "image-invalid");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn it_can_be_cancelled() {
    let tar = Tar::default().file("a", "x").end();
    let cancel = Cancel::new();
    cancel.cancel();
    let dir = tempfile::tempdir().unwrap();
    let layer = Packed { blob: &tar[..], compression: Compression::None, diff_id: &Digest::of(&tar), indexed: true };
    let error = unpack(layer, &Form::Single, dir.path(), Limits::default(), &cancel).unwrap_err();
    assert_eq!(error.code(), "interrupted");
}

#[test]
fn root_gives_files_away() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT TESTED: files are given away by root only, and this is not root");
        return;
    }
    let tar = Tar::default()
        .header(with(b'0', "setuid", 0o4711, 12, 13), b"")
        .header(with(b'2', "link", 0o777, 3, 4), b"")
        .header(with(b'5', "dir", 0o2750, 1, 2), b"");
    let layer = unpacked(tar, &Form::Chroot);
    let owner = |name| layer.path(name).symlink_metadata().map(|found| (found.uid(), found.gid())).unwrap();
    assert_eq!([owner("setuid"), owner("link"), owner("dir")], [(12, 13), (3, 4), (1, 2)]);
    assert!(layer.done.fixes.is_empty());
    unpacked(Tar::default().dir("d").file("d/.wh..wh..opq", ""), &Form::Root);
}

/// The topmost of some layers, unpacked as they make it.
fn in_view(layers: &[Tar]) -> (OnDisk, bool) {
    let mut view = View::default();
    for tar in layers {
        view.push(Arc::new(tar.clone().index())).unwrap();
    }
    let number = layers.len() - 1;
    let tar = layers[number].clone().end();
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let place = InView { view: &view, number, spool: dir.path() };
    let packed = Packed { blob: &tar[..], compression: Compression::None, diff_id: &Digest::of(&tar), indexed: false };
    let done = unpack_in_view(place, packed, &Form::Single, &tree, Limits::default(), &Cancel::new()).unwrap();
    assert!(!done.leads_elsewhere);
    (OnDisk { dir, done }, view.variant(number).is_some())
}

#[test]
fn paths_through_links_of_lower_layers_end_where_these_lead() {
    let base = || Tar::default().dir("usr").dir("usr/bin").link(b'2', "bin", "usr/bin").link(b'2', "abs", "/usr");
    let top = Tar::default()
        .file("bin/sh", "shell")
        .link(b'1', "bin/bash", "bin/sh")
        .file("abs/bin/.wh.ls", "")
        .link(b'2', "own", "etc")
        .file("own/x", "y");
    let (layer, depends) = in_view(&[base(), top]);
    assert!(depends);
    assert_eq!(fs::read_to_string(layer.path("usr/bin/sh")).unwrap(), "shell");
    assert_eq!(fs::metadata(layer.path("usr/bin/bash")).unwrap().nlink(), 2);
    assert!(layer.path("usr/bin/ls").symlink_metadata().is_ok());
    assert_eq!(fs::read_to_string(layer.path("etc/x")).unwrap(), "y");
    assert!(!layer.path("bin").exists() && !layer.path("abs").exists());
}

#[test]
fn directories_that_are_only_named_are_as_below() {
    let base = Tar::default().header(with(b'5', "home", 0o2751, 7, 8), b"").dir("plain");
    let (layer, depends) = in_view(&[base.clone(), Tar::default().file("home/file", "x")]);
    assert!(depends);
    assert_eq!(fs::metadata(layer.path("home")).unwrap().mode() & 0o7777, 0o2751);
    assert_eq!(xattr(&layer.path("home"), "user.cooper.owner").as_deref(), Some(&b"7:8"[..]));
    let (_, depends) = in_view(&[base.clone(), Tar::default().file("plain/file", "x")]);
    assert!(!depends);
    let (_, depends) = in_view(&[base, Tar::default().dir("home").file("home/file", "x")]);
    assert!(!depends);
}

#[test]
fn both_ways_of_unpacking_agree() {
    let tars = [
        Tar::default().file("a", "1").link(b'1', "b", "a").file("a", "2").link(b'1', "c", "b"),
        Tar::default().dir("d").file("d/.wh.x", "").file("d/.wh..wh..opq", "").file("d/e", "").file(".wh.gone", ""),
        Tar::default().header(with(b'6', "p", 0o620, 1, 2), b"").header(with(b'5', "q", 0o000, 3, 4), b""),
        Tar::default().file(".wh.x", "").file("x/y", "z").file("empty", "").link(b'2', "l", "x"),
    ];
    for tar in tars {
        let alone = single(tar.clone());
        let (layer, depends) = in_view(&[tar]);
        assert!(!depends);
        assert_matches(&layer.path(""), alone.index());
    }
}
