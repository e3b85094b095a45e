//! A stream that remembers why it broke: HTTP/2 may learn of it where nobody asks any more.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How an alert of TLS begins: its content type, and the first number of its version.
const TLS_ALERT: [u8; 2] = [21, 3];

/// Why a stream broke; the first reason counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Why(Arc<Mutex<Option<String>>>);

impl Why {
    fn note(&self, reason: impl FnOnce() -> String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(reason);
    }

    /// The reason as an error.
    pub(super) fn error(&self) -> io::Error {
        let reason = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        io::Error::other(reason.unwrap_or_else(|| "the connection to the daemon ended".to_owned()))
    }
}

/// The stream.
pub(super) struct Watched<S> {
    stream: S,
    why: Why,
    /// Nothing has been read yet.
    silent: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S) -> (Self, Why) {
        let why = Why::default();
        (Self { stream, why: why.clone(), silent: true }, why)
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.why.note(|| error.to_string());
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let read = &buffer.filled()[before..];
        match (&result, self.silent) {
            (Ok(()), true) if read.is_empty() && buffer.remaining() > 0 => {
                self.why.note(|| "it ended the connection without an answer".to_owned());
            }
            (Ok(()), true) if read.starts_with(&TLS_ALERT) => self.why.note(|| "the answer is TLS".to_owned()),
            _ => {}
        }
        self.silent &= read.is_empty();
        Poll::Ready(self.noted(result))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The reason is what the other side says, if it still says something: that is read, not written.
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    async fn reason(said: &[u8]) -> String {
        let (mut stream, why) = Watched::new(said);
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        why.error().to_string()
    }

    #[tokio::test]
    async fn the_first_answer_tells() {
        assert_eq!(reason(b"").await, "it ended the connection without an answer");
        assert_eq!(reason(&[21, 3, 3, 0, 2, 2, 70]).await, "the answer is TLS");
        assert_eq!(reason(b"PRI").await, "the connection to the daemon ended");
    }
}
