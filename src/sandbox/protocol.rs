//! What this process and a helper say to each other, over a socket: each message is its length (32 bits, little-endian) and
//! JSON.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Finished, Level, Problem, Spec, Task, TaskAnswer, wire};
use crate::error::Error;

/// A longer message is a defect: a secret, which may be part of one, has at most 500 KiB.
const MAX_MESSAGE: usize = 256 << 20;

/// What a helper is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// First of all: at which level everything else is done.
    Start(Level),
    /// To find out what else works at its level.
    Try {
        /// Where roots will be.
        #[serde(with = "wire::path")]
        directory: PathBuf,
    },
    /// To run a command.
    Run(Box<Spec>),
    /// To do something with files.
    Task(Task),
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It has started.
    Ready,
    /// What works.
    Tried(Tried),
    /// A command has ended.
    Finished(Finished),
    /// A task has.
    Task(TaskAnswer),
    /// It did not work.
    Failed(Failure),
}

/// What works at a level, besides commands as such.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tried {
    /// Why overlayfs does not.
    pub(super) overlay: Option<Problem>,
    /// Whether `/proc` can be one of the sandbox alone.
    pub(super) own_proc: bool,
}

/// Why something did not work, as far as this process has to tell them apart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// The level cannot be had.
    Level(Problem),
    /// The sandbox could not be set up.
    Setup {
        /// What was tried.
        action: String,
        /// What the system said.
        reason: String,
    },
    /// The disk is full.
    NoSpace(String),
    /// Files could not be read or written.
    Store {
        /// Where.
        #[serde(with = "wire::path")]
        path: PathBuf,
        /// What was tried.
        action: String,
        /// What the system said.
        reason: String,
    },
    /// A layer, or what a command left, is not what it has to be.
    Image {
        /// What it is.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Failure {
    /// What was tried, and what the system said.
    pub(super) fn setup(action: impl Into<String>, error: impl Into<io::Error>) -> Self {
        Self::Setup { action: action.into(), reason: error.into().to_string() }
    }

    /// An error of work on files.
    pub(super) fn of(error: Error) -> Self {
        match error {
            Error::NoSpace { message } => Self::NoSpace(message),
            Error::Store { path, action, source } => Self::Store { path, action, reason: source.to_string() },
            Error::ImageInvalid { what, reason } => Self::Image { what, reason },
            other => Self::Setup { action: "work on files".into(), reason: other.to_string() },
        }
    }

    /// The error that this process fails with.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Level(problem) => Error::Sandbox { action: "isolate a command".into(), reason: problem.reason },
            Self::Setup { action, reason } => Error::Sandbox { action, reason },
            Self::NoSpace(message) => Error::NoSpace { message },
            Self::Store { path, action, reason } => Error::Store { path, action, source: io::Error::other(reason) },
            Self::Image { what, reason } => Error::ImageInvalid { what, reason },
        }
    }
}

/// Sends a message.
pub(super) fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut whole = length.to_le_bytes().to_vec();
    whole.extend_from_slice(&text);
    to.write_all(&whole)
}

/// Waits for a message. `None` at the end.
pub(super) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::other("a message is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
}
