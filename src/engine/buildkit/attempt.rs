//! One build on one worker.

use std::sync::Arc;
use std::time::Instant;

use super::exporters;
use super::worker::Ready;
use crate::buildkit::{self, Build, Connection, Solved};
use crate::context::Context;
use crate::daemon::Daemon;
use crate::environment::Environment;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::moby;
use crate::moby::auth::Lenient;
use crate::reference::Reference;
use crate::registry::client::RegistryConfig;
use crate::request::{BuildOptions, BuildRequest, Credentials, Job};

/// What is built, wherever.
#[derive(Clone)]
pub(super) struct Plan<'a> {
    pub(super) request: &'a BuildRequest,
    /// The request's options with complete build arguments.
    pub(super) options: &'a BuildOptions,
    pub(super) context: Arc<Context>,
    /// Where other workers build for other platforms: the platforms of this one, which is pushed without a tag.
    pub(super) part: Option<&'a str>,
    /// What this machine says of registries without proper TLS.
    pub(super) registries: &'a RegistryConfig,
    pub(super) environment: &'a Environment,
}

/// What a worker made.
pub(super) struct Made {
    /// What it is called where it has no name.
    pub(super) image: String,
    /// The digest of the pushed manifest.
    pub(super) digest: Option<Digest>,
    pub(super) config_digest: Option<Digest>,
    pub(super) solved: Solved,
    pub(super) push_seconds: f64,
    pub(super) pushed_bytes: u64,
}

/// Builds, and pushes if that was asked for. Fails with `WorkerLost` where the worker went away, else as
/// [`buildkit::build`] does.
pub(super) async fn build(ready: &Ready, plan: &Plan<'_>, job: &Job) -> Result<Made> {
    let made = match &ready.daemon {
        None => with_buildkitd(ready, plan, job).await,
        Some(daemon) => with_docker(&ready.connection, daemon, plan, job).await,
    };
    made.map_err(|error| lost(error, &ready.text))
}

/// A connection that broke means that whoever was there is not there any more, or cannot be talked with.
fn lost(error: Error, endpoint: &str) -> Error {
    match error {
        Error::DaemonProtocol { reason, .. } | Error::DaemonUnreachable { reason, .. } => {
            Error::WorkerLost { endpoint: endpoint.to_owned(), reason }
        }
        other => other,
    }
}

async fn with_buildkitd(ready: &Ready, plan: &Plan<'_>, job: &Job) -> Result<Made> {
    let request = plan.request;
    let mut exporters = Vec::new();
    if request.push {
        let push = if plan.part.is_some() { exporters::push_by_digest } else { exporters::push };
        let mut exporter = push(&request.tags, plan.options, ready.version)?;
        let insecure = |tag: &Reference| plan.registries.is_listed_insecure(tag.registry());
        if request.tags.iter().all(insecure) {
            exporter.attrs.insert("registry.insecure".into(), "true".into());
        }
        exporters.push(exporter);
    }
    let build = Build {
        context: Arc::clone(&plan.context),
        root: request.context.root.as_deref(),
        options: plan.options,
        exporters,
        version: ready.version,
        engine: "BuildKit of this worker",
        part: plan.part,
        environment: plan.environment,
    };
    let credentials = Arc::new(Lenient::new(Arc::clone(&job.credentials)));
    let inner = Job { credentials: Arc::clone(&credentials) as Arc<dyn Credentials>, ..job.clone() };
    let solved = match buildkit::build(&ready.connection, build, &inner).await {
        Ok(solved) => solved,
        Err(error) => return Err(credentials.blame(error).await),
    };
    let digest = |key: &str| solved.response.get(key).and_then(|text| text.parse().ok());
    let pushed: Option<Digest> = digest("containerimage.digest").filter(|_| request.push);
    if request.push && plan.part.is_none() {
        let Some(digest) = pushed else {
            let reason = "it did not name what it pushed".to_owned();
            return Err(Error::DaemonProtocol { action: "the build".into(), reason });
        };
        for tag in &request.tags {
            let event = Event::Pushed { reference: tag.to_string(), digest: digest.to_string(), seconds: 0.0 };
            job.events.send(event).await;
        }
    }
    Ok(Made {
        image: solved.response.get("containerimage.digest").cloned().unwrap_or_default(),
        digest: pushed,
        config_digest: digest("containerimage.config.digest"),
        push_seconds: 0.0,
        pushed_bytes: 0,
        solved,
    })
}

/// The BuildKit inside a Docker daemon makes an image there; naming and pushing it is the daemon's.
async fn with_docker(connection: &Connection, daemon: &Daemon, plan: &Plan<'_>, job: &Job) -> Result<Made> {
    let request = plan.request;
    if plan.options.platforms.len() > 1 || plan.part.is_some() {
        return Err(Error::Unsupported {
            engine: "BuildKit inside a Docker daemon".into(),
            feature: "build for several platforms".into(),
            reason: "it makes images of one; a buildkitd can".into(),
        });
    }
    let source = moby::build::Source {
        context: Arc::clone(&plan.context),
        root: request.context.root.as_deref(),
        options: plan.options,
        environment: plan.environment,
    };
    let made = moby::build::build(connection, daemon, source, job).await?;
    moby::tags::apply(&daemon.api, &made.image, &request.tags, job).await?;
    let started = Instant::now();
    let (mut digest, mut pushed_bytes) = (None, 0);
    for tag in request.tags.iter().filter(|_| request.push) {
        let pushed = moby::push::push(daemon, tag, moby::push::SILENCE, job).await?;
        pushed_bytes += pushed.bytes;
        digest.get_or_insert(pushed.digest);
    }
    Ok(Made {
        image: made.image,
        digest,
        config_digest: made.config_digest,
        push_seconds: if request.push { started.elapsed().as_secs_f64() } else { 0.0 },
        pushed_bytes,
        solved: made.solved,
    })
}
