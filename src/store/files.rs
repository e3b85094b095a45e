//! Where things are, and how a file gets there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use tempfile::NamedTempFile;

use super::failure::failed;
use super::lock;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The directories of a store.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
}

impl Layout {
    /// Makes what is missing of a store.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let failed = |source| failed(dir, "open it", source);
        // The current directory may change.
        let layout = Self { dir: std::path::absolute(dir).map_err(failed)? };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        trust(dir).map_err(failed)?;
        for folder in [layout.blobs(), layout.records(), layout.tmp(), layout.leases()] {
            make_folder(&folder).map_err(failed)?;
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(layout.lock()) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists && !layout.lock().exists() => Err(failed(error)),
            _ => Ok(layout),
        }
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    pub(super) fn records(&self) -> PathBuf {
        self.dir.join("records")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    pub(super) fn leases(&self) -> PathBuf {
        self.dir.join("leases")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Is as old as the last look of `prune_if_due`.
    pub(super) fn pruned(&self) -> PathBuf {
        self.dir.join("pruned")
    }

    /// Where a blob is.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> PathBuf {
        let hex = digest.hex();
        self.blobs().join(&hex[..2]).join(format!("{hex}.{size}"))
    }

    /// Where a record is. A kind that is no name is a defect of the caller.
    pub(super) fn record(&self, kind: &str, key: &Digest) -> Result<PathBuf> {
        if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(Error::internal(format!("`{kind}` is no kind of records")));
        }
        let hex = key.hex();
        Ok(self.records().join(kind).join(&hex[..2]).join(hex))
    }
}

/// The size in the name of a blob's file.
pub(super) fn size_in(name: &str) -> Option<u64> {
    let (hex, size) = name.split_once('.')?;
    (hex.len() == 64).then(|| size.parse().ok()).flatten()
}

pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        made => made,
    }
}

/// Fails for a directory that somebody else could put something into.
fn trust(dir: &Path) -> io::Result<()> {
    let metadata = fs::metadata(dir)?;
    let refuse = |reason| Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse("others may write to it");
    }
    Ok(())
}

/// Gives a complete file its name, as a thing that was just used, in place of what had the name.
pub(super) fn place(layout: &Layout, file: NamedTempFile, path: &Path) -> Result<()> {
    let failed = |source| failed(&layout.dir, "write", source);
    let _lock = lock::shared(layout)?;
    touch(file.path());
    let file = match file.persist(path) {
        Ok(_) => return Ok(()),
        Err(refused) if refused.error.kind() == ErrorKind::NotFound => refused.file,
        Err(refused) => return Err(failed(refused.error)),
    };
    // The first that begins with these digits.
    let parent = path.parent().unwrap_or(&layout.dir);
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    file.persist(path).map(drop).map_err(|refused| failed(refused.error))
}

/// Notes that a file was used. Without it, as in a directory that cannot be written to, it is only pruned earlier.
pub(super) fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

/// Removes what is damaged. Where that is not allowed, it is found damaged again the next time.
pub(super) fn discard(path: &Path) {
    let _ = fs::remove_file(path);
}

/// Opens a file to read; `None` if it is not there.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// The entries of a directory that have a UTF-8 name; none if it is not there.
pub(super) fn list(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<(String, PathBuf)>>> {
    let items = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        items => Some(items?),
    };
    Ok(items.into_iter().flatten().filter_map(|item| match item {
        Ok(item) => item.file_name().into_string().ok().map(|name| Ok((name, item.path()))),
        Err(error) => Some(Err(error)),
    }))
}
