//! Unpacked layers.
//!
//! A tree is a directory with two things in it: `tree`, the layer, and `info`, how much that is. It is made in a scratch
//! directory and renamed when it is complete, so it is there with everything or not at all. Whoever makes one holds a lock on
//! its name: others wait, and find it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::census::Info;
use super::failure::failed;
use super::files::{Layout, make_folder, touch};
use super::scratch::Scratch;
use super::{Store, lock};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::folders;

/// How long somebody waits between two looks whether another has made the tree.
const PAUSE: Duration = Duration::from_millis(10);

/// What a tree is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TreeKey {
    /// The layer.
    pub diff_id: Digest,
    /// How it is unpacked: lower-case letters, digits and `-`.
    pub form: String,
    /// What lower layers make of it, if that matters.
    pub variant: Option<Digest>,
}

/// An unpacked layer. It is there until it is pruned: a [`super::Lease`] keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    directory: PathBuf,
}

impl Tree {
    /// Where the layer is. Nobody may write there.
    pub fn path(&self) -> PathBuf {
        self.directory.join("tree")
    }
}

/// What there is of a tree.
#[derive(Debug)]
pub enum TreeState {
    /// It is there.
    Ready(Tree),
    /// It is to be made.
    Missing(NewTree),
}

/// A tree that is being made. Others who want it wait; if it is dropped, one of them makes it.
#[derive(Debug)]
pub struct NewTree {
    store: Store,
    target: PathBuf,
    scratch: Scratch,
    lock: NameLock,
}

impl NewTree {
    /// Where the layer is to be put: an empty directory.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("tree")
    }

    /// It is complete. If this is not called, everything goes.
    pub fn finish(self) -> Result<Tree> {
        let Self { store, target, scratch, lock } = self;
        let layout = &store.layout;
        let finish = || {
            let info = Info::of(&scratch.path().join("tree"))?;
            info.write(scratch.path())?;
            touch(scratch.path());
            let _lock = lock::shared(layout).map_err(io::Error::other)?;
            DirBuilder::new().recursive(true).mode(0o700).create(target.parent().unwrap_or(&layout.dir))?;
            match renameat_with(CWD, scratch.path(), CWD, &target, RenameFlags::NOREPLACE) {
                // File systems that cannot do that have no other way to tell.
                Err(Errno::INVAL | Errno::NOSYS) => fs::rename(scratch.path(), &target)?,
                // Somebody was faster, who held no lock: another program removed it.
                Err(Errno::EXIST) => {}
                result => result?,
            }
            Ok(info.bytes)
        };
        let bytes = finish().map_err(|source| failed(&layout.dir, "keep an unpacked layer", source))?;
        store.count(bytes);
        drop(lock);
        Ok(Tree { directory: target })
    }
}

/// A lock on the name of a tree that is being made.
#[derive(Debug)]
struct NameLock {
    path: PathBuf,
    _file: File,
}

impl NameLock {
    /// `None` if somebody else has it.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if !lock::try_lock(&file, FlockOperation::NonBlockingLockExclusive)? || file.metadata()?.nlink() == 0 {
            return Ok(None);
        }
        Ok(Some(Self { path: path.to_owned(), _file: file }))
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // Before the lock goes: who gets it then sees that the file has no name.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// An unpacked layer, if it is there. This counts as a use of it.
    ///
    /// After the machine was started anew, a tree is compared with what it had: files that were not yet written out when the
    /// power went are too short. A damaged one is removed.
    pub fn tree(&self, key: &TreeKey) -> Result<Option<Tree>> {
        let directory = self.layout.tree(key)?;
        let _lock = lock::shared(&self.layout)?;
        let find = || {
            if !directory.is_dir() {
                return Ok(None);
            }
            if !Info::holds(&directory)? {
                discard(&self.layout, &directory)?;
                return Ok(None);
            }
            touch(&directory);
            Ok(Some(Tree { directory: directory.clone() }))
        };
        find().map_err(|source| failed(self.path(), "find an unpacked layer", source))
    }

    /// The same, or else what is needed to make it. Waits while somebody else makes it.
    pub fn tree_or_new(&self, key: &TreeKey, cancel: &Cancel) -> Result<TreeState> {
        let target = self.layout.tree(key)?;
        let failed = |source| failed(self.path(), "unpack a layer", source);
        make_folder(&self.layout.scratch()).map_err(failed)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let name = self.layout.scratch().join(format!("{}-{name}.lock", key.form));
        loop {
            if let Some(tree) = self.tree(key)? {
                return Ok(TreeState::Ready(tree));
            }
            cancel.check()?;
            let Some(lock) = NameLock::take(&name).map_err(failed)? else {
                thread::sleep(PAUSE);
                continue;
            };
            // Whoever had the lock before may just have finished.
            if let Some(tree) = self.tree(key)? {
                return Ok(TreeState::Ready(tree));
            }
            let scratch = self.scratch()?;
            DirBuilder::new().mode(0o700).create(scratch.path().join("tree")).map_err(failed)?;
            return Ok(TreeState::Missing(NewTree { store: self.clone(), target, scratch, lock }));
        }
    }
}

/// Moves a damaged tree out of the way and removes it.
fn discard(layout: &Layout, directory: &Path) -> io::Result<()> {
    let trash = layout.trash(directory);
    make_folder(&layout.scratch())?;
    match fs::rename(directory, &trash) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => {
            moved?;
            // What cannot be removed here is removed by others.
            let _ = folders::remove_all(&trash);
            Ok(())
        }
    }
}

impl Layout {
    pub(super) fn trees(&self) -> PathBuf {
        self.dir.join("trees")
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.dir.join("scratch")
    }

    /// Where a directory goes that is to be removed.
    pub(super) fn trash(&self, directory: &Path) -> PathBuf {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.scratch().join(format!("pruned-{}-{}-{name}", std::process::id(), time.as_nanos()))
    }

    /// Where a tree is. A form that is no name is a defect of the caller.
    fn tree(&self, key: &TreeKey) -> Result<PathBuf> {
        let TreeKey { diff_id, form, variant } = key;
        if form.is_empty() || !form.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(Error::internal(format!("`{form}` is no form of trees")));
        }
        let hex = diff_id.hex();
        let name = match variant {
            None => hex.clone(),
            Some(variant) => format!("{hex}-{}", &variant.hex()[..32]),
        };
        Ok(self.trees().join(form).join(&hex[..2]).join(name))
    }
}
