//! `BuildKit` on other machines, or on this one: one, or a pool of them.

mod address;
mod attempt;
mod caches;
mod deliveries;
pub mod doctor;
mod exporters;
mod handshake;
mod index;
mod outputs;
mod parts;
mod pool;
mod refuse;
mod worker;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::future::try_join_all;

use self::attempt::{Made, Plan};
use self::index::Part;
use self::pool::{Chosen, Share};
use self::worker::{ANSWER_TIMEOUT, Ready, Worker};
use super::build_args;
use super::opened::Opened;
use super::{Engine, EngineInfo, with_docker_config};
use crate::buildkit::connection::Patience;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::outcome::{Outcome, Totals};
use crate::registry::client::RegistryConfig;
use crate::request::{BuildOptions, BuildRequest, EngineSpec, Job};

/// How many workers are tried for one build: one, and another where the first goes away.
const ATTEMPTS: usize = 2;

/// The BuildKit engine.
pub struct BuildKitEngine {
    spec: EngineSpec,
    environment: Arc<Environment>,
    patience: Patience,
}

impl BuildKitEngine {
    /// An engine that will ask the workers that `spec` and the environment name. Connects to nothing yet.
    pub fn new(spec: EngineSpec, environment: Environment) -> Self {
        Self { spec, environment: Arc::new(environment), patience: Patience::default() }
    }

    /// The same with another patience with silent workers.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// All workers, in the order in which they were given. Fails with `DaemonConfig`.
    fn workers(&self) -> Result<Vec<Worker>> {
        let places = address::places(&self.spec, &self.environment, ANSWER_TIMEOUT)?;
        let worker = |place| Worker::new(place, &self.spec, &self.environment, self.patience);
        places.into_iter().map(worker).collect()
    }

    async fn run(&self, request: &BuildRequest, job: &Job) -> Result<Outcome> {
        let started = Instant::now();
        request.validate()?;
        refuse::check(request)?;
        let workers = self.workers()?;
        let registries = RegistryConfig::of(&self.environment)?;
        let texts: Vec<&str> = workers.iter().map(|worker| worker.text.as_str()).collect();
        let order = pool::order(self.spec.pool.policy, &pool::project(request), &texts);
        let workers: Vec<&Worker> = order.into_iter().map(|place| &workers[place]).collect();
        // Neither waits for the other.
        let look = async { tokio::try_join!(self.share(&workers, request), Opened::of(request, job)) };
        let (mut shares, opened) = job.cancel.guard(look).await?;
        for share in &shares {
            announce(&share.chosen, job).await;
        }
        opened.announce(job).await;
        let context = Arc::clone(&opened.context);
        let (environment, registries) = (&self.environment, &registries);
        let plan = Plan { request, options: &request.options, context, part: None, registries, environment };
        let made = if shares.len() == 1 {
            let Share { chosen, .. } = shares.remove(0);
            let mut options = self.options(request, &chosen);
            if is_shared(&workers, request) {
                parts::read(&mut options, &request.options.platforms)?;
            }
            self.build_somewhere(chosen, workers, &Plan { options: &options, ..plan }, job).await?
        } else {
            self.build_everywhere(shares, &workers, &plan, job).await?
        };
        Ok(outcome(request, made, &opened, started))
    }

    /// The request's options as the worker needs them.
    fn options(&self, request: &BuildRequest, chosen: &Chosen) -> BuildOptions {
        let build_args = build_args::complete(&request.options.build_args, &chosen.ready.text, &self.environment);
        BuildOptions { build_args, ..request.options.clone() }
    }

    /// Which workers build what: one, unless there are platforms that others build better.
    async fn share(&self, workers: &[&Worker], request: &BuildRequest) -> Result<Vec<Share>> {
        let platforms = request.options.platforms.clone();
        if is_shared(workers, request) {
            return pool::share(self.spec.pool, workers, &platforms).await;
        }
        let chosen = pool::choose(self.spec.pool, workers, &platforms).await?;
        Ok(vec![Share { chosen, platforms }])
    }

    /// Builds the platforms of each share where it belongs, all at once, and puts the images into one index.
    async fn build_everywhere(
        &self,
        shares: Vec<Share>,
        workers: &[&Worker],
        plan: &Plan<'_>,
        job: &Job,
    ) -> Result<Made> {
        let request = plan.request;
        let builds = shares.into_iter().map(|Share { chosen, platforms }| async move {
            let annotations = index::annotations_of(&request.options.annotations, &platforms);
            let mut options =
                BuildOptions { platforms: platforms.clone(), annotations, ..self.options(request, &chosen) };
            parts::write(&mut options, &platforms)?;
            parts::read(&mut options, &platforms)?;
            let part = platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let plan = Plan { options: &options, part: Some(&part), ..plan.clone() };
            let made = self.build_somewhere(chosen, workers.to_vec(), &plan, job).await?;
            Ok(Part { made, platforms })
        });
        let parts: Vec<Part> = try_join_all(builds).await?;
        index::push(parts, request, &self.environment, job).await
    }

    /// Builds on the chosen worker and, where that goes away, once more on the next.
    async fn build_somewhere(
        &self,
        mut chosen: Chosen,
        mut workers: Vec<&Worker>,
        plan: &Plan<'_>,
        job: &Job,
    ) -> Result<Made> {
        for _ in 1..ATTEMPTS {
            let endpoint = chosen.ready.text.clone();
            let reason = match attempt::build(&chosen.ready, plan, job).await {
                Err(Error::WorkerLost { reason, .. }) => reason,
                other => return other,
            };
            // It comes last: it may be back by then, and is all there is where it was the only one.
            workers.sort_by_key(|worker| worker.text == endpoint);
            let lost = |reason| Error::WorkerLost { endpoint: endpoint.clone(), reason };
            chosen = match job.cancel.guard(pool::choose(self.spec.pool, &workers, &plan.options.platforms)).await {
                Ok(chosen) => chosen,
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => return Err(lost(format!("{reason}; and no other could go on: {error}"))),
            };
            let message = format!("{}; the build starts again on {}", lost(reason), chosen.ready.text);
            job.events.send(Event::Warning { code: "worker-lost".into(), message }).await;
            chosen.reason = format!("{endpoint} went away");
            announce(&chosen, job).await;
        }
        attempt::build(&chosen.ready, plan, job).await
    }
}

#[async_trait]
impl Engine for BuildKitEngine {
    async fn check(&self, job: &Job) -> Result<EngineInfo> {
        let look = async {
            let workers = self.workers()?;
            let workers: Vec<&Worker> = workers.iter().collect();
            let chosen = pool::choose(self.spec.pool, &workers, &[]).await?;
            Ok(info(&chosen.ready))
        };
        job.cancel.guard(look).await
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<Outcome> {
        let job = with_docker_config(job, &self.environment);
        // Its parts watch the flag: one of them, naming an image, must not stop in the middle.
        Box::pin(self.run(request, &job)).await
    }
}

/// Whether several workers may share the platforms of a build. An index of what they make is put together in a registry;
/// elsewhere, one worker has to make it.
fn is_shared(workers: &[&Worker], request: &BuildRequest) -> bool {
    let apart = request.push && request.outputs.is_empty();
    apart && request.options.platforms.len() > 1 && workers.len() > 1
}

/// What a worker is, as an engine.
fn info(ready: &Ready) -> EngineInfo {
    EngineInfo {
        engine: "buildkit".into(),
        product: "BuildKit".into(),
        version: ready.version_text(),
        endpoint: ready.text.clone(),
        buildkit: true,
        platform: ready.platforms().first().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Says what builds.
async fn announce(chosen: &Chosen, job: &Job) {
    let info = info(&chosen.ready);
    job.events
        .send(Event::Engine {
            engine: info.product,
            endpoint: info.endpoint,
            version: info.version,
            builder: "buildkit".into(),
            reason: chosen.reason.clone(),
        })
        .await;
}

fn outcome(request: &BuildRequest, made: Made, opened: &Opened, started: Instant) -> Outcome {
    let image = match (request.tags.first(), made.digest) {
        (Some(tag), Some(digest)) => tag.with_digest(digest).to_string(),
        (Some(tag), None) => tag.to_string(),
        (None, _) => made.image,
    };
    let summary = opened.context.summary();
    Outcome {
        image,
        tags: request.tags.clone(),
        digest: made.digest,
        config_digest: made.config_digest,
        engine: "buildkit".into(),
        builder: "buildkit".into(),
        totals: Totals {
            seconds: started.elapsed().as_secs_f64(),
            context_seconds: opened.seconds,
            build_seconds: made.solved.seconds,
            push_seconds: made.push_seconds,
            context_files: summary.files,
            context_bytes: summary.bytes,
            sent_bytes: made.solved.sent_bytes,
            pushed_bytes: made.pushed_bytes,
            cached_steps: made.solved.cached_steps,
            total_steps: made.solved.total_steps,
        },
        steps: made.solved.steps,
    }
}
