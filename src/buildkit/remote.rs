//! A buildkitd that runs by itself: its Control service on a connection of its own, and the session inside a call of that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_stream::Stream as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::{Request, Status, Streaming};

use super::transport::{self, Bearer, BoxedStream, Control, Link, SessionHello, Transport};
use super::upgrade::Dial;
use crate::error::{Error, Result};

/// Bytes in one message. Go's client writes at most this much of an HTTP/2 connection at a time.
const CHUNK: usize = 32 << 10;
/// Messages that may wait for the connection.
const QUEUE: usize = 64;

/// The transport to a buildkitd.
pub struct Remote {
    dial: Arc<dyn Dial>,
    bearer: Bearer,
}

impl Remote {
    /// A transport whose connections `dial` makes.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, bearer: Bearer::default() }
    }

    /// The same with a token in each call.
    #[must_use]
    pub fn with_bearer(self, bearer: Bearer) -> Self {
        Self { bearer, ..self }
    }
}

#[async_trait]
impl Transport for Remote {
    fn bearer(&self) -> Bearer {
        self.bearer.clone()
    }

    async fn control(&self) -> Result<Link> {
        transport::channel(self.dial.dial().await?).await
    }

    async fn attach(&self, mut control: Control, hello: &SessionHello) -> Result<BoxedStream> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut request = Request::new(ReceiverStream::new(receiver));
        announce(request.metadata_mut(), hello)?;
        let answer = control.session(request).await.map_err(|status| Error::DaemonProtocol {
            action: "the start of a session".into(),
            reason: transport::told(&status),
        })?;
        let (incoming, outgoing) = (answer.into_inner(), PollSender::new(sender));
        Ok(Box::new(Tunnel { incoming, rest: Bytes::new(), outgoing }))
    }
}

/// What a daemon is told of a session: the headers of Docker's `POST /session`, as metadata.
fn announce(metadata: &mut MetadataMap, hello: &SessionHello) -> Result<()> {
    let pairs = [
        ("x-docker-expose-session-uuid", hello.id.as_str()),
        // Old daemons want a name; it shows up in their logs only.
        ("x-docker-expose-session-name", "cooper"),
        ("x-docker-expose-session-sharedkey", &hello.shared_key),
    ];
    let methods = hello.methods.iter().map(|method| ("x-docker-expose-session-grpc-method", method.as_str()));
    for (key, value) in pairs.into_iter().chain(methods) {
        let text: AsciiMetadataValue =
            value.parse().map_err(|_| Error::internal(format!("`{value}` is no metadata value")))?;
        metadata.append(AsciiMetadataKey::from_static(key), text);
    }
    Ok(())
}

/// The bytes inside the call `Control.Session`.
struct Tunnel {
    incoming: Streaming<BytesMessage>,
    /// What was received and not read yet.
    rest: Bytes,
    outgoing: PollSender<BytesMessage>,
}

fn broken(status: &Status) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, transport::told(status))
}

fn closed<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the daemon ended the session")
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.incoming).poll_next(cx)) {
                Some(Ok(message)) => self.rest = message.data.into(),
                Some(Err(status)) => return Poll::Ready(Err(broken(&status))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.outgoing.poll_reserve(cx)).map_err(closed)?;
        let length = bytes.len().min(CHUNK);
        let message = BytesMessage { data: bytes[..length].to_vec() };
        self.outgoing.send_item(message).map_err(closed)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The call sends messages as they come.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}
