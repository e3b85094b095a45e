//! Locks between processes that write to one layout.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::partial::failed;
use crate::cancel::Cancel;
use crate::error::Result;

/// Between two tries. Whoever waits does so for as long as another one writes an image.
const PAUSE: Duration = Duration::from_millis(20);

/// A lock on a file or a directory, for as long as this lives.
pub(super) struct Lock {
    _file: File,
    /// A file that was made for the lock alone, and goes with it.
    own: Option<PathBuf>,
}

impl Lock {
    /// Locks a directory, which is made if need be by `make`.
    pub(super) fn directory(path: &Path, cancel: &Cancel, mut make: impl FnMut() -> io::Result<()>) -> Result<Self> {
        let open = || {
            make()?;
            File::open(path)
        };
        let file = Self::wait(path, cancel, open)?;
        Ok(Self { _file: file, own: None })
    }

    /// Locks a file that is there for nothing else, as BuildKit does with `index.json.lock`.
    pub(super) fn file(path: PathBuf, cancel: &Cancel) -> Result<Self> {
        let open = || OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = Self::wait(&path, cancel, open)?;
        Ok(Self { _file: file, own: Some(path) })
    }

    fn wait(path: &Path, cancel: &Cancel, mut open: impl FnMut() -> io::Result<File>) -> Result<File> {
        loop {
            cancel.check()?;
            let file = open().map_err(|source| failed(path, source))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Another one may have removed it, or put another one in its place, before it was locked.
                Ok(()) if is_at(&file, path) => return Ok(file),
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => std::thread::sleep(PAUSE),
                // A file system without locks: then there are none.
                Err(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => return Ok(file),
                Err(errno) => return Err(failed(path, errno.into())),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(path) = &self.own {
            // Nobody else can have locked it, so nobody needs it; if it stays, it harms nobody.
            let _ = fs::remove_file(path);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(own), Ok(there)) if id(own.clone()) == id(there.clone()))
}
