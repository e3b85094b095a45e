//! What the tests of BuildKit on a real daemon share.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cooper::buildkit::attrs::BuildkitVersion;
use cooper::buildkit::{BoxedStream, Build, Connection, Dial, Exporter, Hijack, Solved};
use cooper::cancel::Cancel;
use cooper::context::Context;
use cooper::environment::Environment;
use cooper::error::{Error, Result};
use cooper::event::{Event, Events};
use cooper::request::{BuildOptions, ContextSpec, Credential, Credentials, DockerfileSpec, ExtraFile, Job};
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// The daemon that the tests use: `DOCKER_HOST` if it is a Unix socket, else the default one.
struct Socket;

#[async_trait]
impl Dial for Socket {
    async fn dial(&self) -> Result<BoxedStream> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        let path = host.strip_prefix("unix://").expect("DOCKER_HOST of the tests is a Unix socket");
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(Error::DaemonUnreachable { endpoint: host, reason: error.to_string() }),
        }
    }
}

/// The same answer for every registry.
struct Always(Option<Credential>);

#[async_trait]
impl Credentials for Always {
    async fn get(&self, _: &str, _: bool) -> Result<Option<Credential>> {
        Ok(self.0.clone())
    }
}

/// A directory with a context, and how to build it.
pub(crate) struct Bed {
    dir: tempfile::TempDir,
    pub(crate) options: BuildOptions,
    pub(crate) extra_files: Vec<ExtraFile>,
    pub(crate) credential: Option<Credential>,
    pub(crate) cancel: Cancel,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, options: BuildOptions::default(), extra_files: Vec::new(), credential: None, cancel: Cancel::new() }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Builds this Dockerfile, `BUSYBOX` and `PYTHON` in it replaced; nothing is kept but BuildKit's cache.
    pub(crate) async fn build(&self, dockerfile: &str) -> (Result<Solved>, Vec<Event>) {
        let image = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("scripts/testbed sets {name}"));
        let dockerfile = dockerfile.replace("BUSYBOX", &image("COOPER_TEST_BUSYBOX"));
        let dockerfile = DockerfileSpec::Text(dockerfile.replace("PYTHON", &image("COOPER_TEST_PYTHON")));
        let spec = ContextSpec {
            root: Some(self.root().to_owned()),
            extra_files: self.extra_files.clone(),
            ..ContextSpec::default()
        };
        let context = Arc::new(Context::open(&spec, &dockerfile, &self.cancel).unwrap());
        let (events, mut receiver) = Events::channel();
        let credentials = Arc::new(Always(self.credential.clone()));
        let job = Job { events, cancel: self.cancel.clone(), credentials };
        let environment = Environment::of_process();
        let build = Build {
            context,
            root: Some(self.root()),
            options: &self.options,
            exporters: vec![Exporter { kind: "moby".into(), ..Exporter::default() }],
            stores: HashMap::new(),
            version: BuildkitVersion::v0(8),
            engine: "docker",
            part: None,
            environment: &environment,
        };
        let collect = async {
            let mut seen = Vec::new();
            while let Some(event) = receiver.recv().await {
                seen.push(event);
            }
            seen
        };
        let transport = Hijack::new(Arc::new(Socket));
        let run = async move {
            let connection = Connection::open(Arc::new(transport)).await.unwrap();
            let result = cooper::buildkit::build(&connection, build, &job).await;
            drop(job);
            if let Ok(solved) = &result {
                remove_image(&solved.response["containerimage.digest"]).await;
            }
            result
        };
        tokio::join!(run, collect)
    }
}

/// The release of the daemon's BuildKit; 0.8 where it does not tell.
pub(crate) async fn release() -> BuildkitVersion {
    let connection = Connection::open(Arc::new(Hijack::new(Arc::new(Socket)))).await.unwrap();
    connection.about().await.unwrap().release.unwrap_or(BuildkitVersion::v0(8))
}

/// The daemon keeps an image without a name for each build.
async fn remove_image(id: &str) {
    let stream = TokioIo::new(Socket.dial().await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request =
        Request::delete(format!("/images/{id}")).header("host", "docker").body(Empty::<Bytes>::new()).unwrap();
    let status = sender.send_request(request).await.unwrap().status();
    // Another test may have made the same image, and have removed it or be using it.
    assert!(matches!(status.as_u16(), 200 | 404 | 409), "{status}");
    connection.abort();
}

/// All that the steps printed.
pub(crate) fn output(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::StepLog { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// A text that no other run has, to get past BuildKit's cache.
pub(crate) fn unique() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}-{}", std::process::id(), now.as_nanos())
}
