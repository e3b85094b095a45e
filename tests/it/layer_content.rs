//! Where the content of layers comes from, what is told of them, and what stops them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::context::{Context, Kind};
use cooper::digest::Digest;
use cooper::error::Error;
use cooper::layer::{self, Content, LayerEntry, LayerKind, LayerOptions};
use cooper::oci::media::Compression;
use cooper::rootfs::{IndexEntry, NodeKind};

use crate::context_support::{open_dir, write as write_file};
use crate::layer_support::{decompress, dir, entry, file, hardlink, options, plain, symlink, text, try_write, write};

/// All files of a context. Further names of hard linked files are files: their first names need not be in the layer.
fn from_context(context: &Arc<Context>) -> Vec<LayerEntry> {
    let entries = context.entries().map(|found| {
        let kind = match found.kind {
            Kind::File { size } | Kind::Hardlink { size, .. } => {
                LayerKind::File { size, content: Content::Context(Arc::clone(context), found.id()), digest: None }
            }
            _ => LayerKind::Dir,
        };
        LayerEntry { mode: found.mode, ..entry(found.path, kind) }
    });
    entries.collect()
}

#[test]
fn contexts_spools_and_memory_are_the_same_content() {
    let root = tempfile::tempdir().unwrap();
    let contents =
        [("a", text(1, 10)), ("big", text(2, 2_500_000)), ("empty", Vec::new()), ("middle", text(3, 900_000))];
    for (name, content) in &contents {
        write_file(root.path(), name, content);
    }
    fs::hard_link(root.path().join("a"), root.path().join("z")).unwrap();
    let context = Arc::new(open_dir(root.path()));
    let with = |make: &dyn Fn(&[u8]) -> Content| {
        let contents = contents.iter().cloned().chain([("z", text(1, 10))]);
        let entries = contents.map(|(name, content)| {
            let kind = LayerKind::File { size: content.len() as u64, content: make(&content), digest: None };
            entry(name, kind)
        });
        entries.collect::<Vec<_>>()
    };
    let mut from_context = from_context(&context);
    for entry in &mut from_context {
        entry.mode = 0o644;
    }
    let spool = |content: &[u8]| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 1000).unwrap();
        Content::Spool { file: Arc::new(file), offset: 1000 }
    };
    let memory = with(&|content| Content::Bytes(Bytes::copy_from_slice(content)));
    let expected = plain(memory.clone());
    assert!(plain(from_context) == expected);
    assert!(plain(with(&spool)) == expected);
    let short =
        with(&|content| Content::Spool { file: Arc::new(tempfile::tempfile().unwrap()), offset: content.len() as u64 });
    assert_eq!(try_write(short, &options(Compression::None), None).unwrap_err().code(), "store-damaged");
    let elsewhere = with(&|_| Content::InLayer { layer: 0, path: Vec::new() });
    assert_eq!(try_write(elsewhere, &options(Compression::None), None).unwrap_err().code(), "internal");
}

#[test]
fn a_file_that_changed_since_it_was_listed_is_an_error() {
    for size in [0, 1_000, 700_000, 3_000_000_usize] {
        for change in [size + 1, size / 2, 4_000_000] {
            let root = tempfile::tempdir().unwrap();
            write_file(root.path(), "sub/file", text(1, size));
            let context = Arc::new(open_dir(root.path()));
            let entries = from_context(&context);
            write_file(root.path(), "sub/file", text(1, change));
            let result = try_write(entries, &options(Compression::Gzip), None);
            if change == size {
                result.unwrap();
                continue;
            }
            let error = result.unwrap_err();
            assert_eq!(error.code(), "context-changed", "{size} to {change}");
            assert!(error.to_string().contains("sub/file"), "{error}");
        }
    }
}

#[test]
fn a_file_with_other_bytes_than_were_digested_is_an_error() {
    for size in [1_000, 700_000, 3_000_000_usize] {
        let root = tempfile::tempdir().unwrap();
        write_file(root.path(), "file", text(1, size));
        let context = Arc::new(open_dir(root.path()));
        let mut entries = from_context(&context);
        let LayerKind::File { digest, .. } = &mut entries[0].kind else { unreachable!() };
        *digest = Some(Digest::of(&text(1, size)));
        try_write(entries.clone(), &options(Compression::Zstd), None).unwrap();
        write_file(root.path(), "file", text(2, size));
        let error = try_write(entries, &options(Compression::Zstd), None).unwrap_err();
        assert_eq!(error.code(), "context-changed");
    }
}

/// Calls a function at the second write.
struct Trap<F>(u32, F);

impl<F: FnMut() -> io::Result<()>> Write for Trap<F> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 += 1;
        if self.0 == 2 {
            self.1()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn endless() -> impl Iterator<Item = LayerEntry> + Send {
    let content = Bytes::from(text(1, 200_000));
    (0_u64..).map(move |number| {
        let kind = LayerKind::File { size: 200_000, content: Content::Bytes(content.clone()), digest: None };
        entry(format!("{number:020}"), kind)
    })
}

fn write_to(out: &mut dyn Write, entries: impl Iterator<Item = LayerEntry> + Send, cancel: &Cancel) -> Error {
    layer::write(entries, &LayerOptions::default(), None, out, &|_| {}, cancel).unwrap_err()
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    write_file(root.path(), "big", text(1, 30 << 20));
    let context = Arc::new(open_dir(root.path()));
    let shrink = || File::options().write(true).open(root.path().join("big"))?.set_len(100);
    let error = write_to(&mut Trap(0, shrink), from_context(&context).into_iter(), &Cancel::new());
    assert_eq!(error.code(), "context-changed");
}

#[test]
fn cancelling_ends_it() {
    let cancel = Cancel::new();
    let mut out = Trap(0, || {
        cancel.cancel();
        Ok(())
    });
    assert_eq!(write_to(&mut out, endless(), &cancel).code(), "interrupted");
    assert_eq!(write_to(&mut io::sink(), endless(), &cancel).code(), "interrupted");
    // One file without an end.
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(1 << 40).unwrap();
    let kind =
        LayerKind::File { size: 1 << 40, content: Content::Spool { file: Arc::new(sparse), offset: 0 }, digest: None };
    let cancel = Cancel::new();
    let mut out = Trap(0, || {
        cancel.cancel();
        Ok(())
    });
    assert_eq!(write_to(&mut out, [entry("huge", kind)].into_iter(), &cancel).code(), "interrupted");
}

#[test]
fn an_error_of_the_sink_ends_it() {
    let mut full = Trap(0, || Err(io::ErrorKind::StorageFull.into()));
    assert_eq!(write_to(&mut full, endless(), &Cancel::new()).code(), "output-failed");
    let mut known = Trap(0, || Err(io::Error::other(Error::NoSpace { message: "here".into() })));
    assert_eq!(write_to(&mut known, endless(), &Cancel::new()).code(), "no-space");
}

/// Takes the beginning of a layer, and no more.
struct Head<'a>(&'a mut Vec<u8>);

impl Write for Head<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(&buffer[..4096]);
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn sizes_above_eight_gibibytes_are_records() {
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(9 << 30).unwrap();
    let kind =
        LayerKind::File { size: 9 << 30, content: Content::Spool { file: Arc::new(sparse), offset: 0 }, digest: None };
    let mut head = Vec::new();
    let options = options(Compression::None);
    layer::write([entry("huge", kind)].into_iter(), &options, None, &mut Head(&mut head), &|_| {}, &Cancel::new())
        .unwrap_err();
    assert_eq!(&head[512..512 + 19], b"19 size=9663676416\n");
    let mut archive = tar::Archive::new(&head[..]);
    assert_eq!(archive.entries().unwrap().next().unwrap().unwrap().size(), 9 << 30);
}

#[test]
fn progress_and_counts_add_up() {
    let told = AtomicU64::new(0);
    let progress = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let entries =
        vec![dir("d"), file("d/a", "12345"), hardlink("d/b", "d/a"), file("e", text(1, 3_000_000)), symlink("f", "e")];
    let mut blob = Vec::new();
    let options = options(Compression::Gzip);
    let written = layer::write(entries.into_iter(), &options, None, &mut blob, &progress, &Cancel::new()).unwrap();
    assert_eq!(told.into_inner(), written.uncompressed);
    assert_eq!((written.files, written.reused), (3, 0));
    assert_eq!(written.uncompressed % 512, 0);
    let IndexEntry::Hardlink { first, node } = written.index.find(b"d/b").unwrap() else { panic!("no hard link") };
    assert_eq!(first, b"d/a");
    assert_eq!(node.kind, NodeKind::File { size: 5, digest: Digest::of(b"12345") });
}

#[test]
fn an_empty_layer_is_one() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (written, blob) = write(Vec::new(), &options(compression));
        assert_eq!(decompress(compression, &blob), [0; 1024]);
        assert!(written.index.is_empty());
    }
}

#[test]
fn small_files_of_users_are_kept_by_the_index() {
    let entries =
        vec![dir("etc"), file("etc/group", "g:x:1:\n"), file("etc/passwd", text(1, 600_000)), file("etc/x", "")];
    let (written, _) = write(entries, &options(Compression::None));
    assert_eq!(written.index.small_file(b"etc/group"), Some(&b"g:x:1:\n"[..]));
    assert_eq!(written.index.small_file(b"etc/passwd"), Some(&text(1, 600_000)[..]));
}
