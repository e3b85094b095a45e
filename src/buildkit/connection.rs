//! A BuildKit that has been reached: what it says of itself, and whether it is still there.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as control;
use control::control_client::ControlClient;
use control::{BuildHistoryRequest, DiskUsageRequest, InfoRequest, ListWorkersRequest};
use tonic::{Code, Status};

use super::attrs::BuildkitVersion;
use super::transport::{Control, Link, MAX_MESSAGE, Transport, told};
use crate::error::{Error, Result};
use crate::platform::Platform;

/// What is done before a build.
const ASKING: &str = "the question what it is";
/// A stream that has broken is read to its end soon; where only a write failed, nothing tells why.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a BuildKit may be silent, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After this long, it is asked whether it is still there.
    pub ask: Duration,
    /// It has this long to answer, however busy it is.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ask: Duration::from_secs(10), answer: Duration::from_secs(30) }
    }
}

/// A connection to one BuildKit.
#[derive(Clone)]
pub struct Connection {
    pub(super) transport: Arc<dyn Transport>,
    link: Link,
    patience: Patience,
}

/// What a BuildKit says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its release, as it writes it (`v0.21.0`); `None` for those before 0.11, which do not tell.
    pub version: Option<String>,
    /// The same as a number.
    pub release: Option<BuildkitVersion>,
    /// Its workers.
    pub workers: Vec<WorkerInfo>,
    /// How many builds it runs now; `None` for those before 0.11, which do not tell.
    pub running: Option<u32>,
}

/// One worker of a BuildKit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its id.
    pub id: String,
    /// What it runs commands with: `oci`, `containerd`, `moby`.
    pub executor: String,
    /// Where it keeps layers: `overlayfs`, `native`, ...
    pub snapshotter: String,
    /// Where it runs.
    pub host: String,
    /// What it builds for, its own platform first; others by emulation.
    pub platforms: Vec<Platform>,
}

/// What a BuildKit keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// How many records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of those that could be removed now.
    pub reclaimable: u64,
}

impl Connection {
    /// Connects. Fails as the transport does.
    pub async fn open(transport: Arc<dyn Transport>) -> Result<Self> {
        let link = transport.control().await?;
        Ok(Self { transport, link, patience: Patience::default() })
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    pub(super) fn client(&self) -> Control {
        let client = ControlClient::with_interceptor(self.link.channel.clone(), self.transport.bearer());
        client.max_decoding_message_size(MAX_MESSAGE)
    }

    /// What it is and what it does now. Fails with `DaemonProtocol`.
    pub async fn about(&self) -> Result<About> {
        let (mut info, mut workers) = (self.client(), self.client());
        let (info, workers, running) = tokio::join!(
            info.info(InfoRequest {}),
            workers.list_workers(ListWorkersRequest::default()),
            self.running(),
        );
        let workers = match workers {
            Ok(workers) => workers.into_inner(),
            Err(status) => {
                let reason = self.reason(&status).await;
                return Err(Error::DaemonProtocol { action: ASKING.into(), reason });
            }
        };
        let version = optional(info.map(tonic::Response::into_inner))?.and_then(|info| info.buildkit_version);
        let version = version.map(|version| version.version);
        Ok(About {
            release: version.as_deref().and_then(release),
            version,
            workers: workers.record.into_iter().map(worker).collect(),
            running: optional(running)?,
        })
    }

    /// Why a call failed. Where the connection broke, HTTP/2 may tell no more than that it did, and before the stream has been
    /// read to its end.
    pub(super) async fn reason(&self, status: &Status) -> String {
        if !is_broken(status) {
            return told(status);
        }
        let why = tokio::time::timeout(REASON_TIMEOUT, self.link.why.noted()).await;
        why.unwrap_or_else(|_| told(status))
    }

    /// How many builds it runs.
    async fn running(&self) -> std::result::Result<u32, Status> {
        let request = BuildHistoryRequest { active_only: true, early_exit: true, ..BuildHistoryRequest::default() };
        let mut events = self.client().listen_build_history(request).await?.into_inner();
        let mut running = 0;
        while let Some(event) = events.message().await? {
            let ended = event.record.as_ref().is_some_and(|record| record.completed_at.is_some());
            running += u32::from(!ended);
        }
        Ok(running)
    }

    /// What it keeps. Fails with `DaemonProtocol`.
    pub async fn cache_usage(&self) -> Result<CacheUsage> {
        let answer = self.client().disk_usage(DiskUsageRequest::default()).await.map_err(|status| failed(&status))?;
        let bytes = |size: i64| u64::try_from(size).unwrap_or_default();
        let usage = answer.into_inner().record.into_iter().fold(CacheUsage::default(), |sum, record| CacheUsage {
            records: sum.records + 1,
            bytes: sum.bytes + bytes(record.size),
            reclaimable: sum.reclaimable + if record.in_use { 0 } else { bytes(record.size) },
        });
        Ok(usage)
    }

    /// Never ends while it is there; ends with the reason once it does not answer. Half-open connections look well for as
    /// long as nobody asks. HTTP/2's own pings are no way: gRPC servers end a connection on which they come often.
    pub(super) async fn lost(&self) -> Error {
        loop {
            tokio::time::sleep(self.patience.ask).await;
            let mut client = self.client();
            let asked = client.list_workers(ListWorkersRequest::default());
            let reason = match tokio::time::timeout(self.patience.answer, asked).await {
                Ok(Ok(_)) => continue,
                // It answers, though with a refusal.
                Ok(Err(status)) if !is_broken(&status) => continue,
                Ok(Err(status)) => self.reason(&status).await,
                Err(_) => format!("it gave no answer for {} s", self.patience.answer.as_secs_f32()),
            };
            return Error::DaemonProtocol { action: "the build".into(), reason };
        }
    }
}

fn failed(status: &Status) -> Error {
    Error::DaemonProtocol { action: ASKING.into(), reason: told(status) }
}

/// Whether a status was made here, because the connection broke.
pub(super) fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// `None` for what an older BuildKit does not know.
fn optional<T>(answer: std::result::Result<T, Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        // dockerd before 24 lists these methods and has nothing behind them.
        Err(status) if std::error::Error::source(&status).is_none() => Ok(None),
        Err(status) => Err(failed(&status)),
    }
}

/// `v0.21.0-rc1` is 0.21; what is no number is a build from a branch, newer than any.
fn release(version: &str) -> Option<BuildkitVersion> {
    let mut parts = version.trim_start_matches('v').split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        // A build that nobody gave a number.
        (Some(Ok(0)), Some(Ok(0))) => None,
        (Some(Ok(major)), Some(Ok(minor))) => Some(BuildkitVersion { major, minor }),
        _ => None,
    }
}

fn worker(record: control::types::WorkerRecord) -> WorkerInfo {
    let label =
        |name: &str| record.labels.get(&format!("org.mobyproject.buildkit.worker.{name}")).cloned().unwrap_or_default();
    let platform = |platform: &bollard_buildkit_proto::pb::Platform| Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: Some(platform.variant.clone()).filter(|variant| !variant.is_empty()),
    };
    // Docker's names its own twice.
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in record.platforms.iter().map(platform) {
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    WorkerInfo {
        executor: label("executor"),
        snapshotter: label("snapshotter"),
        host: label("hostname"),
        platforms,
        id: record.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_there_once() {
        let platform = |architecture: &str| bollard_buildkit_proto::pb::Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            ..Default::default()
        };
        let platforms = ["amd64", "amd64", "386", "amd64"].map(platform).into();
        let worker = worker(control::types::WorkerRecord { platforms, ..Default::default() });
        assert_eq!(worker.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["linux/amd64", "linux/386"]);
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(release("v0.21.0-rc1"), Some(BuildkitVersion::v0(21)));
        assert_eq!(release("0.11.6+unknown"), Some(BuildkitVersion::v0(11)));
        assert_eq!((release("master"), release("v0.0.0+unknown")), (None, None));
    }
}
