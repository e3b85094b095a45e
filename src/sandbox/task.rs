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
}

/// What comes of a [`Task`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskAnswer {
    /// It is done.
    Done,
}
