//! A byte stream to a daemon behind SSH: the `ssh` program runs `docker system dial-stdio` over there, as the Docker
//! CLI does, so that the user's keys, agent, jump hosts and `~/.ssh/config` hold.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::environment::Environment;

/// How much of what `ssh` says is kept for an error.
const MAX_STDERR: u64 = 4 << 10;

/// Where to go by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshTarget {
    /// Login name; `ssh` decides where `None`.
    pub user: Option<String>,
    /// A host, or an alias of the user's SSH configuration.
    pub host: String,
    /// Port; `ssh` decides where `None`.
    pub port: Option<u16>,
    /// The daemon's socket over there; its CLI's default where `None`.
    pub socket: Option<String>,
}

impl SshTarget {
    /// Arguments for `ssh`. Nothing here can be a secret: SSH URLs with a password are refused before.
    fn arguments(&self, timeout: Duration) -> Vec<String> {
        let mut arguments = vec!["-o".to_owned(), format!("ConnectTimeout={}", timeout.as_secs().max(1))];
        // A question for a password would wait unseen behind the progress display.
        arguments.extend(["-o".to_owned(), "BatchMode=yes".to_owned(), "-T".to_owned()]);
        if let Some(user) = &self.user {
            arguments.extend(["-l".to_owned(), user.clone()]);
        }
        if let Some(port) = self.port {
            arguments.extend(["-p".to_owned(), port.to_string()]);
        }
        arguments.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        if let Some(socket) = &self.socket {
            // The remote shell splits words; a quoted path keeps its spaces.
            arguments.extend(["--host".to_owned(), format!("'unix://{}'", socket.replace('\'', r"'\''"))]);
        }
        arguments.extend(["system".to_owned(), "dial-stdio".to_owned()]);
        arguments
    }

    /// Starts `ssh`. What goes wrong over there shows when the stream is first read: the error then says what `ssh` said.
    pub fn dial(&self, environment: &Environment, timeout: Duration) -> io::Result<SshStream> {
        let mut child = Command::new("ssh")
            .args(self.arguments(timeout))
            .env_clear()
            .envs(environment.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal must not end it before the daemon has been told to stop.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let lost = || io::Error::other("a pipe to ssh is missing");
        let stdin = child.stdin.take().ok_or_else(lost)?;
        let stdout = child.stdout.take().ok_or_else(lost)?;
        let stderr = tokio::spawn(collect(child.stderr.take().ok_or_else(lost)?));
        Ok(SshStream { stdin, stdout, stderr, silent: true, _child: child })
    }
}

async fn collect(mut stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    let mut limited = (&mut stderr).take(MAX_STDERR);
    // What could be read is all that can be told.
    let _ = limited.read_to_end(&mut text).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// The two pipes of a running `ssh`, which ends when this is dropped.
pub struct SshStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: JoinHandle<String>,
    /// Nothing has been read yet.
    silent: bool,
    _child: Child,
}

impl Drop for SshStream {
    fn drop(&mut self) {
        self.stderr.abort();
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.silent = false;
        } else if self.silent {
            let said = ready!(Pin::new(&mut self.stderr).poll(cx)).unwrap_or_default();
            self.silent = false;
            let said = if said.is_empty() { "it ended without an answer".to_owned() } else { said };
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, format!("ssh: {said}"))));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stdin).poll_write(cx, bytes)) {
            // It ended without an answer: the next read says why, and a failed write would hide that.
            Err(error) if self.silent && error.kind() == io::ErrorKind::BrokenPipe => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_docker_cli() {
        let target = SshTarget {
            user: Some("me".into()),
            host: "box".into(),
            port: Some(2222),
            socket: Some("/run/my docker.sock".into()),
        };
        assert_eq!(
            target.arguments(Duration::from_secs(7)).join(" "),
            "-o ConnectTimeout=7 -o BatchMode=yes -T -l me -p 2222 -- box docker --host 'unix:///run/my docker.sock' system dial-stdio"
        );
    }
}
