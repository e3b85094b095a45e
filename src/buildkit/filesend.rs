//! `moby.filesync.v1.FileSend`: the daemon hands over what an exporter made, as one stream of bytes or as a list of files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::incoming::{Incoming, Piece};
use super::packet::Packet;
use super::receive::{self, Folder};
use super::transport::MAX_MESSAGE;
use super::trouble::Trouble;
use crate::error::Result;

/// Name of the service.
pub const SERVICE_NAME: &str = "moby.filesync.v1.FileSend";
/// Its only method.
pub const DIFF_COPY: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Names the exporter, by its place in the request (BuildKit since 0.13, `session/filesync`).
const EXPORTER: &str = "buildkit-attachable-exporter-id";

/// Takes what an exporter made, as one stream of bytes: an archive.
#[async_trait]
pub trait Receive: Send + Sync {
    /// Takes the stream to its end. What fails here fails the build.
    async fn receive(&self, content: Incoming) -> Result<()>;
}

/// Where the result of an exporter goes.
#[derive(Clone)]
pub enum Target {
    /// For `oci`, `docker` and `tar`.
    Stream(Arc<dyn Receive>),
    /// For `local`. Of several platforms, each has a transfer of its own.
    Folder(Arc<Folder>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(_) => f.write_str("Stream"),
            Self::Folder(folder) => folder.fmt(f),
        }
    }
}

/// Where the results of the exporters go, by their places in the request.
pub type Targets = BTreeMap<u32, Target>;

/// Takes what exporters made.
#[derive(Clone)]
pub struct FileSendService {
    targets: Arc<Targets>,
    trouble: Trouble,
}

impl FileSendService {
    /// Hands what comes to `targets`, and keeps what goes wrong in `trouble`.
    pub fn new(targets: Targets, trouble: Trouble) -> Self {
        Self { targets: Arc::new(targets), trouble }
    }

    /// A daemon that names no exporter knows only one.
    fn target(&self, headers: &HeaderMap) -> std::result::Result<Target, Status> {
        let found = match headers.get(EXPORTER) {
            Some(id) => id.to_str().ok().and_then(|id| self.targets.get(&id.parse().ok()?)),
            None => self.targets.values().next(),
        };
        found.cloned().ok_or_else(|| Status::not_found("nothing is taken from this exporter"))
    }
}

/// A part of a stream; the published message has the same form, and copies its content.
#[derive(Clone, PartialEq, prost::Message)]
struct Part {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
}

type Called = Pin<Box<dyn Future<Output = std::result::Result<http::Response<Body>, Infallible>> + Send>>;

impl Service<http::Request<Body>> for FileSendService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Called;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Called {
        let trouble = self.trouble.clone();
        let target = if request.uri().path() == DIFF_COPY {
            self.target(request.headers())
        } else {
            Err(Status::unimplemented("only DiffCopy is served"))
        };
        Box::pin(async move {
            Ok(match target {
                Ok(Target::Stream(stream)) => {
                    let grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE);
                    let (request, broken) = watched(request);
                    { grpc }.streaming(TakeStream { stream, broken, trouble }, request).await
                }
                Ok(Target::Folder(folder)) => {
                    let grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE);
                    { grpc }.streaming(TakeFiles { folder, trouble }, request).await
                }
                Err(status) => status.into_http(),
            })
        })
    }
}

/// Set once a stream was broken off. To tonic, a stream that the daemon cancels has come to its end.
type Broken = Arc<AtomicBool>;

fn watched(request: http::Request<Body>) -> (http::Request<Body>, Broken) {
    let broken = Broken::default();
    let flag = Arc::clone(&broken);
    let note = move |error| {
        flag.store(true, Ordering::Release);
        error
    };
    (request.map(|body| Body::new(body.map_err(note))), broken)
}

type Answer<T> = Pin<Box<dyn Future<Output = std::result::Result<Response<T>, Status>> + Send>>;

struct TakeStream {
    stream: Arc<dyn Receive>,
    broken: Broken,
    trouble: Trouble,
}

impl StreamingService<Part> for TakeStream {
    type Response = Part;
    type ResponseStream = tokio_stream::Empty<std::result::Result<Part, Status>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<Part>>) -> Self::Future {
        let (stream, broken) = (Arc::clone(&self.stream), Arc::clone(&self.broken));
        let taking = take_stream(stream, request.into_inner(), broken, self.trouble.clone());
        Box::pin(async move { taking.await.map(|()| Response::new(tokio_stream::empty())) })
    }
}

/// The daemon waits for the answer, and so knows that everything has arrived.
async fn take_stream(
    stream: Arc<dyn Receive>,
    mut parts: Streaming<Part>,
    broken: Broken,
    trouble: Trouble,
) -> std::result::Result<(), Status> {
    let (sender, incoming) = Incoming::channel();
    let hand_over = async move {
        loop {
            let part = tokio::select! {
                part = parts.message() => part?,
                // Whoever takes it has ended, and says why.
                () = sender.closed() => return Ok(()),
            };
            if part.is_none() && broken.load(Ordering::Acquire) {
                return Err(Status::cancelled("the daemon stopped in the middle"));
            }
            let piece = part.as_ref().map_or(Piece::End, |part| Piece::Data(part.data.clone()));
            if sender.send(piece).await.is_err() || part.is_none() {
                return Ok(());
            }
        }
    };
    let (sent, taken): (std::result::Result<(), Status>, _) = tokio::join!(hand_over, stream.receive(incoming));
    // A stream that broke has an error of the daemon's behind it; that it is cut off is only what comes of that.
    sent?;
    taken.map_err(|error| trouble.report(error))
}

struct TakeFiles {
    folder: Arc<Folder>,
    trouble: Trouble,
}

impl StreamingService<Packet> for TakeFiles {
    type Response = Packet;
    type ResponseStream = ReceiverStream<std::result::Result<Packet, Status>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let packets = receive::start(Arc::clone(&self.folder), request.into_inner(), self.trouble.clone());
        Box::pin(async move { Ok(Response::new(packets)) })
    }
}
