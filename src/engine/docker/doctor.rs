//! What this machine has for the Docker engine, and what to do about what is missing.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::daemon::{Attempt, Daemon, Product, find};
use super::is_loopback;
use crate::engine::EngineInfo;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::registry::check::{Access, access};
use crate::registry::credentials::{Chain, DockerConfig};
use crate::request::{Credentials, EngineSpec, Job};

/// Less than this is soon gone: a base image with Python and its packages has a few GiB.
const LITTLE_SPACE: u64 = 5 << 30;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Builds work, but something is worth knowing.
    Warn,
    /// Builds (or pushes) do not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `daemon`, `builder`, `disk`, `credentials`, `registry`.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// In a sentence.
    pub text: String,
    /// What to do, if there is something to do.
    pub advice: Option<String>,
}

/// All findings, and what they come from.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The addresses that were tried, in order.
    pub attempts: Vec<Attempt>,
    /// The daemon, if one answers.
    pub engine: Option<EngineInfo>,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Report {
    fn add(&mut self, check: &'static str, status: Status, text: impl Into<String>, advice: Option<&str>) {
        self.findings.push(Finding { check, status, text: text.into(), advice: advice.map(str::to_owned) });
    }

    fn add_error(&mut self, check: &'static str, error: &Error) {
        self.add(check, Status::Fail, error.to_string(), error.hint().as_deref());
    }

    /// The worst status of all.
    pub fn status(&self) -> Status {
        let any = |status| self.findings.iter().any(|finding| finding.status == status);
        match (any(Status::Fail), any(Status::Warn)) {
            (true, _) => Status::Fail,
            (_, true) => Status::Warn,
            _ => Status::Ok,
        }
    }
}

/// Looks at the daemon and, if one is named, at a registry. Fails only with `Interrupted`: everything else is a finding.
pub async fn examine(
    spec: &EngineSpec,
    registry: Option<&Reference>,
    environment: Environment,
    job: &Job,
) -> Result<Report> {
    let environment = Arc::new(environment);
    let mut report = Report { attempts: Vec::new(), engine: None, findings: Vec::new() };
    job.cancel
        .guard(async {
            let found = find(spec, &environment, &mut report.attempts).await;
            match &found {
                Ok(daemon) => describe(daemon, &mut report).await,
                Err(error) => report.add_error("daemon", error),
            }
            if let Some(reference) = registry {
                let config = DockerConfig::new(Arc::clone(&environment));
                let chain = Chain(vec![Arc::clone(&job.credentials), Arc::new(config)]);
                look_at_registry(reference, &chain, &environment, found.as_ref().ok(), &mut report).await?;
            }
            Ok(())
        })
        .await?;
    Ok(report)
}

async fn describe(daemon: &Daemon, report: &mut Report) {
    let info = daemon.info();
    let api = daemon.api_version;
    let text = format!(
        "{} {} at {} ({}), API {api}, {}",
        info.product, info.version, info.endpoint, daemon.source, info.platform
    );
    report.add("daemon", Status::Ok, text, None);
    report.engine = Some(info);
    match (daemon.buildkit, daemon.product) {
        (true, _) => report.add("builder", Status::Ok, "BuildKit: secrets, cache mounts, incremental contexts", None),
        (false, Product::Podman) => report.add(
            "builder",
            Status::Warn,
            "Podman has no BuildKit: build secrets, SSH, cache exports and named contexts cannot be used",
            Some("use a Docker Engine if you need these"),
        ),
        (false, Product::Docker) => report.add(
            "builder",
            Status::Warn,
            "the daemon has no BuildKit, only the classic builder",
            Some("update to Docker Engine 23 or later"),
        ),
    }
    match daemon.api.docker.info().await {
        Ok(system) => {
            if let Some(warnings) = &system.warnings {
                // The daemon says here what its kernel lacks; limits that builds hardly use.
                let text = format!("the daemon warns: {}", warnings.join("; "));
                if !warnings.is_empty() {
                    report.add("daemon", Status::Ok, text, None);
                }
            }
            let root = system.docker_root_dir.unwrap_or_default();
            if daemon.api.dialer().address().is_local() && Path::new(&root).is_dir() {
                look_at_disk(&root, report);
            }
        }
        Err(error) => report.add_error("daemon", &daemon.api.refused(error, "the question for its state")),
    }
}

fn look_at_disk(root: &str, report: &mut Report) {
    let Ok(disk) = rustix::fs::statvfs(root) else { return };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let text = format!("{:.1} GiB free for images in {root}", gibibytes(free));
    if free < LITTLE_SPACE {
        report.add("disk", Status::Warn, text, Some("make room, e.g. with `docker system prune`"));
    } else {
        report.add("disk", Status::Ok, text, None);
    }
}

#[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

async fn look_at_registry(
    reference: &Reference,
    credentials: &Chain,
    environment: &Environment,
    daemon: Option<&Daemon>,
    report: &mut Report,
) -> Result<()> {
    let registry = reference.registry();
    let credential = match credentials.get(registry, false).await {
        Ok(credential) => credential,
        Err(error @ Error::Credentials { .. }) => {
            report.add_error("credentials", &error);
            None
        }
        Err(error) => return Err(error),
    };
    match &credential {
        Some(credential) if credential.identity_token.is_some() => {
            report.add("credentials", Status::Ok, format!("an identity token for {registry}"), None);
        }
        Some(credential) => {
            report.add("credentials", Status::Ok, format!("user `{}` for {registry}", credential.username), None);
        }
        None => report.add("credentials", Status::Ok, format!("none for {registry}"), None),
    }
    match access(reference, credential.as_ref(), environment).await {
        Access::Open => report.add("registry", Status::Ok, format!("{registry} answers and wants no login"), None),
        Access::Granted => report.add("registry", Status::Ok, format!("{registry} takes the credentials"), None),
        Access::Anonymous => report.add(
            "registry",
            Status::Warn,
            format!("{registry} answers, and lets anybody read; pushes will need credentials"),
            Some("give the ZenML container registry credentials or a connector, or run `docker login`"),
        ),
        Access::Denied { had_credentials, reason } => {
            let message = reason;
            let error = Error::RegistryDenied {
                registry: registry.to_owned(),
                reference: reference.to_string(),
                message,
                had_credentials,
            };
            report.add_error("registry", &error);
        }
        Access::Unreachable { reason } => {
            // The daemon may sit elsewhere: then this machine's view decides nothing, least of all for loopback names.
            let elsewhere = daemon.is_some_and(|daemon| !daemon.api.dialer().address().is_local());
            if elsewhere {
                let note =
                    if is_loopback(registry) { " (loopback of the daemon's machine is another one)" } else { "" };
                let text = format!("{registry} does not answer this machine: {reason}{note}");
                report.add("registry", Status::Warn, text, Some("check that the daemon's machine can reach it"));
            } else {
                report.add_error("registry", &Error::RegistryUnreachable { registry: registry.to_owned(), reason });
            }
        }
    }
    Ok(())
}
