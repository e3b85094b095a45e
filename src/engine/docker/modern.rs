//! BuildKit inside a Docker daemon: our own session over `POST /grpc` and `POST /session`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::ClientVersion;

use super::auth::Lenient;
use super::{Built, Plan};
use crate::buildkit::attrs::BuildkitVersion;
use crate::buildkit::{self, Build, Dial, Exporter, Hijack};
use crate::daemon::Daemon;
use crate::daemon::dial::Dialer;
use crate::error::{Error, Result};
use crate::net::BoxedStream;
use crate::request::{Credentials, Job};

#[async_trait]
impl Dial for Dialer {
    async fn dial(&self) -> Result<BoxedStream> {
        Self::dial(self).await
    }
}

/// Builds an image without a name. Both connections end when this future is dropped; the daemon then stops.
pub(super) async fn build(daemon: &Daemon, plan: &Plan<'_>, job: &Job) -> Result<Built> {
    let transport = Hijack::new(Arc::new(daemon.api.dialer().clone()));
    let build = Build {
        context: Arc::clone(&plan.context),
        root: plan.root,
        options: plan.options,
        // Names are given later, all at once.
        exporter: Exporter { kind: "moby".into(), attrs: BTreeMap::new() },
        version: version(daemon.api_version),
        engine: "BuildKit of this daemon",
    };
    let credentials = Arc::new(Lenient::new(Arc::clone(&job.credentials)));
    let job = Job { credentials: Arc::clone(&credentials) as Arc<dyn Credentials>, ..job.clone() };
    let solved = match buildkit::build(&transport, build, &job).await {
        Ok(solved) => solved,
        Err(error) => return Err(credentials.blame(error).await),
    };
    let digest = |key: &str| solved.response.get(key);
    let image = digest("containerimage.digest").ok_or_else(|| Error::DaemonProtocol {
        action: "the build".into(),
        reason: "the daemon did not name the image".into(),
    })?;
    // Daemons without containerd's image store know an image by its config.
    let config = digest("containerimage.config.digest").or_else(|| digest("containerimage.digest"));
    Ok(Built {
        config_digest: config.and_then(|text| text.parse().ok()),
        image: image.clone(),
        steps: solved.steps,
        seconds: solved.seconds,
        sent_bytes: solved.sent_bytes,
        cached_steps: solved.cached_steps,
        total_steps: solved.total_steps,
    })
}

/// The BuildKit that a daemon with this API has at least.
pub(super) fn version(api: ClientVersion) -> BuildkitVersion {
    match (api.major_version, api.minor_version) {
        (1, ..=41) => BuildkitVersion::v0(8),
        (1, 42) => BuildkitVersion::v0(10),
        (1, 43) => BuildkitVersion::v0(11),
        _ => BuildkitVersion::v0(13),
    }
}
