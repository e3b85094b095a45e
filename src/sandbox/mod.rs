//! Where commands of RUN are executed: a process of its own, in namespaces of its own, on a root file system of layers.
//!
//! - [`Level`]: how well commands can be isolated on a machine.
//! - [`Spec`]: what is to be run, on which root, with which mounts.
//! - [`Sandboxes`]: the processes that do it.
//! - [`Task`]: work on files that belong to others than this user.

mod advice;
mod client;
mod emulate;
mod helper;
mod idmap;
mod level;
mod outcome;
mod protocol;
mod spec;
mod task;
mod wire;

pub use client::{Sandboxes, Stream};
pub use helper::serve;
pub use idmap::{IdMap, IdRange, inside, outside};
pub use level::{Level, LevelSupport, Problem, Support};
pub use outcome::{Exit, Finished, InodeOwner};
pub use spec::{Mount, Network, Process, Root, Spec, Ulimit};
pub use task::{ScanContents, Task, TaskAnswer};
