//! One BuildKit of a pool: how it is reached, and what it is once it has answered.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::address::{Place, Way};
use super::handshake;
use crate::buildkit::attrs::BuildkitVersion;
use crate::buildkit::connection::{About, Patience};
use crate::buildkit::transport::Bearer;
use crate::buildkit::{BoxedStream, Connection, Dial, Remote, Transport};
use crate::daemon::address::Address;
use crate::daemon::dial::Dialer;
use crate::daemon::endpoint::Endpoint;
use crate::daemon::{Daemon, find};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::moby;
use crate::net::program::Program;
use crate::net::tls::TlsFiles;
use crate::platform::Platform;
use crate::request::EngineSpec;

/// A BuildKit that has accepted a connection says what it is at once; a program may have to log in first.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The release that a buildkitd has at least; 0.11 began to tell.
const OLDEST: BuildkitVersion = BuildkitVersion::v0(10);
/// One that tells, and has no number (`v0.0.0+unknown`), was built by hand from whatever there was.
const UNKNOWN: BuildkitVersion = BuildkitVersion::v0(11);

/// A BuildKit that may or may not answer.
pub(super) struct Worker {
    /// Its address, for people.
    pub(super) text: String,
    reach: Reach,
    patience: Patience,
    /// Whether it is spoken to over TLS; `None` where that is no question, as with sockets and programs.
    secure: Option<bool>,
    /// It is shown a client certificate, where it speaks TLS.
    shown: bool,
}

enum Reach {
    Buildkitd(Arc<dyn Transport>),
    /// Inside a Docker daemon, which is found as this says.
    Docker(Box<EngineSpec>, Arc<Environment>),
}

/// A BuildKit that has answered.
pub(super) struct Ready {
    /// Its address, for people.
    pub(super) text: String,
    pub(super) connection: Connection,
    pub(super) about: About,
    /// What it can do at least.
    pub(super) version: BuildkitVersion,
    /// The daemon that it is part of.
    pub(super) daemon: Option<Daemon>,
}

impl Worker {
    /// Reads the TLS files; connects to nothing yet. Fails with `DaemonConfig`.
    pub(super) fn new(
        place: Place,
        spec: &EngineSpec,
        environment: &Arc<Environment>,
        patience: Patience,
    ) -> Result<Self> {
        let Place { text, way } = place;
        let secure = match &way {
            Way::Socket(Address::Tcp { secure, .. }) => Some(*secure),
            _ => None,
        };
        let reach = match way {
            Way::Docker(address) => {
                let endpoints = address.into_iter().collect();
                let spec = EngineSpec { endpoints, tls: spec.tls.clone(), ..EngineSpec::default() };
                Reach::Docker(Box::new(spec), Arc::clone(environment))
            }
            Way::Socket(address) => {
                let secure = matches!(address, Address::Tcp { secure: true, .. });
                let tls = secure.then(|| spec.tls.as_ref().map(TlsFiles::of).unwrap_or_default());
                let bearer = bearer(spec, &address, secure)?;
                let endpoint = Endpoint { address, tls, source: String::new() };
                Reach::Buildkitd(Arc::new(
                    Remote::new(Arc::new(Dialer::new(&endpoint, environment)?)).with_bearer(bearer),
                ))
            }
            Way::Program(program) => Reach::Buildkitd(Arc::new(Remote::new(Arc::new(Called {
                program,
                environment: Arc::clone(environment),
            })))),
        };
        let shown = spec.tls.as_ref().is_some_and(|tls| tls.client_cert.is_some());
        Ok(Self { text, reach, patience, secure, shown })
    }

    /// Connects and asks what it is.
    ///
    /// Fails with `WorkerUnreachable`, and with `DaemonConfig` where the two do not agree on TLS or on a token.
    pub(super) async fn connect(&self) -> Result<Ready> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.ask()).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(error)),
            Err(_) => Err(Error::WorkerUnreachable {
                endpoint: self.text.clone(),
                reason: format!("it gave no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            }),
        }
    }

    async fn ask(&self) -> Result<Ready> {
        let (connection, daemon) = match &self.reach {
            Reach::Buildkitd(transport) => (Connection::open(Arc::clone(transport)).await?, None),
            Reach::Docker(spec, environment) => {
                let daemon = find(spec, environment, &mut Vec::new()).await?;
                if !daemon.buildkit {
                    let reason = format!("{} at this address has no BuildKit", daemon.product().name());
                    return Err(Error::WorkerUnreachable { endpoint: self.text.clone(), reason });
                }
                (moby::build::connect(&daemon).await?, Some(daemon))
            }
        };
        let connection = connection.with_patience(self.patience);
        let about = connection.about().await?;
        let version = match (&daemon, about.release, &about.version) {
            (Some(daemon), ..) => moby::build::version(daemon.api_version),
            (None, Some(release), _) => release,
            (None, None, Some(_)) => UNKNOWN,
            (None, None, None) => OLDEST,
        };
        Ok(Ready { text: self.text.clone(), connection, about, version, daemon })
    }

    fn unreachable(&self, error: Error) -> Error {
        let endpoint = self.text.clone();
        let reason = match error {
            Error::DaemonUnreachable { reason, .. } | Error::DaemonProtocol { reason, .. } => reason,
            Error::DaemonRefused { message, .. } if handshake::explain(&message, self.shown).is_some() => message,
            Error::DaemonDenied { .. } => "permission denied: this user may not use the socket".to_owned(),
            Error::DaemonConfig { setting, reason } => {
                let told = handshake::explain(&reason, self.shown);
                let reason = told.map_or_else(|| reason.clone(), |told| format!("{told}: {reason}"));
                return Error::DaemonConfig { setting, reason };
            }
            other => return other,
        };
        if let Some(told) = handshake::explain(&reason, self.shown) {
            return Error::DaemonConfig {
                setting: format!("TLS with {endpoint}"),
                reason: format!("{told}: {reason}"),
            };
        }
        let guess = self.secure.and_then(|secure| handshake::guess(&reason, secure, self.shown));
        let reason = guess.map_or_else(|| reason.clone(), |guess| format!("{reason}; {guess}"));
        Error::WorkerUnreachable { endpoint, reason }
    }
}

impl Ready {
    /// What it builds for, its own platform first.
    pub(super) fn platforms(&self) -> &[Platform] {
        self.about.workers.first().map_or(&[], |worker| worker.platforms.as_slice())
    }

    /// `v0.21.0`, or the daemon's version.
    pub(super) fn version_text(&self) -> String {
        match &self.daemon {
            Some(daemon) => daemon.version.clone(),
            None => self.about.version.clone().unwrap_or_else(|| "before 0.11".into()),
        }
    }
}

/// A token goes where nobody listens: over TLS, or within this machine.
fn bearer(spec: &EngineSpec, address: &Address, secure: bool) -> Result<Bearer> {
    let Some(token) = &spec.token else { return Ok(Bearer::default()) };
    let fail = |reason: &str| Err(Error::DaemonConfig { setting: "the token".into(), reason: reason.into() });
    let in_the_open = matches!(address, Address::Tcp { host, .. } if !secure && !moby::is_loopback(host));
    if in_the_open {
        return fail("it would be sent to another machine without TLS; give the authority's certificate");
    }
    Bearer::new(token).map_or_else(|| fail("it has characters that no header can carry"), Ok)
}

/// A program that copies bytes to a BuildKit.
struct Called {
    program: Program,
    environment: Arc<Environment>,
}

#[async_trait]
impl Dial for Called {
    async fn dial(&self) -> Result<BoxedStream> {
        match self.program.dial(&self.environment) {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let name = &self.program.name;
                let reason = match error.kind() {
                    ErrorKind::NotFound => format!("the program `{name}` is not installed"),
                    _ => format!("cannot start `{name}`: {error}"),
                };
                Err(Error::DaemonUnreachable { endpoint: name.clone(), reason })
            }
        }
    }
}
