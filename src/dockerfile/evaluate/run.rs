//! RUN.

use super::Evaluator;
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::instruction::{Command, Instruction, Mount, MountKind, MountSpec, Run};
use crate::dockerfile::mistake::{Mistake, Result};
use crate::dockerfile::paths;
use crate::dockerfile::step::{Action, RunMount, RunStep, Script};

/// Where BuildKit puts a here-document that is a program.
const SCRIPTS: &str = "/dev/pipes";

impl Evaluator<'_> {
    pub(super) fn run_step(&mut self, instruction: &Instruction, run: &Run) -> Result<(Action, Option<String>)> {
        let mounts: Vec<RunMount> =
            run.mounts.iter().map(|spec| self.mount(instruction, spec)).collect::<Result<_>>()?;
        let (command, script) = match &run.command {
            Command::Exec(words) => (words.clone(), None),
            Command::Shell(text) => {
                let (text, script) = with_heredocs(text, &run.heredocs, &self.platform.os);
                (self.config.with_shell(&text, &self.platform.os), script)
            }
        };
        let history = format!("RUN {}{} # buildkit", self.arguments_in_history(), command.join(" "));
        let step = RunStep {
            command,
            script,
            env: self.state.variables.clone(),
            proxies: self.plan.inputs.proxies(),
            working_dir: paths::join("/", &self.config.working_dir),
            user: self.config.user.clone(),
            mounts,
            network: run.network,
            security: run.security,
            devices: run.devices.clone(),
        };
        Ok((Action::Run(Box::new(step)), Some(history)))
    }

    fn mount(&mut self, instruction: &Instruction, spec: &MountSpec) -> Result<RunMount> {
        let mount = spec.evaluate(|text| self.expand(instruction, text))?;
        let origin = match &mount.from {
            Some(from) => Some(self.before(self.plan.mount_origin(from)?, from)?),
            None => None,
        };
        let path = self.mount_path(&mount).map_err(|mistake| mistake.near(&spec.text))?;
        Ok(RunMount { mount, origin, path })
    }

    fn mount_path(&self, mount: &Mount) -> Result<Option<String>> {
        let directory = &self.config.working_dir;
        match (mount.kind, &mount.target) {
            (MountKind::Secret, None) if mount.env.is_some() => Ok(None),
            (MountKind::Secret, None) => {
                let id = mount.source.as_deref().or(mount.id.as_deref()).unwrap_or_default();
                Ok(Some(format!("/run/secrets/{}", paths::base_name(id))))
            }
            (MountKind::Ssh, None) => Ok(None),
            (MountKind::Secret | MountKind::Ssh, Some(target)) => Ok(Some(paths::join(directory, target))),
            (_, target) => {
                let path = paths::join(directory, target.as_deref().unwrap_or_default());
                if path == "/" {
                    return Err(Mistake::value("a mount needs a target, which is not `/`"));
                }
                Ok(Some(path))
            }
        }
    }
}

/// The text for the shell. A command that is nothing but a here-document is its content; one that begins with `#!` is a
/// program. In any other command, here-documents are the shell's own.
fn with_heredocs(text: &str, heredocs: &[Heredoc], os: &str) -> (String, Option<Script>) {
    let Some(first) = heredocs.first() else { return (text.to_owned(), None) };
    if matches!(Heredoc::from_word(text), Ok(Some(_))) {
        let content = first.text();
        if os != "windows" && content.starts_with("#!") {
            let path = paths::join(SCRIPTS, &first.name);
            return (path.clone(), Some(Script { path, content }));
        }
        return (content, None);
    }
    let documents = heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name));
    (documents.fold(text.to_owned(), |text, document| text + &document), None)
}
