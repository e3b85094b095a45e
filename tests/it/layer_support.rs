//! Making lists of entries and writing layers.

use std::collections::BTreeMap;
use std::io::{Read as _, Write};
use std::process::{Command, Stdio};

use bytes::Bytes;
use cooper::Result;
use cooper::cancel::Cancel;
use cooper::layer::{self, Content, LayerEntry, LayerKind, LayerOptions, Previous, WrittenLayer};
use cooper::mtime::Mtime;
use cooper::oci::media::Compression;
use cooper::rootfs::Xattrs;

pub(crate) fn entry(path: impl AsRef<[u8]>, kind: LayerKind) -> LayerEntry {
    let mode = match kind {
        LayerKind::Dir => 0o755,
        LayerKind::Symlink { .. } => 0o777,
        _ => 0o644,
    };
    let mtime = Mtime { seconds: 1_700_000_000, nanoseconds: 987_654_321 };
    LayerEntry { path: path.as_ref().to_vec(), kind, mode, uid: 0, gid: 0, mtime, xattrs: Xattrs::new() }
}

pub(crate) fn file(path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> LayerEntry {
    let content = Bytes::copy_from_slice(content.as_ref());
    entry(path, LayerKind::File { size: content.len() as u64, content: Content::Bytes(content), digest: None })
}

pub(crate) fn dir(path: impl AsRef<[u8]>) -> LayerEntry {
    entry(path, LayerKind::Dir)
}

pub(crate) fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> LayerEntry {
    entry(path, LayerKind::Symlink { target: target.as_ref().to_vec() })
}

pub(crate) fn hardlink(path: impl AsRef<[u8]>, first: impl AsRef<[u8]>) -> LayerEntry {
    entry(path, LayerKind::Hardlink { first: first.as_ref().to_vec(), size: 0 })
}

pub(crate) fn xattrs(list: &[(&str, &[u8])]) -> Xattrs {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect::<BTreeMap<_, _>>()
}

pub(crate) fn options(compression: Compression) -> LayerOptions {
    LayerOptions { compression, ..LayerOptions::default() }
}

pub(crate) fn try_write(
    entries: Vec<LayerEntry>,
    options: &LayerOptions,
    previous: Option<&dyn Previous>,
) -> Result<(WrittenLayer, Vec<u8>)> {
    let mut bytes = Vec::new();
    let written = layer::write(entries.into_iter(), options, previous, &mut bytes, &|_| {}, &Cancel::new())?;
    Ok((written, bytes))
}

pub(crate) fn write(entries: Vec<LayerEntry>, options: &LayerOptions) -> (WrittenLayer, Vec<u8>) {
    try_write(entries, options, None).unwrap()
}

/// The archive of some entries.
pub(crate) fn plain(entries: Vec<LayerEntry>) -> Vec<u8> {
    write(entries, &options(Compression::None)).1
}

/// The archive in a blob.
pub(crate) fn decompress(compression: Compression, blob: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match compression {
        Compression::None => plain.extend_from_slice(blob),
        Compression::Gzip => plain = pipe(Command::new("gzip").arg("-dc"), blob),
        Compression::Zstd => {
            zstd::stream::read::Decoder::new(blob).unwrap().read_to_end(&mut plain).unwrap();
        }
    }
    plain
}

/// What a program makes of its input.
pub(crate) fn pipe(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// A text of that size, which can be compressed and is different for every seed.
pub(crate) fn text(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = Vec::with_capacity(size + 8);
    while text.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("{:x} ", state >> 48).as_bytes());
    }
    text.truncate(size);
    text
}
