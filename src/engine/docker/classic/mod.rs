//! The classic builder: `POST /build` with the context as an archive. Podman answers it too, with Buildah behind.

mod archive;
mod failure;
mod query;
mod steps;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use http::header::CONTENT_TYPE;

use self::steps::Steps;
use super::instructions;
use super::{Built, Plan};
use crate::buildkit::dockerfile::Dockerfile;
use crate::context::Format;
use crate::daemon::address::Address;
use crate::daemon::messages::{Message, Messages};
use crate::daemon::{Daemon, Product};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::moby::auth::{Lenient, registry_config};
use crate::moby::is_loopback;
use crate::reference::Reference;
use crate::request::{CacheSpec, Credentials, Job};

/// What the daemon is doing, in errors.
const ACTION: &str = "the build";

/// Builds an image without a name.
///
/// The connection closes when this future is dropped; the daemon then stops the build and removes its container.
pub(super) async fn build(daemon: &Daemon, plan: &Plan<'_>, job: &Job) -> Result<Built> {
    let format = if pays_to_compress(daemon.api.dialer().address()) { Format::TarGz } else { Format::Tar };
    let archive = archive::prepare(plan, format, daemon.product).await?;
    let credentials = Lenient::new(Arc::clone(&job.credentials));
    let header = pull_credentials(daemon, plan, &credentials).await?;
    let query = query::query(plan.options, &plan.options.build_args, &archive.dockerfile_path, daemon.product)?;
    let started = Instant::now();
    let (body, upload) = upload::start(Arc::clone(&plan.context), archive.options, &job.cancel);
    let mut request =
        daemon.api.request(Method::POST, &format!("/build?{query}")).header(CONTENT_TYPE, "application/x-tar");
    if let Some(header) = header {
        request = request.header("X-Registry-Config", header);
    }
    let request = request.body(body).map_err(|error| Error::internal(error.to_string()))?;
    let exchange = match daemon.api.open(request, ACTION).await {
        Ok(exchange) => exchange,
        Err(error) => return Err(failure::refused(upload.blame(error).await, &plan.dockerfile)),
    };
    let messages = Messages::new(&daemon.api, exchange, ACTION, None);
    let mut run = Run { steps: Steps::default(), image: None, job };
    if let Err(error) = run.follow(messages, &plan.dockerfile, &credentials).await {
        return Err(credentials.blame(error).await);
    }
    let image = run.image()?;
    let packed = upload.finish().await?;
    Ok(Built {
        image,
        config_digest: None,
        cached_steps: run.steps.done.iter().filter(|step| step.cached).count() as u64,
        total_steps: run.steps.done.len() as u64,
        steps: run.steps.done,
        seconds: started.elapsed().as_secs_f64(),
        sent_bytes: packed.bytes_out,
    })
}

/// Gzip packs some 50 MB/s on a core: worth it on most networks, never on this machine. Daemons before 23 know no zstd.
fn pays_to_compress(address: &Address) -> bool {
    match address {
        Address::Unix(_) => false,
        Address::Tcp { host, .. } => !is_loopback(host),
        Address::Ssh(_) => true,
    }
}

/// `X-Registry-Config` with what is known for the registries of images that must be pulled. Nobody is asked for others.
async fn pull_credentials(daemon: &Daemon, plan: &Plan<'_>, credentials: &Lenient) -> Result<Option<String>> {
    let options = plan.options;
    let mut images = instructions::base_images(&plan.dockerfile, &options.build_args);
    if daemon.product == Product::Podman {
        // Docker's classic builder looks for these among its own images only.
        images.extend(options.cache_from.iter().filter_map(image));
    }
    let mut found = BTreeMap::new();
    for image in images {
        if found.contains_key(image.registry()) {
            continue;
        }
        let here = !options.pull && daemon.api.docker.inspect_image(&image.to_string()).await.is_ok();
        if !here && let Some(credential) = credentials.get(image.registry(), false).await? {
            found.insert(image.registry().to_owned(), credential);
        }
    }
    Ok((!found.is_empty()).then(|| registry_config(&found)))
}

/// The image that a cache is; the classic builder has no other caches.
fn image(cache: &CacheSpec) -> Option<Reference> {
    if let CacheSpec::Image(reference) = cache { Some(reference.clone()) } else { None }
}

/// A build that runs.
struct Run<'a> {
    steps: Steps,
    image: Option<String>,
    job: &'a Job,
}

impl Run<'_> {
    /// Tells what happens until the end.
    async fn follow(
        &mut self,
        mut messages: Messages<'_>,
        dockerfile: &Dockerfile,
        credentials: &Lenient,
    ) -> Result<()> {
        while let Some(message) = messages.next().await? {
            if let Some((text, code)) = message.failure() {
                let known = credentials.known().await;
                let error = failure::error(&text, code, &self.steps, dockerfile, |registry| known.contains(registry));
                let last = self.steps.end(Some(text));
                self.send(last.into_iter().collect()).await;
                return Err(error);
            }
            self.take(&message).await;
        }
        let last = self.steps.end(None);
        self.send(last.into_iter().collect()).await;
        Ok(())
    }

    async fn take(&mut self, message: &Message) {
        if let Some(id) = message.aux.as_ref().and_then(|aux| aux.get("ID")).and_then(|id| id.as_str()) {
            self.image = Some(id.to_owned());
        }
        if let Some(text) = &message.stream {
            let events = self.steps.text(text);
            self.send(events).await;
        }
        // The pull of a base image: the progress of one layer, or a line.
        if let (Some(status), Some(step)) = (&message.status, &self.steps.current) {
            let layer = message.id.as_deref().unwrap_or_default();
            let event = match message.counts() {
                (0, 0) => {
                    let line = if layer.is_empty() { format!("{status}\n") } else { format!("{layer}: {status}\n") };
                    Event::StepLog { id: step.id.clone(), stream: 1, text: line }
                }
                (current, total) => {
                    Event::StepProgress { id: step.id.clone(), name: format!("{status} {layer}"), current, total }
                }
            };
            self.job.events.send(event).await;
        }
    }

    async fn send(&self, events: Vec<Event>) {
        for event in events {
            self.job.events.send(event).await;
        }
    }

    /// The image's id; without it the stream was cut before the end.
    fn image(&self) -> Result<String> {
        self.image.clone().or_else(|| self.steps.built.clone()).ok_or_else(|| Error::DaemonProtocol {
            action: ACTION.into(),
            reason: "the daemon stopped before it named the image; it may have been restarted".into(),
        })
    }
}
