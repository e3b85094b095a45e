//! SSH agents for commands: a socket that is mounted, and what is behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};

use super::super::shared::Shared;
use super::machine::Machine;
use crate::buildkit::agents::{Agents, relay};
use crate::dockerfile::instruction::Mount;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::rootfs::{Fix, Fixes};

/// The name of a socket in its directory.
const SOCKET: &str = "agent";
/// The mode of a socket where none is said.
const MODE: u32 = 0o600;

/// A socket that serves an agent as long as this is there.
#[derive(Debug)]
pub(super) struct Relay {
    task: JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Where the socket is.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    fn start(agent: PathBuf) -> std::io::Result<Self> {
        // A path of a socket has room for about 100 bytes, which the store's may not leave.
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join(SOCKET))?;
        Ok(Self { task: tokio::spawn(serve(listener, agent)), directory })
    }
}

async fn serve(listener: UnixListener, agent: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((step, _)) = listener.accept().await {
        let agent = agent.clone();
        // A connection that breaks is the command's business.
        connections.spawn(async move { relay(step, &agent).await.unwrap_or_default() });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    /// A socket for a command; `None` if it can do without the agent, and the build has none of that id.
    pub(super) async fn agent(&self, machine: &Arc<Machine>, mount: &Mount) -> Result<Option<Relay>> {
        let id = mount.id.clone().unwrap_or_default();
        let agents = self.runs.agents.get_or_try_init(|| Agents::find(&self.request.options.ssh)).await?;
        let Some(agent) = agents.socket(&id) else {
            if !mount.required {
                return Ok(None);
            }
            let id = if id.is_empty() { crate::buildkit::agents::DEFAULT_ID.to_owned() } else { id };
            return Err(Error::SshUnavailable { id, reason: "a step needs it, and the build was not given it".into() });
        };
        let failed = |source| Error::Store { path: std::env::temp_dir(), action: "make a socket".into(), source };
        let relay = Relay::start(agent).map_err(failed)?;
        let (machine, place) = (Arc::clone(machine), relay.directory.path().to_owned());
        let (mode, owner) = (mount.mode.unwrap_or(MODE) & 0o777, (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)));
        let cancel = self.job.cancel.clone();
        blocking(move || {
            set_mode(&place, mode).map_err(failed)?;
            let fix = Fix { path: SOCKET.into(), owner: Some(owner), mode: None, capability: None };
            if owner != (0, 0) && machine.level != crate::sandbox::Level::Single {
                machine.own(place, &Fixes(vec![fix]), &cancel)?;
            }
            Ok(())
        })
        .await?;
        Ok(Some(relay))
    }
}

fn set_mode(directory: &Path, mode: u32) -> std::io::Result<()> {
    let path = directory.join(SOCKET);
    Ok(rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_command_may_ask_and_may_not_change_anything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("real");
        let listener = UnixListener::bind(&path).unwrap();
        let real = tokio::spawn(async move {
            let (mut asked, _) = listener.accept().await.unwrap();
            let mut request = [0; 5];
            asked.read_exact(&mut request).await.unwrap();
            asked.write_all(&[0, 0, 0, 1, 12]).await.unwrap();
            request
        });
        let relay = Relay::start(path).unwrap();
        let mut command = tokio::net::UnixStream::connect(relay.socket()).await.unwrap();
        let mut answer = [0; 5];
        for (request, expected) in [(19_u8, 5), (11, 12)] {
            command.write_all(&[0, 0, 0, 1, request]).await.unwrap();
            command.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [0, 0, 0, 1, expected]);
        }
        assert_eq!(real.await.unwrap()[4], 11);
        let socket = relay.socket();
        drop(relay);
        assert!(!socket.exists());
    }
}
