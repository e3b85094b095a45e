//! Key files for `RUN --mount=type=ssh`: an agent of the build's own holds them, so that a step gets signatures, not keys.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::error::{Error, Result};

/// How long OpenSSH's programs may take to start, or to read a key; it is a matter of milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the new agent's socket is looked for.
const POLL: Duration = Duration::from_millis(5);

/// An `ssh-agent` that lives as long as this value does.
#[derive(Debug)]
pub(super) struct KeyAgent {
    // Dropped in this order: the agent is killed before its socket goes.
    process: Child,
    folder: TempDir,
}

impl KeyAgent {
    /// Starts an agent and gives it the keys. Fails with `SshUnavailable` where OpenSSH's programs are missing, and for what
    /// is no private key, or one with a passphrase: there is nobody to ask for it.
    pub(super) async fn start(id: &str, keys: &[PathBuf]) -> Result<Self> {
        let unavailable = |reason: String| Error::SshUnavailable { id: id.to_owned(), reason };
        // The folder belongs to this user alone.
        let folder = tempfile::Builder::new().prefix("cooper-ssh-").tempdir();
        let folder = folder.map_err(|error| unavailable(format!("no folder for an agent: {error}")))?;
        let socket = socket_in(folder.path());
        let process = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| unavailable(format!("key files need OpenSSH's `ssh-agent`, which cannot run: {error}")))?;
        let mut agent = Self { process, folder };
        let started = tokio::time::timeout(PATIENCE, agent.listening()).await;
        if !started.unwrap_or(false) {
            return Err(unavailable("`ssh-agent` does not start".into()));
        }
        for key in keys {
            agent.add(key).await.map_err(|reason| unavailable(format!("`{}`: {reason}", key.display())))?;
        }
        Ok(agent)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// Waits for the socket; `false` if the agent ended instead.
    async fn listening(&mut self) -> bool {
        while !self.socket().exists() {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
        true
    }

    async fn add(&self, key: &Path) -> Result<(), String> {
        // Asking for a passphrase would hang a build: the program that would ask always fails.
        let added = Command::new("ssh-add")
            .args(["-q", "--"])
            .arg(key)
            .env("SSH_AUTH_SOCK", self.socket())
            .env("SSH_ASKPASS", "false")
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(PATIENCE, added).await;
        let ended = ended.map_err(|_| "`ssh-add` does not end")?.map_err(|error| format!("`ssh-add`: {error}"))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with('@') && !line.is_empty()).collect();
        let said = if lines.is_empty() {
            "it may have a passphrase, which cannot be asked for".into()
        } else {
            lines.join(" ")
        };
        Err(format!("not a private key that `ssh-add` takes: {said}"))
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keygen(path: &Path, passphrase: &str) {
        let made = std::process::Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
            .arg(path)
            .status();
        assert!(made.unwrap().success());
    }

    #[tokio::test]
    async fn an_agent_holds_the_keys_and_goes_with_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        keygen(&key, "");
        let agent = KeyAgent::start("default", std::slice::from_ref(&key)).await.unwrap();
        let (socket, process) = (agent.socket(), agent.process.id().unwrap());
        let listed = Command::new("ssh-add").arg("-L").env("SSH_AUTH_SOCK", &socket).output().await.unwrap();
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap().split(' ').nth(1), public.split(' ').nth(1));
        drop(agent);
        assert!(!socket.parent().unwrap().exists());
        let ended = async {
            // Gone, or a zombie that the runtime has yet to collect.
            while std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_an_error_that_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let (text, locked) = (dir.path().join("text"), dir.path().join("locked"));
        std::fs::write(&text, "no key\n").unwrap();
        keygen(&locked, "a passphrase");
        for path in [text, locked, dir.path().join("missing")] {
            let error = KeyAgent::start("git", std::slice::from_ref(&path)).await.unwrap_err();
            assert_eq!(error.code(), "ssh-unavailable");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}
