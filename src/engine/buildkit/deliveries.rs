//! Takes what a worker sends, each output in its own way. What is written to files is kept only once the build has succeeded.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::buildkit::filesend::Receive;
use crate::buildkit::incoming::Incoming;
use crate::buildkit::receive::Folder;
use crate::cancel::Cancel;
use crate::daemon::{Daemon, images};
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::folders;
use crate::image::{self, Partial, Received};

/// How much is copied at a time.
const BLOCK: usize = 256 << 10;

/// Something that is filled once, and taken once it is full.
#[derive(Default)]
enum Slot<T> {
    #[default]
    Empty,
    Filling,
    Full(T),
}

/// What a worker sends as one stream.
struct Once<T>(Mutex<Slot<T>>);

impl<T> Once<T> {
    fn new() -> Self {
        Self(Mutex::new(Slot::Empty))
    }

    fn swap(&self, slot: Slot<T>) -> Slot<T> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), slot)
    }

    fn begin(&self) -> Result<()> {
        match self.swap(Slot::Filling) {
            Slot::Empty => Ok(()),
            Slot::Filling | Slot::Full(_) => Err(protocol("it sent an output twice")),
        }
    }

    fn take(&self) -> Result<T> {
        match self.swap(Slot::Empty) {
            Slot::Full(content) => Ok(content),
            Slot::Empty | Slot::Filling => Err(protocol("it did not send all outputs")),
        }
    }
}

fn protocol(reason: &str) -> Error {
    Error::DaemonProtocol { action: "the output of a build".into(), reason: reason.into() }
}

/// An archive in a file.
pub(super) struct ArchiveFile {
    path: PathBuf,
    /// Made at once: whether it can be written is known before the build.
    file: Mutex<Option<Partial>>,
    written: Once<Partial>,
}

impl ArchiveFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = Mutex::new(Some(Partial::create(path)?));
        Ok(Self { path: path.to_owned(), file, written: Once::new() })
    }

    fn keep(&self) -> Result<()> {
        self.written.take()?.keep()
    }
}

#[async_trait]
impl Receive for ArchiveFile {
    async fn receive(&self, mut content: Incoming) -> Result<()> {
        self.written.begin()?;
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut file, path) = (file.ok_or_else(|| protocol("it sent an output twice"))?, self.path.clone());
        let copy = move || {
            let mut buffer = vec![0; BLOCK];
            loop {
                match content.read(&mut buffer).map_err(|error| Error::unwritten(&path, error))? {
                    0 => return Ok(file),
                    count => file.write_all(&buffer[..count]).map_err(|error| Error::unwritten(&path, error))?,
                }
            }
        };
        self.written.swap(Slot::Full(blocking(copy).await?));
        Ok(())
    }
}

/// An OCI layout in a directory.
pub(super) struct LayoutDirectory {
    path: PathBuf,
    cancel: Cancel,
    received: Once<Received>,
}

impl LayoutDirectory {
    pub(super) fn new(path: &Path, cancel: &Cancel) -> Self {
        Self { path: path.to_owned(), cancel: cancel.clone(), received: Once::new() }
    }

    fn keep(&self) -> Result<()> {
        self.received.take()?.keep(&self.cancel)
    }
}

#[async_trait]
impl Receive for LayoutDirectory {
    async fn receive(&self, mut content: Incoming) -> Result<()> {
        self.received.begin()?;
        let (path, cancel) = (self.path.clone(), self.cancel.clone());
        let received = blocking(move || image::receive_layout(&mut content, &path, &cancel)).await?;
        self.received.swap(Slot::Full(received));
        Ok(())
    }
}

/// A daemon of this machine.
pub(super) struct IntoDaemon {
    pub(super) daemon: Daemon,
    cancel: Cancel,
    /// What it calls the image.
    loaded: Once<Option<String>>,
}

impl IntoDaemon {
    pub(super) fn new(daemon: Daemon, cancel: &Cancel) -> Self {
        Self { daemon, cancel: cancel.clone(), loaded: Once::new() }
    }
}

#[async_trait]
impl Receive for IntoDaemon {
    async fn receive(&self, content: Incoming) -> Result<()> {
        self.loaded.begin()?;
        let loaded = images::load(&self.daemon, content, &self.cancel).await;
        let names = loaded.map_err(|error| match error {
            // It is not the worker that went away.
            Error::DaemonProtocol { .. } | Error::DaemonUnreachable { .. } => {
                Error::DaemonRefused { action: "to load the image".into(), status: 503, message: error.to_string() }
            }
            other => other,
        })?;
        self.loaded.swap(Slot::Full(names.into_iter().next()));
        Ok(())
    }
}

/// The files of an image in a directory. One that is not there yet appears with everything in it, or not at all.
pub(super) struct Files {
    pub(super) folder: Arc<Folder>,
    destination: PathBuf,
    beside: Option<Beside>,
}

/// A directory that is going to be renamed, within one that only we know. All of it goes when this does.
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // There is an error already, or nothing left to remove.
        let _ = folders::remove_all(&self.0);
    }
}

impl Files {
    pub(super) fn create(destination: &Path) -> Result<Self> {
        let failed = |error| Error::unwritten(destination, error);
        if let Ok(there) = fs::metadata(destination) {
            if !there.is_dir() {
                return Err(failed(std::io::ErrorKind::NotADirectory.into()));
            }
            let folder = Arc::new(Folder::new(destination.to_owned(), destination.to_owned()));
            return Ok(Self { folder, destination: destination.to_owned(), beside: None });
        }
        let parent = destination.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(failed)?;
        let beside = Beside(parent.join(folders::unique("output")));
        fs::create_dir(&beside.0).map_err(failed)?;
        let inside = beside.0.join("root");
        fs::create_dir(&inside).map_err(failed)?;
        let folder = Arc::new(Folder::new(inside, destination.to_owned()));
        Ok(Self { folder, destination: destination.to_owned(), beside: Some(beside) })
    }

    fn keep(&self) -> Result<()> {
        let Some(beside) = &self.beside else { return Ok(()) };
        let (inside, destination) = (beside.0.join("root"), self.destination.as_path());
        let failed = |error| Error::unwritten(destination, error);
        match renameat_with(CWD, &inside, CWD, destination, RenameFlags::NOREPLACE) {
            // File systems that cannot do that have no other way to tell.
            Err(Errno::INVAL | Errno::NOSYS) => fs::rename(&inside, destination).map_err(failed),
            result => result.map_err(|error| failed(error.into())),
        }
    }
}

/// An output that a worker sends.
pub(super) enum Delivery {
    Archive(Arc<ArchiveFile>),
    Layout(Arc<LayoutDirectory>),
    Files(Files),
    Daemon(Arc<IntoDaemon>),
}

/// What is known of an output once it is there.
#[derive(Default)]
pub(super) struct Kept {
    /// What could not be written.
    pub(super) left_out: Vec<String>,
    /// What a daemon calls the image, which knows one without a name by its configuration or by its manifest.
    pub(super) loaded: Option<String>,
}

impl Delivery {
    /// Gives what was written its name.
    pub(super) fn keep(&self) -> Result<Kept> {
        let mut kept = Kept::default();
        match self {
            Self::Archive(archive) => archive.keep()?,
            Self::Layout(layout) => layout.keep()?,
            Self::Daemon(daemon) => kept.loaded = daemon.loaded.take()?,
            Self::Files(files) => {
                files.keep()?;
                kept.left_out = files.folder.left_out();
            }
        }
        Ok(kept)
    }
}
