//! Whole builds against a daemon that plays tricks.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::control_server::{Control, ControlServer};
use async_trait::async_trait;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::v1 as api;
use cooper::buildkit::attrs::BuildkitVersion;
use cooper::buildkit::transport::{Control as Client, Link};
use cooper::buildkit::{BoxedStream, Build, Connection, Exporter, SessionHello, Solved, Transport, transport};
use cooper::cancel::Cancel;
use cooper::context::Context;
use cooper::environment::Environment;
use cooper::error::{Error, Result};
use cooper::event::{Event, Events};
use cooper::request::{BuildOptions, ContextSpec, DockerfileSpec, ExtraFile, Job};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::buildkit_fake::{Anonymous, Receiver};

/// What the daemon does with a build.
#[derive(Clone, Copy, PartialEq)]
enum Plan {
    /// Syncs the Dockerfile and the context, says a few things, succeeds; some of what it says comes after the answer.
    Succeed,
    /// Says more than anybody can listen to.
    Chatter,
    /// Never answers.
    Hang,
    /// Breaks the connection.
    Break,
}

struct Daemon {
    plan: Plan,
    session: watch::Sender<Option<Channel>>,
    requests: Mutex<Vec<api::SolveRequest>>,
    synced: Mutex<Vec<String>>,
    /// Paths in the context named `lib`, if there is one.
    named: Mutex<Vec<String>>,
    status: Mutex<Option<mpsc::UnboundedSender<Result<api::StatusResponse, Status>>>>,
    control_ended: watch::Sender<bool>,
}

impl Daemon {
    fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            plan,
            session: watch::Sender::new(None),
            requests: Mutex::default(),
            synced: Mutex::default(),
            named: Mutex::default(),
            status: Mutex::default(),
            control_ended: watch::Sender::new(false),
        })
    }

    fn say(&self, status: api::StatusResponse) {
        if let Some(sender) = &*self.status.lock().unwrap() {
            let _ = sender.send(Ok(status));
        }
    }

    async fn session(&self) -> Channel {
        self.session.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    /// Waits until somebody listens: Go's solver keeps what is said until then.
    async fn listener(&self) {
        while self.status.lock().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn vertex(digest: &str, name: &str, completed: bool) -> api::Vertex {
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    api::Vertex {
        digest: digest.into(),
        name: name.into(),
        started: time(100),
        completed: if completed { time(103) } else { None },
        ..Default::default()
    }
}

fn vertexes(vertexes: Vec<api::Vertex>) -> api::StatusResponse {
    api::StatusResponse { vertexes, ..Default::default() }
}

fn log(text: String) -> api::StatusResponse {
    let log = api::VertexLog { vertex: "run".into(), stream: 1, msg: text.into_bytes(), timestamp: None };
    api::StatusResponse { logs: vec![log], ..Default::default() }
}

const CHATTER: usize = 20_000;

type Stream<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Control for Daemon {
    async fn solve(&self, request: Request<api::SolveRequest>) -> Result<Response<api::SolveResponse>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        let session = self.session().await;
        self.listener().await;
        self.say(vertexes(vec![vertex("run", "[2/2] RUN make", false)]));
        match self.plan {
            Plan::Hang => std::future::pending::<()>().await,
            Plan::Break => {
                self.control_ended.send_replace(true);
                std::future::pending::<()>().await;
            }
            Plan::Chatter => {
                for number in 0..CHATTER {
                    self.say(log(format!("{number}\n")));
                }
            }
            Plan::Succeed => {
                if let Ok(receiver) = Receiver::open(&session, "lib", &[]).await {
                    let paths = receiver.receive(|_| false).await?.stats.into_iter().map(|stat| stat.path);
                    self.named.lock().unwrap().extend(paths);
                }
                for dir in ["dockerfile", "context"] {
                    let received = Receiver::open(&session, dir, &[]).await?.receive(|_| true).await?;
                    let files = received.content.iter();
                    let lines = files.map(|(path, text)| format!("{dir}/{path}={}", String::from_utf8_lossy(text)));
                    self.synced.lock().unwrap().extend(lines);
                }
            }
        }
        // The session must be there until the very end: exporters ask for credentials.
        HealthClient::new(session).check(HealthCheckRequest::default()).await?;
        self.status.lock().unwrap().take().map(|sender| {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = sender.send(Ok(log("the last words\n".into())));
                let _ = sender.send(Ok(vertexes(vec![vertex("run", "[2/2] RUN make", true)])));
            })
        });
        let response = HashMap::from([("containerimage.digest".to_owned(), "sha256:1".to_owned())]);
        Ok(Response::new(api::SolveResponse { exporter_response: response }))
    }

    type StatusStream = Stream<api::StatusResponse>;
    async fn status(&self, _: Request<api::StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.status.lock().unwrap() = Some(sender);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }

    async fn disk_usage(&self, _: Request<api::DiskUsageRequest>) -> Result<Response<api::DiskUsageResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
    type PruneStream = Stream<api::UsageRecord>;
    async fn prune(&self, _: Request<api::PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Err(Status::unimplemented("not used"))
    }
    type SessionStream = Stream<api::BytesMessage>;
    async fn session(&self, _: Request<Streaming<api::BytesMessage>>) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not used"))
    }
    async fn list_workers(
        &self,
        _: Request<api::ListWorkersRequest>,
    ) -> Result<Response<api::ListWorkersResponse>, Status> {
        let labels = [("org.mobyproject.buildkit.worker.moby.host-gateway-ip".to_owned(), "172.17.0.1".to_owned())];
        let record = api::types::WorkerRecord { labels: labels.into(), ..Default::default() };
        Ok(Response::new(api::ListWorkersResponse { record: vec![record] }))
    }
    async fn info(&self, _: Request<api::InfoRequest>) -> Result<Response<api::InfoResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
    type ListenBuildHistoryStream = Stream<api::BuildHistoryEvent>;
    async fn listen_build_history(
        &self,
        _: Request<api::BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("not used"))
    }
    async fn update_build_history(
        &self,
        _: Request<api::UpdateBuildHistoryRequest>,
    ) -> Result<Response<api::UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("not used"))
    }
}

struct Pipes(Arc<Daemon>);

#[async_trait]
impl Transport for Pipes {
    async fn control(&self) -> Result<Link> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let daemon = self.0.clone();
        tokio::spawn(async move {
            let service = ControlServer::from_arc(daemon.clone());
            let service = hyper_util::service::TowerToHyperService::new(service);
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(theirs), service);
            let mut broken = daemon.control_ended.subscribe();
            tokio::select! {
                _ = connection => {}
                _ = broken.wait_for(|ended| *ended) => {}
            }
            daemon.control_ended.send_replace(true);
        });
        transport::channel(ours).await
    }

    async fn attach(&self, _: Client, hello: &SessionHello) -> Result<BoxedStream> {
        assert!(hello.methods.iter().any(|method| method == "/moby.filesync.v1.FileSync/DiffCopy"));
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let daemon = self.0.clone();
        tokio::spawn(async move {
            let channel = transport::channel(theirs).await.unwrap().channel;
            daemon.session.send_replace(Some(channel));
        });
        Ok(Box::new(ours))
    }
}

async fn build(
    daemon: &Arc<Daemon>,
    options: &BuildOptions,
    cancel: &Cancel,
    slow: bool,
) -> (Result<Solved>, Vec<Event>) {
    let spec = ContextSpec {
        extra_files: vec![ExtraFile { path: "a".into(), content: "A".into(), mode: 0o644 }],
        ..ContextSpec::default()
    };
    let dockerfile = DockerfileSpec::Text("FROM x\nRUN make\n".into());
    let context = Arc::new(Context::open(&spec, &dockerfile, &Cancel::new()).unwrap());
    let (events, mut receiver) = Events::channel();
    let job = Job { events, cancel: cancel.clone(), credentials: Arc::new(Anonymous) };
    let exporter = Exporter { kind: "moby".into(), attrs: [("name".to_owned(), "n".to_owned())].into(), target: None };
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment::with(dir.path(), [("COOPER_CACHE_DIR", dir.path())]);
    let build = Build {
        context,
        root: None,
        options,
        exporters: vec![exporter],
        stores: HashMap::new(),
        version: BuildkitVersion::v0(13),
        engine: "docker",
        part: None,
        environment: &environment,
    };
    let connection = Connection::open(Arc::new(Pipes(daemon.clone()))).await.unwrap();
    let run = async move {
        let result = cooper::buildkit::build(&connection, build, &job).await;
        drop(job);
        result
    };
    let collect = async {
        let mut seen = Vec::new();
        while let Some(event) = receiver.recv().await {
            seen.push(event);
            if slow && seen.len() == 1 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        seen
    };
    tokio::join!(run, collect)
}

fn printed(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::StepLog { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_sends_what_was_asked_and_hears_the_last_words() {
    let daemon = Daemon::new(Plan::Succeed);
    let add_hosts = [("h".to_owned(), "host-gateway".to_owned())].into();
    let options = BuildOptions { network: Some("host".into()), add_hosts, ..BuildOptions::default() };
    let (result, events) = build(&daemon, &options, &Cancel::new(), false).await;
    let solved = result.unwrap();
    assert_eq!(solved.response["containerimage.digest"], "sha256:1");
    assert_eq!((solved.total_steps, solved.cached_steps, solved.sent_files), (1, 0, 1));
    assert!((solved.seconds - 3.0).abs() < 1e-6, "{}", solved.seconds);
    assert_eq!(printed(&events), "the last words\n");
    assert!(
        matches!(events.last(), Some(Event::StepDone { seconds, .. }) if (seconds - 3.0).abs() < 1e-6),
        "{events:?}"
    );

    let request = daemon.requests.lock().unwrap().remove(0);
    assert_eq!(
        (request.frontend.as_str(), request.frontend_attrs["filename"].as_str()),
        ("dockerfile.v0", "Dockerfile")
    );
    assert_eq!(request.frontend_attrs["add-hosts"], "h=172.17.0.1");
    assert_eq!(request.entitlements, ["network.host"]);
    assert_eq!((request.exporters[0].r#type.as_str(), request.exporters[0].attrs["name"].as_str()), ("moby", "n"));
    assert_eq!(
        (request.exporter_deprecated.as_str(), request.exporter_attrs_deprecated["name"].as_str()),
        ("moby", "n")
    );
    assert!(!request.session.is_empty() && !request.r#ref.is_empty());
    let synced = daemon.synced.lock().unwrap();
    let expected = [
        "dockerfile/Dockerfile=FROM x\nRUN make\n",
        "dockerfile/Dockerfile.dockerignore=# Applied by the sender.\n",
        "context/a=A",
    ];
    assert_eq!(*synced, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_context_is_a_directory_of_its_own() {
    let lib = tempfile::tempdir().unwrap();
    std::fs::write(lib.path().join("kept"), "").unwrap();
    std::fs::write(lib.path().join("ignored"), "").unwrap();
    std::fs::write(lib.path().join(".dockerignore"), "ignored\n").unwrap();
    let build_contexts = [
        ("lib".to_owned(), lib.path().to_str().unwrap().to_owned()),
        ("base".to_owned(), "docker-image://other".to_owned()),
    ];
    let daemon = Daemon::new(Plan::Succeed);
    let options = BuildOptions { build_contexts: build_contexts.into(), ..BuildOptions::default() };
    let (result, _) = build(&daemon, &options, &Cancel::new(), false).await;
    result.unwrap();
    let attrs = daemon.requests.lock().unwrap().remove(0).frontend_attrs;
    assert_eq!((attrs["context:lib"].as_str(), attrs["context:base"].as_str()), ("local:lib", "docker-image://other"));
    // All of it: the daemon reads the ignore file of a named context itself.
    assert_eq!(*daemon.named.lock().unwrap(), [".dockerignore", "ignored", "kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_stay_are_told() {
    for (epoch, told) in [(Some(1), true), (None, false)] {
        let daemon = Daemon::new(Plan::Succeed);
        let options = BuildOptions { source_date_epoch: epoch, ..BuildOptions::default() };
        let (result, events) = build(&daemon, &options, &Cancel::new(), false).await;
        result.unwrap();
        let is_told =
            |event: &Event| matches!(event, Event::Warning { message, .. } if message.contains("keep theirs"));
        assert_eq!(events.iter().any(is_told), told, "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_listener_misses_nothing() {
    let daemon = Daemon::new(Plan::Chatter);
    let (result, events) = build(&daemon, &BuildOptions::default(), &Cancel::new(), true).await;
    result.unwrap();
    let text = printed(&events);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), CHATTER + 1);
    assert!((0..CHATTER).all(|number| lines[number] == number.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_both_connections_at_once() {
    let daemon = Daemon::new(Plan::Hang);
    let cancel = Cancel::new();
    let options = BuildOptions::default();
    let work = async {
        let (result, _) = build(&daemon, &options, &cancel, false).await;
        (result, Instant::now())
    };
    let stop = async {
        daemon.session().await;
        daemon.listener().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        cancel.cancel();
        Instant::now()
    };
    let ((result, returned), cancelled) = tokio::join!(work, stop);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(returned - cancelled < Duration::from_millis(200), "{:?}", returned - cancelled);
    let limit = Duration::from_secs(2);
    let mut ended = daemon.control_ended.subscribe();
    tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await.expect("the control connection ends").unwrap();
    let mut health = HealthClient::new(daemon.session().await);
    let check = tokio::time::timeout(limit, health.check(HealthCheckRequest::default()));
    assert!(check.await.expect("the session answers or ends").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_a_protocol_error() {
    let daemon = Daemon::new(Plan::Break);
    let (result, _) = build(&daemon, &BuildOptions::default(), &Cancel::new(), false).await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), "daemon-protocol", "{error:?}");
}
