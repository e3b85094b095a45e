//! BuildKit inside a Docker daemon: our own session over `POST /grpc` and `POST /session`.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::ClientVersion;

use super::auth::Lenient;
use crate::buildkit::attrs::BuildkitVersion;
use crate::buildkit::content::Stores;
use crate::buildkit::{self, Build, Connection, Dial, Exporter, Hijack, Solved};
use crate::context::Context;
use crate::daemon::Daemon;
use crate::daemon::dial::Dialer;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::net::BoxedStream;
use crate::request::{BuildOptions, Credentials, Job};

#[async_trait]
impl Dial for Dialer {
    async fn dial(&self) -> Result<BoxedStream> {
        Self::dial(self).await
    }
}

/// What is built.
pub(crate) struct Source<'a> {
    /// The context, with its Dockerfile.
    pub(crate) context: Arc<Context>,
    /// Its root.
    pub(crate) root: Option<&'a Path>,
    /// How.
    pub(crate) options: &'a BuildOptions,
    /// Where what files hashed to the last time is kept, and how registries are reached.
    pub(crate) environment: &'a Environment,
}

/// An image that has no name yet.
pub(crate) struct Made {
    /// The daemon's id of the image.
    pub(crate) image: String,
    /// Digest of its configuration.
    pub(crate) config_digest: Option<Digest>,
    /// How it was built.
    pub(crate) solved: Solved,
}

/// A connection to the BuildKit inside a daemon.
pub(crate) async fn connect(daemon: &Daemon) -> Result<Connection> {
    Connection::open(Arc::new(Hijack::new(Arc::new(daemon.api.dialer().clone())))).await
}

/// Builds an image without a name, and whatever else `more` exporters make of the result. The session ends when this future
/// is dropped; the daemon then stops.
pub(crate) async fn build(
    connection: &Connection,
    daemon: &Daemon,
    source: Source<'_>,
    more: Vec<Exporter>,
    job: &Job,
) -> Result<Made> {
    // Names are given later, all at once. The media types are those that older daemons push, and that all services take; only
    // daemons with containerd's image store have others.
    let attrs = [("oci-mediatypes".to_owned(), "false".to_owned())].into();
    let image = Exporter { kind: "moby".into(), attrs, ..Exporter::default() };
    let solved = export(connection, daemon, source, more.into_iter().chain([image]).collect(), job).await?;
    let digest = |key: &str| solved.response.get(key);
    let image = digest("containerimage.digest").ok_or_else(|| Error::DaemonProtocol {
        action: "the build".into(),
        reason: "the daemon did not name the image".into(),
    })?;
    // Daemons without containerd's image store know an image by its config.
    let config = digest("containerimage.config.digest").or_else(|| digest("containerimage.digest"));
    let config_digest = config.and_then(|text| text.parse().ok());
    Ok(Made { image: image.clone(), config_digest, solved })
}

/// Builds, and makes of the result what exporters do; several of them only where BuildKit has 0.13.
pub(crate) async fn export(
    connection: &Connection,
    daemon: &Daemon,
    source: Source<'_>,
    exporters: Vec<Exporter>,
    job: &Job,
) -> Result<Solved> {
    let build = Build {
        context: source.context,
        root: source.root,
        options: source.options,
        exporters,
        stores: Stores::new(),
        version: version(daemon.api_version),
        engine: "BuildKit of this daemon",
        part: None,
        environment: source.environment,
    };
    let credentials = Arc::new(Lenient::new(Arc::clone(&job.credentials)));
    let job = Job { credentials: Arc::clone(&credentials) as Arc<dyn Credentials>, ..job.clone() };
    match buildkit::build(connection, build, &job).await {
        Ok(solved) => Ok(solved),
        Err(error) => Err(credentials.blame(error).await),
    }
}

/// The BuildKit that a daemon with this API has at least.
pub(crate) fn version(api: ClientVersion) -> BuildkitVersion {
    match (api.major_version, api.minor_version) {
        (1, ..=41) => BuildkitVersion::v0(8),
        (1, 42) => BuildkitVersion::v0(10),
        (1, 43) => BuildkitVersion::v0(11),
        _ => BuildkitVersion::v0(13),
    }
}
