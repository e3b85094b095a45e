//! The Dockerfile language: text, instructions, and the plan of a build. No I/O happens here.
//!
//! A text goes through these steps; each has a module:
//!
//! 1. `directives` and `lines`: [`Directives`] are read, lines are joined, [`Heredoc`]s are cut out.
//! 2. `statement`: a logical line has a keyword, flags, and words, JSON or pairs.
//! 3. [`instruction`]: it is an [`Instruction`] with types. What is wrong in the text alone is told here.
//! 4. [`Plan`]: the stages are a graph. What FROM, `--from` and mounts mean is known, and what a target needs.
//! 5. [`Evaluated`]: the instructions of a stage are [`Step`]s, with variables expanded (`words`), and make a [`Config`].
//!    The configuration of a base image has to be known for that: the engine gives it.
//! 6. [`check()`]: all of that without an engine, and what [`lint`] says.
//!
//! What is understood is what `docker/dockerfile:1` understands; `docs/dockerfile.md` lists the differences. Mistakes are
//! errors with a code frame and, for what is nearly right, a suggestion.

mod check;
mod chmod;
mod config;
mod directives;
mod evaluate;
mod flags;
mod heredoc;
mod inputs;
pub mod instruction;
mod lines;
pub mod lint;
mod mistake;
pub(crate) mod paths;
mod pattern;
mod plan;
mod ports;
mod remote;
mod source;
mod statement;
pub mod step;
mod variables;
mod words;

pub use check::{Report, check};
pub use chmod::{Change, Chmod};
pub use config::Config;
pub(crate) use config::DEFAULT_PATH;
pub use directives::{Directive, Directives};
pub use evaluate::{Evaluated, Start};
pub use heredoc::Heredoc;
pub use inputs::Inputs;
pub use instruction::{Instruction, KEYWORDS, Kind};
pub use plan::{Node, Origin, Plan, StageId};
pub use remote::GitReference;
pub use source::{Source, Span};
pub use step::{Action, Step};
pub use variables::Variables;

use crate::error::{Error, Result};
use evaluate::Evaluator;
use instruction::From;
use lint::Linter;
use mistake::Mistake;

/// A Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    source: Source,
    directives: Directives,
    arguments: Vec<Instruction>,
    stages: Vec<Stage>,
    empty_continuations: Vec<Span>,
}

/// A stage: FROM, and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// FROM.
    pub from: From,
    /// FROM, as an instruction.
    pub head: Instruction,
    /// The instructions after it.
    pub instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// Reads a text, which callers know as `name`. Bytes that are no UTF-8 are replaced by U+FFFD.
    ///
    /// Fails with `DockerfileSyntax`, or with `DockerfileFrontend` for a `# syntax=` that is not Docker's.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self> {
        let (file, read) = Self::read(name, text);
        match read {
            Ok(()) => Ok(file),
            Err(mistake) => Err(file.error(mistake)),
        }
    }

    /// Reads a text up to its first mistake.
    fn read(name: &str, text: &[u8]) -> (Self, mistake::Result<()>) {
        let text = String::from_utf8_lossy(text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut file = Self {
            source: Source::new(name, text),
            directives: Directives::default(),
            arguments: Vec::new(),
            stages: Vec::new(),
            empty_continuations: Vec::new(),
        };
        let read = file.read_text(text);
        (file, read)
    }

    fn read_text(&mut self, text: &str) -> mistake::Result<()> {
        directives::check_frontend(text)?;
        let lines::Text { directives, statements, empty_continuations } = lines::read(text)?;
        self.directives = directives;
        self.empty_continuations = empty_continuations;
        for statement in statements {
            self.add(Instruction::parse(statement)?)?;
        }
        if self.stages.is_empty() {
            let span = self.arguments.last().map(|argument| argument.span).unwrap_or_default();
            return Err(Mistake::syntax("the Dockerfile has no FROM").at(span));
        }
        Ok(())
    }

    fn add(&mut self, instruction: Instruction) -> mistake::Result<()> {
        match (&instruction.kind, self.stages.last_mut()) {
            (Kind::From(from), _) => {
                self.stages.push(Stage { from: from.clone(), head: instruction, instructions: Vec::new() });
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Kind::Arg(_), None) => self.arguments.push(instruction),
            (_, None) => {
                let message = format!("{} stands before the first FROM; only ARG may", instruction.kind.keyword());
                return Err(Mistake::syntax(message).near(&instruction.keyword).at(instruction.span));
            }
        }
        Ok(())
    }

    /// Its text.
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// Its parser directives.
    pub const fn directives(&self) -> &Directives {
        &self.directives
    }

    /// ARG before the first FROM.
    pub fn arguments(&self) -> &[Instruction] {
        &self.arguments
    }

    /// Its stages; there is one at least.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Every instruction, in order.
    pub fn instructions(&self) -> impl Iterator<Item = &Instruction> {
        let stages = self.stages.iter().flat_map(|stage| std::iter::once(&stage.head).chain(&stage.instructions));
        self.arguments.iter().chain(stages)
    }

    /// Works out what to build, and in which order.
    ///
    /// Fails with `DockerfileStage` for a stage that is not there, comes too late or needs itself, and with
    /// `DockerfileVariable` or `DockerfileValue` for a FROM that makes no sense.
    pub fn plan<'a>(&'a self, inputs: &'a Inputs) -> Result<Plan<'a>> {
        Plan::new(self, inputs, &mut Linter::default()).map_err(|mistake| self.error(mistake))
    }

    fn error(&self, mistake: Mistake) -> Error {
        mistake.into_error(&self.source)
    }
}

impl Plan<'_> {
    /// Adds the triggers (ONBUILD) that the configuration of a stage's base image has. They may make the stage need others,
    /// so this comes before [`Plan::needed`] is asked for the last time.
    ///
    /// Fails with the errors of [`Dockerfile::parse`] and [`Dockerfile::plan`], at the stage's FROM.
    pub fn bring_triggers(&mut self, id: StageId, triggers: &[String]) -> Result<()> {
        let file = self.file;
        self.add_triggers(id, triggers).map_err(|mistake| file.error(mistake))
    }

    /// Evaluates a stage.
    ///
    /// Fails with `DockerfileVariable`, `DockerfileValue` or `DockerfileStage`.
    pub fn evaluate(&self, id: StageId, start: Start<'_>) -> Result<Evaluated> {
        let mut linter = Linter::default();
        Evaluator::new(self, id, start, &mut linter, None).run().map_err(|mistake| self.file.error(mistake))
    }
}
