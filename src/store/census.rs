//! How much is in a tree, as far as this user can see: what a power cut leaves of it shows there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::FileType;

use crate::folders::{Folders, join, list, look};

/// Begins every note. The number changes with the format.
const MAGIC: &str = "cooper tree 1";
/// What changes whenever the machine is started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What is in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    /// Names of anything.
    pub(super) entries: u64,
    /// The sizes of regular files, each once.
    pub(super) bytes: u64,
    /// The last start of the machine since which it has been as it is.
    boot: String,
}

impl Info {
    /// Counts what is in a tree. Directories that this user may not look into are passed over, now and the next time.
    pub(super) fn of(tree: &Path) -> io::Result<Self> {
        let mut info = Self { boot: boot(), ..Self::default() };
        let mut folders = Folders::open(tree)?;
        let mut linked = BTreeSet::new();
        let mut left = vec![Vec::new()];
        while let Some(path) = left.pop() {
            match folders.get(&path) {
                Ok(directory) => info.look(directory, &path, &mut left, &mut linked)?,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(info)
    }

    fn look(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        left: &mut Vec<Vec<u8>>,
        linked: &mut BTreeSet<u64>,
    ) -> io::Result<()> {
        for name in list(directory)? {
            let Some(found) = look(directory, OsStr::from_bytes(&name))? else { continue };
            self.entries += 1;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => left.push(join(path, &name)),
                FileType::RegularFile if found.st_nlink == 1 || linked.insert(found.st_ino) => {
                    self.bytes += u64::try_from(found.st_size).unwrap_or_default();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts the note beside a tree.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let Self { entries, bytes, boot } = self;
        let new = directory.join("info.new");
        fs::write(&new, format!("{MAGIC}\n{entries}\n{bytes}\n{boot}\n"))?;
        fs::rename(new, directory.join("info"))
    }

    /// Reads the note beside a tree; `None` if it is not there, or damaged.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join("info")).ok()?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != MAGIC {
            return None;
        }
        let (entries, bytes) = (lines.next()?.parse().ok()?, lines.next()?.parse().ok()?);
        Some(Self { entries, bytes, boot: lines.next()?.to_owned() })
    }

    /// Whether everything is there that was. It is looked at once after each start of the machine.
    pub(super) fn holds(directory: &Path) -> io::Result<bool> {
        let Some(noted) = Self::read(directory) else { return Ok(false) };
        if noted.boot == boot() {
            return Ok(true);
        }
        let found = Self::of(&directory.join("tree"))?;
        if (found.entries, found.bytes) != (noted.entries, noted.bytes) {
            return Ok(false);
        }
        // Where it cannot be noted, it is looked at again.
        let _ = found.write(directory);
        Ok(true)
    }
}

/// The same until the machine is started anew. Where the kernel does not tell, nothing is compared.
fn boot() -> String {
    fs::read_to_string(BOOT).map(|text| text.trim().to_owned()).unwrap_or_default()
}
