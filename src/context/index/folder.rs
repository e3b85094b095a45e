//! Where index files are, and how much room they take.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::super::root::Root;
use crate::digest::Digest;

/// All index files together; those that were not used for the longest time go first.
pub(super) const MAX_BYTES: u64 = 1 << 30;
/// A file that a process left unfinished is removed after this time.
const UNFINISHED: Duration = Duration::from_secs(3600);
/// How an index file's name ends.
const SUFFIX: &str = ".index";
/// How the name of an unfinished one ends.
pub(super) const PARTIAL: &str = ".partial";

/// The root's path without links, so that every way to a root leads to one index.
pub(super) fn canonical(root: &Root) -> Option<PathBuf> {
    root.path.canonicalize().ok()
}

/// The index file of a root.
pub(super) fn file(folder: &Path, root: &Path) -> PathBuf {
    let name = Digest::of(root.as_os_str().as_bytes());
    folder.join(format!("{}{SUFFIX}", &name.hex()[..32]))
}

/// Makes the folder, for this user alone.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file if it is this user's and nobody else may write to it: it is believed.
pub(super) fn open_own(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    (own && metadata.is_file()).then_some(file)
}

/// Notes that a file was used.
pub(super) fn touch(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::now());
    // Without it the file is only forgotten earlier.
    let _ = File::options().write(true).open(path).and_then(|file| file.set_times(times));
}

/// Removes what is too much, and what was left behind.
pub(super) fn shrink(folder: &Path, most: u64) {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(metadata)) = (item.path(), item.metadata()) else { continue };
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if ends_with(&path, PARTIAL) {
            if modified.elapsed().is_ok_and(|age| age > UNFINISHED) {
                // Somebody else may have removed it.
                let _ = fs::remove_file(path);
            }
        } else if ends_with(&path, SUFFIX) {
            files.push((modified, metadata.len(), path));
        }
    }
    files.sort_unstable_by(|left, right| right.cmp(left));
    let mut total = 0;
    for (_, size, path) in files {
        total += size;
        if total > most {
            let _ = fs::remove_file(path);
        }
    }
}

fn ends_with(path: &Path, suffix: &str) -> bool {
    path.file_name().map(OsStr::as_bytes).is_some_and(|name| name.ends_with(suffix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_so_does_what_was_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let make = |name: &str, size: usize, age: Duration| {
            fs::write(dir.path().join(name), vec![0; size]).unwrap();
            let times = FileTimes::new().set_modified(SystemTime::now() - age);
            File::options().write(true).open(dir.path().join(name)).unwrap().set_times(times).unwrap();
        };
        make("a.index", 40, hour * 3);
        make("b.index", 40, hour);
        make("c.index", 40, hour * 2);
        make("d.index.1.partial", 5, hour * 2);
        make("e.index.1.partial", 5, hour / 2);
        make("other", 500, hour * 9);
        shrink(dir.path(), 100);
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["b.index", "c.index", "e.index.1.partial", "other"]);
    }

    #[test]
    fn a_file_that_others_may_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        for (mode, believed) in [(0o600, true), (0o644, true), (0o664, false), (0o606, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_own(&path).is_some(), believed, "{mode:o}");
        }
        assert!(open_own(dir.path()).is_none());
    }
}
