//! One build on one worker.

use std::sync::Arc;
use std::time::Instant;

use super::caches::Caches;
use super::exporters;
use super::outputs::{Outputs, Wanted, is_image_wanted, place};
use super::refuse;
use super::worker::Ready;
use crate::buildkit::{self, Build, Solved};
use crate::context::Context;
use crate::daemon::Daemon;
use crate::digest::Digest;
use crate::environment::Environment;
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
    /// Where settings, and daemons of this machine, are looked for.
    pub(super) environment: &'a Arc<Environment>,
}

impl Plan<'_> {
    fn wanted<'b>(&'b self, job: &'b Job) -> Wanted<'b> {
        Wanted { request: self.request, options: self.options, environment: self.environment, job }
    }
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
        None => job.cancel.guard(Box::pin(with_buildkitd(ready, plan, job))).await,
        Some(daemon) => with_docker(ready, daemon, plan, job).await,
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
    let caches = Caches::open(plan.options, ready, job).await?;
    let mut outputs = Outputs::of_buildkitd(&plan.wanted(job), ready).await?;
    let mut exporters = std::mem::take(&mut outputs.exporters);
    // The last one: of several, its digest is the one that the worker tells.
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
        options: &caches.options,
        exporters,
        stores: caches.stores.clone(),
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
    let loaded = outputs.keep(job).await?;
    caches.keep(&solved.response, job).await?;
    let id = |key: &str| solved.response.get(key).cloned();
    Ok(Made {
        image: loaded
            .or_else(|| id("containerimage.config.digest"))
            .or_else(|| id("containerimage.digest"))
            .unwrap_or_else(|| place(request)),
        digest: pushed,
        config_digest: digest("containerimage.config.digest"),
        push_seconds: 0.0,
        pushed_bytes: 0,
        solved,
    })
}

/// The `BuildKit` inside a Docker daemon makes an image there; naming and pushing it is the daemon's.
async fn with_docker(ready: &Ready, daemon: &Daemon, plan: &Plan<'_>, job: &Job) -> Result<Made> {
    let request = plan.request;
    refuse::inside_docker(plan.options, plan.part.is_some())?;
    let (made, outputs) = job.cancel.guard(Box::pin(inside(ready, daemon, plan, job))).await?;
    if is_image_wanted(request) {
        // This one watches the flag itself: it must not stop in the middle.
        moby::tags::apply(&daemon.api, &made.image, &request.tags, job).await?;
    }
    job.cancel.guard(Box::pin(deliver(daemon, made, outputs, plan, job))).await
}

/// Has the daemon make an image without a name, and files for outputs; or those alone.
async fn inside(ready: &Ready, daemon: &Daemon, plan: &Plan<'_>, job: &Job) -> Result<(Made, Outputs)> {
    let mut outputs = Outputs::of_docker(&plan.wanted(job), daemon, ready.version).await?;
    let source = moby::build::Source {
        context: Arc::clone(&plan.context),
        root: plan.request.context.root.as_deref(),
        options: plan.options,
        environment: plan.environment,
    };
    let files = std::mem::take(&mut outputs.exporters);
    let (image, config_digest, solved) = if is_image_wanted(plan.request) {
        let made = moby::build::build(&ready.connection, daemon, source, files, job).await?;
        (made.image, made.config_digest, made.solved)
    } else {
        let solved = moby::build::export(&ready.connection, daemon, source, files, job).await?;
        (place(plan.request), None, solved)
    };
    Ok((Made { image, digest: None, config_digest, solved, push_seconds: 0.0, pushed_bytes: 0 }, outputs))
}

/// Has the daemon push the image under its names, if that was asked for, and puts the files where they belong.
async fn deliver(daemon: &Daemon, mut made: Made, outputs: Outputs, plan: &Plan<'_>, job: &Job) -> Result<Made> {
    let (started, request) = (Instant::now(), plan.request);
    for tag in request.tags.iter().filter(|_| request.push) {
        let pushed = moby::push::push(daemon, tag, moby::push::SILENCE, plan.environment, job).await?;
        made.pushed_bytes += pushed.bytes;
        made.digest.get_or_insert(pushed.digest);
        made.push_seconds = started.elapsed().as_secs_f64();
    }
    outputs.keep(job).await?;
    Ok(made)
}
