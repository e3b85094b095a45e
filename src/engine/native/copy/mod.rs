//! COPY and ADD, and the directory of WORKDIR: what they take ([`select`]), and the layer that they make of it ([`place`]).
//!
//! Nothing is unpacked and nothing is read but what a digest needs: these are functions over trees ([`Files`]). The rules are
//! `BuildKit`'s, down to what it does by accident: `fsutil`'s `copy` package says what is copied where, and its callers in
//! `solver/llbsolver/file` with what options.
//!
//! - Several sources are copied one after the other, and each sees what those before it have put down.
//! - A source that is a symbolic link is followed. Links inside a directory are kept.
//! - Of a directory, the contents are copied. The destination is made with the attributes that any directory gets which is
//!   missing; if it is there, it stays as it is. Directories further down get the attributes of those that are copied.
//! - A directory that is missing gets the mode 0755 (or the octal `--chmod`, without its special bits) and the owner of
//!   `--chown`.
//! - The destination goes through the symbolic links of the base. A link in the last place is followed too, but not one
//!   that a copied directory would put something else in the place of: that one is replaced.
//! - A file replaces whatever is no directory. A file never replaces a directory, nor the reverse.

mod digest;
mod directory;
mod files;
mod glob;
mod owner;
mod place;
mod resolve;
mod select;
mod target;
mod unpack;
mod view;

use crate::error::{Error, Location};

pub use directory::make_directory;
pub use files::{ContextFiles, FileId, Files, Item, ItemKind, Nothing, Owner};
pub use owner::{Account, Ownership, needs_names, owner};
pub use place::{is_linked, needs_base, place};
pub(super) use resolve::resolve;
pub use select::{Fetched, Selection, at, select};
pub use view::ViewFiles;

/// What is wrong with an instruction, or with what it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyMistake {
    /// One line.
    pub message: String,
    /// What was perhaps meant.
    pub suggestion: Option<String>,
    /// The part of the instruction that it is about.
    pub near: Option<String>,
}

impl CopyMistake {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), suggestion: None, near: None }
    }

    fn near(self, text: &str) -> Self {
        Self { near: Some(text.to_owned()), ..self }
    }
}

/// Why an instruction cannot be carried out.
#[derive(Debug)]
pub enum Failure {
    /// The instruction does not fit what is there.
    Mistake(CopyMistake),
    /// Something else, which has nothing to do with its text.
    Other(Error),
}

impl Failure {
    /// The error, with the place in the Dockerfile that it is about: `locate` gets a part of the instruction's text, if
    /// there is one to be marked.
    pub fn at(self, locate: impl FnOnce(Option<&str>) -> Location) -> Error {
        match self {
            Self::Mistake(CopyMistake { message, suggestion, near }) => {
                Error::CopyFailed { location: Box::new(locate(near.as_deref())), message, suggestion }
            }
            Self::Other(error) => error,
        }
    }
}

impl From<CopyMistake> for Failure {
    fn from(mistake: CopyMistake) -> Self {
        Self::Mistake(mistake)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// A path for people.
fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

/// The path of something in a directory.
fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() || name.is_empty() { [directory, name].concat() } else { [directory, name].join(&b'/') }
}

/// The directory that a path is in; that of the root is the root.
fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |at| &path[..at])
}

/// The last part of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// A path of an instruction as those of [`Files`] are: without the slash that it begins with.
fn relative(path: &str) -> &[u8] {
    path.trim_start_matches('/').as_bytes()
}
