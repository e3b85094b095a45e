//! HTTP to a daemon: small calls through bollard over pooled connections, long ones each over a connection of its own,
//! which closes when the caller lets go. That close is how a daemon learns that nobody wants the work any more.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::{BollardRequest, ClientVersion, Docker};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error as LegacyError};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::Dialer;
use crate::error::{Error, Result};
use crate::net::tls::is_tls_error;
use crate::net::{BoxedStream, Driver, exchange};

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;
/// A daemon's answer to a small call takes milliseconds, or seconds where disks are slow.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// An error's text is a line or a paragraph; more than this is no error text.
const MAX_ERROR_BODY: usize = 64 << 10;

/// A daemon as something to call.
#[derive(Clone)]
pub(crate) struct Api {
    dialer: Dialer,
    pool: Client<Connector, Body>,
    refusal: Refusal,
    /// `/v1.41`, or empty before the version is known.
    prefix: String,
    /// The typed client, for calls that need no stream.
    pub(crate) docker: Docker,
}

/// A response whose connection closes when this is dropped.
pub(crate) struct Exchange {
    /// Status, headers and the body that still comes.
    pub(crate) response: Response<Incoming>,
    _connection: Driver,
}

#[derive(Deserialize)]
struct ErrorBody {
    message: String,
}

impl Api {
    /// A client that speaks this version of the API (of the daemon's own, if `None`).
    pub(crate) fn new(dialer: Dialer, version: Option<ClientVersion>) -> Result<Self> {
        let refusal = Refusal::default();
        let connector = Connector { dialer: dialer.clone(), refusal: Arc::clone(&refusal) };
        let pool = Client::builder(TokioExecutor::new()).build(connector);
        let shared = pool.clone();
        let transport = move |request: BollardRequest| {
            let pool = shared.clone();
            async move { Ok(pool.request(request.map(boxed)).await?) }
        };
        let prefix = version.as_ref().map(|version| format!("/v{version}")).unwrap_or_default();
        let version = version.unwrap_or(*bollard::API_DEFAULT_VERSION);
        let docker =
            Docker::connect_with_custom_transport(transport, Some("http://docker"), CALL_TIMEOUT.as_secs(), &version)
                .map_err(|error| Error::internal(error.to_string()))?;
        Ok(Self { dialer, pool, refusal, prefix, docker })
    }

    pub(crate) const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The daemon's address, for people.
    pub(crate) fn endpoint(&self) -> String {
        self.dialer.address().to_string()
    }

    /// A request for `path`, which starts with a slash.
    pub(crate) fn request(&self, method: http::Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://docker{}{path}", self.prefix))
    }

    /// The headers of the answer to `/_ping`, whatever its version.
    pub(crate) async fn ping(&self) -> Result<HeaderMap> {
        let request = Request::get("http://docker/_ping").body(empty()).map_err(|e| Error::internal(e.to_string()))?;
        let response = self.pool.request(request).await.map_err(|error| self.failed(&error, "a ping"))?;
        let response = self.accepted(response, "a ping").await?;
        Ok(response.into_parts().0.headers)
    }

    /// Sends a request over a connection of its own and waits for the head of the answer.
    ///
    /// The connection lives as long as what is returned; dropping the future closes it too.
    pub(crate) async fn open(&self, request: Request<Body>, action: &str) -> Result<Exchange> {
        let broken = |error: &hyper::Error| self.broken(error, action);
        let stream = self.dialer.dial().await?;
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        parts.uri = path.parse().map_err(|_| Error::internal(format!("`{path}` is no path")))?;
        parts.headers.insert(http::header::HOST, http::HeaderValue::from_static("docker"));
        let request = Request::from_parts(parts, body);
        let (response, connection) = exchange(stream, request).await.map_err(|error| broken(&error))?;
        let response = self.accepted(response, action).await?;
        Ok(Exchange { response, _connection: connection })
    }

    /// The response, or the daemon's error in it.
    async fn accepted(&self, response: Response<Incoming>, action: &str) -> Result<Response<Incoming>> {
        let status = response.status();
        if status.is_success() || status == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), MAX_ERROR_BODY).collect().await;
        let bytes = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let message = match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => body.message,
            Err(_) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        };
        Err(Error::DaemonRefused { action: action.to_owned(), status: status.as_u16(), message })
    }

    /// What an error of bollard means.
    pub(crate) fn refused(&self, error: bollard::errors::Error, action: &str) -> Error {
        use bollard::errors::Error as Bollard;
        match error {
            Bollard::DockerResponseServerError { status_code, message } => {
                Error::DaemonRefused { action: action.to_owned(), status: status_code, message }
            }
            Bollard::HyperLegacyError { err } => self.failed(&err, action),
            Bollard::HyperResponseError { err } => self.broken(&err, action),
            Bollard::RequestTimeoutError => Error::TimedOut { action: action.to_owned(), after: CALL_TIMEOUT },
            other => Error::DaemonProtocol { action: action.to_owned(), reason: other.to_string() },
        }
    }

    /// What an error of a pooled connection means.
    fn failed(&self, error: &LegacyError, action: &str) -> Error {
        let mut source: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(cause) = source {
            if let Some(failure) = cause.downcast_ref::<ConnectFailure>()
                && let Some(error) = failure.0.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                return error;
            }
            source = cause.source();
        }
        match self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(reason) => self.no_tls(reason),
            None => self.broken(error, action),
        }
    }

    fn no_tls(&self, reason: String) -> Error {
        Error::DaemonConfig { setting: format!("TLS with {}", self.endpoint()), reason }
    }

    /// What an error in the middle of a connection means. A TLS alert or a failed `ssh` shows only here.
    pub(crate) fn broken(&self, error: &(dyn StdError + 'static), action: &str) -> Error {
        let mut source = Some(error);
        let mut last = error.to_string();
        while let Some(cause) = source {
            last = cause.to_string();
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                if is_tls_error(io) {
                    return self.no_tls(last);
                }
                if io.kind() == std::io::ErrorKind::ConnectionRefused {
                    return self.dialer.failed(io);
                }
            }
            source = cause.source();
        }
        Error::DaemonProtocol { action: action.to_owned(), reason: last }
    }
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    boxed(Empty::<Bytes>::new())
}

/// A body of any kind.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Why the other side refused TLS on a pooled connection. If it does so before the request was sent, the pool only says that the
/// connection was not ready.
type Refusal = Arc<Mutex<Option<String>>>;

/// The dialer, as hyper's pool calls it.
#[derive(Clone)]
struct Connector {
    dialer: Dialer,
    refusal: Refusal,
}

/// Carries our error through the pool's.
#[derive(Debug)]
struct ConnectFailure(Mutex<Option<Error>>);

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot connect")
    }
}

impl StdError for ConnectFailure {}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Pooled>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { dialer, refusal } = self.clone();
        Box::pin(async move {
            match dialer.dial().await {
                Ok(stream) => Ok(TokioIo::new(Pooled { stream, refusal })),
                Err(error) => Err(ConnectFailure(Mutex::new(Some(error)))),
            }
        })
    }
}

/// A stream that hyper's pool may keep.
struct Pooled {
    stream: BoxedStream,
    refusal: Refusal,
}

impl Connection for Pooled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pooled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &read
            && is_tls_error(error)
        {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
        read
    }
}

impl AsyncWrite for Pooled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
