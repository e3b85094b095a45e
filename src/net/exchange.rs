//! One HTTP/1.1 request over a connection of its own.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::BoxedStream;

/// A connection that has ended says why at once, unless it still says goodbye to somebody who is gone.
const GOODBYE: Duration = Duration::from_secs(1);

/// The task that drives a connection, which closes when this is dropped. An upgraded stream outlives it.
pub(crate) type Driver = AbortOnDropHandle<hyper::Result<()>>;

/// Sends a request, and waits for the head of the answer.
///
/// Fails with the connection's own error where that ended before the request could be sent. A server of TLS 1.3 that wants
/// another certificate ends it that early.
pub(crate) async fn exchange<B>(stream: BoxedStream, request: Request<B>) -> hyper::Result<(Response<Incoming>, Driver)>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
    let answer = match sender.ready().await {
        Ok(()) => sender.send_request(request).await,
        Err(closed) => Err(closed),
    };
    match answer {
        Ok(response) => Ok((response, driver)),
        Err(error) if error.is_closed() || error.is_canceled() => match timeout(GOODBYE, &mut driver).await {
            Ok(Ok(Err(reason))) => Err(reason),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body_util::Empty;
    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

    use super::*;

    /// A connection that the other side refuses before anything was sent.
    struct Refused;

    impl AsyncRead for Refused {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::Error::other("received fatal alert: UnknownCA")))
        }
    }

    impl AsyncWrite for Refused {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_refused_connection_tells_why() {
        let error = exchange(Box::new(Refused), Request::new(Empty::<Bytes>::new())).await.unwrap_err();
        let reason = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(reason.as_deref(), Some("received fatal alert: UnknownCA"), "{error}");
    }
}
