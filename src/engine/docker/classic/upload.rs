//! The context on its way to the daemon: packed on a blocking thread, sent while it is packed.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::cancel::Cancel;
use crate::context::{Context, PackOptions, Packed};
use crate::daemon::client::{Body, boxed};
use crate::error::{Error, Result};

/// What goes into the pipe at once: large enough that a channel costs nothing.
const CHUNK: usize = 256 << 10;
/// How many chunks may wait. Memory does not grow with the context.
const DEPTH: usize = 8;

type Piece = io::Result<Bytes>;

/// A context that is being packed.
pub(super) struct Upload(JoinHandle<Result<Packed>>);

/// Starts to pack; the body gives the bytes as they come.
pub(super) fn start(context: Arc<Context>, options: PackOptions, cancel: &Cancel) -> (Body, Upload) {
    let (sender, receiver) = mpsc::channel::<Piece>(DEPTH);
    let cancel = cancel.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let mut pipe = Pipe { sender: sender.clone(), buffer: BytesMut::with_capacity(CHUNK) };
        let result = context
            .pack(options, &mut pipe, &cancel)
            .and_then(|packed| pipe.flush().map(|()| packed).map_err(|source| Error::ContextWrite { source }));
        if result.is_err() {
            // Ends the request in the middle, so that the daemon does not take half a context for a whole one. If nobody
            // listens any more, there is nobody to mislead.
            let _ = sender.blocking_send(Err(io::Error::other("the build context could not be read")));
        }
        result
    });
    let frames = ReceiverStream::new(receiver).map(|piece| piece.map(Frame::data));
    (boxed(StreamBody::new(frames)), Upload(packing))
}

impl Upload {
    /// What was packed, once it is. Fails with the reason if it could not be.
    pub(super) async fn finish(self) -> Result<Packed> {
        self.0.await.map_err(|error| Error::internal(format!("packing stopped: {error}")))?
    }

    /// Why a request failed: because the context could not be read, or for the reason that the connection gives.
    pub(super) async fn blame(self, error: Error) -> Error {
        match self.finish().await {
            // The pipe broke because the request had failed already.
            Ok(_) | Err(Error::ContextWrite { .. }) => error,
            Err(cause) => cause,
        }
    }
}

/// The writing end of a bounded pipe; writes wait while the daemon is slow.
struct Pipe {
    sender: mpsc::Sender<Piece>,
    buffer: BytesMut,
}

impl Pipe {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK);
        self.sender.blocking_send(Ok(bytes)).map_err(|_| ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
