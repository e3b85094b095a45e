//! `RUN chmod -R` and `RUN chown -R` right after a COPY: where their outcome is certain, they become attributes in the COPY's
//! own layer, and nothing is stored twice.
//!
//! A command is folded only if the file system is provably the one that the real command would leave:
//!
//! - It is `chmod -R MODE DIRECTORY` or `chown -R OWNER DIRECTORY`, or a chain of these with `&&`, run by `/bin/sh -c` or by
//!   itself, by root, in the sandbox, without mounts or devices. Anything else about it, and it is run.
//! - `/bin/sh` and the command are programs of the base, not of this COPY.
//! - The directory is there, and no link leads to it. It is not one in which a running container has files of its own.
//! - No regular file of the base that is below it would change: its content would have to be stored again. Directories and
//!   links of the base may change, they are only attributes.
//! - GNU's, `BusyBox`'s and the other programs agree about the outcome, and the kernel does not clear bits on the way.

mod apply;
mod command;
mod mode;

use crate::context::compare_paths;
use crate::dockerfile::instruction::Security;
use crate::dockerfile::step::{Action, RunStep, Step};
use crate::engine::native::copy::{Account, Files};
use crate::error::Result;
use crate::layer::LayerEntry;

use apply::Layer;
use command::Command;

/// What became of a layer and the steps behind it.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The entries of the layer, with the attributes that the commands give them, and those of the base that they change.
    pub entries: Vec<LayerEntry>,
    /// How many of the following steps are done by that: commands, and steps between them that only configure.
    pub steps: usize,
    /// Why the next command is not among them, if it is one of `chmod` or `chown`.
    pub refused: Option<String>,
}

/// Folds as many of the steps that follow a COPY into its layer as can be. `base` is what is below the layer.
///
/// Not for the layer of a `--link`, which is the same whatever the base is. Fails as the accounts do.
pub fn fold(entries: Vec<LayerEntry>, following: &[Step], base: &dyn Files, accounts: &dyn Account) -> Result<Folded> {
    let mut folded = Folded { entries, steps: 0, refused: None };
    for (number, step) in following.iter().enumerate() {
        let run = match &step.action {
            Action::Configure => continue,
            Action::Run(run) => run,
            Action::MakeDirectory(_) | Action::Copy(_) => break,
        };
        let Some(commands) = command::read(run) else { break };
        let layer = Layer::new(&folded.entries, base);
        match done(layer, run, &commands, accounts)? {
            Ok(entries) => {
                folded.entries = entries;
                folded.steps = number + 1;
            }
            Err(reason) => {
                folded.refused = Some(reason);
                break;
            }
        }
    }
    Ok(folded)
}

/// How many of the steps that follow a COPY may be folded at most, as far as their text tells: one number for each command
/// that is one of `chmod` and `chown`, the largest first.
pub fn candidates(following: &[Step]) -> Vec<usize> {
    let mut counts = Vec::new();
    for (number, step) in following.iter().enumerate() {
        match &step.action {
            Action::Configure => {}
            Action::Run(run) if command::read(run).is_some() => counts.insert(0, number + 1),
            _ => break,
        }
    }
    counts
}

/// The entries after a RUN, or why it has to be run.
fn done(
    mut layer: Layer<'_>,
    run: &RunStep,
    commands: &[Command],
    accounts: &dyn Account,
) -> Result<std::result::Result<Vec<LayerEntry>, String>> {
    let mut all = || -> Result<std::result::Result<(), String>> {
        if let Err(reason) = surroundings(run) {
            return Ok(Err(reason));
        }
        if run.command.len() == 3 && run.command[0] == command::SHELL && !layer.has_program(command::SHELL) {
            return Ok(Err(format!("the base has no {}", command::SHELL)));
        }
        for command in commands {
            if let Err(reason) = layer.run(command, run, accounts)? {
                return Ok(Err(reason));
            }
        }
        Ok(Ok(()))
    };
    Ok(all()?.map(|()| {
        let mut entries: Vec<LayerEntry> = layer.into_entries().collect();
        entries.sort_unstable_by(|left, right| compare_paths(&left.path, &right.path));
        entries
    }))
}

/// Whether a command runs as any command does.
fn surroundings(run: &RunStep) -> std::result::Result<(), String> {
    if !matches!(run.user.as_str(), "" | "0" | "root" | "0:0" | "root:root") {
        return Err(format!("it is run by `{}`", run.user));
    }
    if !run.mounts.is_empty() || !run.devices.is_empty() || run.security != Security::Sandbox {
        return Err("it has mounts, devices or privileges".to_owned());
    }
    match run.env.get("LD_PRELOAD") {
        Some(_) => Err("LD_PRELOAD is set".to_owned()),
        None => Ok(()),
    }
}
