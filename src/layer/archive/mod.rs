//! Archives that ADD unpacks: tar, plain or compressed with gzip, bzip2, xz or zstd.
//!
//! The rules are those of Moby's `go-archive`, which BuildKit calls: an archive is what begins like one, whatever its name;
//! its entries are taken as Go's `archive/tar` reads them; no path leaves the root.

mod decompress;
mod entries;
mod pax;
mod reader;
mod sparse;

use std::fs::File;
use std::io;
use std::path::Path;

use self::decompress::decompress;
use self::entries::Entries;
use self::reader::Reader;
use super::LayerEntry;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// The entries of an archive in its own order; `None` if the file is no archive.
///
/// Paths are clean and relative to the archive's root. An entry of the root itself is left out: it must not change the
/// directory that the archive is unpacked to. Nothing else is done with them: a path may come twice (the last counts), a hard
/// link's first name may lie in the destination, and directories that are only named by what is in them are not there.
///
/// Contents are put into a file without a name in `spool`. Fails with `ImageInvalid` for a damaged archive, `NoSpace`,
/// `Store` if the spool cannot be written, and `Interrupted`. Blocks.
pub fn open(file: &File, spool: &Path, cancel: &Cancel) -> Result<Option<Vec<LayerEntry>>> {
    // What fails before the first entry is there is no archive, as for BuildKit.
    let Ok(stream) = decompress(file) else { return Ok(None) };
    let mut reader = Reader::new(stream, cancel);
    let first = match reader.next() {
        Ok(Some(first)) => first,
        Ok(None) => return Ok(None),
        Err(error) => return cancel.check().and_then(|()| unless_full(&error)).map(|()| None),
    };
    let mut entries = Entries::new(spool, cancel)?;
    let mut next = Some(first);
    while let Some(member) = next {
        entries.add(&member, &mut reader)?;
        next = reader.next().map_err(|error| damaged(&error, cancel))?;
    }
    // Checksums stand at the end of a stream.
    reader.drain().map_err(|error| damaged(&error, cancel))?;
    Ok(Some(entries.finish()))
}

/// Not enough memory says nothing of the file.
fn unless_full(error: &io::Error) -> Result<()> {
    match error.kind() {
        io::ErrorKind::OutOfMemory => Err(invalid(error.to_string())),
        _ => Ok(()),
    }
}

fn damaged(error: &io::Error, cancel: &Cancel) -> Error {
    match cancel.check() {
        Err(interrupted) => interrupted,
        Ok(()) if error.kind() == io::ErrorKind::UnexpectedEof => invalid("it is cut off"),
        Ok(()) => invalid(error.to_string()),
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::ImageInvalid { what: "archive".into(), reason: reason.into() }
}
