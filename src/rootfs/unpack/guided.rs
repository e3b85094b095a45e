//! Layers that have to be unpacked by what a view makes of them, not by what they say.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;

use super::super::extract::{Extracted, Wanted, extract};
use super::super::index::Body;
use super::super::node::{Node, NodeKind};
use super::super::scan::Sink as _;
use super::super::spool::Spool;
use super::super::tar::{Member, MemberKind, Place, invalid};
use super::super::view::View;
use super::stream::{self, Stream};
use super::writer::Writer;
use super::{Fixes, Form, Limits, Packed, Unpacked, finish};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::Buffers;

/// How much is copied at once.
const CHUNK: usize = 1 << 20;

/// What a content is: its name in the layer, and its digest, as a name may stand there twice.
type Key = (Vec<u8>, Digest);

/// The names of a file, with what each says of it.
type Names = Vec<(Vec<u8>, Node)>;

/// A layer that cannot be unpacked alone ([`View::variant`]).
#[derive(Clone, Copy, Debug)]
pub struct InView<'a> {
    /// The view that it is part of.
    pub view: &'a View,
    /// Its number there.
    pub number: usize,
    /// Where contents are kept meanwhile: a directory.
    pub spool: &'a Path,
}

/// Unpacks a layer by what a view makes of it. Else this is [`super::unpack`]; no index comes of it.
pub fn unpack_in_view<R: Read + Send>(
    place: InView<'_>,
    layer: Packed<'_, R>,
    form: &Form,
    directory: &Path,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Unpacked> {
    let InView { view, number, spool } = place;
    let mut writer = Writer::open(directory, form)?;
    let index = view.applied(number);
    let mut names: HashMap<Key, Names> = HashMap::new();
    for (id, path) in index.paths() {
        cancel.check()?;
        let Some(node) = index.node(id) else { continue };
        if let NodeKind::File { digest, .. } = node.kind {
            let name = index.first_name(id).unwrap_or_else(|| view.name_in_layer(number, &path)).to_owned();
            names.entry((name, digest)).or_default().push((path, node));
        } else if !node.is_dir() {
            writer.put(&path, &Body::Nothing, &member(&path, node))?;
        }
    }
    let mut contained: Vec<(Wanted, Names)> = Vec::with_capacity(names.len());
    for ((path, digest), names) in names {
        let NodeKind::File { size, .. } = names[0].1.kind else { continue };
        contained.push((Wanted { path, size, digest }, names));
    }
    contained.sort_by(|left, right| left.1[0].0.cmp(&right.1[0].0));
    let wanted: Vec<Wanted> = contained.iter().map(|(wanted, _)| wanted.clone()).collect();
    let mut spool = Spool::new(spool)?;
    let places = contents(layer, &wanted, &mut spool, limits, cancel)?;
    for ((_, names), place) in contained.into_iter().zip(places) {
        cancel.check()?;
        write(&mut writer, &spool, place, names)?;
    }
    finish::finish(&mut writer, index, view.implied(number), cancel)?;
    let fixes = Fixes::of(form, index).with(form, &view.implied(number));
    let left_out = writer.left_out();
    let Writer { files: count, bytes, leads_elsewhere, .. } = writer;
    Ok(Unpacked { index: None, fixes, left_out, leads_elsewhere, files: count, bytes })
}

/// Takes contents out of the layer, and verifies all of it.
fn contents<R: Read + Send>(
    layer: Packed<'_, R>,
    wanted: &[Wanted],
    spool: &mut Spool,
    limits: Limits,
    cancel: &Cancel,
) -> Result<Vec<Extracted>> {
    let Packed { blob, compression, diff_id, .. } = layer;
    let buffers = Buffers::new(stream::BLOCK);
    thread::scope(|scope| {
        let mut stream = Stream::start(scope, blob, compression, limits, &buffers)?;
        let places = extract(&mut stream, wanted, spool, cancel)?;
        let mut rest = vec![0; CHUNK];
        let mut drain = || -> io::Result<()> {
            while stream.read(&mut rest)? > 0 {
                cancel.check().map_err(io::Error::other)?;
            }
            Ok(())
        };
        drain().map_err(|error| match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => invalid(error.to_string()),
        })?;
        let found = stream.finish()?;
        if found != *diff_id {
            return Err(invalid(format!("its archive is {found} and should be {diff_id}")));
        }
        Ok(places)
    })
}

/// Writes a file, under all its names.
fn write(writer: &mut Writer, spool: &Spool, place: Extracted, names: Names) -> Result<()> {
    let mut names = names.into_iter();
    let Some((first, node)) = names.next() else { return Ok(()) };
    writer.begin(&first, &Body::Nothing, &member(&first, node))?;
    let mut chunk = vec![0; CHUNK.min(usize::try_from(place.size).unwrap_or(CHUNK))];
    let mut done = 0;
    while done < place.size {
        let most = usize::try_from(place.size - done).unwrap_or(CHUNK).min(chunk.len());
        let read = spool.file().read_exact_at(&mut chunk[..most], place.offset + done);
        read.map_err(|error| writer.failed(&first, error))?;
        writer.content(&chunk[..most])?;
        done += most as u64;
    }
    writer.end()?;
    for (path, _) in names {
        writer.link(&path, &Body::Nothing, &first)?;
    }
    Ok(())
}

/// A node as an archive would have it.
fn member(path: &[u8], node: Node) -> Member {
    let Node { kind, mode, uid, gid, mtime, xattrs } = node;
    let kind = match kind {
        NodeKind::File { size, .. } => MemberKind::File { size },
        NodeKind::Dir => MemberKind::Dir,
        NodeKind::Symlink { target } => MemberKind::Symlink { target },
        NodeKind::Fifo => MemberKind::Fifo,
        NodeKind::CharDevice { major, minor } => MemberKind::CharDevice { major, minor },
        NodeKind::BlockDevice { major, minor } => MemberKind::BlockDevice { major, minor },
    };
    Member { place: Place::Path(path.to_owned()), kind, mode, uid, gid, mtime, xattrs }
}
