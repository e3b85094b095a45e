//! The session: an HTTP/2 server on a stream that we opened, with the services that a daemon may call during one build.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::SshServer;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use rustix::process::getuid;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use super::auth::{AuthService, Given};
use super::content::{self, ContentService, Stores};
use super::filesend::{self, FileSendService, Targets};
use super::filesync::{self, FileSyncService, Sent};
use super::health::AlwaysServing;
use super::secrets::SecretsService;
use super::source::SyncDir;
use super::ssh::SshService;
use super::transport::{BoxedStream, CONNECTION_WINDOW, STREAM_WINDOW, SessionHello};
use super::trouble::Trouble;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::request::{Credentials, SecretSpec, SshSpec};

/// What a session serves.
pub struct SessionSpec<'a> {
    /// Directories by name: `context`, `dockerfile`, and one per named build context.
    pub dirs: HashMap<String, Arc<dyn SyncDir>>,
    /// The build's secrets.
    pub secrets: &'a [SecretSpec],
    /// The build's SSH agents.
    pub ssh: &'a [SshSpec],
    /// Whom to ask for credentials.
    pub credentials: Arc<dyn Credentials>,
    /// How registries are reached where tokens are fetched for the daemon.
    pub environment: &'a Environment,
    /// Where the results of exporters go.
    pub targets: Targets,
    /// Caches and images in directories, by BuildKit's names for them.
    pub stores: Stores,
    /// See [`shared_key`].
    pub shared_key: String,
}

/// The services of one build. Cloned for each call.
#[derive(Clone)]
struct Services {
    health: HealthServer<AlwaysServing>,
    auth: AuthServer<AuthService>,
    files: FileSyncService,
    results: Option<FileSendService>,
    content: Option<ContentService>,
    secrets: Option<SecretsServer<SecretsService>>,
    ssh: Option<SshServer<SshService>>,
}

/// One session, to be served on one stream.
pub struct Session {
    hello: SessionHello,
    services: Services,
    sent: Arc<Sent>,
    trouble: Trouble,
    given: Given,
}

impl Session {
    /// Makes the services. Fails with `SshUnavailable` where there is no agent.
    pub async fn new(spec: SessionSpec<'_>) -> Result<Self> {
        let (sent, trouble, given) = (Arc::new(Sent::default()), Trouble::default(), Given::default());
        let ssh = SshService::new(spec.ssh, trouble.clone()).await?;
        let services = Services {
            health: HealthServer::new(AlwaysServing),
            auth: AuthServer::new(AuthService::new(spec.credentials, spec.environment, given.clone(), trouble.clone())),
            files: FileSyncService::new(spec.dirs, sent.clone(), trouble.clone()),
            results: (!spec.targets.is_empty()).then(|| FileSendService::new(spec.targets, trouble.clone())),
            content: (!spec.stores.is_empty()).then(|| ContentService::new(spec.stores, trouble.clone())),
            secrets: (!spec.secrets.is_empty())
                .then(|| SecretsServer::new(SecretsService::new(spec.secrets, trouble.clone()))),
            ssh: (!spec.ssh.is_empty()).then(|| SshServer::new(ssh)),
        };
        let hello = SessionHello { id: unique_id()?, shared_key: spec.shared_key, methods: services.methods() };
        Ok(Self { hello, services, sent, trouble, given })
    }

    /// What to tell the daemon first.
    pub fn hello(&self) -> &SessionHello {
        &self.hello
    }

    /// Counts what is sent.
    pub fn sent(&self) -> &Sent {
        &self.sent
    }

    /// The first error of a service.
    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Whether there were credentials for a registry that the daemon asked about.
    pub fn gave_credentials(&self, registry: &str) -> bool {
        self.given.contains(registry)
    }

    /// Serves until the daemon or the stream ends. Dropping the future ends the session and every call in it.
    pub async fn serve(&self, stream: BoxedStream) -> Result<()> {
        let end = CancellationToken::new();
        let _guard = end.clone().drop_guard();
        let services = self.services.clone();
        let service = hyper::service::service_fn(move |request| services.clone().call(request));
        hyper::server::conn::http2::Builder::new(CallExecutor(end))
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(|error| Error::DaemonProtocol {
                action: "the session of a build".into(),
                reason: super::transport::chain(&error),
            })
    }
}

impl Services {
    /// A daemon refuses to call what is not in this list.
    fn methods(&self) -> Vec<String> {
        let mut methods = vec![
            "/grpc.health.v1.Health/Check",
            filesync::DIFF_COPY,
            "/moby.filesync.v1.Auth/Credentials",
            "/moby.filesync.v1.Auth/FetchToken",
            "/moby.filesync.v1.Auth/GetTokenAuthority",
            "/moby.filesync.v1.Auth/VerifyTokenAuthority",
        ];
        if self.results.is_some() {
            methods.push(filesend::DIFF_COPY);
        }
        if self.content.is_some() {
            methods.extend(content::METHODS);
        }
        if self.secrets.is_some() {
            methods.push("/moby.buildkit.secrets.v1.Secrets/GetSecret");
        }
        if self.ssh.is_some() {
            methods.extend(["/moby.sshforward.v1.SSH/CheckAgent", "/moby.sshforward.v1.SSH/ForwardAgent"]);
        }
        methods.into_iter().map(str::to_owned).collect()
    }

    async fn call(mut self, request: Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
        let name = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
        let missing = || Ok(Status::unimplemented(format!("{name} is not served")).into_http());
        match name.as_str() {
            "grpc.health.v1.Health" => self.health.call(request).await,
            "moby.filesync.v1.Auth" => self.auth.call(request).await,
            filesync::SERVICE_NAME => self.files.call(request.map(Body::new)).await,
            filesend::SERVICE_NAME => optional(&mut self.results, request.map(Body::new), missing).await,
            content::SERVICE_NAME => optional(&mut self.content, request.map(Body::new), missing).await,
            "moby.buildkit.secrets.v1.Secrets" => optional(&mut self.secrets, request, missing).await,
            "moby.sshforward.v1.SSH" => optional(&mut self.ssh, request, missing).await,
            _ => missing(),
        }
    }
}

/// A call of a service that this build may not have.
async fn optional<S, B>(
    service: &mut Option<S>,
    request: Request<B>,
    missing: impl FnOnce() -> Result<http::Response<Body>, Infallible>,
) -> Result<http::Response<Body>, Infallible>
where
    S: Service<Request<B>, Response = http::Response<Body>, Error = Infallible>,
{
    match service {
        Some(service) => service.call(request).await,
        None => missing(),
    }
}

/// Runs the calls of a session, until its token is cancelled.
#[derive(Clone)]
struct CallExecutor(CancellationToken);

impl<F> Executor<F> for CallExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let end = self.0.clone();
        tokio::spawn(async move { end.run_until_cancelled(call).await });
    }
}

/// A session id that no other build has: 128 random bits.
fn unique_id() -> Result<String> {
    random_hex().map_err(|error| Error::internal(format!("no randomness: {error}")))
}

fn random_hex() -> std::io::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// The same for every build of a directory by one user on one machine, and different otherwise: a daemon that several
/// machines share compares a new context with the last one of the same key, by size and time alone.
pub fn shared_key(root: Option<&Path>) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(b"cooper");
    part(rustix::system::uname().nodename().to_bytes());
    // Only Linux has it; containers often share one, hence the host name before.
    part(&std::fs::read("/etc/machine-id").unwrap_or_default());
    part(&getuid().as_raw().to_be_bytes());
    let root = root.map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned()));
    part(root.as_deref().map_or(&b""[..], |root| std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str())));
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_key_is_stable_and_names_the_directory() {
        let key = |path: &str| shared_key(Some(Path::new(path)));
        assert_eq!(key("/a"), key("/a"));
        assert_ne!(key("/a"), key("/b"));
        assert_ne!(key("/"), shared_key(None));
        let here = std::env::current_dir().unwrap();
        assert_eq!(shared_key(Some(&here.join("x"))), key("x"));
    }

    #[test]
    fn ids_are_unique() {
        assert_ne!(unique_id().unwrap(), unique_id().unwrap());
    }
}
