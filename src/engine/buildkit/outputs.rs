//! Where the result of a build goes: exporters for all of it, and who takes what they send.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::deliveries::{ArchiveFile, Delivery, Files, IntoDaemon, Kept, LayoutDirectory};
use super::exporters;
use super::worker::Ready;
use crate::buildkit::Exporter;
use crate::buildkit::attrs::BuildkitVersion;
use crate::buildkit::filesend::{Receive, Target};
use crate::daemon::{Daemon, find};
use crate::engine::blocking;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::request::{BuildOptions, BuildRequest, EngineSpec, Job, Output};

/// A build may have several exporters since.
const SEVERAL: BuildkitVersion = BuildkitVersion::v0(13);

/// What is made of the result besides pushing it.
#[derive(Default)]
pub(super) struct Outputs {
    /// What the worker is asked for.
    pub(super) exporters: Vec<Exporter>,
    deliveries: Vec<Delivery>,
    /// What to tell the user in the end.
    notice: Option<String>,
}

/// What outputs depend on.
pub(super) struct Wanted<'a> {
    pub(super) request: &'a BuildRequest,
    /// The request's options as the worker gets them.
    pub(super) options: &'a BuildOptions,
    pub(super) environment: &'a Arc<Environment>,
    pub(super) job: &'a Job,
}

impl Outputs {
    /// For a worker that is a buildkitd. Files are begun at once, so that those that cannot be written are known before
    /// anything is built.
    ///
    /// Fails with `Unsupported`, `InvalidOption`, `OutputFailed`, and as [`find`] does where a daemon is an output.
    pub(super) async fn of_buildkitd(wanted: &Wanted<'_>, ready: &Ready) -> Result<Self> {
        let request = wanted.request;
        let mut outputs = Self::default();
        if request.outputs.is_empty() && !request.push {
            outputs.by_default(wanted, ready).await?;
        }
        for (number, output) in request.outputs.iter().enumerate() {
            // The same place twice is the same output.
            if !request.outputs[..number].iter().any(|other| is_same(other, output)) {
                outputs.add(wanted, ready, output).await?;
            }
        }
        let several = outputs.exporters.len() + usize::from(request.push) > 1;
        if several && ready.version < SEVERAL {
            return Err(unsupported(
                "write several outputs at once",
                format!("it needs BuildKit 0.13, the worker has {}", ready.version_text()),
            ));
        }
        Ok(outputs)
    }

    /// For the BuildKit inside a Docker daemon. It keeps images in that daemon.
    pub(super) async fn of_docker(wanted: &Wanted<'_>, daemon: &Daemon, version: BuildkitVersion) -> Result<Self> {
        let mut outputs = Self::default();
        for output in &wanted.request.outputs {
            match output {
                // Where the image is anyway.
                Output::Docker { dest: None } | Output::Store => {}
                Output::Local { dest } => outputs.files(dest).await?,
                Output::Oci { .. } | Output::Docker { dest: Some(_) } => {
                    let reason = format!(
                        "the BuildKit inside {} keeps its images there; a buildkitd can, and so can `--engine native`",
                        daemon.product().name()
                    );
                    return Err(unsupported("write an image to a file", reason));
                }
            }
        }
        let several = outputs.exporters.len() + usize::from(is_image_wanted(wanted.request)) > 1;
        if several && version < SEVERAL {
            let reason = "BuildKit inside Docker makes one thing of a build before Docker 25".into();
            return Err(unsupported("write several outputs at once", reason));
        }
        Ok(outputs)
    }

    /// An image that goes nowhere else can be run if a daemon of this machine has it.
    async fn by_default(&mut self, wanted: &Wanted<'_>, ready: &Ready) -> Result<()> {
        let Wanted { request, options, environment, job } = *wanted;
        let worker = &ready.text;
        if let Some(name) = request.tags.first()
            && no_docker_image(options).is_none()
        {
            match local_daemon(environment, job).await {
                Ok(daemon) => {
                    self.notice = Some(format!("{name} was loaded into {}", daemon.product().name()));
                    return self.daemon(wanted, ready, daemon);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(_) => {}
            }
        }
        self.exporters.push(exporters::store(&request.tags, options, ready.version)?);
        let what = request.tags.first().map_or_else(|| "the image has no name, and".to_owned(), ToString::to_string);
        let message = format!("{what} is only in the cache of {worker}; `--push` and `--output` bring it elsewhere");
        self.notice = Some(message);
        Ok(())
    }

    async fn add(&mut self, wanted: &Wanted<'_>, ready: &Ready, output: &Output) -> Result<()> {
        let Wanted { request, options, environment, job } = *wanted;
        match output {
            Output::Local { dest } => self.files(dest).await,
            // What is pushed is kept as well.
            Output::Store if request.push => Ok(()),
            Output::Store => {
                self.exporters.push(exporters::store(&request.tags, options, ready.version)?);
                Ok(())
            }
            Output::Oci { dest, tar } => {
                let is_archive = tar.unwrap_or_else(|| dest.extension().is_some_and(|extension| extension == "tar"));
                let target: Arc<dyn Receive> = if is_archive {
                    self.archive(dest).await?
                } else {
                    let layout = Arc::new(LayoutDirectory::new(dest, &job.cancel));
                    self.deliveries.push(Delivery::Layout(Arc::clone(&layout)));
                    layout
                };
                let exporter = exporters::oci(&request.tags, options, ready.version)?;
                self.exporters.push(Exporter { target: Some(Target::Stream(target)), ..exporter });
                Ok(())
            }
            Output::Docker { dest: Some(dest) } => {
                let exporter = Self::docker_exporter(wanted, ready)?;
                let target: Arc<dyn Receive> = self.archive(dest).await?;
                self.exporters.push(Exporter { target: Some(Target::Stream(target)), ..exporter });
                Ok(())
            }
            Output::Docker { dest: None } => {
                let daemon = local_daemon(environment, job).await?;
                self.daemon(wanted, ready, daemon)
            }
        }
    }

    fn daemon(&mut self, wanted: &Wanted<'_>, ready: &Ready, daemon: Daemon) -> Result<()> {
        let exporter = Self::docker_exporter(wanted, ready)?;
        let into = Arc::new(IntoDaemon::new(daemon, &wanted.job.cancel));
        self.deliveries.push(Delivery::Daemon(Arc::clone(&into)));
        self.exporters.push(Exporter { target: Some(Target::Stream(into)), ..exporter });
        Ok(())
    }

    fn docker_exporter(wanted: &Wanted<'_>, ready: &Ready) -> Result<Exporter> {
        if let Some((feature, reason)) = no_docker_image(wanted.options) {
            return Err(unsupported(feature, reason.into()));
        }
        exporters::docker(&wanted.request.tags, wanted.options, ready.version)
    }

    async fn archive(&mut self, dest: &Path) -> Result<Arc<ArchiveFile>> {
        let path = dest.to_owned();
        let archive = Arc::new(blocking(move || ArchiveFile::create(&path)).await?);
        self.deliveries.push(Delivery::Archive(Arc::clone(&archive)));
        Ok(archive)
    }

    async fn files(&mut self, dest: &Path) -> Result<()> {
        let path = dest.to_owned();
        let files = blocking(move || Files::create(&path)).await?;
        let target = Some(Target::Folder(Arc::clone(&files.folder)));
        self.exporters.push(Exporter { kind: "local".into(), target, ..Exporter::default() });
        self.deliveries.push(Delivery::Files(files));
        Ok(())
    }

    /// Gives everything its name, once the build has succeeded, and tells what there is to be told. The result is what a daemon
    /// calls the image that was loaded into it.
    pub(super) async fn keep(self, job: &Job) -> Result<Option<String>> {
        let Self { deliveries, notice, .. } = self;
        let keep = move || deliveries.iter().map(Delivery::keep).collect::<Result<Vec<_>>>();
        let mut name = None;
        let mut messages = Vec::new();
        for Kept { left_out, loaded } in blocking(keep).await? {
            name = loaded.or(name);
            messages.extend(left_out);
        }
        for message in messages.into_iter().chain(notice) {
            job.events.send(Event::Notice { message }).await;
        }
        Ok(name)
    }
}

/// Whether a Docker daemon has to make an image: always, unless nothing but files is asked for.
pub(super) fn is_image_wanted(request: &BuildRequest) -> bool {
    let is_files = |output: &Output| matches!(output, Output::Local { .. });
    request.push || request.outputs.is_empty() || !request.outputs.iter().all(is_files)
}

/// The daemon that the Docker command line would use: the request's own endpoints are workers.
async fn local_daemon(environment: &Arc<Environment>, job: &Job) -> Result<Daemon> {
    job.cancel.guard(find(&EngineSpec::default(), environment, &mut Vec::new())).await
}

/// Why an image cannot be what `docker load` takes.
fn no_docker_image(options: &BuildOptions) -> Option<(&'static str, &'static str)> {
    let reason = "an archive for `docker load` holds one image and nothing else; `--output type=oci` can";
    if options.platforms.len() > 1 {
        return Some(("bring images for several platforms into Docker", reason));
    }
    let attached = [
        ("bring attestations into Docker", !options.attestations.is_empty()),
        ("bring annotations into Docker", !options.annotations.is_empty()),
    ];
    attached.into_iter().find_map(|(feature, given)| given.then_some((feature, reason)))
}

/// Where an output is written to.
fn destination(output: &Output) -> Option<&PathBuf> {
    match output {
        Output::Oci { dest, .. } | Output::Local { dest } | Output::Docker { dest: Some(dest) } => Some(dest),
        Output::Docker { dest: None } | Output::Store => None,
    }
}

/// What a result is called that has neither a name nor an identity: where it was written to.
pub(super) fn place(request: &BuildRequest) -> String {
    let mut places = request.outputs.iter().filter_map(destination);
    places.next().map(|place| place.display().to_string()).unwrap_or_default()
}

fn is_same(left: &Output, right: &Output) -> bool {
    let place =
        |output: &Output| destination(output).map(|dest| std::path::absolute(dest).unwrap_or_else(|_| dest.clone()));
    std::mem::discriminant(left) == std::mem::discriminant(right) && place(left) == place(right)
}

fn unsupported(feature: &str, reason: String) -> Error {
    Error::Unsupported { engine: "the BuildKit engine".into(), feature: feature.into(), reason }
}
