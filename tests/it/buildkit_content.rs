//! Caches in directories, as a daemon reads and writes them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cooper::buildkit::content::{METHODS, Stores};
use cooper::buildkit::content_messages::{
    DigestRequest, Empty, InfoResponse, ListRequest, ListResponse, ListStatusesResponse, ReadRequest, ReadResponse,
    RefRequest, StatusResponse, WriteAction, WriteRequest, WriteResponse,
};
use cooper::buildkit::content_store::Store;
use cooper::buildkit::session::SessionSpec;
use cooper::digest::Digest;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::buildkit_fake::{Served, files, serve};

/// A directory that may be written, and one that may not.
async fn serve_stores(root: &Path) -> Served {
    let store = |name: &str, write: bool| {
        let path = root.join(name);
        Arc::new(if write { Store::to_write(path) } else { Store::to_read(path) })
    };
    let stores: Stores = [("local:w".to_owned(), store("w", true)), ("oci:r".to_owned(), store("r", false))].into();
    serve(SessionSpec { stores, ..files([]) }).await
}

fn request<T>(store: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-attachable-store-id", store.parse().unwrap());
    request
}

fn path(method: &str) -> PathAndQuery {
    let path = METHODS.iter().find(|path| path.ends_with(&format!("/{method}"))).unwrap();
    PathAndQuery::from_static(path)
}

async fn client(served: &Served) -> Grpc<tonic::transport::Channel> {
    let mut client = Grpc::new(served.channel.clone());
    client.ready().await.unwrap();
    client
}

async fn unary<Q, R>(served: &Served, method: &str, store: &str, message: Q) -> Result<R, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    let codec: ProstCodec<Q, R> = ProstCodec::default();
    let answer = client(served).await.unary(request(store, message), path(method), codec).await;
    answer.map(tonic::Response::into_inner)
}

async fn read(served: &Served, store: &str, digest: &Digest, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
    let message = ReadRequest { digest: digest.to_string(), offset, size };
    let codec: ProstCodec<ReadRequest, ReadResponse> = ProstCodec::default();
    let answer = client(served).await.server_streaming(request(store, message), path("Read"), codec).await?;
    let (mut parts, mut bytes) = (answer.into_inner(), Vec::new());
    while let Some(part) = parts.message().await? {
        assert_eq!(part.offset, i64::try_from(bytes.len()).unwrap());
        bytes.extend_from_slice(&part.data);
    }
    Ok(bytes)
}

/// One call of `Write`.
struct Writer {
    requests: mpsc::UnboundedSender<WriteRequest>,
    answers: Streaming<WriteResponse>,
}

impl Writer {
    async fn open(served: &Served, store: &str, name: &str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let codec: ProstCodec<WriteRequest, WriteResponse> = ProstCodec::default();
        let stream = request(store, UnboundedReceiverStream::new(receiver));
        let answer = client(served).await.streaming(stream, path("Write"), codec).await?;
        let mut writer = Self { requests, answers: answer.into_inner() };
        let message = WriteRequest { r#ref: name.into(), ..WriteRequest::default() };
        writer.send(WriteAction::Stat, message).await?;
        Ok(writer)
    }

    async fn send(&mut self, action: WriteAction, message: WriteRequest) -> Result<WriteResponse, Status> {
        self.requests.send(WriteRequest { action: action.into(), ..message }).unwrap();
        self.answers.message().await.map(|answer| answer.expect("an answer"))
    }

    async fn write(&mut self, offset: i64, data: &'static str) -> Result<WriteResponse, Status> {
        self.send(WriteAction::Write, WriteRequest { offset, data: data.into(), ..WriteRequest::default() }).await
    }

    async fn commit(&mut self, offset: i64, total: i64, expected: &str) -> Result<WriteResponse, Status> {
        let message = WriteRequest { offset, total, expected: expected.into(), ..WriteRequest::default() };
        self.send(WriteAction::Commit, message).await
    }
}

fn blobs(root: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.join("blobs/sha256")) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_written_and_read_as_by_containerd() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve_stores(folder.path()).await;
    assert!(METHODS.iter().all(|method| served.session.hello().methods.iter().any(|known| known == method)));
    let digest = Digest::of(b"abcdef");
    let mut writer = Writer::open(&served, "local:w", "layer-1").await.unwrap();
    assert_eq!(writer.write(0, "abc").await.unwrap().offset, 3);
    let status: StatusResponse =
        unary(&served, "Status", "local:w", RefRequest { r#ref: "layer-1".into() }).await.unwrap();
    assert_eq!(status.status.unwrap().offset, 3);
    let all: ListStatusesResponse = unary(&served, "ListStatuses", "local:w", ListRequest::default()).await.unwrap();
    assert_eq!(all.statuses.len(), 1);
    let taken = Writer::open(&served, "local:w", "layer-1").await.map(drop).unwrap_err();
    assert_eq!(taken.code(), Code::Unavailable);
    assert_eq!(writer.write(3, "def").await.unwrap().digest, digest.to_string());
    let done = writer.commit(6, 6, &digest.to_string()).await.unwrap();
    assert_eq!((done.offset, done.digest), (6, digest.to_string()));
    assert_eq!(blobs(&folder.path().join("w")), [digest.hex()]);

    let wanted = || DigestRequest { digest: digest.to_string() };
    let info: InfoResponse = unary(&served, "Info", "local:w", wanted()).await.unwrap();
    let info = info.info.unwrap();
    assert_eq!((info.size, info.digest, info.created_at.is_some()), (6, digest.to_string(), true));
    for (offset, size, part) in [(0, 0, "abcdef"), (2, 3, "cde"), (4, 100, "ef"), (6, 1, ""), (-1, -1, "abcdef")] {
        let bytes = read(&served, "local:w", &digest, offset, size).await.unwrap();
        assert_eq!(bytes, part.as_bytes(), "{offset} {size}");
    }
    assert_eq!(read(&served, "local:w", &digest, 7, 0).await.unwrap_err().code(), Code::OutOfRange);
    // The same again is there already, whenever that is known.
    let mut again = Writer::open(&served, "local:w", "layer-1").await.unwrap();
    again.write(0, "abcdef").await.unwrap();
    assert_eq!(again.commit(6, 6, "").await.unwrap_err().code(), Code::AlreadyExists);
    let mut again = Writer::open(&served, "local:w", "layer-2").await.unwrap();
    assert_eq!(again.commit(0, 6, &digest.to_string()).await.unwrap_err().code(), Code::AlreadyExists);

    let codec: ProstCodec<ListRequest, ListResponse> = ProstCodec::default();
    let list = request("local:w", ListRequest::default());
    let mut list = client(&served).await.server_streaming(list, path("List"), codec).await.unwrap().into_inner();
    assert_eq!(list.message().await.unwrap().unwrap().info.len(), 1);
    let _: Empty = unary(&served, "Delete", "local:w", wanted()).await.unwrap();
    assert_eq!(
        unary::<_, InfoResponse>(&served, "Info", "local:w", wanted()).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_it_should_be_is_no_blob() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve_stores(folder.path()).await;
    let other = Digest::of(b"other").to_string();
    for (total, expected, code) in [
        (3, other.as_str(), Code::FailedPrecondition),
        (4, "", Code::FailedPrecondition),
        (0, "sha512:00", Code::FailedPrecondition),
        (0, "sha256:../../../escaped", Code::FailedPrecondition),
    ] {
        let mut writer = Writer::open(&served, "local:w", "x").await.unwrap();
        writer.write(0, "abc").await.unwrap();
        assert_eq!(writer.commit(3, total, expected).await.unwrap_err().code(), code, "{total} {expected}");
    }
    let mut writer = Writer::open(&served, "local:w", "x").await.unwrap();
    writer.write(0, "abc").await.unwrap();
    assert_eq!(writer.write(2, "d").await.unwrap_err().code(), Code::OutOfRange);
    // To begin anew is no mistake.
    let mut writer = Writer::open(&served, "local:w", "x").await.unwrap();
    writer.write(0, "wrong").await.unwrap();
    assert_eq!(writer.write(0, "abc").await.unwrap().offset, 3);
    writer.commit(3, 3, "").await.unwrap();
    // What is cut off is gone.
    let mut writer = Writer::open(&served, "local:w", "y").await.unwrap();
    writer.write(0, "half").await.unwrap();
    drop(writer);
    for _ in 0..100 {
        if blobs(&folder.path().join("w")).len() == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(blobs(&folder.path().join("w")), [Digest::of(b"abc").hex()]);
    assert!(served.session.trouble().take().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("r");
    let digest = Digest::of(b"abc");
    fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    fs::write(root.join("blobs/sha256").join(digest.hex()), "abc").unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    let served = serve_stores(folder.path()).await;
    assert_eq!(read(&served, "oci:r", &digest, 0, 0).await.unwrap(), b"abc");
    let denied = Writer::open(&served, "oci:r", "x").await.map(drop).unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let wanted = |digest: &str| DigestRequest { digest: digest.into() };
    let denied = unary::<_, Empty>(&served, "Delete", "oci:r", wanted(&digest.to_string())).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    for (store, name, code) in [
        ("oci:r", "sha256:../../../secret", Code::NotFound),
        ("oci:r", "../../secret", Code::NotFound),
        ("local:other", &digest.to_string(), Code::NotFound),
        ("local:w", &digest.to_string(), Code::NotFound),
    ] {
        let status = unary::<_, InfoResponse>(&served, "Info", store, wanted(name)).await.unwrap_err();
        assert_eq!(status.code(), code, "{store} {name}");
    }
    let status = unary::<_, Empty>(&served, "Abort", "local:w", RefRequest { r#ref: "x".into() }).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(blobs(&root), [digest.hex()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_is_our_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("w"), "a file").unwrap();
    let served = serve_stores(folder.path()).await;
    Writer::open(&served, "local:w", "x").await.map(drop).unwrap_err();
    assert_eq!(served.session.trouble().take().unwrap().code(), "output-failed");
}
