//! `moby.filesync.v1.FileSync`: the daemon asks for a directory and gets a list of what is in it, then asks for the files
//! that it does not have.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::filter::{self, Patterns};
use super::packet::Packet;
use super::sender::{self, Listing};
use super::source::SyncDir;
use super::trouble::Trouble;
use crate::cancel::Cancel;
use crate::error::Error;

/// Name of the service.
pub const SERVICE_NAME: &str = "moby.filesync.v1.FileSync";
/// The method that is served. `TarStream` exists too; no daemon calls it.
pub const DIFF_COPY: &str = "/moby.filesync.v1.FileSync/DiffCopy";

/// The directory of the Dockerfile.
const DOCKERFILE: &str = "dockerfile";

/// What went over the wire of the contexts. The Dockerfile goes with each build to a buildkitd, which does not keep it; it does
/// not count.
#[derive(Debug, Default)]
pub struct Sent {
    /// Files whose content was sent.
    pub files: AtomicU64,
    /// Bytes of their content.
    pub bytes: AtomicU64,
    /// The first entry whose name, or whose target, is no UTF-8.
    pub no_text: OnceLock<Vec<u8>>,
}

impl Sent {
    pub(super) fn add(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Serves directories by name.
#[derive(Clone)]
pub struct FileSyncService {
    dirs: Arc<HashMap<String, Arc<dyn SyncDir>>>,
    sent: Arc<Sent>,
    trouble: Trouble,
}

impl FileSyncService {
    /// Serves `dirs`, counts what is sent in `sent`, keeps what goes wrong in `trouble`.
    pub fn new(dirs: HashMap<String, Arc<dyn SyncDir>>, sent: Arc<Sent>, trouble: Trouble) -> Self {
        Self { dirs: Arc::new(dirs), sent, trouble }
    }

    async fn diff_copy(
        self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<ReceiverStream<Result<Packet, Status>>>, Status> {
        let metadata = request.metadata();
        let name = values(metadata, "dir-name").into_iter().next().unwrap_or_default();
        let Some(dir) = self.dirs.get(&name).cloned() else {
            return Err(Status::not_found(format!("no access allowed to dir \"{name}\"")));
        };
        let patterns = Patterns {
            include: values(metadata, "include-patterns"),
            exclude: values(metadata, "exclude-patterns"),
            follow: values(metadata, "followpaths"),
        };
        // Matching the patterns and hashing the files of a large context takes long enough to hold up `Health`. It ends with
        // this call.
        let cancel = Cancel::new();
        let _end = cancel.on_drop();
        let listed = tokio::task::spawn_blocking(move || {
            let picked = filter::pick(dir.as_ref(), &patterns)?;
            Listing::new(dir, picked, &cancel)
        });
        let listing = listed.await.unwrap_or_else(|error| Err(Error::internal(error.to_string())));
        let listing = listing.map_err(|error| self.trouble.report(error))?;
        let sent = if name == DOCKERFILE { Arc::default() } else { self.sent };
        Ok(Response::new(sender::start(listing, request.into_inner(), sent, self.trouble)))
    }
}

/// All values of a key, decoded.
fn values(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let encoded = metadata.get(format!("{key}-encoded")).is_some_and(|flag| flag.as_bytes() == b"1");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = metadata.get_all(key);
    all.iter().map(|value| if encoded { unescape(value.as_bytes()) } else { text(value.as_bytes()) }).collect()
}

/// Go's `url.QueryUnescape`; a malformed escape stays as it is.
fn unescape(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let hex = text.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (text[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                at += 2;
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The generated server would insist on UTF-8 in paths; see [`super::packet`].
impl Service<http::Request<Body>> for FileSyncService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != DIFF_COPY {
                return Ok(Status::unimplemented("only DiffCopy is served").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).streaming(DiffCopy(service), request).await)
        })
    }
}

struct DiffCopy(FileSyncService);

impl StreamingService<Packet> for DiffCopy {
    type Response = Packet;
    type ResponseStream = ReceiverStream<Result<Packet, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        Box::pin(self.0.clone().diff_copy(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_only_where_marked() {
        let mut metadata = MetadataMap::new();
        metadata.append("followpaths", "a+b%20c".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths"), ["a+b%20c"]);
        metadata.append("followpaths", "%C3%A4%2".parse().unwrap());
        metadata.insert("followpaths-encoded", "1".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths"), ["a b c", "\u{e4}%2"]);
    }
}
