//! Docker and Podman, over their API.

mod choose;
mod classic;
pub mod doctor;
mod instructions;
mod refuse;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use self::choose::{Abilities, Builder, choose};
use crate::buildkit::dockerfile::Dockerfile;
use crate::context::{Context, DockerfileText};
use crate::daemon::{Daemon, find};
use crate::digest::Digest;
use crate::engine::opened::Opened;
use crate::engine::{Engine, EngineInfo, build_args, with_docker_config};
use crate::environment::Environment;
use crate::error::Result;
use crate::event::Event;
use crate::moby::{build as modern, push, tags};
use crate::outcome::{Outcome, StepOutcome, Totals};
use crate::request::{BuildOptions, BuildRequest, EngineSpec, Job};

/// The Docker engine: a Docker or Podman daemon, found and asked as the Docker CLI does.
pub struct DockerEngine {
    spec: EngineSpec,
    environment: Arc<Environment>,
    push_silence: Duration,
}

/// What a builder gets.
struct Plan<'a> {
    /// The request's options with complete build arguments.
    options: &'a BuildOptions,
    /// Root of the context.
    root: Option<&'a Path>,
    environment: &'a Environment,
    context: Arc<Context>,
    /// The Dockerfile as a file, and cut into instructions.
    file: DockerfileText,
    dockerfile: Dockerfile,
}

/// What a builder made: an image that has no name yet.
struct Built {
    /// The daemon's id of the image.
    image: String,
    config_digest: Option<Digest>,
    steps: Vec<StepOutcome>,
    seconds: f64,
    sent_bytes: u64,
    cached_steps: u64,
    total_steps: u64,
}

/// An image that was made, and where.
struct Made {
    daemon: Daemon,
    builder: Builder,
    built: Built,
    totals: Totals,
}

/// Whether a request asks for what no builder of a daemon does.
pub(super) fn refuses(request: &BuildRequest) -> bool {
    refuse::check(request).is_err()
}

impl DockerEngine {
    /// An engine that will look for its daemon as `spec` and the environment say. Connects to nothing yet.
    pub fn new(spec: EngineSpec, environment: Environment) -> Self {
        Self { spec, environment: Arc::new(environment), push_silence: push::SILENCE }
    }

    /// The same with another limit for a push in which nothing happens.
    #[must_use]
    pub fn with_push_silence(self, push_silence: Duration) -> Self {
        Self { push_silence, ..self }
    }

    async fn daemon(&self) -> Result<Daemon> {
        find(&self.spec, &self.environment, &mut Vec::new()).await
    }

    /// Everything up to an image without a name.
    async fn image(&self, request: &BuildRequest, job: &Job) -> Result<Made> {
        request.validate()?;
        refuse::check(request)?;
        // Neither waits for the other.
        let (daemon, opened) = tokio::try_join!(self.daemon(), Opened::of(request, job))?;
        let build_args = build_args::complete(&request.options.build_args, &daemon.api.endpoint(), &self.environment);
        let options = BuildOptions { build_args, ..request.options.clone() };
        let dockerfile = Dockerfile::parse(&opened.file.name, &opened.file.text);
        let abilities = Abilities::of(&daemon, dockerfile.has_syntax());
        let chosen = choose(self.spec.builder, &options, &abilities, &self.environment)?;
        announce(&daemon, &chosen, job).await;
        opened.announce(job).await;
        let Opened { context, file, seconds: context_seconds, .. } = opened;
        let root = request.context.root.as_deref();
        let environment = self.environment.as_ref();
        let plan = Plan { options: &options, root, environment, context: Arc::clone(&context), file, dockerfile };
        let built = match chosen.builder {
            Builder::Buildkit => with_buildkit(&daemon, &plan, job).await?,
            Builder::Classic => classic::build(&daemon, &plan, job).await?,
        };
        let totals = Totals {
            context_seconds,
            build_seconds: built.seconds,
            context_files: context.summary().files,
            context_bytes: context.summary().bytes,
            sent_bytes: built.sent_bytes,
            cached_steps: built.cached_steps,
            total_steps: built.total_steps,
            ..Totals::default()
        };
        Ok(Made { daemon, builder: chosen.builder, built, totals })
    }

    /// Pushes every tag; the digest is that of the first.
    async fn push(
        &self,
        daemon: &Daemon,
        request: &BuildRequest,
        totals: &mut Totals,
        job: &Job,
    ) -> Result<Option<Digest>> {
        let started = Instant::now();
        let mut digest = None;
        for tag in &request.tags {
            let pushed = push::push(daemon, tag, self.push_silence, &self.environment, job).await?;
            totals.pushed_bytes += pushed.bytes;
            digest.get_or_insert(pushed.digest);
        }
        totals.push_seconds = started.elapsed().as_secs_f64();
        Ok(digest)
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn check(&self, job: &Job) -> Result<EngineInfo> {
        job.cancel.guard(self.daemon()).await.map(|daemon| info(&daemon))
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<Outcome> {
        let started = Instant::now();
        let job = with_docker_config(job, &self.environment);
        let Made { daemon, builder, built, mut totals } = job.cancel.guard(self.image(request, &job)).await?;
        // This one watches the flag itself: it must not stop in the middle.
        tags::apply(&daemon.api, &built.image, &request.tags, &job).await?;
        let digest =
            if request.push { job.cancel.guard(self.push(&daemon, request, &mut totals, &job)).await? } else { None };
        totals.seconds = started.elapsed().as_secs_f64();
        Ok(outcome(request, built, builder, digest, totals))
    }
}

/// Builds with the BuildKit inside the daemon.
async fn with_buildkit(daemon: &Daemon, plan: &Plan<'_>, job: &Job) -> Result<Built> {
    let source = modern::Source {
        context: Arc::clone(&plan.context),
        root: plan.root,
        options: plan.options,
        environment: plan.environment,
    };
    let modern::Made { image, config_digest, solved } =
        modern::build(&modern::connect(daemon).await?, daemon, source, Vec::new(), job).await?;
    Ok(Built {
        image,
        config_digest,
        steps: solved.steps,
        seconds: solved.seconds,
        sent_bytes: solved.sent_bytes,
        cached_steps: solved.cached_steps,
        total_steps: solved.total_steps,
    })
}

/// What a daemon is, as an engine.
fn info(daemon: &Daemon) -> EngineInfo {
    EngineInfo {
        engine: "docker".into(),
        product: daemon.product.name().into(),
        version: daemon.version.clone(),
        endpoint: daemon.api.endpoint(),
        buildkit: daemon.buildkit,
        platform: daemon.platform.clone(),
    }
}

/// Says what builds.
async fn announce(daemon: &Daemon, chosen: &choose::Chosen, job: &Job) {
    let info = info(daemon);
    let builder = chosen.builder.name().to_owned();
    job.events
        .send(Event::Engine {
            engine: info.product,
            endpoint: info.endpoint,
            version: info.version,
            builder,
            reason: chosen.reason.clone(),
        })
        .await;
    if chosen.surprising {
        job.events.send(Event::Notice { message: format!("the classic builder is used: {}", chosen.reason) }).await;
    }
}

fn outcome(request: &BuildRequest, built: Built, builder: Builder, digest: Option<Digest>, totals: Totals) -> Outcome {
    let image = match (request.tags.first(), digest) {
        (Some(tag), Some(digest)) => tag.with_digest(digest).to_string(),
        (Some(tag), None) => tag.to_string(),
        (None, _) => built.image.clone(),
    };
    Outcome {
        image,
        tags: request.tags.clone(),
        digest,
        config_digest: built.config_digest,
        engine: "docker".into(),
        builder: builder.name().into(),
        steps: built.steps,
        totals,
    }
}
