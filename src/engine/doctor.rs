//! What `cooper doctor` says, whichever engine it looks at.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::EngineInfo;
use crate::daemon::Attempt;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::registry::check::{Access, access};
use crate::request::Job;

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
    /// What was looked at: `daemon`, `builder`, `store`, `disk`, `git`, `certificates`, `run`, `credentials`, `registry`.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// In a sentence.
    pub text: String,
    /// What to do, if there is something to do.
    pub advice: Option<String>,
}

/// All findings, and what they come from.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The addresses that were tried, in order.
    pub attempts: Vec<Attempt>,
    /// What would build, if it can.
    pub engine: Option<EngineInfo>,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, check: &'static str, status: Status, text: impl Into<String>, advice: Option<&str>) {
        self.findings.push(Finding { check, status, text: text.into(), advice: advice.map(str::to_owned) });
    }

    pub(super) fn add_error(&mut self, check: &'static str, error: &Error) {
        self.add(check, Status::Fail, error.to_string(), error.hint().as_deref());
    }

    /// Says how much space there is at `place`, an existing path, for `what`.
    pub(super) fn look_at_disk(&mut self, place: &Path, what: &str, little: u64, advice: &str) {
        let Ok(disk) = rustix::fs::statvfs(place) else { return };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let text = format!("{:.1} GiB free for {what} in {}", gibibytes(free), place.display());
        if free < little {
            self.add("disk", Status::Warn, text, Some(advice));
        } else {
            self.add("disk", Status::Ok, text, None);
        }
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

#[allow(clippy::cast_precision_loss, reason = "one digit is shown")]
pub(super) fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Looks whether a registry answers and takes the credentials. `elsewhere` says that another machine will push, and what
/// that means for this registry; then what this machine sees decides nothing.
pub(super) async fn look_at_registry(
    reference: &Reference,
    job: &Job,
    environment: &Arc<Environment>,
    elsewhere: Option<&str>,
    report: &mut Report,
) -> Result<()> {
    let credentials = super::with_docker_config(job, environment).credentials;
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
            if let Some(note) = elsewhere {
                let text = format!("{registry} does not answer this machine: {reason}{note}");
                report.add("registry", Status::Warn, text, Some("check that the daemon's machine can reach it"));
            } else {
                report.add_error("registry", &Error::RegistryUnreachable { registry: registry.to_owned(), reason });
            }
        }
    }
    Ok(())
}
