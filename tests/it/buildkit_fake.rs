//! A daemon's side of a session, in this process: what BuildKit does to a client, and some things that it never would.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context as TaskContext, Poll};

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use cooper::buildkit::content::Stores;
use cooper::buildkit::context_dir::ContextDir;
use cooper::buildkit::filesend::Targets;
use cooper::buildkit::session::{Session, SessionSpec};
use cooper::buildkit::source::{MemoryDir, SyncDir};
use cooper::buildkit::transport;
use cooper::cancel::Cancel;
use cooper::context::{Context, Index, compare_paths};
use cooper::environment::Environment;
use cooper::error::Result;
use cooper::request::{ContextSpec, Credential, Credentials, DockerfileSpec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Nothing is set, and nothing can be kept.
static NOWHERE: LazyLock<Environment> =
    LazyLock::new(|| Environment::with("/nonexistent", std::iter::empty::<(&str, &str)>()));

/// Knows nobody.
pub(crate) struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn get(&self, _: &str, _: bool) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// A session that is being served, and the daemon's end of it.
pub(crate) struct Served {
    pub(crate) session: Arc<Session>,
    pub(crate) channel: Channel,
    _serving: AbortOnDropHandle<Result<()>>,
}

/// Serves a session over a pipe.
pub(crate) async fn serve(spec: SessionSpec<'_>) -> Served {
    let session = Arc::new(Session::new(spec).await.unwrap());
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let served = session.clone();
    let task = AbortOnDropHandle::new(tokio::spawn(async move { served.serve(Box::new(ours)).await }));
    Served { session, channel: transport::channel(theirs).await.unwrap().channel, _serving: task }
}

/// A session with these directories and nothing else.
pub(crate) fn files(dirs: impl IntoIterator<Item = (&'static str, Arc<dyn SyncDir>)>) -> SessionSpec<'static> {
    SessionSpec {
        dirs: dirs.into_iter().map(|(name, dir)| (name.to_owned(), dir)).collect(),
        secrets: &[],
        ssh: &[],
        credentials: Arc::new(Anonymous),
        environment: &NOWHERE,
        targets: Targets::new(),
        stores: Stores::new(),
        shared_key: "key".into(),
    }
}

/// A session that serves the directory `root` as `context`.
pub(crate) async fn serve_root(root: &Path) -> Served {
    serve_context(ContextSpec { root: Some(root.to_owned()), ..ContextSpec::default() }, None).await
}

/// A session that serves a context as `context`, with what is known of its files.
pub(crate) async fn serve_context(spec: ContextSpec, index: Option<Index>) -> Served {
    let context = Context::open(&spec, &DockerfileSpec::Text(String::new()), &Cancel::new()).unwrap();
    let dir: Arc<dyn SyncDir> = Arc::new(ContextDir::new(Arc::new(context), index));
    serve(files([("context", dir)])).await
}

/// A session that serves these texts as `context`.
pub(crate) async fn serve_texts(texts: &[(&str, &str)]) -> Served {
    let texts = texts.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec().into()));
    serve(files([("context", Arc::new(MemoryDir::new(texts)) as Arc<dyn SyncDir>)])).await
}

/// Makes each message an HTTP/2 frame of its own, as Go does; tonic would put those that wait into one.
struct OnePerFrame<S> {
    inner: S,
    paused: bool,
}

impl<S: Stream + Unpin> Stream for OnePerFrame<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<S::Item>> {
        self.paused = !self.paused;
        if self.paused {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = Pin::new(&mut self.inner).poll_next(cx);
        // Nothing was given out, so there is nothing to send before the next message.
        self.paused = next.is_pending();
        next
    }
}

/// The receiving side of one transfer.
pub(crate) struct Receiver {
    requests: mpsc::UnboundedSender<Packet>,
    packets: Streaming<Packet>,
}

/// What was received.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) stats: Vec<Stat>,
    pub(crate) content: BTreeMap<String, Vec<u8>>,
}

impl Received {
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.stats.iter().map(|stat| stat.path.as_str()).collect()
    }

    pub(crate) fn stat(&self, path: &str) -> &Stat {
        self.stats.iter().find(|stat| stat.path == path).unwrap_or_else(|| panic!("no {path} in {:?}", self.paths()))
    }
}

impl Receiver {
    /// Calls `DiffCopy` for the directory `name`, with more metadata.
    pub(crate) async fn open(channel: &Channel, name: &str, metadata: &[(&'static str, &str)]) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let mut request = Request::new(OnePerFrame { inner: UnboundedReceiverStream::new(receiver), paused: false });
        request.metadata_mut().insert("dir-name", name.parse().unwrap());
        for (key, value) in metadata {
            request.metadata_mut().append(*key, value.parse().unwrap());
        }
        let packets = FileSyncClient::new(channel.clone()).diff_copy(request).await?.into_inner();
        Ok(Self { requests, packets })
    }

    pub(crate) fn send(&self, kind: PacketType, id: u32) {
        self.requests.send(Packet { r#type: kind.into(), id, ..Packet::default() }).unwrap();
    }

    pub(crate) async fn next(&mut self) -> Result<Packet, Status> {
        self.packets.next().await.unwrap_or_else(|| Err(Status::aborted("the stream ended")))
    }

    /// Takes the list and checks it as fsutil does: the order, and that parents come first.
    pub(crate) async fn list(&mut self) -> Result<Vec<Stat>, Status> {
        let mut stats: Vec<Stat> = Vec::new();
        loop {
            let packet = self.next().await?;
            match packet.r#type() {
                PacketType::PacketStat => {}
                PacketType::PacketErr => return Err(Status::aborted(String::from_utf8_lossy(&packet.data))),
                other => panic!("{other:?} within the list"),
            }
            let Some(stat) = packet.stat else { break };
            assert_eq!((stat.uid, stat.gid), (0, 0));
            if let Some(last) = stats.last() {
                assert!(
                    compare_paths(last.path.as_bytes(), stat.path.as_bytes()).is_lt(),
                    "{} {}",
                    last.path,
                    stat.path
                );
            }
            if let Some((parent, _)) = stat.path.rsplit_once('/') {
                assert!(stats.iter().any(|known| known.path == parent), "{} before its parent", stat.path);
            }
            stats.push(stat);
        }
        Ok(stats)
    }

    /// Takes the list, asks for all wanted files at once, takes them and says goodbye.
    pub(crate) async fn receive(mut self, wanted: impl Fn(&Stat) -> bool) -> Result<Received, Status> {
        let stats = self.list().await?;
        let mut open: HashMap<u32, Vec<u8>> = HashMap::new();
        for (id, stat) in (0..).zip(&stats) {
            // The type bits of Go's `os.FileMode`.
            let is_file = stat.mode & 0x8f28_0000 == 0;
            if is_file && stat.linkname.is_empty() && wanted(stat) {
                self.send(PacketType::PacketReq, id);
                open.insert(id, Vec::new());
            }
        }
        let mut content = BTreeMap::new();
        while !open.is_empty() {
            let packet = self.next().await?;
            match packet.r#type() {
                PacketType::PacketData if packet.data.is_empty() => {
                    let data = open.remove(&packet.id).expect("the end of a file that was asked for");
                    content.insert(stats[packet.id as usize].path.clone(), data);
                }
                PacketType::PacketData => {
                    assert!(packet.data.len() <= 32 << 10);
                    open.get_mut(&packet.id).expect("data that was asked for").extend(packet.data);
                }
                PacketType::PacketErr => return Err(Status::aborted(String::from_utf8_lossy(&packet.data))),
                other => panic!("{other:?} within the files"),
            }
        }
        self.send(PacketType::PacketFin, 0);
        assert_eq!(self.next().await?.r#type(), PacketType::PacketFin);
        assert!(self.packets.next().await.is_none(), "the stream ends after FIN");
        Ok(Received { stats, content })
    }
}

/// One whole transfer of `context`.
pub(crate) async fn receive(served: &Served, metadata: &[(&'static str, &str)]) -> Result<Received, Status> {
    Receiver::open(&served.channel, "context", metadata).await?.receive(|_| true).await
}
