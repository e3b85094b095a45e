//! A stream that remembers why it broke: HTTP/2 may learn of it where nobody asks any more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// How an alert of TLS begins: its content type, and the first number of its version.
const TLS_ALERT: [u8; 2] = [21, 3];

/// What is said of a connection that took a request and ended.
pub(super) const SILENT: &str = "it ended the connection without an answer";

/// Why a stream broke; the first reason counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Why(Arc<watch::Sender<Option<String>>>);

impl Why {
    fn note(&self, reason: impl FnOnce() -> String) {
        self.0.send_if_modified(|noted| {
            let first = noted.is_none();
            noted.get_or_insert_with(reason);
            first
        });
    }

    /// Waits until the stream has broken, and tells why.
    pub(super) async fn noted(&self) -> String {
        let mut reasons = self.0.subscribe();
        let reason = reasons.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        // There is a sender as long as this is there.
        reason.unwrap_or_default()
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
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        let read = &buffer.filled()[before..];
        let (nothing, alert) = (read.is_empty(), read.starts_with(&TLS_ALERT));
        let ended = result.is_ok() && nothing && buffer.remaining() > 0;
        let result = match (ended, self.silent) {
            // HTTP/2 would call either a broken pipe.
            (true, true) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, SILENT)),
            (true, false) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended the connection")),
            (false, true) if alert => {
                // An error comes without bytes.
                buffer.set_filled(before);
                Err(io::Error::other("the answer is TLS"))
            }
            (false, _) => result,
        };
        self.silent &= nothing;
        if let Err(error) = &result {
            self.why.note(|| error.to_string());
        }
        Poll::Ready(result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes)) {
            // The other side is gone: the next read says why, and a failed write would hide that.
            Err(error) if is_gone(&error) => Poll::Ready(Ok(bytes.len())),
            written => Poll::Ready(written),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Err(error) if is_gone(&error) => Poll::Ready(Ok(())),
            flushed => Poll::Ready(flushed),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn reason(said: &[u8]) -> String {
        let (mut stream, why) = Watched::new(said);
        let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err().to_string();
        assert_eq!(error, why.noted().await);
        error
    }

    #[tokio::test]
    async fn a_failed_write_does_not_hide_why() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let (mut stream, why) = Watched::new(ours);
        theirs.write_all(b"PRI").await.unwrap();
        stream.read_exact(&mut [0; 3]).await.unwrap();
        drop(theirs);
        stream.write_all(b"more").await.unwrap();
        stream.read_u8().await.unwrap_err();
        assert_eq!(why.noted().await, "it ended the connection");
    }

    #[tokio::test]
    async fn the_first_answer_tells() {
        assert_eq!(reason(b"").await, "it ended the connection without an answer");
        assert_eq!(reason(&[21, 3, 3, 0, 2, 2, 70]).await, "the answer is TLS");
        assert_eq!(reason(b"PRI").await, "it ended the connection");
    }
}
