//! Bytes that a daemon sends, for whoever takes them: by waiting, or by blocking.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Messages that may wait to be taken; BuildKit sends at most 3 MiB in each.
const QUEUE: usize = 4;

/// What goes through the channel. Without an `End`, what came is not all.
pub(super) enum Piece {
    Data(Bytes),
    End,
}

/// One stream of bytes. Its end is only read when the daemon has said that this is all; else reading fails.
#[derive(Debug)]
pub struct Incoming {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl Incoming {
    pub(super) fn channel() -> (mpsc::Sender<Piece>, Self) {
        let (sender, pieces) = mpsc::channel(QUEUE);
        (sender, Self { pieces, rest: Bytes::new(), ended: false })
    }

    /// Takes what came next.
    fn accept(&mut self, piece: Option<Piece>) -> io::Result<()> {
        match piece {
            Some(Piece::Data(bytes)) => self.rest = bytes,
            Some(Piece::End) => self.ended = true,
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon stopped in the middle")),
        }
        Ok(())
    }
}

impl Read for Incoming {
    /// Not for threads that drive the runtime.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            let piece = self.pieces.blocking_recv();
            self.accept(piece)?;
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl AsyncRead for Incoming {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.ended {
            let piece = ready!(self.pieces.poll_recv(cx));
            self.accept(piece)?;
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_end_is_read_only_where_it_was_said() {
        for whole in [true, false] {
            let (sender, mut incoming) = Incoming::channel();
            let send = async move {
                for part in ["ab", "", "c"] {
                    sender.send(Piece::Data(part.into())).await.ok().unwrap();
                }
                if whole {
                    sender.send(Piece::End).await.ok().unwrap();
                }
            };
            let mut text = String::new();
            let (read, ()) = tokio::join!(AsyncReadExt::read_to_string(&mut incoming, &mut text), send);
            assert_eq!((read.is_ok(), text.as_str()), (whole, "abc"));
        }
    }
}
