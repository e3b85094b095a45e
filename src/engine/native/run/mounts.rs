//! All mounts of a command.

use std::sync::Arc;

use super::super::shared::Shared;
use super::agent::Relay;
use super::bind::Target;
use super::caches::InUse;
use super::inputs::Inputs;
use super::machine::Machine;
use super::work::Work;
use crate::dockerfile::instruction::{Mount, MountKind};
use crate::dockerfile::paths;
use crate::dockerfile::step::{RunMount, RunStep, Script};
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::sandbox;
use crate::secret::Secret;

/// The mode of a secret's file where none is said.
const SECRET_MODE: u32 = 0o400;
/// The mode of a here-document that is run.
const SCRIPT_MODE: u32 = 0o755;
/// The mode of a directory in memory.
const TMPFS_MODE: u32 = 0o1777;

/// What a command gets. It is there as long as this is.
#[derive(Default)]
pub(super) struct Mounted {
    /// The mounts.
    pub(super) mounts: Vec<sandbox::Mount>,
    /// Variables that are secrets.
    pub(super) secrets: Vec<(String, Secret<Vec<u8>>)>,
    /// Where the first SSH agent is.
    pub(super) agent: Option<String>,
    /// The caches that it uses.
    _caches: InUse,
    relays: Vec<Relay>,
}

impl Shared {
    /// Makes what a command gets besides its root.
    pub(super) async fn mounted(
        &self,
        machine: &Arc<Machine>,
        work: &Arc<Work>,
        run: &RunStep,
        inputs: &Inputs,
    ) -> Result<Mounted> {
        let (mut caches, in_use) = Box::pin(self.caches(machine, run, inputs)).await?;
        let mut mounted = Mounted { _caches: in_use, ..Mounted::default() };
        if let Some(script) = &run.script {
            mounted.mounts.push(program(script));
        }
        let mut agents = 0;
        for (number, mount) in run.mounts.iter().enumerate() {
            match mount.mount.kind {
                MountKind::Bind => {
                    let bound = inputs.get(&number).ok_or_else(|| Error::internal("a mount of nothing"))?;
                    let target = Target { path: path(mount), read_only: mount.mount.read_only };
                    mounted.mounts.push(Box::pin(self.bind(machine, work, bound, target)).await?);
                }
                MountKind::Cache => mounted.mounts.extend(caches.remove(&number)),
                MountKind::Tmpfs => mounted.mounts.push(tmpfs(work, mount).await?),
                MountKind::Secret => self.secret(mount, &mut mounted).await?,
                MountKind::Ssh => {
                    let place = mount.path.clone().unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{agents}"));
                    agents += 1;
                    self.ssh(machine, mount, place, &mut mounted).await?;
                }
            }
        }
        Ok(mounted)
    }

    async fn ssh(&self, machine: &Arc<Machine>, mount: &RunMount, target: String, mounted: &mut Mounted) -> Result<()> {
        // The variable is there even where the agent is not.
        mounted.agent.get_or_insert_with(|| target.clone());
        if let Some(relay) = self.agent(machine, &mount.mount).await? {
            mounted.mounts.push(sandbox::Mount::Bind { source: relay.socket(), target, read_only: false });
            mounted.relays.push(relay);
        }
        Ok(())
    }

    async fn secret(&self, mount: &RunMount, mounted: &mut Mounted) -> Result<()> {
        let id = secret_id(&mount.mount);
        let known = Arc::clone(&self.runs.secrets);
        let (specs, environment, name) =
            (self.request.options.secrets.clone(), Arc::clone(&self.environment), id.clone());
        let value = blocking(move || known.get(&specs, &name, &environment)).await?;
        if value.is_none() && mount.mount.required {
            return Err(Error::SecretUnavailable {
                id,
                reason: "a step needs it, and the build was not given it".into(),
            });
        }
        if let Some(variable) = &mount.mount.env {
            mounted.secrets.push((variable.clone(), value.clone().unwrap_or_default()));
        }
        if let (Some(target), Some(value)) = (&mount.path, value) {
            let Mount { mode, uid, gid, .. } = mount.mount;
            mounted.mounts.push(sandbox::Mount::File {
                content: value.expose().clone(),
                target: target.clone(),
                mode: mode.unwrap_or(SECRET_MODE) & 0o777,
                uid: uid.unwrap_or(0),
                gid: gid.unwrap_or(0),
            });
        }
        Ok(())
    }
}

fn path(mount: &RunMount) -> String {
    mount.path.clone().unwrap_or_default()
}

/// The id of a secret: the one that is named, or the name of its file.
fn secret_id(mount: &Mount) -> String {
    let named = mount.source.as_deref().or(mount.id.as_deref());
    let of_target = || paths::base_name(mount.target.as_deref().unwrap_or_default());
    named.unwrap_or_else(of_target).to_owned()
}

/// A here-document that is run.
fn program(script: &Script) -> sandbox::Mount {
    let (content, target) = (script.content.clone().into_bytes(), script.path.clone());
    sandbox::Mount::File { content, target, mode: SCRIPT_MODE, uid: 0, gid: 0 }
}

async fn tmpfs(work: &Arc<Work>, mount: &RunMount) -> Result<sandbox::Mount> {
    let target = path(mount);
    if mount.mount.read_only {
        let work = Arc::clone(work);
        let source = blocking(move || work.directory("empty")).await?;
        return Ok(sandbox::Mount::Bind { source, target, read_only: true });
    }
    let size = mount.mount.size.filter(|size| *size > 0);
    Ok(sandbox::Mount::Tmpfs { target, size, mode: TMPFS_MODE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_by_its_id_or_its_file() {
        let mount = |id: Option<&str>, source: Option<&str>, target: Option<&str>| Mount {
            id: id.map(str::to_owned),
            source: source.map(str::to_owned),
            target: target.map(str::to_owned),
            ..Mount::default()
        };
        assert_eq!(secret_id(&mount(Some("a"), None, Some("/x/b"))), "a");
        assert_eq!(secret_id(&mount(None, Some("a"), None)), "a");
        assert_eq!(secret_id(&mount(None, None, Some("/x/b"))), "b");
    }
}
