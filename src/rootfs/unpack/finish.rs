//! What can be done to directories only when everything is in them.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType, Mode, XattrFlags, chmodat, chownat, fsetxattr, mknodat, openat, utimensat};
use rustix::io::Errno;

use super::super::index::{Cover, LayerIndex, RecordId, Shape};
use super::super::node::Node;
use super::super::view::Implied;
use super::Form;
use super::writer::{Dress, Writer, times};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::folders::DIRECTORY;
use crate::mtime::Mtime;

/// Marks a whiteout where devices cannot be made.
pub(in super::super) const WHITEOUT: &str = "user.overlay.whiteout";

/// Makes whiteouts, and gives directories what they have to have: what is in a directory before itself.
///
/// Directories that are only implied are what `implied` says, else root's.
pub(super) fn finish(writer: &mut Writer, index: &LayerIndex, implied: Vec<Implied>, cancel: &Cancel) -> Result<()> {
    let mut implied: HashMap<Vec<u8>, Node> = implied.into_iter().collect();
    let wanted = |id: &RecordId| match index.shape(*id) {
        Shape::Nothing => index.cover(*id) == Cover::Whiteout,
        Shape::Implied | Shape::Dir => true,
        Shape::Symlink | Shape::Other => false,
    };
    let mut records: Vec<(RecordId, Vec<u8>)> =
        index.paths().filter(|(id, path)| !path.is_empty() && wanted(id)).collect();
    while let Some((id, path)) = records.pop() {
        cancel.check()?;
        let done = if index.shape(id) == Shape::Nothing {
            whiteout(writer, &path)
        } else {
            let node = index.node(id).or_else(|| implied.remove(&path));
            directory(writer, &path, node, index.cover(id) != Cover::None)
        };
        match done {
            // It is below a link.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
                writer.leads_elsewhere = true;
            }
            done => done.map_err(|error| writer.failed(&path, error))?,
        }
    }
    root(writer).map_err(|error| writer.failed(b"", error))
}

fn whiteout(writer: &mut Writer, path: &[u8]) -> io::Result<()> {
    let (parent, name) = crate::folders::split(path);
    let parent = writer.folders.make(parent)?;
    match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
        // Old kernels, or a filter. For overlayfs this would not do, but that is then not to be had either.
        Err(Errno::PERM) => {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL;
            let file = openat(parent, name, flags | rustix::fs::OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
            Ok(fsetxattr(&file, WHITEOUT, b"y", XattrFlags::empty())?)
        }
        result => Ok(result?),
    }
}

fn directory(writer: &mut Writer, path: &[u8], node: Option<Node>, opaque: bool) -> io::Result<()> {
    // What is only implied by something that is gone in it is not there yet.
    writer.folders.make(path)?;
    let Node { mode, uid, gid, mtime, xattrs, .. } = node.unwrap_or(Node::directory(0o755));
    let dress = Dress { mode, uid, gid, mtime, xattrs };
    let needs_owner = writer.form == Form::Single && (uid, gid) != (0, 0);
    if opaque || needs_owner || !dress.xattrs.is_empty() {
        let (parent, name) = writer.folders.parent(path)?;
        let opened = openat(parent, name, DIRECTORY, Mode::empty())?;
        if opaque {
            fsetxattr(&opened, writer.form.opaque(), b"y", XattrFlags::empty())?;
        }
        writer.attributes(path, opened.as_fd(), &dress)?;
    }
    let owner = writer.owner(uid, gid);
    let (parent, name) = writer.folders.parent(path)?;
    if let Some((uid, gid)) = owner {
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // A directory, which we have made: no link is followed.
    chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    Ok(utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The root's attributes are the image's, not a layer's.
fn root(writer: &Writer) -> io::Result<()> {
    let root = writer.folders.root();
    rustix::fs::fchmod(root, Mode::from_raw_mode(0o755))?;
    Ok(rustix::fs::futimens(root, &times(Mtime::FIXED))?)
}
