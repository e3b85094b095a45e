//! SSH agents that steps may use, read-only.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::ssh_keys::KeyAgent;
use crate::error::{Error, Result};
use crate::request::SshSpec;

/// The id of a mount, and of an `--ssh`, that names none.
pub const DEFAULT_ID: &str = "default";
/// OpenSSH's limit of a message.
const MAX_AGENT_MESSAGE: usize = 256 << 10;

// Messages of the agent protocol (draft-ietf-sshm-ssh-agent).
const AGENT_FAILURE: u8 = 5;
const AGENT_REQUEST_IDENTITIES: u8 = 11;
const AGENT_SIGN_REQUEST: u8 = 13;

/// The agents of a build, by their ids.
pub struct Agents(BTreeMap<String, Agent>);

/// Whom a mount's requests go to.
enum Agent {
    /// The user's.
    Socket(PathBuf),
    /// One that holds key files, for this build.
    Keys(KeyAgent),
}

impl Agent {
    fn socket(&self) -> PathBuf {
        match self {
            Self::Socket(path) => path.clone(),
            Self::Keys(agent) => agent.socket(),
        }
    }
}

impl Agents {
    /// Finds the agent of each spec, or starts one for its keys. Fails with `SshUnavailable` where there is none: before the
    /// build, not in the middle.
    pub async fn find(specs: &[SshSpec]) -> Result<Self> {
        let mut agents = BTreeMap::new();
        for spec in specs {
            let id = if spec.id.is_empty() { DEFAULT_ID } else { &spec.id };
            if agents.insert(id.to_owned(), find_agent(id, &spec.paths).await?).is_some() {
                return Err(unavailable(id, "the id is given twice"));
            }
        }
        Ok(Self(agents))
    }

    /// The socket of an agent; `None` if the build has none of that id.
    pub fn socket(&self, id: &str) -> Option<PathBuf> {
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        self.0.get(id).map(Agent::socket)
    }
}

pub(super) fn unavailable(id: &str, reason: impl Into<String>) -> Error {
    Error::SshUnavailable { id: id.to_owned(), reason: reason.into() }
}

async fn find_agent(id: &str, paths: &[PathBuf]) -> Result<Agent> {
    if paths.is_empty() {
        let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
        let socket =
            socket.ok_or_else(|| unavailable(id, "SSH_AUTH_SOCK is not set; start an agent, or name a key"))?;
        return if is_socket(id, &socket)? {
            Ok(Agent::Socket(socket))
        } else {
            Err(unavailable(id, format!("SSH_AUTH_SOCK names `{}`, which is no socket", socket.display())))
        };
    }
    let mut keys = Vec::new();
    for path in paths {
        if !is_socket(id, path)? {
            keys.push(path.clone());
        } else if paths.len() == 1 {
            return Ok(Agent::Socket(path.clone()));
        } else {
            return Err(unavailable(id, "one agent's socket, or one or more key files; not both"));
        }
    }
    KeyAgent::start(id, &keys).await.map(Agent::Keys)
}

fn is_socket(id: &str, path: &Path) -> Result<bool> {
    let found = std::fs::metadata(path).map_err(|error| unavailable(id, format!("`{}`: {error}", path.display())))?;
    Ok(found.file_type().is_socket())
}

/// Why an exchange with an agent ends.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

/// Serves one connection of a step to its agent, until either ends it.
pub async fn relay(mut step: UnixStream, agent: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(agent).await?;
    let mut buffer = BytesMut::new();
    while step.read_buf(&mut buffer).await? > 0 {
        while let Some(request) = next_frame(&mut buffer).map_err(|refused| io::Error::other(refused.0))? {
            let reply = ask(&mut agent, &request).await.map_err(|refused| io::Error::other(refused.0))?;
            step.write_all(&reply).await?;
        }
    }
    Ok(())
}

/// Takes one whole message, its length included, off the buffer.
pub(super) fn next_frame(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Refused> {
    let Some(mut length) = buffer.get(..4) else { return Ok(None) };
    let length = length.get_u32() as usize;
    if length == 0 || length > MAX_AGENT_MESSAGE {
        return Err(Refused("this is not the protocol of an SSH agent".to_owned()));
    }
    Ok((buffer.len() >= length + 4).then(|| buffer.split_to(length + 4)))
}

/// A step may list keys and sign with them; it may not add, remove or lock anything.
pub(super) async fn ask(agent: &mut UnixStream, request: &[u8]) -> Result<Vec<u8>, Refused> {
    if !matches!(request[4], AGENT_REQUEST_IDENTITIES | AGENT_SIGN_REQUEST) {
        return Ok(vec![0, 0, 0, 1, AGENT_FAILURE]);
    }
    let failed = |error: io::Error| Refused(format!("the SSH agent: {error}"));
    agent.write_all(request).await.map_err(failed)?;
    let length = agent.read_u32().await.map_err(failed)?;
    if length as usize > MAX_AGENT_MESSAGE {
        return Err(Refused("the SSH agent answers with too long a message".to_owned()));
    }
    let mut reply = length.to_be_bytes().to_vec();
    reply.resize(4 + length as usize, 0);
    agent.read_exact(&mut reply[4..]).await.map_err(failed)?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_and_keys_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let (key, socket) = (dir.path().join("key"), dir.path().join("agent"));
        std::fs::write(&key, "").unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let found = find_agent("default", std::slice::from_ref(&socket)).await;
        assert!(found.is_ok_and(|agent| agent.socket() == socket));
        for paths in [vec![socket.clone(), key.clone()], vec![dir.path().join("missing")]] {
            let error = find_agent("default", &paths).await.map(drop).unwrap_err();
            assert_eq!(error.code(), "ssh-unavailable");
        }
    }

    #[test]
    fn frames_are_taken_whole() {
        let mut buffer = BytesMut::from(&[0, 0, 0, 2, 11][..]);
        assert!(next_frame(&mut buffer).unwrap().is_none());
        buffer.extend_from_slice(&[7, 0, 0]);
        assert_eq!(next_frame(&mut buffer).unwrap().unwrap(), &[0, 0, 0, 2, 11, 7][..]);
        assert_eq!(buffer, &[0, 0][..]);
        assert!(next_frame(&mut BytesMut::from(&[255, 0, 0, 0][..])).is_err());
    }
}
