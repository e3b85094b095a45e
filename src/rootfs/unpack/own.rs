//! What is left to do inside a user namespace: giving files away, and capabilities, which hold in the namespace in which they
//! were set.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chmodat, chownat, openat};
use rustix::io::Errno;

use super::super::index::{IndexEntry, LayerIndex};
use super::super::node::NodeKind;
use super::super::view::Implied;
use super::super::wire::{Decoder, Encoder};
use super::Form;
use super::writer::{CAPABILITY, failed, set_xattr};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::folders::Folders;

/// The bits that the kernel takes away when a file is given to somebody else.
const SET_IDS: u32 = 0o6000;

/// What is left to do for one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// Relative to the root of the tree.
    pub path: Vec<u8>,
    /// Its owner and its group, if they are to be set.
    pub owner: Option<(u32, u32)>,
    /// Its permission bits, if they have to be set once more.
    pub mode: Option<u32>,
    /// Its capabilities, as `security.capability` has them.
    pub capability: Option<Vec<u8>>,
}

/// What is left to do in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixes(pub Vec<Fix>);

impl Fixes {
    /// What is left to do for a layer that was unpacked.
    pub(super) fn of(form: &Form, index: &LayerIndex) -> Self {
        if form.is_real() {
            return Self::default();
        }
        let fix = |(path, entry)| {
            let (IndexEntry::Node(node) | IndexEntry::Hardlink { node, .. }) = entry else { return None };
            let gives = *form != Form::Single && (node.uid, node.gid) != (0, 0);
            let is_file = matches!(node.kind, NodeKind::File { .. });
            let is_link = matches!(node.kind, NodeKind::Symlink { .. });
            let capability = node.xattrs.get(CAPABILITY.as_bytes()).filter(|_| is_file).cloned();
            (gives || capability.is_some()).then(|| Fix {
                path,
                owner: gives.then_some((node.uid, node.gid)),
                mode: (gives && !is_link && node.mode & SET_IDS != 0).then_some(node.mode),
                capability,
            })
        };
        Self(index.iter().filter_map(fix).collect())
    }

    /// With directories that a layer only implies.
    pub(super) fn with(mut self, form: &Form, implied: &[Implied]) -> Self {
        let gives = matches!(form, Form::Subordinate { .. });
        for (path, node) in implied.iter().filter(|(_, node)| gives && (node.uid, node.gid) != (0, 0)) {
            let mode = (node.mode & SET_IDS != 0).then_some(node.mode);
            self.0.push(Fix { path: path.clone(), owner: Some((node.uid, node.gid)), mode, capability: None });
        }
        self
    }

    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        for fix in &self.0 {
            let flags = [fix.owner.is_some(), fix.mode.is_some(), fix.capability.is_some()];
            out.number(flags.iter().enumerate().map(|(bit, set)| u64::from(*set) << bit).sum::<u64>());
            out.text(&fix.path);
            for number in fix.owner.iter().flat_map(|(uid, gid)| [uid, gid]).chain(&fix.mode) {
                out.number(*number);
            }
            if let Some(capability) = &fix.capability {
                out.text(capability);
            }
        }
        out.0
    }

    /// The list of such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut list = Decoder(bytes);
        let mut fixes = Vec::new();
        while !list.is_empty() {
            let flags: u64 = list.number()?;
            let path = list.text()?.to_owned();
            let owner = if flags & 1 == 0 { None } else { Some((list.number()?, list.number()?)) };
            let mode = if flags & 2 == 0 { None } else { Some(list.number()?) };
            let capability = if flags & 4 == 0 { None } else { Some(list.text()?.to_owned()) };
            fixes.push(Fix { path, owner, mode, capability });
        }
        Ok(Self(fixes))
    }
}

/// Does what is left to do in a tree: for a process that is root in the user namespace of the tree's form.
///
/// What is not there was left out when the layer was unpacked. Comes back with what could not be done, a line for each reason:
/// owners that are not mapped, capabilities that the file system does not keep. Fails with `Store`. Blocks.
pub fn own(tree: &Path, fixes: &Fixes, cancel: &Cancel) -> Result<Vec<String>> {
    let failed = |path: &[u8], error| failed(tree, path, error);
    let mut folders = Folders::open(tree).map_err(|error| failed(b"", error))?;
    let mut undone = [(0_u64, Vec::new()), (0, Vec::new())];
    for fix in &fixes.0 {
        cancel.check()?;
        let done = apply(&mut folders, fix).map_err(|error| failed(&fix.path, error))?;
        for (done, (count, first)) in done.into_iter().zip(&mut undone) {
            if !done {
                if *count == 0 {
                    first.clone_from(&fix.path);
                }
                *count += 1;
            }
        }
    }
    let reasons =
        ["its owner is not mapped on this machine (/etc/subuid, /etc/subgid)", "its capabilities cannot be set"];
    let told = undone.into_iter().zip(reasons).filter(|((count, _), _)| *count > 0);
    Ok(told
        .map(|((count, path), reason)| format!("`{}` ({count} in all): {reason}", String::from_utf8_lossy(&path)))
        .collect())
}

/// Whether the owner and the capabilities could be set.
fn apply(folders: &mut Folders, fix: &Fix) -> io::Result<[bool; 2]> {
    let mut done = [true, true];
    let (parent, name) = match folders.parent(&fix.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(done),
        parent => parent?,
    };
    if let Some((uid, gid)) = fix.owner {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(done),
            Err(Errno::INVAL) => done[0] = false,
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(mode) = fix.mode {
        // No link: those have no mode to be set.
        chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    if let Some(capability) = &fix.capability {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())?;
        done[1] = set_xattr(file.as_fd(), CAPABILITY.as_bytes(), capability)?;
    }
    Ok(done)
}
