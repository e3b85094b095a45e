//! The context of a build, opened, and what is said of it.

use std::sync::Arc;
use std::time::Instant;

use super::blocking;
use crate::context::{Context, DockerfileText, Overview, Size};
use crate::error::Result;
use crate::event::{Event, Largest};
use crate::request::{BuildRequest, Job};

/// A context that was opened, and what is said of it.
pub(super) struct Opened {
    pub(super) context: Arc<Context>,
    pub(super) file: DockerfileText,
    overview: Overview,
    pub(super) seconds: f64,
}

impl Opened {
    /// Lists the context of a request, and reads the Dockerfile.
    pub(super) async fn of(request: &BuildRequest, job: &Job) -> Result<Self> {
        let started = Instant::now();
        let (spec, dockerfile, cancel) = (request.context.clone(), request.dockerfile.clone(), job.cancel.clone());
        blocking(move || {
            let context = Context::open(&spec, &dockerfile, &cancel)?;
            let file = context.dockerfile()?;
            let overview = context.overview(&cancel)?;
            Ok(Self { context: Arc::new(context), file, overview, seconds: started.elapsed().as_secs_f64() })
        })
        .await
    }

    /// Says what goes in, and what is odd about it.
    pub(super) async fn announce(&self, job: &Job) {
        let Overview { root, ignore_file, summary, largest, warnings, hint } = self.overview.clone();
        let largest = largest.map(|Size { path, directory, bytes, .. }| Largest { path, directory, bytes });
        job.events
            .send(Event::Context {
                root,
                ignore_file,
                files: summary.files,
                bytes: summary.bytes,
                excluded: summary.excluded,
                extra_files: summary.extra_files,
                largest,
                seconds: self.seconds,
            })
            .await;
        for warning in &warnings {
            let code = warning.code().to_owned();
            job.events.send(Event::Warning { code, message: warning.to_string() }).await;
        }
        if !warnings.is_empty() {
            job.events.send(Event::Notice { message: hint.to_owned() }).await;
        }
        for notice in self.context.notices() {
            job.events.send(Event::Notice { message: notice.to_string() }).await;
        }
    }
}
