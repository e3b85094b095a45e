//! Writing an image into an OCI layout in a directory, beside the images that are there.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::blobs::{MAX_DOCUMENT, Verified, read_error};
use super::lock::Lock;
use super::open::check_version;
use super::partial::{Partial, failed};
use super::plan::{Image, Item, Meter, Plan, Watch, Written};
use super::{BLOCK, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION, blob_path, invalid, merge};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// Writes an image into a layout, which is made if there is none. Other images stay; one of the same name leaves the list
/// (its blobs stay). Blobs and the list appear when they are complete. Several processes may write to one layout at once:
/// they wait for each other.
///
/// When this fails, the list is as it was, and what was written is gone. Fails with `OutputFailed` where the directory cannot
/// be written to, with `ImageInvalid` where it holds another kind of layout, with `Interrupted`, and with what is wrong with
/// the image.
pub fn write_layout(image: Image<'_>, directory: &Path, watch: Watch<'_>) -> Result<Written> {
    watch.cancel.check()?;
    let plan = Plan::for_layout(image)?;
    let mut layout = Layout::lock(directory, watch.cancel)?;
    layout.check()?;
    let mut meter = plan.meter(watch);
    layout.directories()?;
    for (digest, item) in &plan.items {
        layout.blob(&plan, digest, item, &mut meter)?;
    }
    layout.list(&plan.entries(), watch.cancel)?;
    layout.keep();
    Ok(Written { manifest: plan.manifest.clone(), bytes: meter.total() })
}

/// A layout that nobody else of us writes to.
pub(super) struct Layout {
    root: PathBuf,
    /// What was made so far; all of it goes when this does.
    made: Vec<Made>,
    /// Dropped after that.
    _lock: Lock,
}

enum Made {
    Directory(PathBuf),
    File(PathBuf),
}

impl Layout {
    pub(super) fn lock(root: &Path, cancel: &Cancel) -> Result<Self> {
        let mut made = Vec::new();
        let lock = Lock::directory(root, cancel, || make_directories(root, &mut made));
        match lock {
            Ok(lock) => Ok(Self { root: root.to_owned(), made, _lock: lock }),
            Err(error) => {
                undo(&made);
                Err(error)
            }
        }
    }

    fn what(&self) -> String {
        format!("OCI layout `{}`", self.root.display())
    }

    /// Looks at a layout that is there before anything is written.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(version) = self.read(LAYOUT_FILE)? {
            check_version(&self.what(), &version)?;
        }
        merge::read(&self.what(), self.read(INDEX_FILE)?.as_deref()).map(drop)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.root.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > MAX_DOCUMENT => Err(invalid(self.what(), format!("`{name}` is too big"))),
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path, error)),
        }
    }

    pub(super) fn directories(&mut self) -> Result<()> {
        let path = self.root.join("blobs/sha256");
        make_directories(&path, &mut self.made).map_err(|source| failed(&path, source))
    }

    /// Puts a blob in its place. One that is there already is taken if it is good, and replaced if not.
    fn blob(&mut self, plan: &Plan<'_>, digest: &Digest, item: &Item<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let path = self.root.join(blob_path(digest));
        if is_good(&path, digest, item.size, &mut || meter.add(0))? {
            return meter.add(item.size);
        }
        self.fill(path, |file, path| {
            let mut write = |block: &[u8]| file.write_all(block).map_err(|source| failed(path, source));
            plan.read(digest, item, meter, &mut write)
        })
    }

    /// The same with a content of any kind, which is checked while it is read.
    pub(super) fn put(&mut self, digest: &Digest, size: u64, content: &mut dyn Read, cancel: &Cancel) -> Result<()> {
        let path = self.root.join(blob_path(digest));
        if is_good(&path, digest, size, &mut || cancel.check())? {
            return Ok(());
        }
        let descriptor = Descriptor::new("", *digest, size);
        self.fill(path, |file, path| {
            let mut reader = Verified::new(content, &descriptor);
            let mut buffer = vec![0; BLOCK];
            loop {
                cancel.check()?;
                match reader.read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(count) => file.write_all(&buffer[..count]).map_err(|source| failed(path, source))?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(read_error(error, &descriptor)),
                }
            }
        })
    }

    /// Makes a file that is there when it is complete.
    fn fill(&mut self, path: PathBuf, write: impl FnOnce(&mut Partial, &Path) -> Result<()>) -> Result<()> {
        let mut file = Partial::create(&path)?;
        write(&mut file, &path)?;
        let new = !path.exists();
        file.keep()?;
        if new {
            self.made.push(Made::File(path));
        }
        Ok(())
    }

    /// Makes the directory a layout, and puts the image into its list.
    pub(super) fn list(&mut self, entries: &[Descriptor], cancel: &Cancel) -> Result<()> {
        let _lock = Lock::file(self.root.join("index.json.lock"), cancel)?;
        let mut index = merge::read(&self.what(), self.read(INDEX_FILE)?.as_deref())?;
        merge::put(&mut index, entries)?;
        let index = serde_json::to_vec(&index).map_err(|error| Error::internal(error.to_string()))?;
        if self.read(LAYOUT_FILE)?.is_none() {
            self.replace(LAYOUT_FILE, LAYOUT_VERSION.as_bytes())?;
            self.made.push(Made::File(self.root.join(LAYOUT_FILE)));
        }
        self.replace(INDEX_FILE, &index)
    }

    /// What was made stays.
    pub(super) fn keep(&mut self) {
        self.made.clear();
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let mut file = Partial::create(&path)?;
        file.write_all(content).map_err(|source| failed(&path, source))?;
        file.keep()
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        undo(&self.made);
    }
}

/// Directories that others filled in the meantime stay.
fn undo(made: &[Made]) {
    for made in made.iter().rev() {
        let _ = match made {
            Made::Directory(path) => fs::remove_dir(path),
            Made::File(path) => fs::remove_file(path),
        };
    }
}

/// Makes a directory and those above it, and says which were not there.
fn make_directories(path: &Path, made: &mut Vec<Made>) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        match fs::create_dir(path) {
            Ok(()) => made.push(Made::Directory(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether a blob is there with the content that it should have. `tick` is called between blocks.
fn is_good(path: &Path, digest: &Digest, size: u64, tick: &mut dyn FnMut() -> Result<()>) -> Result<bool> {
    let there = fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() == size);
    let Some(file) = there.then(|| File::open(path).ok()).flatten() else { return Ok(false) };
    let mut reader = Verified::new(file, &Descriptor::new("", *digest, size));
    let mut buffer = vec![0; BLOCK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(_) => tick()?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(false),
        }
    }
}
