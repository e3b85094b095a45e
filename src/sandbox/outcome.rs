//! How a command ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It returned this status. A command that is not there counts as 127, one that cannot be executed as 126, as in a
    /// shell; what is wrong with it is the last line of its output.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Whether the command says that it succeeded.
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// The status as shells give it: 128 and the number of a signal.
    pub const fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The intended owner of a file that cannot have extended attributes, at [`Level::Single`](super::Level::Single): a
/// symbolic link or a special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeOwner {
    /// The device number of the file system that the root is written to.
    pub device: u64,
    /// The inode's number in the upper directory, or in the root if that is no overlay.
    pub inode: u64,
    /// Who is to own it.
    pub uid: u32,
    /// Which group is to own it.
    pub gid: u32,
}

/// What is known when a command has ended and nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// How the command ended.
    pub exit: Exit,
    /// Owners that could not be recorded in the files themselves.
    pub owners: Vec<InodeOwner>,
}
