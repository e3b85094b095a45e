//! Which daemon answers, and what it can do.

use std::sync::Arc;
use std::time::Duration;

use bollard::ClientVersion;
use http::HeaderMap;
use serde::Serialize;

use super::client::Api;
use super::dial::{CONNECT_TIMEOUT, Dialer};
use super::endpoint::{Endpoint, resolve};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::request::EngineSpec;

/// A daemon that has accepted a connection answers a ping at once; SSH logs in first.
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// The newest API that this client knows. A newer daemon is asked to speak this one.
const NEWEST_API: ClientVersion = ClientVersion { major_version: 1, minor_version: 51 };
/// `/grpc` and `/session` are there and stable since Docker 19.03.
const FIRST_BUILDKIT_API: ClientVersion = ClientVersion { major_version: 1, minor_version: 40 };

/// An address that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The address.
    pub endpoint: String,
    /// What named it.
    pub source: String,
    /// Why it does not serve; `None` for the one that does.
    pub error: Option<String>,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Docker Engine, or something that passes for it.
    Docker,
    /// Podman's Docker-compatible API.
    Podman,
}

/// A daemon that has answered.
#[derive(Clone)]
pub struct Daemon {
    pub(crate) api: Api,
    pub(crate) product: Product,
    /// Version of the product, e.g. `20.10.24`.
    pub(crate) version: String,
    /// Version of the API that is spoken.
    pub(crate) api_version: ClientVersion,
    pub(crate) buildkit: bool,
    /// `os/architecture` of the machine that builds.
    pub(crate) platform: String,
    /// What named its address.
    pub(crate) source: String,
}

/// The first endpoint that answers, and all that was tried on the way.
///
/// With a socket that may not be used and none that answers, the error is `DaemonDenied`.
pub async fn find(spec: &EngineSpec, environment: &Arc<Environment>, attempts: &mut Vec<Attempt>) -> Result<Daemon> {
    let mut failures = Vec::new();
    for endpoint in resolve(spec, environment)? {
        let mut attempt =
            Attempt { endpoint: endpoint.address.to_string(), source: endpoint.source.clone(), error: None };
        match connect(&endpoint, environment).await {
            Ok(daemon) => {
                attempts.push(attempt);
                return Ok(daemon);
            }
            Err(error) => {
                attempt.error = Some(error.to_string());
                attempts.push(attempt);
                failures.push(error);
            }
        }
    }
    Err(sum_up(failures, attempts))
}

fn sum_up(mut failures: Vec<Error>, attempts: &[Attempt]) -> Error {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    if let Some(at) = failures.iter().position(|error| matches!(error, Error::DaemonDenied { .. })) {
        return failures.swap_remove(at);
    }
    let reason = |failure: &Error| match failure {
        Error::DaemonUnreachable { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    let tried: Vec<String> = attempts
        .iter()
        .zip(&failures)
        .map(|(attempt, failure)| format!("{} ({}): {}", attempt.endpoint, attempt.source, reason(failure)))
        .collect();
    Error::DaemonUnreachable { endpoint: "any of the usual places".into(), reason: tried.join("; ") }
}

async fn connect(endpoint: &Endpoint, environment: &Arc<Environment>) -> Result<Daemon> {
    let dialer = Dialer::new(endpoint, environment)?.with_timeout(CONNECT_TIMEOUT);
    let address = dialer.address().to_string();
    let ping = async {
        let api = Api::new(dialer.clone(), None)?;
        let headers = api.ping().await?;
        describe(dialer, &headers, endpoint).await
    };
    match tokio::time::timeout(PING_TIMEOUT, ping).await {
        Ok(result) => result,
        Err(_) => Err(Error::DaemonUnreachable {
            endpoint: address,
            reason: format!("it accepts connections, but gave no answer within {} s", PING_TIMEOUT.as_secs()),
        }),
    }
}

async fn describe(dialer: Dialer, headers: &HeaderMap, endpoint: &Endpoint) -> Result<Daemon> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(offered) = header("api-version").and_then(parse_version) else {
        return Err(Error::DaemonProtocol {
            action: "a ping".into(),
            reason: format!("what answers at {} is no Docker or Podman API", endpoint.address),
        });
    };
    let api_version = if offered > NEWEST_API { NEWEST_API } else { offered };
    let api = Api::new(dialer, Some(api_version))?;
    let version = api.docker.version().await.map_err(|error| api.refused(error, "the question for its version"))?;
    let podman = header("libpod-api-version").is_some()
        || version.components.iter().flatten().any(|component| component.name.starts_with("Podman"));
    let os = version.os.unwrap_or_else(|| "linux".into());
    let architecture = version.arch.unwrap_or_default();
    Ok(Daemon {
        api,
        product: if podman { Product::Podman } else { Product::Docker },
        version: version.version.unwrap_or_default(),
        buildkit: !podman && os == "linux" && api_version >= FIRST_BUILDKIT_API,
        api_version,
        platform: format!("{os}/{architecture}"),
        source: endpoint.source.clone(),
    })
}

fn parse_version(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

impl Product {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "Docker Engine",
            Self::Podman => "Podman",
        }
    }
}

impl Daemon {
    /// What it is.
    pub const fn product(&self) -> Product {
        self.product
    }
}
