//! Processes that run commands and tasks for this one.

use std::path::Path;
use std::sync::Arc;

use super::{Finished, IdMap, Level, Spec, Support, Task, TaskAnswer};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::request::Helper;

/// Helpers that are started when they are needed, and end with this value. Any number of threads may use it at once; a helper
/// does one thing at a time, and is used again.
#[derive(Clone, Debug)]
pub struct Sandboxes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    _helper: Helper,
}

/// Where a command wrote something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Sandboxes {
    /// Helpers that are started in this way.
    pub fn new(helper: Helper) -> Self {
        Self(Arc::new(Inner { _helper: helper }))
    }

    /// Finds out what works on this machine, by trying; `directory` is where roots will be. Blocks, for some 50 ms.
    pub fn probe(&self, directory: &Path, cancel: &Cancel) -> Result<Support> {
        let _ = (directory, cancel);
        Err(Error::internal("not yet"))
    }

    /// Which ids are which at a level.
    pub fn id_map(&self, level: Level) -> Result<IdMap> {
        let _ = level;
        Err(Error::internal("not yet"))
    }

    /// Runs a command, and comes back when nothing of it is left. A command that fails is no error: [`Finished::exit`] says so.
    /// `output` is called on this thread. Fails with `Interrupted` within some milliseconds. Blocks.
    pub fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Finished> {
        let _ = (spec, output, cancel);
        Err(Error::internal("not yet"))
    }

    /// Does something with files as root of the ids of a level. Blocks.
    pub fn task(&self, level: Level, task: &Task, cancel: &Cancel) -> Result<TaskAnswer> {
        let _ = (level, task, cancel);
        Err(Error::internal("not yet"))
    }
}
