//! What a build leaves behind.

use serde::Serialize;

use crate::digest::Digest;
use crate::reference::Reference;

/// The result of a successful build; also the content of `--metadata-file`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// `repository@sha256:...` of the pushed manifest, or the first tag where nothing was pushed, or the image id where
    /// there was no tag either.
    pub image: String,
    /// All tags that the image has now.
    pub tags: Vec<Reference>,
    /// Digest of the manifest in the registry; `None` where nothing was pushed.
    pub digest: Option<Digest>,
    /// Digest of the image config (the image id of the Docker CLI), where the builder tells it.
    pub config_digest: Option<Digest>,
    /// `docker`, ...
    pub engine: String,
    /// `buildkit` or `classic`.
    pub builder: String,
    /// The steps, in the order in which they ended.
    pub steps: Vec<StepOutcome>,
    /// Where the time and the bytes went.
    pub totals: Totals,
}

/// One step of a build.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StepOutcome {
    /// The step as the builder names it, e.g. `[2/5] RUN pip install -r requirements.txt`.
    pub name: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Whether the result came out of the cache.
    pub cached: bool,
}

/// Sums over a build. Times are wall seconds of phases that may overlap.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// From the call to its return.
    pub seconds: f64,
    /// Listing the context.
    pub context_seconds: f64,
    /// From the first step to the last.
    pub build_seconds: f64,
    /// From the first pushed byte to the manifest; 0 where a worker pushes, which is part of its build.
    pub push_seconds: f64,
    /// Files in the context.
    pub context_files: u64,
    /// Bytes in the context's files.
    pub context_bytes: u64,
    /// Bytes of the context that went to the builder; with a warm BuildKit only what changed.
    pub sent_bytes: u64,
    /// Bytes of the layers that went to the registry; 0 where a worker pushes, which does not tell.
    pub pushed_bytes: u64,
    /// Steps taken from the cache.
    pub cached_steps: u64,
    /// All steps.
    pub total_steps: u64,
}
