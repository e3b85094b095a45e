//! One build: the session and the request side by side, until the daemon has an image or an error.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bytes::Bytes;
use control::{ListWorkersRequest, SolveRequest, SolveResponse, StatusRequest, StatusResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::attrs::{self, BuildkitVersion, NamedContext};
use super::connection::{Connection, is_broken};
use super::content::Stores;
use super::context_dir::ContextDir;
use super::dockerfile::Dockerfile;
use super::failure::{self, Failure};
use super::filesend::Target;
use super::session::{Session, SessionSpec, shared_key};
use super::source::{MemoryDir, SyncDir};
use super::status::Steps;
use super::transport::Control;
use crate::cancel::Cancel;
use crate::context::{Context, Index};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::outcome::StepOutcome;
use crate::request::{BuildOptions, ContextSpec, DockerfileSpec, Job};

/// The last status messages come after the answer; when none comes for this long, there are no more.
const STATUS_QUIET: Duration = Duration::from_secs(2);

/// A build whose session has ended fails by itself within this time, with its own words.
const SESSION_GRACE: Duration = Duration::from_secs(5);

/// What to build.
pub struct Build<'a> {
    /// The context, with its Dockerfile.
    pub context: Arc<Context>,
    /// The root of the context, which names it to the daemon.
    pub root: Option<&'a std::path::Path>,
    /// How to build. Tags and pushing are the caller's.
    pub options: &'a BuildOptions,
    /// What to make of the result. Before 0.13 there is one.
    pub exporters: Vec<Exporter>,
    /// Caches and images in directories that the options name, by BuildKit's names for them.
    pub stores: Stores,
    /// Which BuildKit this is, as far as is known: it decides what would be silently ignored.
    pub version: BuildkitVersion,
    /// Names the engine in errors.
    pub engine: &'a str,
    /// Names this build where others are part of the same image: its platforms.
    pub part: Option<&'a str>,
    /// Where what files hashed to the last time is kept, and how registries are reached.
    pub environment: &'a Environment,
}

/// What to make of the result.
#[derive(Clone, Debug, Default)]
pub struct Exporter {
    /// `moby` for the image store of a Docker daemon, `image`, ...
    pub kind: String,
    /// Its attributes, e.g. `name`.
    pub attrs: BTreeMap<String, String>,
    /// Where its result goes, if it sends one.
    pub target: Option<Target>,
}

impl Exporter {
    fn as_asked(&self) -> control::Exporter {
        control::Exporter { r#type: self.kind.clone(), attrs: self.attrs.clone().into_iter().collect() }
    }
}

/// A build that succeeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Solved {
    /// What the exporter says, e.g. `containerimage.digest`.
    pub response: BTreeMap<String, String>,
    /// The steps, in the order in which they ended.
    pub steps: Vec<StepOutcome>,
    /// From the first step's start to the last one's end.
    pub seconds: f64,
    /// Files of the contexts that the daemon did not have yet.
    pub sent_files: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Of the Dockerfile's instructions, those that came out of the cache.
    pub cached_steps: u64,
    /// The Dockerfile's instructions that were steps of this build.
    pub total_steps: u64,
}

/// Builds. On cancellation, and when the future is dropped, the daemon is told at once by both connections ending.
///
/// Fails with `StepFailed`, `Dockerfile`, `BaseMissing`, `RegistryDenied`, `RegistryUnreachable`, `NoSpace`,
/// `BuildFailed`, `Unsupported`, `InvalidOption`, `DaemonRefused`, `DaemonProtocol`, `Interrupted`, and with the errors of
/// the context, of secrets, of SSH agents and of credentials.
pub async fn build(connection: &Connection, build: Build<'_>, job: &Job) -> Result<Solved> {
    job.cancel.guard(Box::pin(run(connection, &build, job))).await
}

async fn run(connection: &Connection, build: &Build<'_>, job: &Job) -> Result<Solved> {
    let context = build.context.clone();
    let text = blocking(move || context.dockerfile()).await?;
    let dockerfile = Dockerfile::parse(&text.name, &text.text);
    if let Some(missing) = attrs::unsupported(build.options, build.version, dockerfile.has_syntax()) {
        let feature = missing.feature.to_owned();
        return Err(Error::Unsupported { engine: build.engine.to_owned(), feature, reason: missing.reason });
    }
    warn_ignored(build, &dockerfile, job).await;
    attrs::check_caches(build.options, &build.stores)?;
    let contexts = attrs::named_contexts(build.options, &build.stores)?;
    let filename = file_name(&text.name);
    let dirs = directories(build, &contexts, filename, text.text, &job.cancel).await?;
    let session = Session::new(SessionSpec {
        dirs,
        secrets: &build.options.secrets,
        ssh: &build.options.ssh,
        credentials: job.credentials.clone(),
        environment: build.environment,
        targets: (0..).zip(&build.exporters).filter_map(|(id, one)| Some((id, one.target.clone()?))).collect(),
        stores: build.stores.clone(),
        shared_key: shared_key(build.root),
    })
    .await?;
    let mut client = connection.client();
    let mut frontend_attrs = attrs::frontend_attrs(build.options, &contexts, filename)?;
    if build.options.add_hosts.values().any(|address| address == HOST_GATEWAY) {
        let gateway = host_gateway(&mut client).await.map_err(|reason| Error::Unsupported {
            engine: build.engine.to_owned(),
            feature: "resolve `host-gateway`".into(),
            reason,
        })?;
        if let Some(hosts) = frontend_attrs.get_mut("add-hosts") {
            *hosts = hosts.replace(&format!("={HOST_GATEWAY}"), &format!("={gateway}"));
        }
    }
    let request = solve_request(build, session.hello().id.clone(), frontend_attrs);
    let stream = connection.transport.attach(connection.client(), session.hello()).await?;
    let session = Arc::new(session);
    let served = session.clone();
    // Ends when this function does, in whichever way.
    let (ended, session_end) = watch::channel(None);
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        let reason = served.serve(stream).await.err().map(|error| match error {
            Error::DaemonProtocol { reason, .. } => reason,
            other => other.to_string(),
        });
        ended.send_replace(Some(reason.unwrap_or_else(|| "the daemon ended the session".to_owned())));
    }));
    let mut steps = Steps::new(job.events.clone(), build.part);
    let result = tokio::select! {
        result = solve(client, request, &mut steps) => Ok(result),
        lost = connection.lost() => Err(lost),
        lost = session_lost(session_end.clone()) => Err(lost),
    };
    let reason = session_end.borrow().clone();
    let result = match (result, reason) {
        // Without its session a build fails, and whatever it then says is not the reason.
        (Ok(Err(_)), Some(reason)) => Err(Error::DaemonProtocol { action: "the build".into(), reason }),
        (Ok(Err(status)), None) if is_broken(&status) => {
            Err(Error::DaemonProtocol { action: "the build".into(), reason: connection.reason(&status).await })
        }
        (other, _) => other,
    };
    if result.is_err() {
        steps.abandon("the connection to the daemon was lost").await;
    }
    finish(result?, &steps, &session, &dockerfile)
}

/// Ends a while after the session has: the daemon may have ended both, and its answer is on the way.
async fn session_lost(mut end: watch::Receiver<Option<String>>) -> Error {
    let reason = match end.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or_default(),
        Err(_) => "the session was given up".to_owned(),
    };
    tokio::time::sleep(SESSION_GRACE).await;
    Error::DaemonProtocol { action: "the build".into(), reason }
}

fn finish(
    result: Result<SolveResponse, Status>,
    steps: &Steps,
    session: &Session,
    dockerfile: &Dockerfile,
) -> Result<Solved> {
    let response = result.map_err(|status| {
        failure::explain(Failure {
            status: &status,
            steps,
            dockerfile,
            trouble: std::iter::from_fn(|| session.trouble().take()).collect(),
            no_text: session.sent().no_text.get().map(Vec::as_slice),
            had_credentials: &|registry| session.gave_credentials(registry),
        })
    })?;
    let (total_steps, cached_steps) = steps.counts();
    Ok(Solved {
        response: response.exporter_response.into_iter().collect(),
        steps: steps.outcomes(),
        seconds: steps.seconds(),
        sent_files: session.sent().files.load(Ordering::Relaxed),
        sent_bytes: session.sent().bytes.load(Ordering::Relaxed),
        cached_steps,
        total_steps,
    })
}

/// The daemon looks for the Dockerfile in a directory of its own, under the last part of its name.
fn file_name(name: &str) -> &str {
    match name.rsplit('/').next() {
        Some(last) if !last.is_empty() && last != "-" => last,
        _ => "Dockerfile",
    }
}

async fn warn_ignored(build: &Build<'_>, dockerfile: &Dockerfile, job: &Job) {
    if build.options.source_date_epoch.is_none() {
        return;
    }
    let rewrites = |exporter: &Exporter| exporter.attrs.contains_key("rewrite-timestamp");
    let message = if build.version < BuildkitVersion::v0(11) && !dockerfile.has_syntax() {
        "source_date_epoch is passed to the build, but this BuildKit sets no times in the image: it is older than 0.11"
    } else if !build.exporters.iter().any(rewrites) {
        "source_date_epoch sets the times of the image, but its files keep theirs: a buildkitd changes them since BuildKit 0.13"
    } else {
        return;
    };
    job.events.send(Event::Warning { code: "option-ignored".into(), message: message.into() }).await;
}

/// What the session serves: `context`, `dockerfile`, and each named context that is a directory here.
async fn directories(
    build: &Build<'_>,
    contexts: &BTreeMap<String, NamedContext>,
    filename: &str,
    text: Bytes,
    cancel: &Cancel,
) -> Result<HashMap<String, Arc<dyn SyncDir>>> {
    // The ignore file has been applied already. A daemon that found one would apply it again, to the extra files too;
    // one that finds this does not look further.
    let no_ignore = (format!("{filename}.dockerignore"), Bytes::from_static(b"# Applied by the sender.\n"));
    let dockerfile = MemoryDir::new([(filename.to_owned(), text), no_ignore]);
    let index = Index::of_user(build.environment);
    let mut dirs: HashMap<String, Arc<dyn SyncDir>> = HashMap::new();
    dirs.insert("context".into(), Arc::new(ContextDir::new(build.context.clone(), index.clone())));
    dirs.insert("dockerfile".into(), Arc::new(dockerfile));
    for (name, context) in contexts {
        let NamedContext::Local(root) = context else { continue };
        // Here it is the daemon that reads the ignore file and sends the patterns back.
        let spec =
            ContextSpec { root: Some(root.clone()), ignore_file: Some("/dev/null".into()), ..ContextSpec::default() };
        let cancel = cancel.clone();
        let opened = blocking(move || Context::open(&spec, &DockerfileSpec::Text(String::new()), &cancel)).await?;
        dirs.insert(name.clone(), Arc::new(ContextDir::new(Arc::new(opened), index.clone())));
    }
    Ok(dirs)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
}

fn solve_request(build: &Build<'_>, session: String, frontend_attrs: HashMap<String, String>) -> SolveRequest {
    let exporters: Vec<control::Exporter> = build.exporters.iter().map(Exporter::as_asked).collect();
    let first = exporters.first().cloned().unwrap_or_default();
    SolveRequest {
        // The session's id is as unique as a build's must be.
        r#ref: session.clone(),
        session,
        frontend: "dockerfile.v0".into(),
        frontend_attrs,
        // Daemons before BuildKit 0.13 read only the older fields, later ones prefer the newer.
        exporter_deprecated: first.r#type,
        exporter_attrs_deprecated: first.attrs,
        exporters,
        cache: Some(attrs::cache_options(build.options)),
        entitlements: attrs::entitlements(build.options),
        ..SolveRequest::default()
    }
}

/// The address that an `--add-host` may have in place of a number.
const HOST_GATEWAY: &str = "host-gateway";

/// The address of the machine that runs the daemon, as seen from a container.
async fn host_gateway(client: &mut Control) -> Result<String, String> {
    const LABEL: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";
    let workers = client.list_workers(ListWorkersRequest::default()).await.map_err(|status| status.to_string())?;
    let mut labels = workers.into_inner().record.into_iter().filter_map(|mut worker| worker.labels.remove(LABEL));
    labels.find(|address| !address.is_empty()).ok_or_else(|| "the daemon does not tell the address".into())
}

async fn solve(mut client: Control, request: SolveRequest, steps: &mut Steps) -> Result<SolveResponse, Status> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let watching = read_status(client.clone(), request.r#ref.clone(), sender);
    let _watching = AbortOnDropHandle::new(tokio::spawn(watching));
    let mut answer = pin!(client.solve(request));
    let mut result = None;
    let mut quiet_at = Instant::now();
    let mut open = true;
    while open || result.is_none() {
        tokio::select! {
            status = receiver.recv(), if open => match status {
                Some(status) => {
                    steps.apply(status).await;
                    quiet_at = Instant::now() + STATUS_QUIET;
                }
                None => open = false,
            },
            answer = &mut answer, if result.is_none() => {
                result = Some(answer);
                quiet_at = Instant::now() + STATUS_QUIET;
            }
            () = tokio::time::sleep_until(quiet_at), if result.is_some() => break,
        }
    }
    result.unwrap_or_else(|| Err(Status::internal("no answer"))).map(tonic::Response::into_inner)
}

/// Takes messages off the connection as they come, whatever the receiver of events does: see
/// [`CONNECTION_WINDOW`](super::transport). BuildKit limits what a step may print, so the queue is bounded by that.
async fn read_status(mut client: Control, r#ref: String, sender: mpsc::UnboundedSender<StatusResponse>) {
    // Errors of this call come out of `Solve` as well, or mean that there was no build to watch.
    let Ok(stream) = client.status(StatusRequest { r#ref }).await else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(status)) = stream.message().await {
        if sender.send(status).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_goes_by_its_last_name() {
        let cases = [("Dockerfile", "Dockerfile"), ("docker/Dockerfile.prod", "Dockerfile.prod"), ("-", "Dockerfile")];
        for (name, expected) in cases {
            assert_eq!(file_name(name), expected);
        }
    }
}
