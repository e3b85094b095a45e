//! A client of registries (OCI distribution spec; docs/decisions/0011-registry-client.md).
//!
//! A [`Client`] keeps one [`host::Host`] for each registry: its connections, tokens and what it has refused. A host sends
//! requests with credentials and tries them again (`host`, `auth`, `token`, `retry`); [`pull`] and [`push`] are what is asked of it,
//! [`upload`] is the long part of a push. Nothing that a registry sends is believed: digests and lengths are checked, texts
//! are cleaned, redirects are judged.

mod auth;
mod body;
mod certs;
mod config;
mod dial;
mod host;
mod proxy;
mod pull;
mod push;
mod redirect;
mod refusal;
mod retry;
mod scope;
mod token;
mod upload;
mod ways;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use url::Url;

pub use self::config::RegistryConfig;
pub use self::pull::{BlobStream, Fetched, own_error};
pub use self::push::{BlobSource, PushedBlob};
pub use self::retry::Limits;
pub use self::token::Grant;

pub(super) use self::host::Probed;

use self::auth::Auth;
use self::certs::Tls;
use self::host::{Host, Schemes};
use self::pull::Reading;
use self::scope::Scope;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::reference::{DEFAULT_REGISTRY, Reference};
use crate::request::Credentials;

/// Where Docker Hub's images are; `docker.io` is a name only.
const HUB_HOST: &str = "registry-1.docker.io";

/// A client of any number of registries. Clones share everything. It belongs to the runtime that it is first used in.
///
/// Every call ends with `Interrupted` as soon as the build is cancelled. Others that all may end with: `RegistryUnreachable`,
/// `RegistryDenied`, `RegistryRefused`, and what `Credentials` fail with.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    environment: Environment,
    credentials: Arc<dyn Credentials>,
    cancel: Cancel,
    config: RegistryConfig,
    limits: Limits,
    /// By the URL of the registry.
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl Client {
    /// A client with what this environment says of registries. Fails with `DaemonConfig`.
    pub fn new(environment: &Environment, credentials: Arc<dyn Credentials>, cancel: Cancel) -> Result<Self> {
        let config = RegistryConfig::of(environment)?;
        Ok(Self::with(environment, credentials, cancel, config, Limits::default()))
    }

    /// The same with other mirrors and another patience.
    pub fn with(
        environment: &Environment,
        credentials: Arc<dyn Credentials>,
        cancel: Cancel,
        config: RegistryConfig,
        limits: Limits,
    ) -> Self {
        let environment = environment.clone();
        Self(Arc::new(Shared { environment, credentials, cancel, config, limits, hosts: Mutex::default() }))
    }

    /// The manifest or index of a tag or a digest (which counts if there are both); `None` if there is none. Its bytes have
    /// the digest that was asked for, and the one that was announced: fails with `DigestMismatch`.
    pub async fn manifest(&self, reference: &Reference) -> Result<Option<Fetched>> {
        self.0.cancel.guard(self.find_manifest(reference)).await
    }

    async fn find_manifest(&self, reference: &Reference) -> Result<Option<Fetched>> {
        for mirror in self.mirrors(reference)? {
            if let Ok(Some(fetched)) = mirror.manifest(reference).await {
                return Ok(Some(fetched));
            }
        }
        self.host(reference)?.manifest(reference).await
    }

    /// The descriptor of a manifest as the registry tells it, without its bytes where that is possible; `None` if there is
    /// none.
    pub async fn manifest_digest(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        self.0.cancel.guard(self.find_manifest_digest(reference)).await
    }

    async fn find_manifest_digest(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        for mirror in self.mirrors(reference)? {
            if let Ok(Some(found)) = mirror.manifest_digest(reference).await {
                return Ok(Some(found));
            }
        }
        self.host(reference)?.manifest_digest(reference).await
    }

    /// A blob. What is not of its length or digest ends in `DigestMismatch`, at the latest in place of the last bytes; a
    /// connection that breaks is resumed. A blob that is not there is `RegistryRefused` with the status 404.
    pub async fn blob(&self, repository: &Reference, descriptor: &Descriptor) -> Result<BlobStream> {
        self.0.cancel.guard(self.find_blob(repository, descriptor)).await
    }

    async fn find_blob(&self, repository: &Reference, descriptor: &Descriptor) -> Result<BlobStream> {
        let cancel = &self.0.cancel;
        for mirror in self.mirrors(repository)? {
            if let Ok(Some(reading)) = Reading::open(mirror, repository, descriptor, cancel.clone()).await {
                return Ok(BlobStream::new(reading));
            }
        }
        let host = self.host(repository)?;
        let registry = host.name.clone();
        let reading = Reading::open(host, repository, descriptor, cancel.clone()).await?;
        reading.map(BlobStream::new).ok_or_else(|| Error::RegistryRefused {
            registry,
            action: "to give a blob".into(),
            status: 404,
            message: format!("it has no {} in {}", descriptor.digest, repository.repository()),
        })
    }

    /// A whole blob of at most `most` bytes. Fails with `ImageInvalid` if it is to be longer, and as [`Client::blob`].
    pub async fn blob_bytes(&self, repository: &Reference, descriptor: &Descriptor, most: u64) -> Result<Bytes> {
        if descriptor.size > most {
            return Err(Error::ImageInvalid {
                what: format!("{}@{}", repository.name(), descriptor.digest),
                reason: format!("it has {} bytes, and {most} are the most for what it is", descriptor.size),
            });
        }
        let mut stream = self.blob(repository, descriptor).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = stream.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Whether a repository has a blob.
    pub async fn has_blob(&self, repository: &Reference, digest: &Digest) -> Result<bool> {
        let host = self.host(repository)?;
        self.0.cancel.guard(host.has_blob(repository, digest)).await
    }

    /// Puts a blob into a repository: looks whether it is there, asks for it from each of `mounts` (repositories of the same
    /// registry), uploads it. `progress(sent, total)` may go back where an upload has to begin anew.
    ///
    /// Fails with `PushFailed` and with what `source` fails with.
    pub async fn push_blob(
        &self,
        repository: &Reference,
        source: &dyn BlobSource,
        mounts: &[Reference],
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<PushedBlob> {
        let host = self.host(repository)?;
        self.0.cancel.guard(host.push_blob(repository, source, mounts, progress)).await
    }

    /// Puts a manifest under its tag, or under its digest where there is no tag, and gives its digest once the registry has
    /// said that it is the same there. Fails with `PushFailed` and `DigestMismatch`.
    pub async fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: Bytes) -> Result<Digest> {
        let host = self.host(reference)?;
        self.0.cancel.guard(host.push_manifest(reference, media_type, bytes)).await
    }

    /// Asks a registry for nothing but an answer, as if to push to `reference`: its status, and whether it demanded a login.
    pub(super) async fn probe(&self, reference: &Reference) -> Result<Probed> {
        let host = self.host(reference)?;
        self.0.cancel.guard(host.probe(reference)).await
    }

    /// A new token of a registry's token service, for somebody who was sent there: `realm`, `service` and `scopes` are what
    /// the registry's challenge said. Tokens are asked for with the credentials of the registry; they go nowhere without TLS
    /// that the registry itself is not spoken to without TLS.
    pub async fn token(&self, registry: &str, realm: &str, service: &str, scopes: &[String]) -> Result<Grant> {
        let host = self.host_of(registry)?;
        let service = Some(service).filter(|service| !service.is_empty()).map(str::to_owned);
        let scopes: Vec<Scope> = scopes.iter().flat_map(|scopes| Scope::all(scopes)).collect();
        let repository = scopes.iter().find_map(Scope::repository);
        let subject = repository.map_or_else(|| registry.to_owned(), |repository| format!("{registry}/{repository}"));
        self.0.cancel.guard(host.grant(realm, service, &scopes, &subject)).await
    }

    /// The registry of a name.
    fn host(&self, reference: &Reference) -> Result<Arc<Host>> {
        self.host_of(reference.registry())
    }

    fn host_of(&self, name: &str) -> Result<Arc<Host>> {
        let authority = if name == DEFAULT_REGISTRY { HUB_HOST } else { name };
        let insecure = self.0.config.is_insecure(authority);
        let schemes = if insecure { Schemes::Either } else { Schemes::Tls };
        self.host_at(name, authority, &format!("https://{authority}/"), schemes)
    }

    /// Where an image may also be had, the best first. A mirror that could not be reached is not asked again.
    fn mirrors(&self, reference: &Reference) -> Result<Vec<Arc<Host>>> {
        if reference.registry() != DEFAULT_REGISTRY {
            return Ok(Vec::new());
        }
        let mirrors = self.0.config.mirrors.iter().map(|url| {
            let schemes = if url.scheme() == "http" { Schemes::Plain } else { Schemes::Tls };
            self.host_at(url.authority(), url.authority(), url.as_str(), schemes)
        });
        let mirrors: Vec<Arc<Host>> = mirrors.collect::<Result<_>>()?;
        Ok(mirrors.into_iter().filter(|mirror| !mirror.is_dead()).collect())
    }

    fn host_at(&self, name: &str, authority: &str, root: &str, schemes: Schemes) -> Result<Arc<Host>> {
        let shared = &self.0;
        let mut hosts = shared.hosts.lock().map_err(|_| Error::internal("the list of registries is poisoned"))?;
        if let Some(host) = hosts.get(root) {
            return Ok(Arc::clone(host));
        }
        let url: Url = root.parse().map_err(|error| Error::RegistryUnreachable {
            registry: name.to_owned(),
            reason: format!("its address cannot be read: {error}"),
        })?;
        let insecure = shared.config.is_insecure(authority);
        let tls = Tls::new(authority, &shared.environment, insecure);
        let auth = Auth::new(Arc::clone(&shared.credentials));
        let host = Arc::new(Host::new(name, url, schemes, tls, auth, shared.limits));
        hosts.insert(root.to_owned(), Arc::clone(&host));
        Ok(host)
    }
}
