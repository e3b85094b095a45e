//! RUN: a command runs on the unpacked layers of its stage, and what it changed becomes a layer.
//!
//! 1. What it depends on makes a key ([`key`]); what is in the cache under that key need not run.
//! 2. What can run commands on this machine is found out ([`machine`]), once.
//! 3. Layers are unpacked ([`roots`]), each once for all builds, and make its root ([`stand`]). Its mounts are made ([`mounts`]).
//! 4. It runs ([`command`], [`output`]), and what it changed is found and written ([`commit`]). What it left may become the tree
//!    of the new layer at once ([`adopt`]).

mod adopt;
mod agent;
mod bind;
mod caches;
mod command;
mod commit;
mod inputs;
mod key;
mod machine;
mod mounts;
mod output;
mod roots;
mod secrets;
mod stand;
mod travel;
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::{OnceCell, Semaphore};

use super::layer::Layer;
use super::progress::{Ran, Running};
use super::shared::{Once, Shared};
use super::stage::Builder;
use super::why::Trace;
use crate::buildkit::agents::Agents;
use crate::digest::Digest;
use crate::dockerfile::Step;
use crate::dockerfile::step::RunStep;
use crate::engine::blocking;
use crate::error::{Error, Result, StepFailure};
use crate::request::BuildRequest;
use crate::sandbox::{Finished, Spec};
use crate::store::Tree;

use self::inputs::Inputs;
use self::key::shown;
use self::machine::{Impossible, Machine};
use self::output::Output;
use self::secrets::Known;

pub(super) use self::stand::Copied;

/// At least so many layers are unpacked at once: what comes from a registry waits for it most of the time.
const LEAST_AT_ONCE: usize = 3;

/// What all commands of a build share.
pub(super) struct Runs {
    machine: OnceCell<std::result::Result<Arc<Machine>, Impossible>>,
    secrets: Arc<Known>,
    agents: OnceCell<Agents>,
    trees: Once<Tree>,
    unpacking: Semaphore,
    /// The caches that were used, and what they are called.
    caches: Mutex<BTreeMap<Digest, String>>,
    told_copies: AtomicBool,
    /// Whether commands are expected to run, so that layers which have to be read are best unpacked.
    pub(super) expected: AtomicBool,
}

impl Runs {
    /// Nothing has run yet.
    pub(super) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            machine: OnceCell::new(),
            secrets: Arc::default(),
            agents: OnceCell::new(),
            trees: Once::new(),
            unpacking: Semaphore::new(threads.max(LEAST_AT_ONCE)),
            caches: Mutex::default(),
            told_copies: AtomicBool::new(false),
            expected: AtomicBool::new(false),
        }
    }
}

/// Fails with `InvalidOption` for options of commands that have no such value.
pub(super) fn check(request: &BuildRequest) -> Result<()> {
    machine::check(&request.engine)?;
    command::check(&request.options)
}

impl Shared {
    /// What runs commands, or why nothing does.
    pub(super) async fn machine(&self) -> Result<&std::result::Result<Arc<Machine>, Impossible>> {
        let find = || async {
            let (spec, environment) = (self.request.engine.clone(), Arc::clone(&self.environment));
            let (store, cancel) = (self.store.path().to_owned(), self.job.cancel.clone());
            Ok(blocking(move || Machine::find(&spec, &environment, &store, &cancel)).await?.map(Arc::new))
        };
        self.runs.machine.get_or_try_init(find).await
    }
}

impl Builder<'_> {
    /// RUN.
    pub(super) async fn run_step(&mut self, step: &Step, run: &RunStep) -> Result<()> {
        let running = self.progress.begin(&step.text).await;
        let ran = Box::pin(self.ran(step, run, &running)).await;
        self.end(running, ran).await
    }

    async fn ran(&mut self, step: &Step, run: &RunStep, running: &Running) -> Result<Ran> {
        self.refuse(step, run)?;
        let cache = &self.around.shared.cache;
        // What another stage or an image has need not be looked at where the same was mounted before.
        let quick = self.origins(run).map(|origins| self.run_key("run on origins", &self.parts(run, &origins)));
        if let Some(quick) = &quick
            && let Some((record, layer)) = self.find(quick).await?
        {
            self.add(step, &record, layer);
            return Ok(Ran::Cached);
        }
        let inputs = self.inputs(step, run).await?;
        let parts = self.parts(run, &shown(&inputs));
        let key = self.run_key("run", &parts);
        if let Some((record, layer)) = self.find(&key).await? {
            if let Some(quick) = quick {
                cache.keep(quick, record.clone()).await?;
            }
            self.add(step, &record, layer);
            return Ok(Ran::Cached);
        }
        let machine = match self.around.shared.machine().await? {
            Ok(machine) => Arc::clone(machine),
            Err(impossible) => return Err(self.impossible(step, impossible)),
        };
        let files = inputs.values().flat_map(|bound| bound.selection.files()).collect::<Vec<_>>();
        let trace = Trace::of_command(self.stage.key, parts.digest(), parts.named(), &files);
        let why = self.around.shared.why(&step.text, trace).await?;
        running.say(&format!("not in the cache: {why}")).await;
        self.refuse_at(&machine, step, run)?;
        let layer = Box::pin(self.execute(step, run, &inputs, &machine, running)).await?;
        self.keep(step, key, layer).await?;
        if let Some(quick) = quick {
            self.around.shared.cache.alias(quick, key).await?;
        }
        Ok(Ran::Done)
    }

    /// A command that is in no cache, on a machine that cannot run it.
    fn impossible(&self, step: &Step, Impossible { reason, advice }: &Impossible) -> Error {
        let advice = advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        let message = format!("this command is in no cache that was given, and cannot be run here: {reason}{advice}");
        self.unsupported(step, message)
    }

    /// Runs a command; the layer of what it changed.
    async fn execute(
        &mut self,
        step: &Step,
        run: &RunStep,
        inputs: &Inputs,
        machine: &Arc<Machine>,
        running: &Running,
    ) -> Result<Layer> {
        let shared = self.around.shared;
        let stand = self.stand(machine).await?;
        let user = self.user(step, run, &stand.view)?;
        let mounted = Box::pin(shared.mounted(machine, &stand.work, run, inputs)).await?;
        let env = command::environment(run, &mounted.secrets, mounted.agent.as_deref(), &user.home);
        let mut spec = Spec::new(machine.level, stand.root.clone(), command::process(run, &user, env));
        spec.mounts.clone_from(&mounted.mounts);
        spec.runtime.clone_from(&machine.runtime);
        command::configure(&mut spec, run, &shared.request.options)?;
        let (known, sandboxes, cancel) =
            (Arc::clone(&shared.runs.secrets), machine.sandboxes.clone(), shared.job.cancel.clone());
        let teller = running.teller();
        let (finished, tail) = blocking(move || {
            let mut output = Output::new(teller, || known.redactor());
            let finished = sandboxes.run(&spec, &mut |stream, bytes| output.take(stream, bytes), &cancel)?;
            Ok((finished, output.finish()))
        })
        .await?;
        // What it was given is free for others.
        drop(mounted);
        if !finished.exit.success() {
            return Err(self.failed(step, run, &finished, tail));
        }
        let owners = Self::owners(machine, &user, &finished);
        let layer = self.commit(step, &stand, owners, running).await?;
        self.copied = stand.copied(&self.stage.layers, &layer);
        Ok(layer)
    }

    fn failed(&self, step: &Step, run: &RunStep, finished: &Finished, tail: Vec<String>) -> Error {
        let code = finished.exit.code();
        let command = run.command.join(" ");
        Error::StepFailed(Box::new(StepFailure {
            instruction: step.text.clone(),
            exit_code: Some(code.into()),
            location: Some(self.place(step)),
            tail,
            message: format!("process \"{command}\" did not complete successfully: exit code: {code}"),
        }))
    }
}
