//! Work on files that belong to others than this user, which only a process inside of the same mapping can do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::wire;

/// Something that is done inside of the mapping of ids that commands run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Removes directories with all that is in them. What is not there is no mistake.
    Remove {
        /// The directories.
        #[serde(with = "wire::paths")]
        paths: Vec<PathBuf>,
    },
    /// Gives the files of an unpacked layer to their owners ([`crate::rootfs::own`]).
    Own {
        /// The layer.
        #[serde(with = "wire::path")]
        tree: PathBuf,
        /// What is left to do: [`crate::rootfs::Fixes`] as bytes.
        #[serde(with = "wire::content")]
        fixes: Vec<u8>,
    },
    /// Copies unpacked layers over each other ([`crate::rootfs::copy_layers`]).
    Copy {
        /// The layers, lowest first.
        #[serde(with = "wire::paths")]
        layers: Vec<PathBuf>,
        /// Where to: a directory.
        #[serde(with = "wire::path")]
        to: PathBuf,
    },
    /// Lists a tree, and puts the list down ([`crate::rootfs::scan`]).
    Scan {
        /// The tree.
        #[serde(with = "wire::path")]
        tree: PathBuf,
        /// Which contents go with it.
        contents: ScanContents,
        /// Where the list goes: a directory.
        #[serde(with = "wire::path")]
        into: PathBuf,
    },
    /// Makes a directory with an owner and a mode, if it is not there. Those above it are there.
    MakeDirectory {
        /// Where.
        #[serde(with = "wire::path")]
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner, as commands see it.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Which contents a [`Task::Scan`] puts down: [`crate::rootfs::Contents`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScanContents {
    /// None.
    Nothing,
    /// All.
    All,
    /// Those that are not as they were in an earlier list, in this directory.
    Since(#[serde(with = "wire::path")] PathBuf),
}

/// What comes of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskAnswer {
    /// It is done.
    Done,
    /// It is done but for something that the user should know of, a line for each.
    Incomplete(Vec<String>),
}
