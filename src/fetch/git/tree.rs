//! The files of a checkout: which of them, and when they are from.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::cancel::Cancel;
use crate::error::Error;
use crate::mtime::Mtime;

/// What is left to do when git is done.
pub(super) struct Finish {
    pub(super) root: PathBuf,
    pub(super) subdirectory: Vec<String>,
    pub(super) keep: bool,
    pub(super) time: Mtime,
    pub(super) cancel: Cancel,
}

/// An error, or the reason for one.
type Result<T> = std::result::Result<T, std::result::Result<Error, String>>;

/// The parts of a path from the root, which `..` does not leave.
pub(super) fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

impl Finish {
    /// The directory that was wanted, with the time of the commit on everything in it.
    pub(super) fn run(self) -> Result<PathBuf> {
        let directory = self.find()?;
        let mut folders = vec![directory.clone()];
        let mut next = 0;
        while let Some(folder) = folders.get(next).cloned() {
            next += 1;
            self.cancel.check().map_err(Ok)?;
            let is_root = folder == self.root;
            self.visit(&folder, is_root, &mut folders)
                .map_err(|error| Err(format!("{}: {error}", folder.display())))?;
        }
        // From the deepest: what is done in a directory changes its time.
        for folder in folders.iter().rev() {
            touch(folder, self.time).map_err(|error| Err(error.to_string()))?;
        }
        Ok(directory)
    }

    /// A symbolic link on the way could lead anywhere.
    fn find(&self) -> Result<PathBuf> {
        let mut path = self.root.clone();
        for part in &self.subdirectory {
            path.push(part);
            if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                return Err(Err(format!("it has no directory `{}`", self.subdirectory.join("/"))));
            }
        }
        Ok(path)
    }

    fn visit(&self, folder: &Path, is_root: bool, folders: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            // A submodule points to where its repository is on this machine, unless that comes along.
            if !self.keep && !is_root && kind.is_file() && entry.file_name() == OsStr::new(".git") {
                fs::remove_file(entry.path())?;
            } else if kind.is_dir() {
                folders.push(entry.path());
            } else {
                touch(&entry.path(), self.time)?;
            }
        }
        Ok(())
    }
}

fn touch(path: &Path, time: Mtime) -> io::Result<()> {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subdirectory_is_below_the_root() {
        assert_eq!(parts("/a//b/../c/."), ["a", "c"]);
        assert_eq!(parts("../../a"), ["a"]);
        assert!(parts("/").is_empty());
    }
}
