//! The part of a cache key that says what is copied: it changes with all that the image depends on, and with nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::context::{Context, Index};
use cooper::digest::Digest;
use cooper::engine::native::copy::{ContextFiles, Failure, Files, Selection, ViewFiles, needs_base, place, select};
use cooper::layer::{Content, LayerEntry, LayerKind};
use cooper::mtime::Mtime;
use cooper::rootfs::{IndexEntry, LayerIndex, Node, NodeKind, View, Xattrs};

use crate::context_support::{open_dir, write};
use crate::copy_support::{Memory, copy_step};

fn selection(instruction: &str, origin: &dyn Files) -> Selection {
    select(&copy_step(instruction), origin, &BTreeMap::new(), &Cancel::new())
        .unwrap_or_else(|failure| panic!("{instruction}: {failure:?}"))
}

fn digest(instruction: &str, origin: &str) -> Digest {
    selection(instruction, &Memory::new(origin)).digest(None, &Cancel::new()).unwrap()
}

#[test]
fn whatever_comes_into_the_image_changes_the_digest() {
    // Each list differs from the first in one thing that a key once missed somewhere (PITFALLS of kaniko and others): names,
    // parts that run into each other, kinds, nested directories, modes, owners, targets.
    let lists = [
        "d/a = 1\nd/b = 2",
        "d/a = 1\nd/c = 2",
        "d/ab = 12",
        "d/a = 2\nd/b = 1",
        "d/a = 1\nd/b = 2\nd/c/",
        "d/a = 1\nd/c/b = 2",
        "d/a/b = 12",
        "d/a = 12\nd/b = 2",
        "d/a = 1 0600\nd/b = 2",
        "d/a = 1 0644 1:0\nd/b = 2",
        "d/a = 1 0644 0:1\nd/b = 2",
        "d/a = 1\nd/b -> 2",
        "d/a = 1\nd/b -> 3",
        "d/a = 1\nd/b/",
        "d/a = 1\nd/b |",
        "d/a = 1",
    ];
    let digests: BTreeSet<Digest> = lists.iter().map(|list| digest("COPY d /x", list)).collect();
    assert_eq!(digests.len(), lists.len());
    let extended = |value: &[u8]| {
        let mut files = Memory::new("d/a = 1");
        let xattrs = Xattrs::from([(b"user.a".to_vec(), value.to_vec())]);
        files.0.get_mut(&b"d/a"[..]).unwrap().xattrs = xattrs;
        selection("COPY d /x", &files).digest(None, &Cancel::new()).unwrap()
    };
    assert_ne!(extended(b"1"), extended(b"2"));
    assert_ne!(extended(b"1"), digest("COPY d /x", "d/a = 1"));
}

#[test]
fn names_of_sources_count_where_they_come_into_the_image() {
    // testWildcardRenameCache: a renamed match is another file; a directory's own name and attributes go nowhere.
    assert_ne!(digest("COPY *.py /x/", "a.py = 1"), digest("COPY *.py /x/", "b.py = 1"));
    assert_eq!(digest("COPY d* /x/", "d1/ 0700\nd1/a = 1"), digest("COPY d* /x/", "d2/a = 1"));
    assert_ne!(digest("COPY d* /x/", "d1/a = 1\nd2/b = 2"), digest("COPY d* /x/", "d1/a = 1\nd1/b = 2"));
    assert_ne!(digest("COPY <<a /x/\n1\na", ""), digest("COPY <<a /x/\n2\na", ""));
}

#[test]
fn what_does_not_come_into_the_image_does_not_count() {
    let first = digest("COPY --exclude=*.log d /x", "d/a = 1\nd/b.log = 2\ne = 3");
    assert_eq!(first, digest("COPY --exclude=*.log d /x", "d/a = 1\nd/c.log = 4"));
    assert_eq!(digest("COPY --chown=1 d /x", "d/a = 1 0644 5:6"), digest("COPY --chown=1 d /x", "d/a = 1"));
    // Which files are one file is not part of it, nor when they were written.
    let mut later = Memory::new("d/a = 1\nd/b == d/a");
    later.0.values_mut().for_each(|item| item.mtime = Mtime::FIXED);
    let later = selection("COPY d /x", &later).digest(None, &Cancel::new()).unwrap();
    assert_eq!(later, digest("COPY d /x", "d/a = 1\nd/b = 1"));
}

#[test]
fn files_of_a_context_are_read_once() {
    let (root, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..300 {
        write(root.path(), &format!("src/{}/{number}.py", number % 7), format!("value = {number}\n"));
    }
    write(root.path(), "README.md", "read me");
    std::thread::sleep(std::time::Duration::from_millis(150));
    let index = Index::at(cache.path());
    let open = || ContextFiles::new(Arc::new(open_dir(root.path())), "the build context");
    let of = |instruction: &str, index: Option<&Index>| selection(instruction, &open()).digest(index, &Cancel::new());
    let first = of("COPY src /x", Some(&index)).unwrap();
    // A file that cannot be read any more is not missed, as long as the index knows it.
    let (path, away) = (root.path().join("src/0/0.py"), cache.path().join("away"));
    let context = Arc::new(open_dir(root.path()));
    let mut taken = selection("COPY src /x", &ContextFiles::new(Arc::clone(&context), "the build context"));
    fs::rename(&path, &away).unwrap();
    let mut again = taken.clone();
    assert_eq!(taken.digest(Some(&index), &Cancel::new()).unwrap(), first);
    assert!(
        matches!(again.digest(None, &Cancel::new()), Err(Failure::Other(error)) if error.code() == "context-changed")
    );
    // What was found out once is kept, for the layer too.
    assert_eq!(taken.digest(None, &Cancel::new()).unwrap(), first);
    let step = copy_step("COPY src /x");
    let entries = place(&step, &taken, &Memory::default(), None, None, &Cancel::new()).unwrap();
    let known = |entry: &LayerEntry| !matches!(entry.kind, LayerKind::File { digest: None, .. });
    assert!(entries.len() > 300 && entries.iter().all(known));
    fs::rename(&away, &path).unwrap();
    assert_eq!(of("COPY src /x", None).unwrap(), first);
    // The whole context's digest knows the same files, and forgets none of them.
    assert_eq!(open_dir(root.path()).digest(Some(&index), &Cancel::new()).unwrap().hashed_files, 2);
    fs::set_permissions(root.path().join("src/1"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_ne!(of("COPY src /x", Some(&index)).unwrap(), first);
}

#[test]
fn digests_of_files_come_in_the_order_that_they_are_asked_for() {
    let root = tempfile::tempdir().unwrap();
    for name in ["b/x", "b.txt", "a"] {
        write(root.path(), name, name);
    }
    let context: Context = open_dir(root.path());
    let names = ["b.txt", "a", "b/x", "a"];
    let ids: Vec<_> = names.iter().map(|name| context.find(name.as_bytes()).unwrap().id()).collect();
    let found = context.file_digests(&ids, None, &Cancel::new()).unwrap();
    assert_eq!(found, names.map(|name| Digest::of(name.as_bytes())));
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(context.file_digests(&ids, None, &cancel).unwrap_err().code(), "interrupted");
}

#[test]
fn an_excluded_source_is_said_to_be_excluded() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), ".dockerignore", "*.py\n!app.py\n  secrets/\n");
    for name in ["app.py", "main.py", "secrets/key"] {
        write(root.path(), name, "");
    }
    let files = ContextFiles::new(Arc::new(open_dir(root.path())), "the build context");
    let message = |instruction: &str| match select(&copy_step(instruction), &files, &BTreeMap::new(), &Cancel::new()) {
        Err(Failure::Mistake(mistake)) => (mistake.message, mistake.suggestion),
        other => panic!("{instruction}: {other:?}"),
    };
    let text = "`/main.py` is not in the build context: line 1 of `.dockerignore` excludes it: `*.py`";
    assert_eq!(message("COPY main.py /"), (text.to_owned(), None));
    let text = "`/secrets/key` is not in the build context: line 3 of `.dockerignore` excludes it: `secrets/`";
    assert_eq!(message("COPY secrets/key /"), (text.to_owned(), None));
    let text = "`/nap.py` is not in the build context";
    assert_eq!(message("COPY nap.py /"), (text.to_owned(), Some("app.py".to_owned())));
}

/// A view of one layer: a file with two names, and one that belongs to somebody.
fn view() -> View {
    let node = |kind| Node { kind, uid: 7, gid: 8, ..Node::directory(0o640) };
    let file =
        |content: &str| node(NodeKind::File { size: content.len() as u64, digest: Digest::of(content.as_bytes()) });
    let entries = vec![
        (b"d/a".to_vec(), IndexEntry::Node(file("1"))),
        (b"d/b".to_vec(), IndexEntry::Hardlink { first: b"d/a".to_vec(), node: file("1") }),
        (b"l".to_vec(), IndexEntry::Node(node(NodeKind::Symlink { target: b"/d".to_vec() }))),
    ];
    let mut view = View::default();
    view.push(Arc::new(LayerIndex::new(entries))).unwrap();
    view
}

#[test]
fn files_of_images_keep_their_owners_and_their_links() {
    let (files, step, cancel) =
        (ViewFiles::new(view(), "stage `origin`"), copy_step("COPY --from=origin l/ /x/"), Cancel::new());
    let mut selection = select(&step, &files, &BTreeMap::new(), &cancel).unwrap();
    let entries = place(&step, &selection, &ViewFiles::new(View::default(), "the base"), None, None, &cancel).unwrap();
    let [directory, first, second] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((directory.path.as_slice(), directory.mode, directory.uid), (&b"x"[..], 0o755, 0));
    assert_eq!((first.path.as_slice(), first.mode, first.uid, first.gid), (&b"x/a"[..], 0o640, 7, 8));
    let LayerKind::File { size: 1, content: Content::InLayer { layer: 0, path }, .. } = &first.kind else {
        panic!("{first:?}")
    };
    assert_eq!(path, b"d/a");
    assert!(matches!(&second.kind, LayerKind::Hardlink { first, size: 1 } if first == b"x/a"), "{second:?}");
    // Digests of layers are known.
    let same = digest("COPY d /x", "d/ 0755\nd/a = 1 0640 7:8\nd/b = 1 0640 7:8");
    assert_eq!(selection.digest(None, &cancel).unwrap(), same);
}

#[test]
fn times_are_clamped() {
    let (origin, cancel) = (Memory::new("d/a = 1"), Cancel::new());
    let step = copy_step("COPY d/a /x/");
    let selection = select(&step, &origin, &BTreeMap::new(), &cancel).unwrap();
    let times = |clamp: Option<Mtime>| -> Vec<i64> {
        let entries = place(&step, &selection, &Memory::default(), None, clamp, &cancel).unwrap();
        entries.iter().map(|entry| entry.mtime.seconds).collect()
    };
    assert_eq!(times(None), [946_684_800, 0]);
    assert_eq!(times(Some(Mtime { seconds: 5, nanoseconds: 0 })), [5, 0]);
}

#[test]
fn linked_copies_need_no_base_unless_names_are_to_be_looked_up() {
    for (instruction, expected) in [
        ("COPY a /", true),
        ("COPY --link a /", false),
        ("COPY --link --chown=1:2 a /", false),
        ("COPY --link --chown=app a /", true),
        ("COPY --link --chmod=600 a /", true),
    ] {
        assert_eq!(needs_base(&copy_step(instruction)), expected, "{instruction}");
    }
}
