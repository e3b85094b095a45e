//! What the tests of the BuildKit engine share: its workers, builds on them whose image is known, and what a build leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cooper::Error;
use cooper::buildkit::connection::Patience;
use cooper::cancel::Cancel;
use cooper::engine::Engine as _;
use cooper::engine::buildkit::BuildKitEngine;
use cooper::environment::Environment;
use cooper::event::{Event, Events};
use cooper::oci::Document;
use cooper::outcome::Outcome;
use cooper::reference::Reference;
use cooper::registry::credentials::Anonymous;
use cooper::request::{BuildRequest, Job, Output, PoolPolicy};
use flate2::read::GzDecoder;

use crate::buildkit_bed::unique;
use crate::docker_bed::{busybox, fresh, output, request, setting};
use crate::registry_bed::client;
use crate::worker_proxy::Target;

/// How soon a build that is cancelled has to return.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(200);
/// Of a layer, the most that a test reads.
const MAX_LAYER: u64 = 1 << 30;

/// A BuildKit of the test bed.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) target: Target,
    scheme: &'static str,
    /// Without a proxy.
    pub(crate) endpoint: String,
}

impl Backend {
    /// The BuildKit inside a Docker daemon at this socket.
    pub(crate) fn docker(socket: &Path) -> Self {
        Self {
            target: Target::Unix(socket.to_owned()),
            scheme: "docker+tcp",
            endpoint: format!("docker+unix://{}", socket.display()),
        }
    }

    /// That of the second daemon.
    pub(crate) fn second() -> Self {
        Self::docker(Path::new(&setting("COOPER_TEST_DOCKERD")))
    }

    /// That of the machine's daemon.
    pub(crate) fn first() -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
        Self::docker(Path::new(host.strip_prefix("unix://").expect("DOCKER_HOST of the tests is a Unix socket")))
    }

    /// The same as [`Self::second`], but spoken to as if it were a buildkitd. It has no exporter that pushes.
    pub(crate) fn inside() -> Self {
        let socket = PathBuf::from(setting("COOPER_TEST_DOCKERD"));
        Self { target: Target::Inside(socket), scheme: "tcp", endpoint: String::new() }
    }

    /// The buildkitd that a variable names, if it names one.
    pub(crate) fn buildkitd(variable: &str) -> Option<Self> {
        let Ok(endpoint) = std::env::var(variable) else {
            println!("skipped: {variable} names no buildkitd");
            return None;
        };
        Some(Self::buildkitd_at(&endpoint))
    }

    pub(crate) fn buildkitd_at(endpoint: &str) -> Self {
        let target = match endpoint.split_once("://").unwrap() {
            ("unix", path) => Target::Unix(path.into()),
            ("tcp" | "docker+tcp", address) => Target::Tcp(address.to_owned()),
            other => panic!("the tests take unix://, tcp:// and docker+tcp:// only: {other:?}"),
        };
        Self { target, scheme: "tcp", endpoint: endpoint.to_owned() }
    }

    /// One of each kind that there is.
    pub(crate) fn each() -> Vec<Self> {
        [Self::second(), Self::inside()].into_iter().chain(Self::buildkitd("BUILDKIT_HOST")).collect()
    }

    /// Behind a port.
    pub(crate) fn at(&self, address: SocketAddr) -> String {
        format!("{}://{address}", self.scheme)
    }

    pub(crate) fn pushes(&self) -> bool {
        !matches!(self.target, Target::Inside(_))
    }
}

type Watch = Arc<dyn Fn(&Event) + Send + Sync>;

/// A build whose image is known.
pub(crate) struct Case {
    home: tempfile::TempDir,
    root: PathBuf,
    /// What is in `/out` of the image.
    content: String,
    /// The files that the build adds to its base.
    files: BTreeMap<String, Vec<u8>>,
    pub(crate) request: BuildRequest,
    pub(crate) patience: Patience,
    pub(crate) environment: Environment,
    pub(crate) cancel: Cancel,
    watch: Watch,
}

/// What became of a build.
pub(crate) struct Ended {
    pub(crate) result: Result<Outcome, Error>,
    pub(crate) events: Vec<Event>,
    /// When it returned.
    pub(crate) at: Instant,
}

impl Case {
    /// A command that says `started`, runs for some seconds, and reads a file of the context. It is in no cache.
    pub(crate) fn new(seconds: f64) -> Self {
        Self::named("project", seconds)
    }

    /// The same in a directory of this name.
    pub(crate) fn named(directory: &str, seconds: f64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join(directory);
        std::fs::create_dir(&root).unwrap();
        let content = unique();
        let command = format!("echo started; sleep {seconds}; cat /context/content > /out; cat /out");
        let dockerfile = format!("FROM {}\nCOPY . /context/\nRUN {command}\n", busybox());
        std::fs::write(root.join("Dockerfile"), &dockerfile).unwrap();
        let files = [("out", &content), ("context/content", &content), ("context/Dockerfile", &dockerfile)];
        let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.clone().into_bytes())).collect();
        std::fs::write(root.join("content"), &content).unwrap();
        let mut request = request(&root, &[&fresh("worker")]);
        request.engine.pool.policy = PoolPolicy::Ordered;
        request.push = true;
        Self {
            home,
            root,
            content,
            files,
            request,
            patience: Patience { ask: Duration::from_secs(1), answer: Duration::from_secs(5) },
            environment: Environment::of_process(),
            cancel: Cancel::new(),
            watch: Arc::new(|_| {}),
        }
    }

    /// With so many files more, each of so many bytes.
    pub(crate) fn with_files(mut self, number: usize, size: usize) -> Self {
        let mut bytes = Vec::with_capacity(size + 64);
        for place in 0..number {
            let path = format!("files/{}/{place}", place / 100);
            let file = self.root.join(&path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            bytes.clear();
            bytes.extend_from_slice(format!("{} {place} ", self.content).as_bytes());
            bytes.resize(size.max(bytes.len()), b'x');
            std::fs::write(file, &bytes).unwrap();
            self.files.insert(format!("context/{path}"), bytes.clone());
        }
        self
    }

    /// On these workers, in this order.
    pub(crate) fn on(mut self, endpoints: &[&str]) -> Self {
        self.request.engine.endpoints = endpoints.iter().map(|text| (*text).to_owned()).collect();
        self
    }

    /// On one, which may be unable to push: then what the command made comes into a directory.
    pub(crate) fn on_one(mut self, backend: &Backend, endpoint: &str) -> Self {
        if !backend.pushes() {
            self.request.push = false;
            self.request.outputs = vec![Output::Local { dest: self.made() }];
            let path = self.root.join("Dockerfile");
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(path, format!("{text}FROM scratch\nCOPY --from=0 /out /out\n")).unwrap();
        }
        self.on(&[endpoint])
    }

    /// Where a worker that does not push puts what it made.
    fn made(&self) -> PathBuf {
        self.home.path().join("made")
    }

    pub(crate) fn with_patience(mut self, ask: f32, answer: f32) -> Self {
        self.patience = Patience { ask: Duration::from_secs_f32(ask), answer: Duration::from_secs_f32(answer) };
        self
    }

    /// Calls this with each event.
    pub(crate) fn watching(mut self, watch: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.watch = Arc::new(watch);
        self
    }

    /// Calls this once, when the command runs.
    pub(crate) fn once_started(self, act: impl FnOnce() + Send + 'static) -> Self {
        let act = Mutex::new(Some(act));
        self.watching(move |event| {
            if matches!(event, Event::StepLog { text, .. } if text.contains("started"))
                && let Some(act) = act.lock().unwrap().take()
            {
                act();
            }
        })
    }

    /// Builds, as Python does it: with a thread and a runtime that are there for this build alone.
    pub(crate) async fn run(&self) -> Ended {
        let engine = BuildKitEngine::new(self.request.engine.clone(), self.environment.clone());
        let engine = engine.with_patience(self.patience);
        let (request, cancel, watch) = (self.request.clone(), self.cancel.clone(), Arc::clone(&self.watch));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let ended = runtime.block_on(build(engine, request, cancel, watch));
            runtime.shutdown_timeout(Duration::from_secs(1));
            // Only a test that has failed does not wait.
            let _ = sender.send(ended);
        });
        let ended = receiver.await.expect("the build's thread has a panic of its own");
        thread.join().unwrap();
        ended
    }

    /// Fails unless it was built, and what is in the registry is what was to be built.
    pub(crate) async fn is_right(&self, ended: &Ended) {
        let outcome = ended.result.as_ref().unwrap_or_else(|error| panic!("{error}\n{}", ended.told()));
        let printed = output(&ended.events);
        if !self.request.push {
            // Where it ran twice, both count. What a lost build had finished may be found in the worker's cache.
            let is_cached = outcome.steps.iter().any(|step| step.cached && step.name.contains("RUN"));
            let is_again = !ended.warnings("worker-lost").is_empty();
            assert!(printed.contains(&self.content) || (is_again && is_cached), "{}", ended.told());
            if !self.request.outputs.is_empty() {
                assert_eq!(std::fs::read_to_string(self.made().join("out")).unwrap(), self.content);
            }
            return;
        }
        let tag = &self.request.tags[0];
        let (digest, files) = image(tag).await;
        assert_eq!(outcome.digest.map(|digest| digest.to_string()), Some(digest), "{}", ended.told());
        let found: BTreeMap<_, _> =
            files.into_iter().filter(|(path, _)| path == "out" || path.starts_with("context/")).collect();
        let paths = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(paths(&found), paths(&self.files));
        assert!(found == self.files, "a file of {tag} has another content");
    }
}

async fn build(engine: BuildKitEngine, request: BuildRequest, cancel: Cancel, watch: Watch) -> Ended {
    let (events, mut receiver) = Events::channel();
    let collector = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(event) = receiver.recv().await {
            watch(&event);
            seen.push(event);
        }
        seen
    });
    let job = Job { events, cancel, credentials: Arc::new(Anonymous) };
    let result = tokio::time::timeout(Duration::from_secs(100), engine.build(&request, &job)).await;
    let at = Instant::now();
    drop(job);
    Ended { result: result.expect("the build did not end"), events: collector.await.unwrap(), at }
}

impl Ended {
    pub(crate) fn error(&self) -> &Error {
        match &self.result {
            Err(error) => error,
            Ok(outcome) => panic!("it was built: {}\n{}", outcome.image, self.told()),
        }
    }

    /// What was said of workers: the endpoint and the reason of each that was chosen.
    pub(crate) fn chosen(&self) -> Vec<(&str, &str)> {
        let parts = self.events.iter().filter_map(|event| match event {
            Event::Engine { endpoint, reason, .. } => Some((endpoint.as_str(), reason.as_str())),
            _ => None,
        });
        parts.collect()
    }

    /// The warnings with this code.
    pub(crate) fn warnings(&self, wanted: &str) -> Vec<&str> {
        let texts = self.events.iter().filter_map(|event| match event {
            Event::Warning { code, message } if code == wanted => Some(message.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// The build for a person who looks for what went wrong.
    pub(crate) fn told(&self) -> String {
        let mut text = format!("{:?}\n", self.result.as_ref().map(|outcome| &outcome.image));
        for event in &self.events {
            if !matches!(event, Event::StepProgress { .. } | Event::Push { .. }) {
                let _ = writeln!(text, "  {event:?}");
            }
        }
        text
    }
}

/// What is in the registry: the manifest's digest, and the files of all layers together.
async fn image(tag: &Reference) -> (String, BTreeMap<String, Vec<u8>>) {
    let home = tempfile::tempdir().unwrap();
    let client = client(home.path(), None);
    let fetched = client.manifest(tag).await.unwrap().unwrap_or_else(|| panic!("{tag} is not there"));
    let Document::Manifest(manifest) = Document::parse(&fetched.descriptor.media_type, &fetched.bytes).unwrap() else {
        panic!("{tag} is an index")
    };
    let mut files = BTreeMap::new();
    for layer in &manifest.layers {
        let bytes = client.blob_bytes(tag, layer, MAX_LAYER).await.unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(&bytes[..]));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                files.insert(path, content);
            }
        }
    }
    (fetched.descriptor.digest.to_string(), files)
}

/// What this process holds: open files, threads, and processes that it started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    files: usize,
    threads: usize,
    children: BTreeSet<u32>,
}

impl Held {
    pub(crate) fn now() -> Self {
        let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
        Self { files: entries("/proc/self/fd"), threads: entries("/proc/self/task"), children: children() }
    }

    /// Fails unless as little is held as before, in a moment: a daemon's end of a socket may take one.
    pub(crate) async fn is_all(&self) {
        let start = Instant::now();
        loop {
            let now = Self::now();
            if now.files <= self.files && now.threads <= self.threads && now.children.is_subset(&self.children) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{self:?} became {now:?}: {:#?}", open_files());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn open_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect()
}

fn children() -> BTreeSet<u32> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let child = |entry: std::fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        (parent == own).then_some(number)
    };
    processes.filter_map(child).collect()
}
