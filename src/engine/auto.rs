//! The engine of whoever names none: a daemon where one answers, since whatever is built is there to be run then, else this
//! process.

use std::sync::Arc;

use async_trait::async_trait;

use super::docker::{self, DockerEngine, refuses};
use super::doctor::{Report, Status};
use super::native::{self, NativeEngine};
use super::{Engine, EngineInfo};
use crate::daemon::{Attempt, find};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::reference::Reference;
use crate::request::{BuildRequest, BuilderChoice, EngineSpec, Job};

/// Looks for a daemon when it is needed.
pub struct AutoEngine {
    spec: EngineSpec,
    environment: Environment,
}

/// Whether a request names a daemon, or something that only one has.
fn names_daemon(spec: &EngineSpec) -> bool {
    let EngineSpec { endpoints, docker_context, tls, builder, .. } = spec;
    !endpoints.is_empty() || docker_context.is_some() || tls.is_some() || *builder != BuilderChoice::Auto
}

/// Whether all that was tried are the usual places. Where a setting names a daemon, that one has to answer.
fn is_nowhere(error: &Error, attempts: &[Attempt]) -> bool {
    matches!(error, Error::DaemonUnreachable { .. } | Error::DaemonDenied { .. }) && attempts.len() > 1
}

impl AutoEngine {
    /// An engine that is yet to be chosen.
    pub fn new(spec: EngineSpec, environment: Environment) -> Self {
        Self { spec, environment }
    }

    fn native(&self, reason: &str) -> Box<dyn Engine> {
        Box::new(NativeEngine::new(self.environment.clone()).for_reason(reason))
    }

    async fn choose(&self, request: Option<&BuildRequest>, job: &Job) -> Result<Box<dyn Engine>> {
        let docker = || Box::new(DockerEngine::new(self.spec.clone(), self.environment.clone()));
        if names_daemon(&self.spec) {
            return Ok(docker());
        }
        if request.is_some_and(refuses) {
            return Ok(self.native("a daemon cannot do what was asked for"));
        }
        let (environment, mut attempts) = (Arc::new(self.environment.clone()), Vec::new());
        match job.cancel.guard(find(&self.spec, &environment, &mut attempts)).await {
            Ok(_) => Ok(docker()),
            Err(error) if is_nowhere(&error, &attempts) => Ok(self.native("no Docker or Podman daemon answers")),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Engine for AutoEngine {
    async fn check(&self, job: &Job) -> Result<EngineInfo> {
        self.choose(None, job).await?.check(job).await
    }

    async fn build(&self, request: &BuildRequest, job: &Job) -> Result<Outcome> {
        self.choose(Some(request), job).await?.build(request, job).await
    }
}

/// Looks at the daemon, and where none is at what this process needs to build by itself.
pub async fn examine(
    spec: &EngineSpec,
    registry: Option<&Reference>,
    environment: Environment,
    job: &Job,
) -> Result<Report> {
    let report = docker::doctor::examine(spec, registry, environment.clone(), job).await?;
    if report.engine.is_some() || names_daemon(spec) || report.attempts.len() < 2 {
        return Ok(report);
    }
    let mut native = native::doctor::examine(spec, registry, environment, job).await?;
    native.attempts = report.attempts;
    native.findings.insert(
        0,
        super::doctor::Finding {
            check: "daemon",
            status: Status::Ok,
            text: "no Docker or Podman daemon answers: builds run in this process".into(),
            advice: None,
        },
    );
    Ok(native)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt() -> Attempt {
        Attempt { endpoint: "unix:///x".into(), source: "default socket".into(), error: Some("gone".into()) }
    }

    #[test]
    fn only_the_usual_places_may_be_empty() {
        let gone = Error::DaemonUnreachable { endpoint: "x".into(), reason: "gone".into() };
        let denied = Error::DaemonDenied { endpoint: "x".into() };
        let broken = Error::DaemonConfig { setting: "DOCKER_CONTEXT".into(), reason: "x".into() };
        assert!(is_nowhere(&gone, &[attempt(), attempt()]) && is_nowhere(&denied, &[attempt(), attempt()]));
        assert!(!is_nowhere(&gone, &[attempt()]) && !is_nowhere(&broken, &[attempt(), attempt()]));
    }

    #[test]
    fn what_names_a_daemon_wants_one() {
        assert!(!names_daemon(&EngineSpec::default()));
        let endpoint = EngineSpec { endpoints: vec!["tcp://x".into()], ..EngineSpec::default() };
        let builder = EngineSpec { builder: BuilderChoice::Buildkit, ..EngineSpec::default() };
        assert!(names_daemon(&endpoint) && names_daemon(&builder));
    }
}
