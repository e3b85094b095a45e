//! Pushing, done by the daemon.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::Method;
use regex::Regex;

use super::auth::registry_auth;
use super::{is_loopback, sizes, tags, trouble};
use crate::daemon::messages::{Message, Messages};
use crate::daemon::query::Query;
use crate::daemon::{Daemon, Product};
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::reference::Reference;
use crate::request::{Credential, Job};

/// A daemon that pushes says something every second or so; a registry may take minutes to put a huge layer away. After
/// this long a silence one of them hangs.
pub(crate) const SILENCE: Duration = Duration::from_secs(300);

/// `latest: digest: sha256:... size: 527`, of daemons that send no `aux`.
static DIGEST_LINE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"digest: (sha256:[0-9a-f]{64})").expect("a constant pattern"));

/// What a push did.
pub(crate) struct Pushed {
    /// Digest of the manifest in the registry.
    pub(crate) digest: Digest,
    /// Bytes of the layers that went there.
    pub(crate) bytes: u64,
    /// Layers that went there too, by the beginnings of their digests. The containerd image store tells bytes of slow ones only.
    uncounted: BTreeSet<String>,
}

/// Pushes one tag. A refusal is answered once, with credentials asked for anew.
///
/// Fails with `RegistryDenied`, `RegistryUnreachable`, `PushFailed`, `TimedOut`, `DigestMismatch`, and with `Credentials` if
/// a helper failed whose answer was needed.
pub(crate) async fn push(
    daemon: &Daemon,
    tag: &Reference,
    silence: Duration,
    environment: &Environment,
    job: &Job,
) -> Result<Pushed> {
    let started = Instant::now();
    let registry = tag.registry();
    // A failing helper is no error as long as the registry asks for nothing.
    let (credential, failed) = match job.credentials.get(registry, false).await {
        Ok(credential) => (credential, None),
        Err(error @ Error::Credentials { .. }) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let mut pushed = match attempt(daemon, tag, credential.as_ref(), silence, job).await {
        Err(denied @ Error::RegistryDenied { .. }) => {
            if let Some(failed) = failed {
                return Err(failed);
            }
            let renewed = job.credentials.get(registry, true).await?;
            if renewed.is_none() || renewed == credential {
                return Err(denied);
            }
            attempt(daemon, tag, renewed.as_ref(), silence, job).await?
        }
        other => other?,
    };
    verify(daemon, tag, pushed.digest).await?;
    let seconds = started.elapsed().as_secs_f64();
    pushed.bytes += sizes::of(&tag.with_digest(pushed.digest), &pushed.uncounted, environment, job).await;
    let event = Event::Pushed { reference: tag.to_string(), digest: pushed.digest.to_string(), seconds };
    job.events.send(event).await;
    Ok(pushed)
}

async fn attempt(
    daemon: &Daemon,
    tag: &Reference,
    credential: Option<&Credential>,
    silence: Duration,
    job: &Job,
) -> Result<Pushed> {
    let action = format!("the push of {tag}");
    let mut query = Query::default();
    query.add("tag", tag.tag_or_latest().unwrap_or("latest"));
    if daemon.product == Product::Podman && is_loopback(tag.registry()) {
        // Docker takes every registry on a loopback address for one without TLS; Podman must be told.
        query.add("tlsVerify", "false");
    }
    let request = daemon
        .api
        .request(Method::POST, &format!("/images/{}/push?{}", tag.name(), query.0))
        .header("X-Registry-Auth", registry_auth(tag.registry(), credential))
        .header(http::header::CONTENT_LENGTH, "0")
        .body(crate::daemon::client::empty())
        .map_err(|error| Error::internal(error.to_string()))?;
    let had_credentials = credential.is_some();
    let opened = tokio::time::timeout(silence, daemon.api.open(request, &action)).await;
    let exchange = opened.map_err(|_| Error::TimedOut { action: action.clone(), after: silence })?;
    let exchange = exchange.map_err(|error| refused(tag, error, had_credentials))?;
    let mut messages = Messages::new(&daemon.api, exchange, &action, Some(silence));
    let mut state = State::default();
    while let Some(message) = messages.next().await? {
        if let Some((text, _)) = message.failure() {
            return Err(trouble::push_error(tag, &text, had_credentials));
        }
        state.take(&message, tag, job).await;
    }
    match state.digest {
        Some(digest) => Ok(Pushed { digest, bytes: state.layers.values().sum(), uncounted: state.uncounted }),
        None => Err(Error::DaemonProtocol {
            action,
            reason: "the daemon stopped before it named the digest; it may have been restarted".into(),
        }),
    }
}

/// A daemon may refuse at once, with a status, what it usually refuses in its stream.
fn refused(tag: &Reference, error: Error, had_credentials: bool) -> Error {
    match error {
        Error::DaemonRefused { message, .. } => trouble::push_error(tag, &message, had_credentials),
        other => other,
    }
}

#[derive(Default)]
struct State {
    digest: Option<Digest>,
    /// Layer -> bytes sent.
    layers: HashMap<String, u64>,
    uncounted: BTreeSet<String>,
}

impl State {
    async fn take(&mut self, message: &Message, tag: &Reference, job: &Job) {
        let told = message.aux.as_ref().and_then(|aux| aux.get("Digest")).and_then(|digest| digest.as_str());
        let status = message.status.as_deref().unwrap_or_default();
        let line = DIGEST_LINE.captures(status).map(|found| found[1].to_owned());
        if let Some(digest) = told.map(str::to_owned).or(line).and_then(|text| text.parse().ok()) {
            self.digest = Some(digest);
        }
        let Some(layer) = &message.id else { return };
        let (current, total) = message.counts();
        if status == "Pushing" {
            let sent = self.layers.entry(layer.clone()).or_default();
            *sent = (*sent).max(current);
        } else if status == "Pushed" && !self.layers.contains_key(layer) {
            self.uncounted.insert(layer.clone());
        }
        let event =
            Event::Push { reference: tag.to_string(), layer: layer.clone(), status: status.to_owned(), current, total };
        job.events.send(event).await;
    }
}

/// The daemon files a pushed image under the digest that the registry gave it. Podman compresses on the way and files its
/// own digest; there the registry's answer to the push has to do.
async fn verify(daemon: &Daemon, tag: &Reference, digest: Digest) -> Result<()> {
    if daemon.product == Product::Podman {
        return Ok(());
    }
    let api = &daemon.api;
    let image = api.docker.inspect_image(&tags::name(tag)).await;
    let image = image.map_err(|error| api.refused(error, "to look up the pushed image"))?;
    let expected = tag.with_digest(digest);
    let filed: Vec<Reference> = image.repo_digests.unwrap_or_default().iter().filter_map(|d| d.parse().ok()).collect();
    if filed.contains(&expected) {
        return Ok(());
    }
    let same_name = |other: &&Reference| other.name() == tag.name();
    let found = filed.iter().find(same_name).map_or_else(|| "under no digest".to_owned(), ToString::to_string);
    Err(Error::DigestMismatch { reference: tag.to_string(), expected: expected.to_string(), found })
}
