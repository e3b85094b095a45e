//! From the Dockerfile to stages that are built.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::base::{Image, Images};
use super::config;
use super::fold;
use super::progress::Progress;
use super::shared::Shared;
use super::stage::{Builder, Stage, Surroundings, place};
use crate::dockerfile::{Action, Config, Dockerfile, Evaluated, Inputs, Origin, Plan, Span, StageId, Start, Step};
use crate::engine::build_args;
use crate::error::{Error, Location, Result};
use crate::outcome::StepOutcome;
use crate::platform::Platform;
use crate::reference::Reference;

/// What was built.
pub(super) struct Built {
    /// The stage that was asked for.
    pub(super) stage: Arc<Stage>,
    /// All stages that it needed, itself among them.
    pub(super) stages: HashMap<StageId, Arc<Stage>>,
    /// All steps, in the order of the Dockerfile.
    pub(super) outcomes: Vec<StepOutcome>,
}

/// Builds the target of a request, and what it needs.
pub(super) async fn build(shared: &Shared) -> Result<Built> {
    let file = Dockerfile::parse(&shared.opened.file.name, &shared.opened.file.text)?;
    let inputs = inputs(shared);
    let mut plan = file.plan(&inputs)?;
    let mut images = HashMap::new();
    let mut triggered = BTreeSet::new();
    // Triggers of a base may need stages and images that nothing else needs.
    while look_up(shared, &file, &plan, &mut images).await? | bring_triggers(&mut plan, &images, &mut triggered)? {}
    let evaluated = evaluate(&plan, &images)?;
    shared.runs.expected.store(expects_commands(&evaluated), Ordering::Relaxed);
    run(shared, &file, &plan, &images, &evaluated).await
}

fn inputs(shared: &Shared) -> Inputs {
    let options = &shared.request.options;
    let build_args = build_args::complete(&options.build_args, "", &shared.environment);
    Inputs {
        build_args: build_args.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        build_platform: Platform::of_containers(),
        target_platform: options.platform().cloned(),
        target: options.target.clone(),
        contexts: options.build_contexts.keys().cloned().collect(),
    }
}

/// The platform that a stage's base is wanted for.
fn platform(plan: &Plan<'_>, inputs: &Platform, id: StageId) -> Platform {
    plan.nodes()[id].platform.clone().unwrap_or_else(|| inputs.clone())
}

/// An image that is needed, for a platform.
type Wanted = (Origin, Platform);

/// Looks up the images that are needed and not known yet. Whether there were any.
async fn look_up(
    shared: &Shared,
    file: &Dockerfile,
    plan: &Plan<'_>,
    images: &mut HashMap<Wanted, Arc<Image>>,
) -> Result<bool> {
    let target = shared.request.options.platform().cloned().unwrap_or_else(Platform::of_containers);
    let mut wanted: BTreeMap<(Origin, String), (Platform, Span)> = BTreeMap::new();
    for id in plan.needed() {
        let (node, span) = (&plan.nodes()[id], file.stages()[id].head.span);
        refuse_directory(shared, &node.base, || place(file.source(), span))?;
        let base = (node.base.clone(), platform(plan, &target, id));
        let uses = node.uses.iter().map(|origin| (origin.clone(), target.clone()));
        for (origin, platform) in std::iter::once(base).chain(uses) {
            let is_image = matches!(origin, Origin::Image(_)) || is_image_context(shared, &origin);
            if is_image && !images.contains_key(&(origin.clone(), platform.clone())) {
                wanted.entry((origin, platform.to_string())).or_insert((platform, span));
            }
        }
    }
    let finder = Images {
        store: &shared.store,
        client: &shared.client,
        job: &shared.job,
        pull: shared.request.options.pull,
        spec: &shared.request.engine,
        environment: &shared.environment,
    };
    let finds = wanted.into_iter().map(|((origin, _), (platform, span))| {
        let finder = &finder;
        async move {
            let place = place(file.source(), span);
            let image = match &origin {
                Origin::Image(name) => {
                    let name: Reference = name.parse()?;
                    finder.find(&name, &platform, place).await?
                }
                Origin::Context(name) => {
                    let source = &shared.request.options.build_contexts[name];
                    finder.of_context(source, &platform, place).await?
                }
                _ => return Err(Error::internal("a stage is no image")),
            };
            Ok(((origin, platform), Arc::new(image)))
        }
    });
    let found: Vec<(Wanted, Arc<Image>)> = futures_util::future::try_join_all(finds).await?;
    let any = !found.is_empty();
    images.extend(found);
    Ok(any)
}

/// A stage begins with an image. BuildKit makes one of a directory that `--build-context` names; here that is an error, and not
/// an image without what is in it.
fn refuse_directory(shared: &Shared, base: &Origin, place: impl FnOnce() -> Location) -> Result<()> {
    let Origin::Context(name) = base else { return Ok(()) };
    if is_image_context(shared, base) {
        return Ok(());
    }
    let message = format!(
        "the build context `{name}` is no image, and a stage of this engine begins with one; \
         `FROM scratch` and `COPY --from={name} . /` take a directory"
    );
    Err(Error::StepUnsupported { location: Box::new(place()), message })
}

/// Whether a named context is an image.
fn is_image_context(shared: &Shared, origin: &Origin) -> bool {
    let Origin::Context(name) = origin else { return false };
    let source = shared.request.options.build_contexts.get(name);
    source.is_some_and(|source| super::base::is_image_source(source))
}

/// Adds the triggers of bases that were not added yet. Whether there were any.
fn bring_triggers(
    plan: &mut Plan<'_>,
    images: &HashMap<Wanted, Arc<Image>>,
    done: &mut BTreeSet<StageId>,
) -> Result<bool> {
    let mut any = false;
    for id in plan.needed() {
        let base = plan.nodes()[id].base.clone();
        let Some((_, image)) = images.iter().find(|((origin, _), _)| *origin == base) else { continue };
        if done.insert(id) && !image.config.config.on_build.is_empty() {
            plan.bring_triggers(id, &image.config.config.on_build)?;
            any = true;
        }
    }
    Ok(any)
}

/// Evaluates all stages that are needed.
fn evaluate(plan: &Plan<'_>, images: &HashMap<Wanted, Arc<Image>>) -> Result<BTreeMap<StageId, Arc<Evaluated>>> {
    let configs: HashMap<&Origin, Config> =
        images.iter().map(|((origin, _), image)| (origin, config::of_image(&image.config))).collect();
    let mut evaluated: BTreeMap<StageId, Arc<Evaluated>> = BTreeMap::new();
    for id in plan.needed() {
        let start = match &plan.nodes()[id].base {
            Origin::Scratch => Start::Empty,
            Origin::Stage(base) => Start::Stage(&evaluated[base]),
            origin => configs.get(origin).map_or(Start::Empty, Start::Image),
        };
        let stage = Arc::new(plan.evaluate(id, start)?);
        evaluated.insert(id, stage);
    }
    Ok(evaluated)
}

/// Whether a command may have to run that is not part of a COPY.
fn expects_commands(evaluated: &BTreeMap<StageId, Arc<Evaluated>>) -> bool {
    let steps = evaluated.values().flat_map(|stage| &stage.steps);
    let is_command = |step: &&Step| matches!(step.action, Action::Run(_));
    steps.filter(is_command).any(|step| fold::candidates(std::slice::from_ref(step)).is_empty())
}

/// Builds the stages that are needed, wave by wave.
async fn run(
    shared: &Shared,
    file: &Dockerfile,
    plan: &Plan<'_>,
    images: &HashMap<Wanted, Arc<Image>>,
    evaluated: &BTreeMap<StageId, Arc<Evaluated>>,
) -> Result<Built> {
    let by_origin = images.iter().map(|((origin, _), image)| (origin.clone(), Arc::clone(image))).collect();
    let target = shared.request.options.platform().cloned().unwrap_or_else(Platform::of_containers);
    let ids = Arc::new(AtomicU64::new(1));
    let mut stages: HashMap<StageId, Arc<Stage>> = HashMap::new();
    let mut outcomes = BTreeMap::new();
    let several = evaluated.len() > 1;
    for wave in plan.waves() {
        let around = Surroundings { shared, stages: &stages, images: &by_origin, source: file.source() };
        let builds = wave.iter().map(|&id| {
            let (around, evaluated) = (&around, Arc::clone(&evaluated[&id]));
            let name = several.then(|| plan.nodes()[id].name.clone().unwrap_or_else(|| format!("stage-{id}")));
            let total = evaluated.steps.iter().filter(|step| step.action.makes_layer()).count() as u64 + 1;
            let mut progress = Progress::new(shared.job.events.clone(), name, Arc::clone(&ids), total);
            let start = match &plan.nodes()[id].base {
                Origin::Stage(base) => Stage::of_stage(evaluated, &around.stages[base]),
                origin => match images.get(&(origin.clone(), platform(plan, &target, id))) {
                    Some(image) => Stage::of_image(evaluated, image),
                    None => Stage::empty(evaluated),
                },
            };
            let options = &shared.request.options;
            let filtered = options.no_cache_filter.iter().any(|filter| {
                filter.parse() == Ok(id) || plan.nodes()[id].name.as_deref() == Some(filter.to_lowercase().as_str())
            });
            let use_cache = !options.no_cache && !filtered;
            let head = file.stages()[id].head.text.clone();
            async move {
                let from = progress.begin(&head).await;
                let first = from.end(super::progress::Ran::Cached).await;
                let builder = Builder::new(around, start, progress, use_cache);
                let (stage, mut steps) = builder.run().await?;
                steps.insert(0, first);
                Ok((id, Arc::new(stage), steps))
            }
        });
        let built: Vec<(StageId, Arc<Stage>, Vec<StepOutcome>)> = futures_util::future::try_join_all(builds).await?;
        for (id, stage, steps) in built {
            stages.insert(id, stage);
            outcomes.insert(id, steps);
        }
    }
    let stage = Arc::clone(&stages[&plan.target()]);
    Ok(Built { stage, stages, outcomes: outcomes.into_values().flatten().collect() })
}
