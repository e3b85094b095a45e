//! What can build an image.

pub mod docker;

use async_trait::async_trait;

use crate::error::Result;
use crate::outcome::Outcome;
use crate::request::{BuildRequest, Job};

/// Something that builds images.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Whether this engine can work here; fails with the reason where it cannot. Cheap: at most a round trip or two.
    async fn check(&self, job: &Job) -> Result<EngineInfo>;

    /// Builds, tags and, if asked for, pushes. On `Err`, cancellation included, nothing that it started goes on and
    /// no tag has moved.
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
