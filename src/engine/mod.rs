//! What can build an image.

pub mod auto;
mod build_args;
pub mod buildkit;
pub mod docker;
pub mod doctor;
pub mod native;
mod opened;

use std::sync::Arc;

use async_trait::async_trait;

use self::auto::AutoEngine;
use self::buildkit::BuildKitEngine;
use self::docker::DockerEngine;
use self::native::NativeEngine;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::registry::credentials::{Chain, DockerConfig};
use crate::request::{BuildRequest, EngineKind, EngineSpec, Job};

/// Something that builds images.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Whether this engine can work here; fails with the reason where it cannot. Cheap: at most a round trip or two.
    async fn check(&self, job: &Job) -> Result<EngineInfo>;

    /// Builds, tags and, if asked for, pushes. On `Err`, cancellation included, nothing that it started goes on, and
    /// unless the image was complete no tag has moved: where only the push failed, the image has its names on the machine
    /// that builds.
    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<Outcome>;
}

/// What an engine is and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EngineInfo {
    /// `docker`.
    pub engine: String,
    /// What answers: `Docker Engine` or `Podman`.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Its address, credentials left out.
    pub endpoint: String,
    /// Whether BuildKit can be used.
    pub buildkit: bool,
    /// Platform of the machine that builds, e.g. `linux/amd64`.
    pub platform: String,
}

/// The engine for a request. Connects to nothing yet.
pub fn select(spec: &EngineSpec, environment: Environment) -> Box<dyn Engine> {
    let environment = environment.with_cache(spec.cache_dir.as_deref(), spec.cache_size.as_deref());
    match spec.kind {
        EngineKind::Native => Box::new(NativeEngine::new(environment)),
        EngineKind::Buildkit => Box::new(BuildKitEngine::new(spec.clone(), environment)),
        EngineKind::Docker => Box::new(DockerEngine::new(spec.clone(), environment)),
        EngineKind::Auto => Box::new(AutoEngine::new(spec.clone(), environment)),
    }
}

/// The job with the user's Docker config behind the caller's credentials.
fn with_docker_config(job: &Job, environment: &Arc<Environment>) -> Job {
    let config = DockerConfig::new(Arc::clone(environment));
    Job { credentials: Arc::new(Chain(vec![Arc::clone(&job.credentials), Arc::new(config)])), ..job.clone() }
}

/// Runs blocking work; a panic in it is a defect.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(error.to_string()))?
}
