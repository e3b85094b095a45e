//! Where a command works: a directory of the store that goes when it is no longer needed.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::machine::Machine;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::folders;
use crate::rootfs::{Listing, Scanned, list_tree};
use crate::sandbox::{ScanContents, Task};
use crate::store::{Scratch, Store};

/// A directory for a command, or for what it sees.
#[derive(Debug)]
pub(super) struct Work {
    inner: Option<Inner>,
    numbers: AtomicU32,
}

#[derive(Debug)]
struct Inner {
    scratch: Scratch,
    machine: Arc<Machine>,
}

impl Work {
    /// A new one. Blocks.
    pub(super) fn new(store: &Store, machine: &Arc<Machine>) -> Result<Self> {
        let inner = Inner { scratch: store.scratch()?, machine: Arc::clone(machine) };
        Ok(Self { inner: Some(inner), numbers: AtomicU32::new(0) })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.inner.as_ref().map_or(Path::new(""), |inner| inner.scratch.path())
    }

    /// A path in it that was not given out before. Nothing is there.
    pub(super) fn fresh(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}-{}", self.numbers.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new directory in it, which is root's for commands and has the mode 0755. Blocks.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.fresh(name);
        let make = || {
            DirBuilder::new().mode(0o755).create(&path)?;
            // Whatever the umask is.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        let failed = |source| Error::Store { path: path.clone(), action: "make a directory".into(), source };
        make().map_err(failed)?;
        Ok(path)
    }

    /// Lists a tree in it. Blocks.
    pub(super) fn list(&self, machine: &Machine, tree: &Path, contents: ScanContents, cancel: &Cancel) -> Result<Seen> {
        if machine.is_real() {
            let listing = list_tree(tree, None, &|_| false, cancel)?;
            return Ok(Seen { listing, spool: None, place: self.path().to_owned() });
        }
        let into = self.directory("list")?;
        machine.task(&Task::Scan { tree: tree.to_owned(), contents, into: into.clone() }, cancel)?;
        let Scanned { listing, spool } = Scanned::read(&into)?;
        Ok(Seen { listing, spool: Some(Arc::new(spool)), place: into })
    }
}

/// A tree that was listed.
#[derive(Debug)]
pub(super) struct Seen {
    /// What is there.
    pub(super) listing: Listing,
    /// Contents that this process cannot read in the tree.
    pub(super) spool: Option<Arc<File>>,
    /// Where the list is, for a later one.
    pub(super) place: PathBuf,
}

impl Drop for Work {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        // Nobody has to wait for many files to go. Where no runtime is, or it ends, they go here.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || drop(inner))),
            Err(_) => drop(inner),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What belongs to others is removed by root of their ids.
        if folders::remove_all(self.scratch.path()).is_err() && !self.machine.is_real() {
            let task = Task::Remove { paths: vec![self.scratch.path().to_owned()] };
            let _ = self.machine.task(&task, &Cancel::new());
        }
    }
}
