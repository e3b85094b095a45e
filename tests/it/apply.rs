//! File systems written to directories: what is in the view and nothing else, whatever the layers and the directory hold.

use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::layer::apply::{Applied, apply};
use cooper::rootfs::{LayerIndex, View};
use rustix::process::{getegid, geteuid};
use tar::{Builder, EntryType, Header};

/// A layer's archive in the making.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, path: &str, kind: EntryType, mode: u32, link: &str, content: &str) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(geteuid().as_raw().into());
        header.set_gid(getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(path, EntryType::Regular, 0o640, "", content)
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.add(path, EntryType::Directory, mode, "", "")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.add(path, EntryType::Symlink, 0o777, target, "")
    }

    fn hard(self, path: &str, first: &str) -> Self {
        self.add(path, EntryType::Link, 0o640, first, "")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn view(layers: &[Vec<u8>]) -> View {
    let mut view = View::default();
    for layer in layers {
        view.push(Arc::new(LayerIndex::read(&layer[..], &Cancel::new()).unwrap())).unwrap();
    }
    view
}

fn write(layers: &[Vec<u8>], destination: &Path) -> Result<Applied, Error> {
    let spool = tempfile::tempdir().unwrap();
    let mut open =
        |number: usize| -> Result<Box<dyn Read + Send>, Error> { Ok(Box::new(Cursor::new(layers[number].clone()))) };
    apply(&view(layers), &mut open, destination, spool.path(), &Cancel::new())
}

/// Every path below a folder, with its content, or the target of a link.
fn tree(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(folder_now) = left.pop() {
        for entry in fs::read_dir(folder_now).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let what = if kind.is_dir() {
                left.push(path.clone());
                "/".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                fs::read_to_string(&path).unwrap()
            };
            found.push((path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned(), what));
        }
    }
    found.sort();
    found
}

fn texts(tree: &[(String, String)]) -> Vec<(&str, &str)> {
    tree.iter().map(|(path, what)| (path.as_str(), what.as_str())).collect()
}

#[test]
fn layers_become_the_files_that_a_container_would_see() {
    let lower = Layer::new()
        .dir("d", 0o755)
        .file("d/gone", "1")
        .file("d/kept", "2")
        .dir("o", 0o700)
        .file("o/hidden", "3")
        .file("old", "4")
        .bytes();
    let upper = Layer::new()
        .file("d/.wh.gone", "")
        .dir("o", 0o1777)
        .file("o/.wh..wh..opq", "")
        .file("o/new", "5")
        .file("old", "six")
        .hard("o/same", "old")
        .link("link", "d/kept")
        .add("run", EntryType::Regular, 0o4755, "", "#!")
        .bytes();
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("a/b/out");
    let applied = write(&[lower, upper], &destination).unwrap();
    assert_eq!(applied, Applied { files: 5, bytes: 1 + 1 + 3 + 2, left_out: Vec::new() });
    let expected = [
        ("d", "/"),
        ("d/kept", "2"),
        ("link", "-> d/kept"),
        ("o", "/"),
        ("o/new", "5"),
        ("o/same", "six"),
        ("old", "six"),
        ("run", "#!"),
    ];
    assert_eq!(texts(&tree(&destination)), expected);
    let stat = |path: &str| fs::symlink_metadata(destination.join(path)).unwrap();
    assert_eq!(stat("old").ino(), stat("o/same").ino());
    let modes = ["d", "o", "old", "run"].map(|path| stat(path).mode() & 0o7777);
    assert_eq!(modes, [0o755, 0o1777, 0o640, 0o4755]);
    for (path, _) in expected {
        assert_eq!(stat(path).mtime(), 1_000_000_000, "{path}");
    }
    assert_eq!(fs::read_dir(folder.path().join("a/b")).unwrap().count(), 1, "something stayed beside");
}

#[test]
fn directories_that_nobody_may_write_to_are_filled_all_the_same() {
    let layer = Layer::new().dir("d", 0o555).dir("d/e", 0o500).file("d/e/f", "x").bytes();
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("out");
    write(&[layer], &destination).unwrap();
    assert_eq!(fs::read_to_string(destination.join("d/e/f")).unwrap(), "x");
    assert_eq!(fs::metadata(destination.join("d")).unwrap().mode() & 0o7777, 0o555);
    fs::set_permissions(destination.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(destination.join("d/e"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_is_there_stays_or_is_replaced_and_links_are_not_followed() {
    let layer = Layer::new()
        .dir("lib", 0o755)
        .file("lib/x", "new")
        .file("tofile", "new")
        .dir("todir", 0o755)
        .file("deep", "new")
        .link("same", "new")
        .bytes();
    let folder = tempfile::tempdir().unwrap();
    let (outside, destination) = (folder.path().join("outside"), folder.path().join("out"));
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    fs::create_dir_all(destination.join("deep/a/b")).unwrap();
    symlink(&outside, destination.join("deep/a/away")).unwrap();
    fs::write(destination.join("mine"), "mine").unwrap();
    fs::write(destination.join("todir"), "a file").unwrap();
    symlink(&outside, destination.join("lib")).unwrap();
    symlink(outside.join("file"), destination.join("tofile")).unwrap();
    symlink("elsewhere", destination.join("same")).unwrap();
    let layers = [layer];
    write(&layers, &destination).unwrap();
    let expected = [
        ("deep", "new"),
        ("lib", "/"),
        ("lib/x", "new"),
        ("mine", "mine"),
        ("same", "-> new"),
        ("todir", "/"),
        ("tofile", "new"),
    ];
    assert_eq!(texts(&tree(&destination)), expected);
    assert_eq!(texts(&tree(&outside)), [("file", "untouched")]);
    // Again, over what was written: nothing changes.
    write(&layers, &destination).unwrap();
    assert_eq!(texts(&tree(&destination)), expected);
    // The user has named a link: that one is followed.
    symlink(&destination, folder.path().join("named")).unwrap();
    write(&[Layer::new().file("more", "").bytes()], &folder.path().join("named")).unwrap();
    assert!(destination.join("more").exists());
}

#[test]
fn hostile_layers_stay_inside() {
    let folder = tempfile::tempdir().unwrap();
    let (outside, destination) = (folder.path().join("outside"), folder.path().join("out"));
    fs::create_dir(&outside).unwrap();
    let absolute = outside.to_str().unwrap();
    let layers = [
        Layer::new().link("abs", absolute).link("up", "../outside").link("root", "/").bytes(),
        Layer::new().file("abs/evil", "1").file("up/evil", "2").file("root/etc", "3").bytes(),
    ];
    write(&layers, &destination).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(destination.join("etc")).unwrap(), "3");
    assert_eq!(fs::read_to_string(destination.join("outside/evil")).unwrap(), "2");
    assert_eq!(fs::read_link(destination.join("abs")).unwrap(), outside);
}

#[test]
fn devices_are_made_or_told_of() {
    let layer =
        Layer::new().add("null", EntryType::Char, 0o666, "", "").add("fifo", EntryType::Fifo, 0o622, "", "").bytes();
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("out");
    let applied = write(&[layer], &destination).unwrap();
    let fifo = fs::metadata(destination.join("fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!((fifo.mode() & 0o7777, fifo.mtime()), (0o622, 1_000_000_000));
    match fs::metadata(destination.join("null")) {
        Ok(null) => {
            assert!(null.file_type().is_char_device() && applied.left_out.is_empty());
            assert_eq!((rustix::fs::major(null.rdev()), rustix::fs::minor(null.rdev())), (1, 3));
        }
        Err(_) => assert!(applied.left_out[0].contains("`null`"), "{applied:?}"),
    }
}

#[test]
fn a_new_directory_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let destination = folder.path().join("out");
    let layers = [Layer::new().file("a", "1").bytes(), Layer::new().dir("d", 0o500).file("d/b", "2").bytes()];
    let spool = tempfile::tempdir().unwrap();
    let cancel = Cancel::new();
    let mut broken = |number: usize| -> Result<Box<dyn Read + Send>, Error> {
        if number == 0 { Ok(Box::new(Cursor::new(layers[0].clone()))) } else { Err(Error::internal("gone")) }
    };
    let error = apply(&view(&layers), &mut broken, &destination, spool.path(), &cancel).unwrap_err();
    assert_eq!(error.code(), "internal");
    let mut cancelling = |number: usize| -> Result<Box<dyn Read + Send>, Error> {
        cancel.cancel();
        Ok(Box::new(Cursor::new(layers[number].clone())))
    };
    let error = apply(&view(&layers), &mut cancelling, &destination, spool.path(), &cancel).unwrap_err();
    assert_eq!(error.code(), "interrupted");
    // A layer with another content than its index says.
    let mut other = |_: usize| -> Result<Box<dyn Read + Send>, Error> {
        Ok(Box::new(Cursor::new(Layer::new().file("a", "x").file("d/b", "y").bytes())))
    };
    let error = apply(&view(&layers), &mut other, &destination, spool.path(), &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "image-invalid");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    fs::write(&destination, "a file").unwrap();
    let error = write(&layers, &destination).unwrap_err();
    assert_eq!(error.code(), "output-failed");
}
