//! One of every error and event, so that the Python tests can see each of them mapped and rendered.

use std::io;
use std::time::Duration;

use crate::error::{Error, Location, StepFailure};
use crate::event::{Event, Largest};

fn location() -> Location {
    let source = vec!["RUN false".to_owned()];
    Location { file: "Dockerfile".into(), line: 2, end_line: 2, column: 1, width: 9, source }
}

fn failed_step() -> StepFailure {
    StepFailure {
        instruction: "RUN false".into(),
        exit_code: Some(1),
        location: Some(location()),
        tail: vec!["the last words".into()],
        message: "process did not complete".into(),
    }
}

/// The errors, in the order of [`Error::CODES`].
pub(super) fn errors() -> Vec<Error> {
    let text = || "sample".to_owned();
    let source = || io::Error::from_raw_os_error(13);
    let place = || Some(Box::new(location()));
    vec![
        Error::InvalidReference { input: "A".into(), reason: "it has capitals" },
        Error::InvalidDigest { input: text() },
        Error::InvalidPlatform { input: text() },
        Error::UnknownOption { name: "buildarg".into(), suggestion: Some("build-arg".into()) },
        Error::InvalidOption { name: text(), reason: text() },
        Error::Unsupported { engine: "docker".into(), feature: text(), reason: text() },
        Error::SecretUnavailable { id: text(), reason: text() },
        Error::SshUnavailable { id: text(), reason: text() },
        Error::ContextRoot { path: "/none".into(), source: source() },
        Error::ContextRead { path: "/none".into(), source: source() },
        Error::ContextChanged { path: "/none".into(), expected: 1, found: "2".into() },
        Error::ContextWrite { source: source() },
        Error::ContextPath { path: "../a".into(), reason: text() },
        Error::IgnoreFile { path: "/none".into(), source: source() },
        Error::IgnorePattern { location: Box::new(location()), reason: text() },
        Error::DockerfileMissing { path: "Dockerfile".into() },
        Error::Dockerfile { location: place(), message: text() },
        Error::DockerfileSyntax { location: Box::new(location()), message: text(), suggestion: None },
        Error::DockerfileVariable { location: Box::new(location()), message: text(), suggestion: None },
        Error::DockerfileValue { location: Box::new(location()), message: text(), suggestion: None },
        Error::DockerfileStage { location: Box::new(location()), message: text(), suggestion: None },
        Error::DockerfileFrontend { location: Box::new(location()), message: text() },
        Error::StepFailed(Box::new(failed_step())),
        Error::BaseMissing { reference: "none:1".into(), location: place(), message: text() },
        Error::BuildFailed { message: text() },
        Error::DaemonUnreachable { endpoint: "unix:///none".into(), reason: text() },
        Error::DaemonDenied { endpoint: "unix:///none".into() },
        Error::DaemonRefused { action: text(), status: 500, message: text() },
        Error::DaemonProtocol { action: text(), reason: text() },
        Error::NoSpace { message: text() },
        Error::WorkerUnreachable { endpoint: text(), reason: text() },
        Error::WorkerLost { endpoint: text(), reason: text() },
        Error::DaemonConfig { setting: "DOCKER_HOST".into(), reason: text() },
        Error::RegistryDenied { registry: text(), reference: text(), message: text(), had_credentials: true },
        Error::RegistryUnreachable { registry: text(), reason: text() },
        Error::PushFailed { reference: text(), message: text() },
        Error::DigestMismatch { reference: text(), expected: text(), found: text() },
        Error::Credentials { registry: text(), reason: text() },
        Error::ImageInvalid { what: "manifest".into(), reason: text() },
        Error::PlatformMissing { reference: text(), platform: "linux/arm64".into(), available: "linux/amd64".into() },
        Error::RegistryRefused { registry: text(), action: text(), status: 500, message: text() },
        Error::Store { path: "/none".into(), action: "write".into(), source: source() },
        Error::StoreDamaged { path: "/none".into(), reason: text() },
        Error::CopyFailed { location: Box::new(location()), message: text(), suggestion: None },
        Error::FetchFailed { location: place(), url: "https://example.org/x".into(), reason: text() },
        Error::StepUnsupported { location: Box::new(location()), message: text() },
        Error::Sandbox { action: text(), reason: text() },
        Error::OutputFailed { path: "/none".into(), source: source() },
        Error::Interrupted,
        Error::TimedOut { action: text(), after: Duration::from_secs(5) },
        Error::internal("sample"),
    ]
}

/// Every kind of event, some of them twice, as one build could tell them.
pub(super) fn events() -> Vec<Event> {
    let mut events = Vec::new();
    let mut next = Some(first());
    while let Some(event) = next {
        next = after(&event);
        events.push(event);
    }
    events
}

fn first() -> Event {
    Event::Engine {
        engine: "docker".into(),
        endpoint: "unix:///var/run/docker.sock".into(),
        version: "27.0.1".into(),
        builder: "buildkit".into(),
        reason: "the daemon has it".into(),
    }
}

/// The event that follows in the samples. A new kind of event does not compile until it has a sample here.
fn after(event: &Event) -> Option<Event> {
    let (id, name) = (|| "step-1".to_owned(), || "[2/3] RUN pip install".to_owned());
    Some(match event {
        Event::Engine { .. } => {
            let largest = Some(Largest { path: "data".into(), directory: true, bytes: 23_456 });
            let (root, ignore_file) = (Some("/src".into()), Some(".dockerignore".into()));
            let (files, bytes, excluded, extra_files) = (12, 34_567, 8, 2);
            Event::Context { root, ignore_file, files, bytes, excluded, extra_files, largest, seconds: 0.01 }
        }
        Event::Context { .. } => Event::StepStarted { id: id(), name: name() },
        Event::StepStarted { .. } => Event::StepLog { id: id(), stream: 1, text: "Collecting cooper\n".into() },
        Event::StepLog { .. } => Event::StepProgress { id: id(), name: "download".into(), current: 512, total: 2048 },
        Event::StepProgress { .. } => {
            Event::StepDone { id: id(), name: name(), seconds: 1.5, cached: false, error: None }
        }
        Event::StepDone { .. } => Event::Push {
            reference: "localhost:5000/cooper:1".into(),
            layer: "3c8e1a2b9f00".into(),
            status: "Pushing".into(),
            current: 1024,
            total: 4096,
        },
        Event::Push { .. } => Event::Pushed {
            reference: "localhost:5000/cooper:1".into(),
            digest: format!("sha256:{}", "ab".repeat(32)),
            seconds: 0.25,
        },
        Event::Pushed { .. } => Event::Warning { code: "large-context".into(), message: "the context is large".into() },
        Event::Warning { .. } => Event::Notice { message: "a socket was left out".into() },
        Event::Notice { .. } => return None,
    })
}
