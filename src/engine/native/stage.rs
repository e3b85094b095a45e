//! One stage: its steps in order, each from the cache or done now.

use std::collections::HashMap;
use std::sync::Arc;

use super::base::Image;
use super::cache::Record;
use super::config;
use super::key::Key;
use super::layer::Layer;
use super::progress::Progress;
use super::run::Copied;
use super::shared::Shared;
use super::time;
use crate::digest::Digest;
use crate::dockerfile::{Action, Evaluated, Source, Span, StageId, Step};
use crate::error::{Error, Location, Result};
use crate::oci::media::Family;
use crate::oci::{History, ImageConfig};
use crate::outcome::StepOutcome;
use crate::platform::Platform;

/// What BuildKit says of each line of a history.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// A stage that was built, or is being built.
#[derive(Clone)]
pub(super) struct Stage {
    /// What it should do, and its configuration at the end.
    pub(super) evaluated: Arc<Evaluated>,
    /// The configuration that it began with.
    pub(super) base: ImageConfig,
    /// Its file system, the lowest layer first.
    pub(super) layers: Vec<Layer>,
    /// What its file system depends on: two stages with one key have the same files.
    pub(super) key: Digest,
    /// How it was made.
    pub(super) history: Vec<History>,
    /// When its last layer was made (RFC 3339).
    pub(super) created: Option<String>,
    /// What its base's media types are of.
    pub(super) family: Family,
}

impl Stage {
    /// A stage that begins with nothing.
    pub(super) fn empty(evaluated: Arc<Evaluated>) -> Self {
        let Platform { os, architecture, variant } = evaluated.platform.clone();
        Self {
            base: ImageConfig { architecture, os, variant, ..ImageConfig::default() },
            evaluated,
            layers: Vec::new(),
            key: Key::new("scratch").finish(),
            history: Vec::new(),
            created: None,
            family: Family::Oci,
        }
    }

    /// A stage that begins with an image. Of the image only its files count: not when it was made, nor its labels.
    pub(super) fn of_image(evaluated: Arc<Evaluated>, image: &Image) -> Self {
        Self {
            evaluated,
            base: image.config.clone(),
            layers: image.layers.clone(),
            key: image_key(&image.layers),
            history: image.config.history.clone(),
            created: image.config.created.clone(),
            family: image.family,
        }
    }

    /// A stage that begins with another one.
    pub(super) fn of_stage(evaluated: Arc<Evaluated>, stage: &Self) -> Self {
        Self { evaluated, base: config::to_image(&stage.base, &stage.evaluated), ..stage.clone() }
    }
}

/// What the files of an image depend on.
pub(super) fn image_key(layers: &[Layer]) -> Digest {
    layers.iter().fold(Key::new("image"), |key, layer| key.digest(&layer.diff_id)).finish()
}

/// What a stage sees of the rest of the build.
pub(super) struct Surroundings<'a> {
    pub(super) shared: &'a Shared,
    /// The stages that are done.
    pub(super) stages: &'a HashMap<StageId, Arc<Stage>>,
    /// Images, by what they are copied from as.
    pub(super) images: &'a HashMap<crate::dockerfile::Origin, Arc<Image>>,
    /// The Dockerfile's text.
    pub(super) source: &'a Source,
}

/// Builds one stage.
pub(super) struct Builder<'a> {
    pub(super) around: &'a Surroundings<'a>,
    pub(super) stage: Stage,
    pub(super) progress: Progress,
    /// Whether results of earlier builds may be used.
    use_cache: bool,
    /// The root of its last command, if that is a copy.
    pub(super) copied: Option<Copied>,
    outcomes: Vec<StepOutcome>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(around: &'a Surroundings<'a>, stage: Stage, progress: Progress, use_cache: bool) -> Self {
        Self { around, stage, progress, use_cache, copied: None, outcomes: Vec::new() }
    }

    /// Does all steps.
    pub(super) async fn run(mut self) -> Result<(Stage, Vec<StepOutcome>)> {
        let evaluated = Arc::clone(&self.stage.evaluated);
        let mut rest = evaluated.steps.as_slice();
        while let Some((step, following)) = rest.split_first() {
            self.around.shared.job.cancel.check()?;
            let folded = match &step.action {
                Action::Configure => {
                    self.note(step, true);
                    0
                }
                Action::MakeDirectory(make) => {
                    self.directory(step, make).await?;
                    0
                }
                Action::Copy(copy) => self.copy(step, copy, following).await?,
                Action::Run(run) => {
                    self.run_step(step, run).await?;
                    0
                }
            };
            rest = &following[folded..];
        }
        Ok((self.stage, self.outcomes))
    }

    /// Adds a line to the history.
    pub(super) fn note(&mut self, step: &Step, empty_layer: bool) {
        let Some(text) = &step.history else { return };
        self.stage.history.push(History {
            created: self.stage.created.clone(),
            created_by: Some(text.clone()),
            comment: Some(COMMENT.to_owned()),
            empty_layer,
            ..History::default()
        });
    }

    /// What the cache has for a step, if it may be used.
    pub(super) async fn find(&self, key: &Digest) -> Result<Option<(Record, Layer)>> {
        if !self.use_cache {
            return Ok(None);
        }
        self.around.shared.cache.find(&self.around.shared.client, key).await
    }

    /// Puts a layer on top.
    pub(super) fn add(&mut self, step: &Step, record: &Record, layer: Layer) {
        let epoch = self.around.shared.request.options.source_date_epoch;
        self.stage.created = Some(time::rfc3339(epoch.unwrap_or(record.created)));
        self.stage.layers.push(layer);
        self.stage.key = record.key;
        self.note(step, false);
    }

    /// Keeps a new layer in the cache, and puts it on top.
    pub(super) async fn keep(&mut self, step: &Step, key: Digest, layer: Layer) -> Result<()> {
        let record = Record::new(&layer, key, time::now(), &step.text);
        self.around.shared.cache.keep(key, record.clone()).await?;
        self.add(step, &record, layer);
        Ok(())
    }

    pub(super) fn outcome(&mut self, outcome: StepOutcome) {
        self.outcomes.push(outcome);
    }

    /// Where a step stands in the Dockerfile.
    pub(super) fn place(&self, step: &Step) -> Location {
        place(self.around.source, step.span)
    }

    /// A step that cannot be done here.
    pub(super) fn unsupported(&self, step: &Step, message: String) -> Error {
        Error::StepUnsupported { location: Box::new(self.place(step)), message }
    }
}

/// Where some lines stand in the Dockerfile.
pub(super) fn place(source: &Source, span: Span) -> Location {
    source.location(span, None)
}
