//! What this machine has for the Docker engine, and what to do about what is missing.

use std::path::Path;
use std::sync::Arc;

use super::info;
use crate::daemon::{Daemon, Product, find};
use crate::engine::doctor::{Report, Status, look_at_registry};
use crate::environment::Environment;
use crate::error::Result;
use crate::moby::is_loopback;
use crate::reference::Reference;
use crate::request::{EngineSpec, Job};

/// Less than this is soon gone: a base image with Python and its packages has a few GiB.
const LITTLE_SPACE: u64 = 5 << 30;

/// Looks at the daemon and, if one is named, at a registry. Fails only with `Interrupted`: everything else is a finding.
pub async fn examine(
    spec: &EngineSpec,
    registry: Option<&Reference>,
    environment: Environment,
    job: &Job,
) -> Result<Report> {
    let environment = Arc::new(environment);
    let mut report = Report::default();
    job.cancel
        .guard(async {
            let found = find(spec, &environment, &mut report.attempts).await;
            match &found {
                Ok(daemon) => describe(daemon, &mut report).await,
                Err(error) => report.add_error("daemon", error),
            }
            if let Some(reference) = registry {
                let elsewhere = found.as_ref().is_ok_and(|daemon| !daemon.api.dialer().address().is_local());
                let note = elsewhere.then(|| whose_loopback(reference.registry()));
                look_at_registry(reference, job, &environment, note, &mut report).await?;
            }
            Ok(())
        })
        .await?;
    Ok(report)
}

async fn describe(daemon: &Daemon, report: &mut Report) {
    let info = info(daemon);
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
            let root = Path::new(&root);
            if daemon.api.dialer().address().is_local() && root.is_dir() {
                report.look_at_disk(root, "images", LITTLE_SPACE, "make room, e.g. with `docker system prune`");
            }
        }
        Err(error) => report.add_error("daemon", &daemon.api.refused(error, "the question for its state")),
    }
}

/// A loopback name means another registry on the machine of a remote daemon.
fn whose_loopback(registry: &str) -> &'static str {
    if is_loopback(registry) { " (loopback of the daemon's machine is another one)" } else { "" }
}
