//! A byte stream through a program that copies its input to a daemon and the daemon's answer to its output: `ssh`,
//! `docker exec`, `kubectl exec`.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::environment::Environment;

/// How much of what a program says is kept for an error.
const MAX_STDERR: u64 = 4 << 10;

/// A program and its arguments, none of which is a secret: others can see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name; it is looked for in `PATH`.
    pub name: String,
    /// What it is called with.
    pub arguments: Vec<String>,
}

impl Program {
    /// Starts it. What goes wrong over there shows when the stream is first read: the error then says what the program said.
    pub fn dial(&self, environment: &Environment) -> io::Result<ProgramStream> {
        let mut child = Command::new(&self.name)
            .args(&self.arguments)
            .env_clear()
            .envs(environment.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal must not end it before the daemon has been told to stop.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let lost = || io::Error::other(format!("a pipe to {} is missing", self.name));
        let stdin = child.stdin.take().ok_or_else(lost)?;
        let stdout = child.stdout.take().ok_or_else(lost)?;
        let stderr = tokio::spawn(collect(child.stderr.take().ok_or_else(lost)?));
        Ok(ProgramStream { stdin, stdout, stderr, name: self.name.clone(), silent: true, _child: child })
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

/// The two pipes of a running program, which ends when this is dropped.
pub struct ProgramStream {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: JoinHandle<String>,
    name: String,
    /// Nothing has been read yet.
    silent: bool,
    _child: Child,
}

impl Drop for ProgramStream {
    fn drop(&mut self) {
        self.stderr.abort();
    }
}

impl AsyncRead for ProgramStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.silent = false;
        } else if self.silent {
            let said = ready!(Pin::new(&mut self.stderr).poll(cx)).unwrap_or_default();
            self.silent = false;
            let said = if said.is_empty() { "it ended without an answer".to_owned() } else { said };
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("{}: {said}", self.name),
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ProgramStream {
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
