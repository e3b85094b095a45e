//! The instructions that make layers.

use std::sync::Arc;

use super::copy::{self, Failure, Owner, Selection, ViewFiles};
use super::fold;
use super::key::Key;
use super::progress::{Ran, Running};
use super::stage::{Builder, image_key};
use super::trees::Trees;
use super::why::Trace;
use crate::digest::Digest;
use crate::dockerfile::step::{CopyStep, MakeDirectory};
use crate::dockerfile::{Origin, Step};
use crate::engine::blocking;
use crate::error::Result;
use crate::layer::LayerEntry;
use crate::mtime::Mtime;
use crate::rootfs::View;

/// What COPY and ADD take, and where the bytes of it are.
struct Taken {
    selection: Selection,
    trees: Arc<Trees>,
}

impl Builder<'_> {
    /// The latest time that a file may have.
    pub(super) fn clamp(&self) -> Option<Mtime> {
        let epoch = self.around.shared.request.options.source_date_epoch?;
        Some(Mtime { seconds: i64::try_from(epoch).unwrap_or(i64::MAX), nanoseconds: 0 })
    }

    /// The files of this stage.
    async fn view(&self) -> Result<View> {
        self.around.shared.view(&self.stage.layers).await
    }

    /// WORKDIR.
    pub(super) async fn directory(&mut self, step: &Step, make: &MakeDirectory) -> Result<()> {
        let running = self.progress.begin(&step.text).await;
        let ran = self.directory_step(step, make, &running).await;
        self.end(running, ran).await
    }

    /// Ends a step, however it went.
    pub(super) async fn end(&mut self, running: Running, ran: Result<Ran>) -> Result<()> {
        match ran {
            Ok(ran) => {
                let outcome = running.end(ran).await;
                self.outcome(outcome);
                Ok(())
            }
            Err(error) => {
                running.fail(&error).await;
                Err(error)
            }
        }
    }

    async fn directory_step(&mut self, step: &Step, make: &MakeDirectory, running: &Running) -> Result<Ran> {
        let key = Key::new("directory").digest(&self.stage.key).text(&make.path).text(&make.user);
        let key = key.value(&self.clamp().map(|time| time.seconds)).finish();
        if let Some((record, layer)) = self.find(&key).await? {
            self.add(step, &record, layer);
            return Ok(Ran::Cached);
        }
        let view = self.view().await?;
        let owner = self.owner(step, &make.user, &view)?;
        let entries = copy::make_directory(make, &files(&view), owner, self.clamp());
        let entries = entries.map_err(|mistake| Failure::Mistake(mistake).at(|near| self.place_of(step, near)))?;
        let layer = self.around.shared.write_layer(entries, &step.text, running).await?;
        self.keep(step, key, layer).await?;
        Ok(Ran::Done)
    }

    /// Whom a name or number means in this stage. A name that is not known there is root's, as in `BuildKit`; it is told.
    fn owner(&self, step: &Step, text: &str, view: &View) -> Result<Owner> {
        if text.is_empty() {
            return Ok(Owner::default());
        }
        let found = copy::owner(text, view)?;
        match found.unknown.as_slice() {
            [] => Ok(found.owner),
            names => {
                let names = names.join("`, `");
                let message = format!("`{}`: the base image knows no `{names}`; root is taken instead", step.text);
                self.around
                    .shared
                    .job
                    .events
                    .offer(crate::event::Event::Warning { code: "copy-failed".into(), message });
                Ok(found.owner)
            }
        }
    }

    pub(super) fn place_of(&self, step: &Step, near: Option<&str>) -> crate::error::Location {
        self.around.source.location(step.span, near)
    }

    /// COPY and ADD. How many of the following steps are done with it.
    pub(super) async fn copy(&mut self, step: &Step, copy: &CopyStep, following: &[Step]) -> Result<usize> {
        let running = self.progress.begin(&step.text).await;
        let copied = self.copy_step(step, copy, following, &running).await;
        let (ran, folded) = *copied.as_ref().unwrap_or(&(Ran::Done, 0));
        self.end(running, copied.map(|(ran, _)| ran)).await?;
        for step in &following[..folded] {
            self.skip(step, ran).await;
        }
        Ok(folded)
    }

    /// A step that is done already, in the layer of the one before it.
    async fn skip(&mut self, step: &Step, ran: Ran) {
        if step.action.makes_layer() {
            let running = self.progress.begin(&step.text).await;
            running.say("it is part of the layer of the COPY before it: nothing is run").await;
            let outcome = running.end(ran).await;
            self.outcome(outcome);
        }
        self.note(step, true);
    }

    async fn copy_step(
        &mut self,
        step: &Step,
        copy: &CopyStep,
        following: &[Step],
        running: &Running,
    ) -> Result<(Ran, usize)> {
        let instruction = self.instruction_key(copy);
        let folds = if self.may_fold(copy) { fold::candidates(following) } else { Vec::new() };
        // What another stage or an image has need not be looked at where the same was copied from the same before.
        let origin = self.origin_key(copy).filter(|_| folds.is_empty());
        let quick = origin.map(|origin| Key::new("copy from").digest(&instruction).digest(&origin).finish());
        if let Some(quick) = &quick
            && let Some((record, layer)) = self.find(quick).await?
        {
            self.add(step, &record, layer);
            return Ok((Ran::Cached, 0));
        }
        let mut taken = self.take(step, copy).await?;
        let content = self.content_key(step, &mut taken).await?;
        let key = |folded: usize| {
            let key = Key::new("copy").digest(&instruction).digest(&content);
            following[..folded].iter().fold(key, |key, step| key.value(&step.action)).finish()
        };
        for folded in folds.iter().copied() {
            if let Some((record, layer)) = self.find(&key(folded)).await? {
                self.add(step, &record, layer);
                return Ok((Ran::Cached, folded));
            }
        }
        // Where something could be folded, only the files of the base tell whether it is.
        let (entries, folded) =
            if folds.is_empty() { (None, 0) } else { self.fold(step, copy, following, &taken, running).await? };
        if folded == 0
            && let Some((record, layer)) = self.find(&key(0)).await?
        {
            if let Some(quick) = quick {
                self.around.shared.cache.keep(quick, record.clone()).await?;
            }
            self.add(step, &record, layer);
            return Ok((Ran::Cached, 0));
        }
        let trace = Trace::new(self.stage.key, content, &taken.selection.files());
        let why = self.around.shared.why(&step.text, trace).await?;
        running.say(&format!("not in the cache: {why}")).await;
        let entries = match entries {
            Some(entries) => entries,
            None => self.put(step, copy, &taken.selection).await?,
        };
        let entries = self.around.shared.take_out(entries, &taken.trees.layers).await?;
        let layer = self.around.shared.write_layer(entries, &step.text, running).await?;
        self.keep(step, key(folded), layer).await?;
        if let Some(quick) = quick {
            self.around.shared.cache.alias(quick, key(0)).await?;
        }
        Ok((Ran::Done, folded))
    }

    fn may_fold(&self, copy: &CopyStep) -> bool {
        self.around.shared.request.options.fold.unwrap_or(true) && !copy::is_linked(copy)
    }

    /// The entries of the layer, and how many of the following steps are done by them.
    async fn fold(
        &self,
        step: &Step,
        copy: &CopyStep,
        following: &[Step],
        taken: &Taken,
        running: &Running,
    ) -> Result<(Option<Vec<LayerEntry>>, usize)> {
        let entries = self.put(step, copy, &taken.selection).await?;
        let (view, following) = (self.view().await?, following.to_vec());
        let folded = blocking(move || fold::fold(entries, &following, &files(&view), &view)).await?;
        if let Some(reason) = folded.refused {
            running.say(&format!("the command behind it is not folded into it: {reason}")).await;
        }
        Ok((Some(folded.entries), folded.steps))
    }

    /// What the result depends on besides what is copied.
    fn instruction_key(&self, copy: &CopyStep) -> Digest {
        let key = Key::new("copy to");
        // A layer that does not look at its base has the same content on every base.
        let key = if copy::needs_base(copy) { key.digest(&self.stage.key) } else { key.text("linked") };
        let CopyStep { destination, into_directory, chown, chmod, link, parents, exclude, unpack, .. } = copy;
        key.text(destination)
            .value(&(into_directory, chown, chmod, link, parents, exclude, unpack))
            .value(&self.clamp().map(|time| time.seconds))
            .finish()
    }

    /// What the sources are, as far as that is known without looking at files.
    fn origin_key(&self, copy: &CopyStep) -> Option<Digest> {
        let origin = match copy.origin.as_ref()? {
            Origin::Stage(id) => self.around.stages[id].key,
            Origin::Scratch => Key::new("scratch").finish(),
            origin => image_key(&self.around.images.get(origin)?.layers),
        };
        Some(Key::new("origin").digest(&origin).value(&copy.sources).finish())
    }

    /// What is copied. The selection knows the digests of its files then.
    async fn content_key(&self, step: &Step, taken: &mut Taken) -> Result<Digest> {
        let shared = self.around.shared;
        let (mut selection, hashes, cancel) =
            (taken.selection.clone(), shared.hashes.clone(), shared.job.cancel.clone());
        let (digest, selection) = blocking(move || Ok((selection.digest(hashes.as_ref(), &cancel), selection))).await?;
        taken.selection = selection;
        digest.map_err(|failure| failure.at(|near| self.place_of(step, near)))
    }

    /// Finds what is copied.
    async fn take(&self, step: &Step, copy: &CopyStep) -> Result<Taken> {
        let trees = Arc::new(Trees::of(self, step, copy).await?);
        let (of, copy, cancel) = (Arc::clone(&trees), copy.clone(), self.around.shared.job.cancel.clone());
        let spool = self.around.shared.store.path().to_owned();
        let selection = blocking(move || Ok(of.select(&copy, &spool, &cancel))).await?;
        let selection = selection.map_err(|failure| failure.at(|near| self.place_of(step, near)))?;
        Ok(Taken { selection, trees })
    }

    /// Finds out where it goes.
    async fn put(&self, step: &Step, copy: &CopyStep, selection: &Selection) -> Result<Vec<LayerEntry>> {
        let view = if copy::needs_base(copy) { self.view().await? } else { View::default() };
        let owner = copy.chown.as_deref().map(|chown| self.owner(step, chown, &view)).transpose()?;
        let (copy, selection, clamp, cancel) =
            (copy.clone(), selection.clone(), self.clamp(), self.around.shared.job.cancel.clone());
        let placed = blocking(move || Ok(copy::place(&copy, &selection, &files(&view), owner, clamp, &cancel))).await?;
        placed.map_err(|failure| failure.at(|near| self.place_of(step, near)))
    }
}

/// A file system as COPY sees what is below its layer.
fn files(view: &View) -> ViewFiles {
    ViewFiles::new(view.clone(), "the base")
}
