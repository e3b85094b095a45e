//! What the tests of the Docker engine share.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cooper::cancel::Cancel;
use cooper::engine::select;
use cooper::environment::Environment;
use cooper::error::{Error, Result};
use cooper::event::{Event, Events};
use cooper::outcome::Outcome;
use cooper::registry::credentials::Anonymous;
use cooper::request::{
    BuildOptions, BuildRequest, BuilderChoice, ContextSpec, Credential, Credentials, DockerfileSpec, EngineSpec, Job,
};
use cooper::secret::Secret;

/// A setting of the test bed; without it the tier must fail, not skip.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run `make test-integration`, which starts the bed"))
}

/// The base image, `FROM` of every Dockerfile here.
pub(crate) fn busybox() -> String {
    setting("COOPER_TEST_BUSYBOX")
}

/// A fresh name for an image in the plain registry.
pub(crate) fn fresh(name: &str) -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("{}/docker-test/{name}:t{nanos}", setting("COOPER_TEST_REGISTRY"))
}

/// A request to build a folder.
pub(crate) fn request(root: &Path, tags: &[&str]) -> BuildRequest {
    BuildRequest {
        context: ContextSpec { root: Some(root.to_owned()), ..ContextSpec::default() },
        dockerfile: DockerfileSpec::default(),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        options: BuildOptions::default(),
        push: false,
        outputs: Vec::new(),
        engine: EngineSpec::default(),
    }
}

/// A folder with these files, and a Dockerfile that begins with FROM.
pub(crate) fn context(dockerfile: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("FROM {}\n{dockerfile}", busybox());
    for (path, content) in files.iter().copied().chain([("Dockerfile", text.as_str())]) {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// A job that collects its events.
pub(crate) struct Bench {
    pub(crate) job: Job,
    pub(crate) cancel: Cancel,
    events: tokio::task::JoinHandle<Vec<Event>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Arc::new(Anonymous))
    }

    pub(crate) fn with(credentials: Arc<dyn Credentials>) -> Self {
        let (events, mut receiver) = Events::channel();
        let cancel = Cancel::new();
        let collector = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(event) = receiver.recv().await {
                seen.push(event);
            }
            seen
        });
        Self { job: Job { events, cancel: cancel.clone(), credentials }, cancel, events: collector }
    }

    /// Builds on the daemon that the environment names, and gives all events.
    pub(crate) async fn build(self, request: &BuildRequest) -> (Result<Outcome>, Vec<Event>) {
        let engine = select(&request.engine, Environment::of_process());
        let result = tokio::time::timeout(Duration::from_secs(120), engine.build(request, &self.job)).await;
        drop(self.job);
        (result.expect("the build did not end"), self.events.await.unwrap())
    }
}

/// A request for one builder.
pub(crate) fn on(builder: BuilderChoice, mut request: BuildRequest) -> BuildRequest {
    request.engine.builder = builder;
    request
}

/// A request for Podman's socket.
pub(crate) fn on_podman(mut request: BuildRequest) -> BuildRequest {
    request.engine.endpoints = vec![format!("unix://{}", setting("COOPER_TEST_PODMAN"))];
    request
}

/// Runs the docker CLI.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}

/// Fixed credentials, by registry; the first answer may be a wrong one.
pub(crate) struct Fixed {
    pub(crate) first: BTreeMap<String, (String, String)>,
    pub(crate) refreshed: BTreeMap<String, (String, String)>,
}

#[async_trait]
impl Credentials for Fixed {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        let known = if refresh { &self.refreshed } else { &self.first };
        Ok(known.get(registry).map(|(username, password)| Credential {
            username: username.clone(),
            password: Secret::new(password.clone()),
            identity_token: None,
        }))
    }
}

/// Whether the daemon knows images by their manifests, and not by their configurations.
pub(crate) fn has_containerd_store() -> bool {
    docker(&["info", "--format", "{{json .DriverStatus}}"]).contains("io.containerd.snapshotter")
}

/// What the plain registry says is the digest of a tag.
pub(crate) fn registry_digest(image: &str) -> String {
    let (registry, rest) = image.split_once('/').unwrap();
    let (repository, tag) = rest.rsplit_once(':').unwrap();
    let mut stream = TcpStream::connect(registry).unwrap();
    let accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";
    write!(
        stream,
        "HEAD /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {registry}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let digest = answer.lines().find_map(|line| line.strip_prefix("Docker-Content-Digest: "));
    digest.unwrap_or_else(|| panic!("no digest in {answer}")).trim().to_owned()
}

/// All that RUN printed.
pub(crate) fn output(events: &[Event]) -> String {
    let text = |event: &Event| match event {
        Event::StepLog { text, .. } => text.clone(),
        _ => String::new(),
    };
    events.iter().map(text).collect()
}

/// The error of a build that must fail.
pub(crate) fn error(result: Result<Outcome>) -> Error {
    result.map(|outcome| panic!("it was built: {}", outcome.image)).unwrap_err()
}
