//! The file system of an image, written to a directory (`--output type=local`).
//!
//! Only what is in the view is written, each path once, so that nothing of a hostile layer can lie below a link. What is there
//! already is never followed: every directory is opened by its own name, in the one above it.

mod folder;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use self::folder::Folder;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::rootfs::{Found, NodeKind, Spool, View, Wanted, extract};

/// Opens the archive of a layer of the view, decompressed.
pub type OpenLayer<'a> = dyn FnMut(usize) -> Result<Box<dyn Read + Send>> + 'a;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Regular files, by all their names.
    pub files: u64,
    /// The sum of their sizes, each file once.
    pub bytes: u64,
    /// What could not be made by this user, to be told to them.
    pub left_out: Vec<String>,
}

/// What a content is: the layer, the name there, and the digest, as a name may stand there twice.
type ContentKey = (usize, Vec<u8>, Digest);

/// One run.
struct Run<'a> {
    root: Folder,
    cancel: &'a Cancel,
    applied: Applied,
    /// Directories, in the order of the walk, with what they have to be in the end.
    directories: Vec<Found>,
    /// Files by their content; the further names of each are hard links.
    files: HashMap<ContentKey, Vec<Found>>,
}

/// Writes a file system to a directory. Contents are kept in `spool` meanwhile, those of one layer at a time.
///
/// A directory that is not there yet appears with everything in it, or not at all. What is in one that is there stays, unless
/// the image has something of the same name: as BuildKit does, directories are merged and all else is replaced. Owners are
/// those of the image if root does it. Devices that cannot be made are left out, and so are extended attributes.
///
/// Fails with `OutputFailed`, `NoSpace`, `Interrupted`, what `open` fails with, and `ImageInvalid`. Blocks.
pub fn apply(
    view: &View,
    open: &mut OpenLayer<'_>,
    destination: &Path,
    spool: &Path,
    cancel: &Cancel,
) -> Result<Applied> {
    let failed = |error: io::Error| unwritten(destination, error);
    if fs::metadata(destination).is_ok() {
        return write(view, open, destination, destination, spool, cancel);
    }
    let parent = match destination.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(failed)?;
    let beside = tempfile::Builder::new().prefix(".cooper-").tempdir_in(parent).map_err(failed)?;
    let inside = beside.path().join("root");
    fs::create_dir(&inside).map_err(failed)?;
    let applied = write(view, open, &inside, destination, spool, cancel);
    let applied = applied.inspect_err(|_| folder::make_removable(&inside))?;
    match renameat_with(CWD, &inside, CWD, destination, RenameFlags::NOREPLACE) {
        // File systems that cannot do that have no other way to tell.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&inside, destination).map_err(failed)?,
        result => result.map_err(|error| failed(error.into()))?,
    }
    Ok(applied)
}

/// `shown` is the directory for errors.
fn write(
    view: &View,
    open: &mut OpenLayer<'_>,
    directory: &Path,
    shown: &Path,
    spool: &Path,
    cancel: &Cancel,
) -> Result<Applied> {
    let root = Folder::open(directory).map_err(|error| unwritten(shown, error))?;
    let mut run = Run { root, cancel, applied: Applied::default(), directories: Vec::new(), files: HashMap::new() };
    let named = |path: &[u8], error: io::Error| unwritten(&shown.join(OsStr::from_bytes(path)), error);
    for found in view.walk(b"") {
        cancel.check()?;
        let path = found.path.clone();
        run.begin(found).map_err(|error| named(&path, error))?;
    }
    run.contents(open, spool, &named)?;
    for directory in run.directories.iter().rev() {
        cancel.check()?;
        run.root.finish_directory(directory).map_err(|error| named(&directory.path, error))?;
    }
    run.applied.left_out.sort();
    Ok(run.applied)
}

impl Run<'_> {
    /// Makes what has no content, and notes what has.
    fn begin(&mut self, found: Found) -> io::Result<()> {
        match &found.node.kind {
            NodeKind::Dir => {
                self.root.make_directory(&found.path)?;
                self.directories.push(found);
            }
            NodeKind::File { digest, .. } => {
                let key = (found.layer, found.content_path.clone(), *digest);
                self.files.entry(key).or_default().push(found);
            }
            NodeKind::Symlink { target } => self.root.make_link(&found, target)?,
            NodeKind::Fifo | NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. } => {
                if !self.root.make_special(&found)? {
                    let path = String::from_utf8_lossy(&found.path).into_owned();
                    self.applied.left_out.push(format!("`{path}`: this user may make no devices"));
                }
            }
        }
        Ok(())
    }

    fn contents(
        &mut self,
        open: &mut OpenLayer<'_>,
        spool: &Path,
        named: &dyn Fn(&[u8], io::Error) -> Error,
    ) -> Result<()> {
        let mut by_layer: HashMap<usize, Vec<Vec<Found>>> = HashMap::new();
        for ((layer, ..), names) in std::mem::take(&mut self.files) {
            by_layer.entry(layer).or_default().push(names);
        }
        let mut layers: Vec<_> = by_layer.into_iter().collect();
        layers.sort_by_key(|(layer, _)| *layer);
        for (layer, files) in layers {
            let wanted: Vec<Wanted> = files.iter().filter_map(|names| wanted(names.first()?)).collect();
            let mut spool = Spool::new(spool)?;
            let places = extract(open(layer)?, &wanted, &mut spool, self.cancel)?;
            let content = spool.file();
            for (names, place) in files.iter().zip(places) {
                self.cancel.check()?;
                let Some((first, others)) = names.split_first() else { continue };
                let written = self.root.make_file(first, &content, place.offset, place.size, self.cancel);
                written.map_err(|error| named(&first.path, error))?;
                for other in others {
                    let linked = self.root.make_hard_link(&first.path, &other.path);
                    linked.map_err(|error| named(&other.path, error))?;
                }
                self.applied.files += names.len() as u64;
                self.applied.bytes += place.size;
            }
        }
        Ok(())
    }
}

fn wanted(found: &Found) -> Option<Wanted> {
    match found.node.kind {
        NodeKind::File { size, digest } => Some(Wanted { path: found.content_path.clone(), size, digest }),
        _ => None,
    }
}

/// Whether owners can be given away.
fn is_root() -> bool {
    geteuid().is_root()
}

fn unwritten(path: &Path, source: io::Error) -> Error {
    source.downcast().unwrap_or_else(|source| Error::unwritten(path, source))
}

/// The directory that a path is in, and its last part.
fn split(path: &[u8]) -> (&[u8], &OsStr) {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&path[..0], path),
    };
    (parent, OsStr::from_bytes(name))
}

/// An open directory.
type Opened = std::rc::Rc<OwnedFd>;
