//! The native engine: images without a daemon.
//!
//! A build takes this path:
//!
//! 1. The context is opened and the Dockerfile is read and planned (`plan`).
//! 2. The images that are needed are looked up (`base`): manifests and configurations only.
//! 3. Stages are built, those that do not need each other at once (`stage`). A step has a key over everything that it depends
//!    on; what it made the last time is in the `cache`, here or in a registry. What it makes now is a layer in the store.
//!    Nothing is unpacked: what is in a base is known from an index of its layers.
//! 4. The image is pushed (`push`) and written where it should go (`output`).

mod base;
mod cache;
mod config;
pub mod copy;
pub mod doctor;
pub mod fold;
mod key;
mod layer;
mod options;
mod output;
mod plan;
mod product;
mod progress;
mod push;
mod remote;
mod run;
mod share;
mod shared;
mod stage;
mod steps;
mod time;
mod trees;
mod why;
mod write;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use super::opened::Opened;
use super::{Engine, EngineInfo, blocking};
use crate::environment::Environment;
use crate::error::Result;
use crate::event::Event;
use crate::outcome::{Outcome, Totals};
use crate::platform::Platform;
use crate::registry::client::Client;
use crate::request::{BuildRequest, Job};
use crate::store::Store;

use self::cache::Cache;
use self::product::Product;
use self::shared::Shared;

/// Builds in this process.
pub struct NativeEngine {
    environment: Arc<Environment>,
    reason: String,
}

impl NativeEngine {
    /// An engine that has done nothing yet.
    pub fn new(environment: Environment) -> Self {
        Self { environment: Arc::new(environment), reason: "it was asked for".into() }
    }

    /// The same, chosen for another reason than that somebody asked for it.
    #[must_use]
    pub fn for_reason(self, reason: &str) -> Self {
        Self { reason: reason.to_owned(), ..self }
    }

    async fn shared(&self, request: &BuildRequest, job: &Job) -> Result<Shared> {
        let environment = Arc::clone(&self.environment);
        let store = blocking(move || Store::of_user(&environment)).await?;
        let client = Client::new(&self.environment, Arc::clone(&job.credentials), job.cancel.clone())?;
        let from = share::sources(&request.options);
        let cache = Cache::open(&store, &client, &from, &job.events);
        let (opened, cache) = tokio::try_join!(Opened::of(request, job), cache)?;
        opened.announce(job).await;
        Shared::new(request, job, &self.environment, store, client, opened, cache)
    }

    async fn run(&self, request: &BuildRequest, job: &Job, started: Instant) -> Result<Outcome> {
        request.validate()?;
        options::check(request)?;
        announce(&self.reason, job).await;
        let shared = self.shared(request, job).await?;
        let built = plan::build(&shared).await?;
        let build_seconds = started.elapsed().as_secs_f64() - shared.opened.seconds;
        let product = Product::of(&built.stage, &request.options);
        let pushing = Instant::now();
        let delivered = output::deliver(&shared, &product).await?;
        share::export(&shared, &built, &product).await?;
        let summary = shared.opened.context.summary();
        let cached = built.outcomes.iter().filter(|step| step.cached).count() as u64;
        let totals = Totals {
            seconds: started.elapsed().as_secs_f64(),
            context_seconds: shared.opened.seconds,
            build_seconds,
            push_seconds: if delivered.digest.is_some() { pushing.elapsed().as_secs_f64() } else { 0.0 },
            context_files: summary.files,
            context_bytes: summary.bytes,
            sent_bytes: 0,
            pushed_bytes: delivered.pushed_bytes,
            cached_steps: cached,
            total_steps: built.outcomes.len() as u64,
        };
        let (store, cancel) = (shared.store.clone(), job.cancel.clone());
        blocking(move || store.prune_if_due(&cancel)).await?;
        Ok(Outcome {
            image: delivered.image,
            tags: request.tags.clone(),
            digest: delivered.digest,
            config_digest: Some(delivered.config_digest),
            engine: "native".into(),
            builder: "native".into(),
            steps: built.outcomes,
            totals,
        })
    }
}

#[async_trait]
impl Engine for NativeEngine {
    async fn check(&self, _job: &Job) -> Result<EngineInfo> {
        let environment = Arc::clone(&self.environment);
        let store = blocking(move || Store::of_user(&environment)).await?;
        Ok(EngineInfo {
            engine: "native".into(),
            product: "cooper".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            endpoint: store.path().display().to_string(),
            buildkit: false,
            platform: Platform::of_containers().to_string(),
        })
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<Outcome> {
        let started = Instant::now();
        let job = super::with_docker_config(job, &self.environment);
        // Where one stage fails, the threads of others stop as well.
        let own = Job { cancel: job.cancel.child(), ..job };
        let outcome = own.cancel.guard(Box::pin(self.run(request, &own, started))).await;
        own.cancel.cancel();
        outcome
    }
}

async fn announce(reason: &str, job: &Job) {
    let event = Event::Engine {
        engine: "cooper".into(),
        endpoint: "this process".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        builder: "native".into(),
        reason: reason.to_owned(),
    };
    job.events.send(event).await;
}
