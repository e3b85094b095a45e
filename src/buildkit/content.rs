//! `containerd.services.content.v1.Content`: caches and images in directories of this machine, for the daemon to read and
//! write. A header says which directory is meant.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::content_messages as api;
use super::content_store::{BlobInfo, Fault, Progress, Store};
use super::content_write;
use super::transport::MAX_MESSAGE;
use super::trouble::Trouble;
use crate::digest::Digest;
use crate::error::Error;

/// Name of the service.
pub const SERVICE_NAME: &str = "containerd.services.content.v1.Content";
/// Its methods.
pub const METHODS: [&str; 9] = [
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Update",
    "/containerd.services.content.v1.Content/List",
    "/containerd.services.content.v1.Content/Delete",
    "/containerd.services.content.v1.Content/Read",
    "/containerd.services.content.v1.Content/Status",
    "/containerd.services.content.v1.Content/ListStatuses",
    "/containerd.services.content.v1.Content/Write",
    "/containerd.services.content.v1.Content/Abort",
];
/// Says which store is meant (BuildKit, `session/content`).
const STORE: &str = "buildkit-attachable-store-id";
/// Bytes of a blob in one message, as in containerd.
const CHUNK: usize = 1 << 20;
/// Messages that may wait for the connection.
const QUEUE: usize = 4;
/// Blobs in one message of a list, as in containerd.
const LISTED: usize = 100;

/// Stores by the names that BuildKit gives them: `local:PATH` for caches, `oci:NAME` for images.
pub type Stores = HashMap<String, Arc<Store>>;

/// Serves stores.
#[derive(Clone)]
pub struct ContentService {
    stores: Arc<Stores>,
    trouble: Trouble,
}

impl ContentService {
    /// Serves `stores`, and keeps what goes wrong in `trouble`.
    pub fn new(stores: Stores, trouble: Trouble) -> Self {
        Self { stores: Arc::new(stores), trouble }
    }

    fn store(&self, headers: &HeaderMap) -> Result<Arc<Store>, Status> {
        let id = headers.get(STORE).ok_or_else(|| Status::invalid_argument("the request names no store"))?;
        let store = std::str::from_utf8(id.as_bytes()).ok().and_then(|id| self.stores.get(id));
        store.cloned().ok_or_else(|| Status::not_found("unknown store"))
    }
}

impl Service<http::Request<Body>> for ContentService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let call = self.store(request.headers()).map(|store| Call { store, trouble: self.trouble.clone() });
        Box::pin(async move {
            Ok(match call {
                Ok(call) => call.answer(request).await,
                Err(status) => status.into_http(),
            })
        })
    }
}

/// One call, about one store.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) store: Arc<Store>,
    trouble: Trouble,
}

impl Call {
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        match method.as_str() {
            "Info" => self.unary(request, info).await,
            "Delete" => self.unary(request, delete).await,
            "Status" => self.unary(request, status).await,
            "ListStatuses" => self.unary(request, list_statuses).await,
            "Abort" => self.unary(request, abort).await,
            // As containerd's own store in a directory says it: there is no place for labels.
            "Update" => Status::failed_precondition("blobs of an OCI layout have no labels").into_http(),
            "List" => Grpc::new(ProstCodec::default()).server_streaming(List(self), request).await,
            "Read" => Grpc::new(ProstCodec::default()).server_streaming(Read(self), request).await,
            "Write" => {
                let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE);
                grpc.streaming(Write(self), request).await
            }
            _ => Status::unimplemented(format!("{method} is not served")).into_http(),
        }
    }

    async fn unary<Q, R>(
        self,
        request: http::Request<Body>,
        answer: fn(&Store, &Q) -> Result<R, Fault>,
    ) -> http::Response<Body>
    where
        Q: prost::Message + Default + 'static,
        R: prost::Message + Default + 'static,
    {
        Grpc::new(ProstCodec::<R, Q>::default()).unary(Unary { call: self, answer }, request).await
    }

    /// Runs blocking work on the store.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Status> {
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.unwrap_or_else(|error| Err(Fault::Ours(Error::internal(error.to_string()))));
        done.map_err(|fault| self.status(fault))
    }

    /// The statuses that containerd's server gives.
    fn status(&self, fault: Fault) -> Status {
        match fault {
            Fault::Missing(what) => Status::not_found(format!("{what}: not found")),
            Fault::Exists(digest) => Status::already_exists(format!("blob {digest}: already exists")),
            Fault::Busy(name) => Status::unavailable(format!("ref {name} locked: unavailable")),
            Fault::Wrong(reason) => Status::failed_precondition(format!("{reason}: failed precondition")),
            Fault::OutOfPlace(reason) => Status::out_of_range(reason),
            Fault::ReadOnly => Status::permission_denied("this build may only read here"),
            Fault::Ours(error) => self.trouble.report(error),
        }
    }
}

struct Unary<Q, R> {
    call: Call,
    answer: fn(&Store, &Q) -> Result<R, Fault>,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

impl<Q: Send + Sync + 'static, R: Send + 'static> UnaryService<Q> for Unary<Q, R> {
    type Response = R;
    type Future = Answer<R>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let (call, answer) = (self.call.clone(), self.answer);
        Box::pin(async move {
            let store = Arc::clone(&call.store);
            call.blocking(move || answer(&store, request.get_ref())).await.map(Response::new)
        })
    }
}

/// What is no SHA-256 names nothing that is here.
fn digest(text: &str) -> Result<Digest, Fault> {
    text.parse().map_err(|_| Fault::Missing(format!("blob `{text}`")))
}

/// Sizes above `i64` do not exist on any file system.
pub(super) fn number(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn told(info: BlobInfo) -> api::Info {
    api::Info {
        digest: info.digest.to_string(),
        size: number(info.size),
        created_at: Some(info.modified.into()),
        updated_at: Some(info.modified.into()),
        labels: HashMap::new(),
    }
}

fn info(store: &Store, request: &api::DigestRequest) -> Result<api::InfoResponse, Fault> {
    let info = store.info(&digest(&request.digest)?)?;
    Ok(api::InfoResponse { info: Some(told(info)) })
}

fn delete(store: &Store, request: &api::DigestRequest) -> Result<api::Empty, Fault> {
    store.remove(&digest(&request.digest)?)?;
    Ok(api::Empty {})
}

fn progress(name: String, progress: &Progress) -> api::Status {
    api::Status {
        started_at: Some(progress.started.into()),
        updated_at: Some(progress.updated.into()),
        r#ref: name,
        offset: number(progress.size),
        ..api::Status::default()
    }
}

fn status(store: &Store, request: &api::RefRequest) -> Result<api::StatusResponse, Fault> {
    let found = store.progress(&request.r#ref).ok_or_else(|| Fault::Missing(format!("ref {}", request.r#ref)))?;
    Ok(api::StatusResponse { status: Some(progress(request.r#ref.clone(), &found)) })
}

fn list_statuses(store: &Store, request: &api::ListRequest) -> Result<api::ListStatusesResponse, Fault> {
    unfiltered(request)?;
    let statuses = store.all_progress().into_iter().map(|(name, found)| progress(name, &found)).collect();
    Ok(api::ListStatusesResponse { statuses })
}

/// Nothing that was cut off stays, so there is nothing to abort but what is under way, and that ends with its call.
fn abort(store: &Store, request: &api::RefRequest) -> Result<api::Empty, Fault> {
    match store.progress(&request.r#ref) {
        Some(_) => Err(Fault::Busy(request.r#ref.clone())),
        None => Err(Fault::Missing(format!("ref {}", request.r#ref))),
    }
}

/// BuildKit filters nothing; to ignore filters would be a lie.
fn unfiltered(request: &api::ListRequest) -> Result<(), Fault> {
    if request.filters.is_empty() { Ok(()) } else { Err(Fault::Wrong("filters are not understood here".into())) }
}

type Sent<T> = ReceiverStream<Result<T, Status>>;

struct List(Call);

impl ServerStreamingService<api::ListRequest> for List {
    type Response = api::ListResponse;
    type ResponseStream = Sent<Self::Response>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<api::ListRequest>) -> Self::Future {
        let call = self.0.clone();
        Box::pin(async move {
            let store = Arc::clone(&call.store);
            let work = move || {
                unfiltered(request.get_ref())?;
                store.list()
            };
            let blobs = call.blocking(work).await?;
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(async move {
                for some in blobs.chunks(LISTED) {
                    let info = some.iter().copied().map(told).collect();
                    if sender.send(Ok(api::ListResponse { info })).await.is_err() {
                        return;
                    }
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

struct Read(Call);

impl ServerStreamingService<api::ReadRequest> for Read {
    type Response = api::ReadResponse;
    type ResponseStream = Sent<Self::Response>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<api::ReadRequest>) -> Self::Future {
        let (call, request) = (self.0.clone(), request.into_inner());
        Box::pin(async move {
            let store = Arc::clone(&call.store);
            let opened = call.blocking(move || store.open(&digest(&request.digest)?)).await?;
            let (file, BlobInfo { digest, size, .. }) = opened;
            let start = u64::try_from(request.offset).unwrap_or_default();
            if start > size {
                return Err(Status::out_of_range(format!("read past object length {size} bytes")));
            }
            let wanted = u64::try_from(request.size).ok().filter(|wanted| *wanted > 0).unwrap_or(u64::MAX);
            let end = size.min(start.saturating_add(wanted));
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::task::spawn_blocking(move || {
                let mut at = start;
                while at < end {
                    let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                    let mut data = BytesMut::zeroed(length);
                    let part = file.read_exact_at(&mut data, at).map_err(|error| {
                        let what = format!("blob {digest}");
                        call.trouble.report(Error::ImageInvalid { what, reason: format!("cannot be read: {error}") })
                    });
                    let offset = number(at - start);
                    let part = part.map(|()| api::ReadResponse { offset, data: data.freeze() });
                    let is_end = part.is_err();
                    if sender.blocking_send(part).is_err() || is_end {
                        return;
                    }
                    at += length as u64;
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

struct Write(Call);

impl StreamingService<api::WriteRequest> for Write {
    type Response = api::WriteResponse;
    type ResponseStream = Sent<Self::Response>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: Request<Streaming<api::WriteRequest>>) -> Self::Future {
        let answers = content_write::start(self.0.clone(), request.into_inner());
        Box::pin(async move { Ok(Response::new(answers)) })
    }
}
