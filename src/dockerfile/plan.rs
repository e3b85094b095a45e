//! The stages of a Dockerfile as a graph: what each builds on, what it copies from, and which ones a target needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::inputs::Inputs;
use super::instruction::{Instruction, Kind, Transfer};
use super::lint::{Linter, Rule};
use super::mistake::{Mistake, Result, nearest};
use super::source::Span;
use super::variables::Variables;
use super::words::{Expansion, Lexer};
use super::{Dockerfile, Stage, lines};
use crate::platform::Platform;
use crate::reference::Reference;

/// The number of a stage, from 0, in the order of the file.
pub type StageId = usize;

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nothing: an empty file system.
    Scratch,
    /// Another stage.
    Stage(StageId),
    /// An image, by its full name.
    Image(String),
    /// A named context (`--build-context`).
    Context(String),
}

/// What is known of a stage before anything is built.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name in lower case.
    pub name: Option<String>,
    /// What it builds on.
    pub base: Origin,
    /// The platform of `FROM --platform`.
    pub platform: Option<Platform>,
    /// The stages that it needs, its base among them.
    pub needs: BTreeSet<StageId>,
    /// Images and contexts that it copies or mounts from.
    pub uses: BTreeSet<Origin>,
    /// Instructions that its base brings with it (ONBUILD); they come first.
    pub triggers: Vec<Instruction>,
}

/// What to build of a Dockerfile, and in which order.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) inputs: &'a Inputs,
    /// ARG before the first FROM, and the predefined ones.
    pub(super) globals: Variables,
    pub(super) lexer: Lexer,
    nodes: Vec<Node>,
    target: StageId,
}

impl<'a> Plan<'a> {
    pub(super) fn new(file: &'a Dockerfile, inputs: &'a Inputs, linter: &mut Linter) -> Result<Self> {
        let last = file.stages.last().and_then(|stage| stage.from.name()).unwrap_or_default();
        let lexer = Lexer::new(file.directives.escape_character());
        let predefined = inputs.predefined(inputs.target.as_deref().unwrap_or(&last));
        check_defaults(file, lexer, &predefined, linter);
        let globals = globals(file, lexer, predefined, &inputs.build_args)?;
        let mut plan = Self { file, inputs, globals, lexer, nodes: Vec::new(), target: 0 };
        for stage in &file.stages {
            let node = plan.node(stage, linter).map_err(|mistake| mistake.at(stage.head.span))?;
            plan.nodes.push(node);
        }
        plan.target = plan.find_target()?;
        for id in 0..plan.nodes.len() {
            plan.inherit_triggers(id)?;
            let own: Vec<&Instruction> = file.stages[id].instructions.iter().collect();
            plan.connect(id, &own)?;
        }
        plan.check_cycles()?;
        for id in plan.needed() {
            plan.check_order(id)?;
        }
        Ok(plan)
    }

    /// The stage to build.
    pub const fn target(&self) -> StageId {
        self.target
    }

    /// What is known of each stage.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The stage that a name or a number means.
    pub fn find(&self, name: &str) -> Option<StageId> {
        let lower = name.to_lowercase();
        self.nodes.iter().rposition(|node| node.name.as_ref() == Some(&lower))
    }

    /// The target and what it needs, in the order of the file: each stands behind those that it needs.
    pub fn needed(&self) -> BTreeSet<StageId> {
        let mut needed = BTreeSet::new();
        let mut open = vec![self.target];
        while let Some(id) = open.pop() {
            if needed.insert(id) {
                open.extend(&self.nodes[id].needs);
            }
        }
        needed
    }

    /// The stages that are needed, in groups: those of a group need none of each other, and can be built at once when the
    /// groups before them are done.
    pub fn waves(&self) -> Vec<Vec<StageId>> {
        let mut wave_of: BTreeMap<StageId, usize> = BTreeMap::new();
        let mut waves: Vec<Vec<StageId>> = Vec::new();
        for id in self.needed() {
            let before = self.nodes[id].needs.iter().filter_map(|need| wave_of.get(need));
            let wave = before.max().map_or(0, |wave| wave + 1);
            wave_of.insert(id, wave);
            waves.resize_with(waves.len().max(wave + 1), Vec::new);
            waves[wave].push(id);
        }
        waves
    }

    /// Adds the triggers of an image that a stage builds on, which are known when its configuration is. They may need
    /// stages that were not needed before.
    pub(super) fn add_triggers(&mut self, id: StageId, triggers: &[String]) -> Result<()> {
        let span = self.file.stages[id].head.span;
        let triggers = triggers.iter().map(|text| parse_trigger(text, span)).collect::<Result<Vec<Instruction>>>()?;
        self.connect(id, &triggers.iter().collect::<Vec<_>>())?;
        self.nodes[id].triggers.splice(0..0, triggers);
        self.check_cycles()?;
        for id in self.needed() {
            self.check_order(id)?;
        }
        Ok(())
    }

    /// The instructions of a stage, those of its base first; `true` marks these.
    pub(super) fn instructions(&self, id: StageId) -> impl Iterator<Item = (bool, &Instruction)> {
        let own = self.file.stages[id].instructions.iter().map(|instruction| (false, instruction));
        self.nodes[id].triggers.iter().map(|instruction| (true, instruction)).chain(own)
    }

    fn node(&self, stage: &Stage, linter: &mut Linter) -> Result<Node> {
        let base = self.expand_from(&stage.from.base, stage, linter)?.text;
        if base.is_empty() {
            let message = format!("the base `{}` is empty", stage.from.base);
            return Err(Mistake::value(message).near(&stage.from.base));
        }
        let platform = stage.from.platform.as_ref().map(|text| self.platform(text, stage, linter)).transpose()?;
        let name = stage.from.name();
        let base = match &name {
            Some(name) if self.inputs.contexts.contains(name) && !is_reserved(name) => Origin::Context(name.clone()),
            // Unlike in `--from`, case counts here.
            _ => match self.nodes.iter().rposition(|node| node.name.as_deref() == Some(base.as_str())) {
                Some(id) => Origin::Stage(id),
                None => self.external(&base).map_err(|mistake| mistake.suggest(self.similar_stage(&base)))?,
            },
        };
        let mut needs = BTreeSet::new();
        if let Origin::Stage(id) = base {
            needs.insert(id);
        }
        Ok(Node { name, base, platform, needs, uses: BTreeSet::new(), triggers: Vec::new() })
    }

    fn expand_from(&self, text: &str, stage: &Stage, linter: &mut Linter) -> Result<Expansion> {
        let expansion = self.lexer.expand(text, &self.globals).map_err(|mistake| mistake.near(text))?;
        let declared: BTreeSet<&str> = self.globals.names().chain(self.declared()).collect();
        for name in expansion.unset.iter().filter(|name| !declared.contains(name.as_str())) {
            let meant = nearest(name, declared.iter().copied());
            let meant = meant.map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default();
            let message = format!("the argument `{name}` of FROM is not declared{meant}");
            linter.report(Rule::UndefinedArgInFrom, message, stage.head.span, &stage.head.comments);
        }
        Ok(expansion)
    }

    /// The names of ARG before the first FROM.
    fn declared(&self) -> impl Iterator<Item = &str> {
        self.file
            .arguments
            .iter()
            .flat_map(|instruction| match &instruction.kind {
                Kind::Arg(arguments) => arguments.as_slice(),
                _ => &[],
            })
            .map(|argument| argument.name.as_str())
    }

    fn platform(&self, text: &str, stage: &Stage, linter: &mut Linter) -> Result<Platform> {
        let expansion = self.expand_from(text, stage, linter)?;
        check_platform(text, &expansion, &self.globals, stage, linter);
        let suggestion = || expansion.unset.iter().find_map(|name| nearest(name, self.globals.names()));
        if expansion.text.is_empty() {
            let message = format!("the platform `{text}` is empty");
            return Err(Mistake::value(message).near(text).suggest(suggestion()));
        }
        let platform = parse_platform(&expansion.text, &self.inputs.build_platform);
        platform.ok_or_else(|| {
            let message = format!("`{}` is no platform: write it like linux/amd64", expansion.text);
            Mistake::value(message).near(text).suggest(suggestion())
        })
    }

    /// What a name means that is no stage's.
    pub(super) fn external(&self, name: &str) -> Result<Origin> {
        if name == "scratch" {
            return Ok(Origin::Scratch);
        }
        let reference: Reference =
            name.parse().map_err(|error: crate::error::Error| Mistake::value(error.to_string()).near(name))?;
        let tag = reference.tag().filter(|tag| *tag != "latest").map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
        let familiar = format!("{}{tag}{digest}", reference.name());
        let context = [name, familiar.as_str()].into_iter().find(|name| self.inputs.contexts.contains(*name));
        Ok(match context {
            Some(context) if !is_reserved(context) => Origin::Context(context.to_owned()),
            _ => Origin::Image(full_name(&reference)),
        })
    }

    fn similar_stage(&self, name: &str) -> Option<String> {
        let names = || self.nodes.iter().filter_map(|node| node.name.as_deref());
        let lower = name.to_lowercase();
        names().find(|known| *known == lower).or_else(|| nearest(&lower, names())).map(str::to_owned)
    }

    fn find_target(&self) -> Result<StageId> {
        let Some(target) = &self.inputs.target else { return Ok(self.nodes.len() - 1) };
        let by_number = || target.parse().ok().filter(|id| *id < self.nodes.len());
        self.find(target).or_else(by_number).ok_or_else(|| {
            let message = format!("the target stage `{target}` is not in the Dockerfile");
            let span = self.file.stages.last().map(|stage| stage.head.span).unwrap_or_default();
            Mistake::stage(message).suggest(self.similar_stage(target)).at(span)
        })
    }

    /// What `--from` of COPY means.
    pub(super) fn copy_origin(&self, from: &str) -> Result<Origin> {
        let expanded = self.lexer.expand(from, &Variables::default())?.text;
        if expanded != from {
            let message = "--from takes no variables: give the image a name with FROM ... AS, and use that";
            return Err(Mistake::stage(message).near(from));
        }
        match from.parse::<isize>() {
            Ok(number) => match usize::try_from(number).ok().filter(|id| *id < self.file.stages.len()) {
                Some(id) => Ok(Origin::Stage(id)),
                None => Err(Mistake::stage(format!("there is no stage {number}")).near(from)),
            },
            Err(_) => self.mount_origin(from),
        }
    }

    /// What `from` of a mount means: unlike that of COPY it may be no number.
    pub(super) fn mount_origin(&self, from: &str) -> Result<Origin> {
        match self.find(from) {
            Some(id) => Ok(Origin::Stage(id)),
            None => self.external(from).map_err(|mistake| mistake.suggest(self.similar_stage(from))),
        }
    }

    /// Notes what instructions copy and mount from.
    fn connect(&mut self, id: StageId, instructions: &[&Instruction]) -> Result<()> {
        for instruction in instructions {
            for origin in self.origins(instruction).map_err(|mistake| mistake.at(instruction.span))? {
                match origin {
                    Origin::Stage(other) => self.nodes[id].needs.insert(other),
                    Origin::Scratch => false,
                    other => self.nodes[id].uses.insert(other),
                };
            }
        }
        Ok(())
    }

    fn origins(&self, instruction: &Instruction) -> Result<Vec<Origin>> {
        match &instruction.kind {
            Kind::Copy(Transfer { from: Some(from), .. }) => Ok(vec![self.copy_origin(from)?]),
            Kind::Run(run) => {
                let names = run.mounts.iter().filter_map(|mount| mount.from.as_deref());
                names.map(|name| self.mount_origin(name)).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The ONBUILD of a stage is run by the stages that build on it.
    fn inherit_triggers(&mut self, id: StageId) -> Result<()> {
        let Origin::Stage(base) = self.nodes[id].base else { return Ok(()) };
        let triggers: Vec<String> = self.file.stages[base]
            .instructions
            .iter()
            .filter_map(|instruction| match &instruction.kind {
                Kind::Onbuild(text) => Some(text.clone()),
                _ => None,
            })
            .collect();
        let span = self.file.stages[id].head.span;
        let triggers = triggers.iter().map(|text| parse_trigger(text, span)).collect::<Result<Vec<Instruction>>>()?;
        self.connect(id, &triggers.iter().collect::<Vec<_>>())?;
        self.nodes[id].triggers = triggers;
        Ok(())
    }

    fn check_cycles(&self) -> Result<()> {
        let mut done = BTreeSet::new();
        for start in 0..self.nodes.len() {
            let mut path: Vec<(StageId, Vec<StageId>)> = Vec::new();
            let enter = |id: StageId| (id, self.nodes[id].needs.iter().copied().collect());
            if !done.contains(&start) {
                path.push(enter(start));
            }
            while let Some((id, open)) = path.last_mut() {
                let id = *id;
                match open.pop() {
                    None => {
                        done.insert(id);
                        path.pop();
                    }
                    Some(next) if path.iter().any(|(on_path, _)| *on_path == next) => {
                        let message = format!("the stage `{}` needs itself", self.label(next));
                        return Err(Mistake::stage(message).at(self.file.stages[next].head.span));
                    }
                    Some(next) if done.contains(&next) => {}
                    Some(next) => path.push(enter(next)),
                }
            }
        }
        Ok(())
    }

    /// A stage is copied from by those after it only.
    fn check_order(&self, id: StageId) -> Result<()> {
        for (_, instruction) in self.instructions(id) {
            for origin in self.origins(instruction).map_err(|mistake| mistake.at(instruction.span))? {
                match origin {
                    Origin::Stage(other) if other >= id => {
                        let message = format!(
                            "the stage `{}` has to be defined before `{}`, which copies from it",
                            self.label(other),
                            self.label(id)
                        );
                        return Err(Mistake::stage(message).at(instruction.span));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn label(&self, id: StageId) -> String {
        self.nodes[id].name.clone().unwrap_or_else(|| format!("stage-{id}"))
    }
}

fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context")
}

/// `docker.io/library/python:3.12`.
fn full_name(reference: &Reference) -> String {
    let tag = reference.tag_or_latest().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
    format!("{}/{}{tag}{digest}", reference.registry(), reference.repository())
}

/// Names that may stand alone as a platform, from Go's list.
const SYSTEMS: [&str; 8] = ["linux", "windows", "darwin", "macos", "freebsd", "netbsd", "openbsd", "solaris"];
const ARCHITECTURES: [&str; 17] = [
    "386", "i386", "amd64", "x86_64", "x86-64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64", "mips64le",
    "ppc64le", "riscv64", "s390x", "ppc64", "wasm",
];

/// `linux/arm64`, or the operating system or the architecture alone, which is completed by that of the builder.
fn parse_platform(text: &str, builder: &Platform) -> Option<Platform> {
    let lower = text.to_lowercase();
    if SYSTEMS.contains(&lower.as_str()) {
        return format!("{lower}/{}", builder.architecture).parse().ok();
    }
    if ARCHITECTURES.contains(&lower.as_str()) {
        return format!("{}/{lower}", builder.os).parse().ok();
    }
    text.parse().ok()
}

fn check_platform(text: &str, expansion: &Expansion, globals: &Variables, stage: &Stage, linter: &mut Linter) {
    let (span, comments) = (stage.head.span, &stage.head.comments);
    let set: Vec<&str> = expansion.set.iter().map(String::as_str).collect();
    let is_target = globals.get("TARGETPLATFORM") == Some(&expansion.text);
    if set == ["TARGETPLATFORM"] && expansion.unset.is_empty() && is_target {
        let message = format!("setting the platform to {text} in FROM is redundant: it is the default");
        linter.report(Rule::RedundantTargetPlatform, message, span, comments);
    }
    if !set.is_empty() || !expansion.unset.is_empty() {
        return;
    }
    let Ok(platform) = expansion.text.parse::<Platform>() else { return };
    let name = stage.from.name().unwrap_or_default();
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message = format!("FROM --platform should not be the constant `{}`", expansion.text);
        linter.report(Rule::FromPlatformFlagConstDisallowed, message, span, comments);
    }
}

/// The values of ARG before the first FROM.
fn globals(
    file: &Dockerfile,
    lexer: Lexer,
    mut variables: Variables,
    given: &BTreeMap<String, String>,
) -> Result<Variables> {
    for instruction in &file.arguments {
        let Kind::Arg(arguments) = &instruction.kind else { continue };
        for argument in arguments {
            let value = match (given.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let expanded = lexer.expand(default, &variables);
                    Some(expanded.map_err(|mistake| mistake.near(default).at(instruction.span))?.text)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                variables.set(&argument.name, &value);
            }
        }
    }
    Ok(variables)
}

/// Whether FROM has an image when no build argument is given.
fn check_defaults(file: &Dockerfile, lexer: Lexer, predefined: &Variables, linter: &mut Linter) {
    let Ok(variables) = globals(file, lexer, predefined.clone(), &BTreeMap::new()) else { return };
    for stage in &file.stages {
        let Ok(base) = lexer.expand(&stage.from.base, &variables) else { return };
        if base.text.parse::<Reference>().is_err() {
            let message = format!("the defaults of {} make an empty or invalid base image name", stage.from.base);
            linter.report(Rule::InvalidDefaultArgInFrom, message, stage.head.span, &[]);
        }
    }
}

/// An instruction that ONBUILD has kept. Its place is the FROM that brings it.
fn parse_trigger(text: &str, span: Span) -> Result<Instruction> {
    let wrong = |mistake: Mistake| mistake.only_at(span);
    let mut statements = lines::read(text).map_err(wrong)?.statements;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(wrong(Mistake::syntax("a trigger (ONBUILD) of the base is not one instruction")));
    };
    let instruction = Instruction::parse(statement).map_err(wrong)?;
    if matches!(instruction.kind, Kind::From(_)) {
        return Err(wrong(Mistake::syntax("a trigger (ONBUILD) of the base is a FROM")));
    }
    Ok(Instruction { span, ..instruction })
}
