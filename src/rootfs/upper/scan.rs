//! Listing by one process for another.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Item, Listing, SpoolFile, list_tree};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// The list.
const LISTING: &str = "listing";
/// Contents that only the process that made the list can read.
const SPOOL: &str = "spool";

/// What was listed.
#[derive(Debug)]
pub struct Scanned {
    /// What is there.
    pub listing: Listing,
    /// Contents that this process could not read by itself.
    pub spool: File,
}

impl Scanned {
    /// Reads what [`scan`] has put down in a directory.
    pub fn read(directory: &Path) -> Result<Self> {
        let read = || Ok((fs::read(directory.join(LISTING))?, File::open(directory.join(SPOOL))?));
        let (listing, spool) = read().map_err(|source| failed(directory, "read a listing", source))?;
        Ok(Self { listing: Listing::from_bytes(&listing)?, spool })
    }
}

/// Which contents are put down, of those files that the process for which a tree is listed could not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// None.
    Nothing,
    /// All.
    All,
    /// Those of files that are not as they were in an earlier list, which [`scan`] has put down in this directory.
    Since(PathBuf),
}

/// Lists a tree, as [`list_tree`] does, and puts the list down in `into`, a directory that is there.
pub fn scan(tree: &Path, contents: &Contents, into: &Path, cancel: &Cancel) -> Result<()> {
    let before = match contents {
        Contents::Since(directory) => Scanned::read(directory)?.listing,
        Contents::Nothing | Contents::All => Listing::default(),
    };
    let before: HashMap<&[u8], &Item> = before.0.iter().map(|item| (item.path.as_slice(), item)).collect();
    let wanted = |item: &Item| {
        let same = |was: &&Item| (was.inode, was.ctime) == (item.inode, item.ctime);
        *contents != Contents::Nothing && !before.get(item.path.as_slice()).is_some_and(same)
    };
    let failed = |source| failed(into, "write a listing", source);
    let new = |name| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(into.join(name));
    let mut spool = SpoolFile::new(new(SPOOL).map_err(failed)?);
    let listing = list_tree(tree, Some(&mut spool), &wanted, cancel)?;
    let mut file = new(LISTING).map_err(failed)?;
    io::Write::write_all(&mut file, &listing.to_bytes()).map_err(failed)
}

fn failed(path: &Path, action: &str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { message: format!("cannot {action} at `{}`: {source}", path.display()) }
        }
        _ => Error::Store { path: path.to_owned(), action: action.into(), source },
    }
}
