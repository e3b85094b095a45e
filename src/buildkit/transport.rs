//! How bytes get to a BuildKit: one HTTP/2 connection on which we are the client, one on which we are the server.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower_service::Service;

use super::watched::{Watched, Why};
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Window of a whole connection. h2 ends a connection with `ENHANCE_YOUR_CALM` once the small frames that wait to be read
/// exceed a budget of half the window, each counted as 256 bytes, and a request for a file is such a frame: with the
/// default window some thousand requests are too many. This one has room for a hundred thousand; it costs no memory.
pub(super) const CONNECTION_WINDOW: u32 = 64 << 20;
/// Window of one stream.
pub(super) const STREAM_WINDOW: u32 = 4 << 20;
/// BuildKit's own limit of a message; tonic's default of 4 MiB is too small for long status messages.
pub(super) const MAX_MESSAGE: usize = 16 << 20;

pub use crate::net::{BoxedStream, ByteStream};

/// What a daemon is told when a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionHello {
    /// Unique for this build.
    pub id: String,
    /// The same for each build of a directory by a user: the daemon looks for the last synced copy under it.
    pub shared_key: String,
    /// `/package.Service/Method` of all that the session serves.
    pub methods: Vec<String>,
}

/// How to reach one BuildKit.
#[async_trait]
pub trait Transport: Send + Sync {
    /// A channel to the Control service.
    async fn control(&self) -> Result<Link>;

    /// A stream on which the daemon speaks HTTP/2 as a client, to call the services of the session. `control` is a client
    /// on the channel that [`Self::control`] gave; a buildkitd carries the session inside it.
    async fn attach(&self, control: Control, hello: &SessionHello) -> Result<BoxedStream>;

    /// What each call of Control shows.
    fn bearer(&self) -> Bearer {
        Bearer::default()
    }
}

/// A client of the Control service.
pub type Control = ControlClient<InterceptedService<Channel, Bearer>>;

/// A token for whatever stands before a daemon.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Option<Secret<AsciiMetadataValue>>);

impl Bearer {
    /// `None` for a token that no header can carry.
    pub fn new(token: &Secret<String>) -> Option<Self> {
        let value = format!("Bearer {}", token.expose()).parse().ok()?;
        Some(Self(Some(Secret::new(value))))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.expose().clone());
        }
        Ok(request)
    }
}

/// A channel, and what is known of its connection.
#[derive(Clone)]
pub struct Link {
    /// For clients.
    pub channel: Channel,
    pub(super) why: Why,
}

/// Speaks HTTP/2, with prior knowledge, as a client on a connected stream. When the stream ends the channel is dead.
pub async fn channel(stream: impl ByteStream + 'static) -> Result<Link> {
    let (stream, why) = Watched::new(stream);
    let stream: BoxedStream = Box::new(stream);
    let channel = Endpoint::from_static("http://buildkit")
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .connect_with_connector(Once(Some(TokioIo::new(stream))))
        .await
        .map_err(|error| Error::DaemonProtocol { action: "the start of a build".into(), reason: chain(&error) })?;
    Ok(Link { channel, why })
}

/// Hands its stream to the first caller; a second connection to the same daemon would not know the session.
struct Once(Option<TokioIo<BoxedStream>>);

type Connecting = Pin<Box<dyn Future<Output = std::io::Result<TokioIo<BoxedStream>>> + Send>>;

impl Service<Uri> for Once {
    type Response = TokioIo<BoxedStream>;
    type Error = std::io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let stream = self.0.take();
        Box::pin(async { stream.ok_or_else(|| std::io::Error::other("the connection to the daemon ended")) })
    }
}

/// What a status says: the daemon's words, or, for one that was made here, why the connection broke.
pub(super) fn told(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), chain)
}

/// An error and its causes in one line: tonic's own text is only `transport error`.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
