//! A stage's instructions in order, with variables expanded: the steps to take, and the configuration that they make.

mod arguments;
mod history;
mod run;
mod transfer;

use serde::Serialize;

use super::config::Config;
use super::inputs::NOT_IN_ENVIRONMENT;
use super::instruction::{Command, Healthcheck, Instruction, Kind, Pairs};
use super::lint::{Ignored, Linter, Rule, check_secret};
use super::mistake::{Mistake, Result, edits, nearest};
use super::paths;
use super::plan::{Origin, Plan, StageId};
use super::ports;
use super::source::Span;
use super::step::{Action, MakeDirectory, Step};
use super::variables::Variables;
use super::words::Lexer;
use crate::platform::Platform;

/// What a stage begins with.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Nothing (`scratch`).
    Empty,
    /// An image, or a named context, with this configuration.
    Image(&'a Config),
    /// An image that nobody has looked at: variables may come from it.
    Unknown,
    /// Another stage.
    Stage(&'a Evaluated),
}

/// A stage, evaluated.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluated {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// The configuration after the last step.
    pub config: Config,
    /// The platform of the stage.
    pub platform: Platform,
    #[serde(skip)]
    state: State,
}

/// What a stage hands on to stages that build on it, besides its configuration.
#[derive(Clone, Debug, Default)]
struct State {
    /// ENV and ARG together.
    variables: Variables,
    /// ARG, with values if there are any.
    arguments: Vec<(String, Option<String>)>,
    /// Whether a WORKDIR was there.
    has_workdir: bool,
    /// Whether all variables that a base may have set are known.
    is_complete: bool,
}

/// Evaluates one stage.
pub(super) struct Evaluator<'p> {
    plan: &'p Plan<'p>,
    linter: &'p mut Linter,
    ignored: Option<&'p dyn Ignored>,
    id: StageId,
    platform: Platform,
    config: Config,
    state: State,
    steps: Vec<Step>,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK of this stage.
    last: [Option<Span>; 3],
}

impl<'p> Evaluator<'p> {
    pub(super) fn new(
        plan: &'p Plan<'p>,
        id: StageId,
        start: Start<'_>,
        linter: &'p mut Linter,
        ignored: Option<&'p dyn Ignored>,
    ) -> Self {
        let own = plan.nodes()[id].platform.as_ref();
        let platform = own.unwrap_or_else(|| plan.inputs.platform()).clone();
        let (mut config, state, platform) = match start {
            Start::Empty => {
                let config = Config { working_dir: "/".to_owned(), ..Config::default() };
                (config, State { is_complete: true, ..State::default() }, plan.inputs.platform().clone())
            }
            Start::Image(config) => (config.clone(), State { is_complete: true, ..State::default() }, platform),
            Start::Unknown => (Config::default(), State::default(), platform),
            Start::Stage(base) => (base.config.clone(), base.state.clone(), base.platform.clone()),
        };
        // Triggers are run by those who build on an image, not by those who build on them.
        config.onbuild.clear();
        config.complete_path(&platform.os);
        let mut evaluator =
            Self { plan, linter, ignored, id, platform, config, state, steps: Vec::new(), last: [None; 3] };
        // What an image sets is stronger than an ARG of the stage that made it.
        evaluator.config.env.iter().for_each(|(name, value)| evaluator.state.variables.set(name, value));
        evaluator
    }

    pub(super) fn run(mut self) -> Result<Evaluated> {
        let plan = self.plan;
        for (from_base, instruction) in plan.instructions(self.id) {
            self.step(instruction, from_base).map_err(|mistake| mistake.at(instruction.span))?;
        }
        let Self { steps, config, platform, state, .. } = self;
        Ok(Evaluated { steps, config, platform, state })
    }

    fn step(&mut self, instruction: &Instruction, from_base: bool) -> Result<()> {
        let (action, history) = match &instruction.kind {
            Kind::Add(transfer) => self.transfer(instruction, transfer, true)?,
            Kind::Copy(transfer) => self.transfer(instruction, transfer, false)?,
            Kind::Run(run) => self.run_step(instruction, run)?,
            Kind::Workdir(path) => self.workdir(instruction, path)?,
            kind => (Action::Configure, self.configure(instruction, kind)?),
        };
        self.steps.push(Step::new(instruction, from_base, action, history));
        Ok(())
    }

    /// Instructions that change the configuration only. The history has a line for each but ONBUILD.
    fn configure(&mut self, instruction: &Instruction, kind: &Kind) -> Result<Option<String>> {
        Ok(Some(match kind {
            Kind::Arg(arguments) => self.arguments(instruction, arguments)?,
            Kind::Cmd(command) => self.cmd(instruction, command),
            Kind::Entrypoint(command) => self.entrypoint(instruction, command),
            Kind::Env(pairs) => self.env(instruction, pairs)?,
            Kind::Expose(words) => self.expose(instruction, words)?,
            Kind::Healthcheck(check) => self.healthcheck(instruction, check),
            Kind::Label(pairs) => self.label(instruction, pairs)?,
            Kind::Maintainer(author) => {
                self.config.author = Some(author.clone());
                format!("MAINTAINER {author}")
            }
            Kind::Onbuild(trigger) => {
                self.config.onbuild.push(trigger.clone());
                return Ok(None);
            }
            Kind::Shell(shell) => {
                self.config.shell.clone_from(shell);
                format!("SHELL [{}]", shell.join(" "))
            }
            Kind::Stopsignal(signal) => self.stop_signal(instruction, signal)?,
            Kind::User(user) => {
                self.config.user = self.expand(instruction, user)?;
                format!("USER {}", self.config.user)
            }
            Kind::Volume(volumes) => self.volume(instruction, volumes)?,
            _ => return Err(Mistake::syntax(format!("{} cannot stand here", kind.keyword()))),
        }))
    }

    /// Expands a text with the variables that are set.
    fn expand(&mut self, instruction: &Instruction, text: &str) -> Result<String> {
        self.expand_with(self.plan.lexer, instruction, text)
    }

    fn expand_with(&mut self, lexer: Lexer, instruction: &Instruction, text: &str) -> Result<String> {
        let expansion = lexer.expand(text, &self.state.variables).map_err(|mistake| mistake.near(text))?;
        for name in &expansion.unset {
            self.report_unset(instruction, name);
        }
        Ok(expansion.text)
    }

    fn expand_option(&mut self, instruction: &Instruction, text: Option<&String>) -> Result<Option<String>> {
        let text = text.map(|text| self.expand(instruction, text)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn report_unset(&mut self, instruction: &Instruction, name: &str) {
        let declared = self.state.arguments.iter().any(|(argument, _)| argument == name);
        if declared || NOT_IN_ENVIRONMENT.contains(&name) {
            return;
        }
        let declared = self.state.arguments.iter().map(|(argument, _)| argument.as_str());
        let known = self.state.variables.names().chain(declared);
        // A base image that was not looked at may set it, unless it looks like a slip of the pen. `GOPATH` is none of `PATH`.
        let is_complete = self.state.is_complete;
        let is_slip = |meant: &str| meant != "PATH" && edits(name, meant) * 3 <= name.chars().count();
        let meant = nearest(name, known.filter(|meant| is_complete || is_slip(meant)));
        if !is_complete && meant.is_none() {
            return;
        }
        let meant = meant.map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
        self.report(Rule::UndefinedVar, format!("usage of undefined variable `${name}`{meant}"), instruction);
    }

    fn report(&mut self, rule: Rule, message: String, instruction: &Instruction) {
        self.linter.report(rule, message, instruction.span, &instruction.comments);
    }

    /// Only the last of some instructions counts: tells of the one before.
    fn used_once(&mut self, instruction: &Instruction, index: usize) {
        if let Some(before) = self.last[index].replace(instruction.span) {
            let message = format!(
                "multiple {} instructions should not be used in the same stage: only the last one counts",
                instruction.keyword
            );
            self.linter.report(Rule::MultipleInstructionsDisallowed, message, before, &instruction.comments);
        }
    }

    fn command(&mut self, instruction: &Instruction, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => {
                if self.config.shell.is_empty() {
                    let message = format!(
                        "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                        instruction.keyword
                    );
                    self.report(Rule::JSONArgsRecommended, message, instruction);
                }
                self.config.with_shell(text, &self.platform.os)
            }
        }
    }

    fn cmd(&mut self, instruction: &Instruction, command: &Command) -> String {
        self.used_once(instruction, 0);
        let command = self.command(instruction, command);
        let history = format!("CMD {}", history::quoted(&command));
        self.config.cmd = Some(command);
        history
    }

    fn entrypoint(&mut self, instruction: &Instruction, command: &Command) -> String {
        self.used_once(instruction, 1);
        let command = self.command(instruction, command);
        let history = format!("ENTRYPOINT {}", history::quoted(&command));
        self.config.entrypoint = Some(command).filter(|command| !command.is_empty());
        // The base's CMD were arguments for the base's ENTRYPOINT.
        if self.last[0].is_none() {
            self.config.cmd = None;
        }
        history
    }

    fn healthcheck(&mut self, instruction: &Instruction, check: &Healthcheck) -> String {
        self.used_once(instruction, 2);
        self.config.healthcheck = Some(check.clone());
        history::healthcheck(check)
    }

    fn pairs(&mut self, instruction: &Instruction, pairs: &Pairs) -> Result<Vec<(String, String)>> {
        if pairs.legacy {
            let keyword = &instruction.keyword;
            let message = format!("`{keyword} key=value` should be used instead of the legacy `{keyword} key value`");
            self.report(Rule::LegacyKeyValueFormat, message, instruction);
        }
        let pairs = pairs.pairs.iter().map(|(name, value)| {
            let name = self.expand(instruction, name)?;
            Ok((name, self.expand(instruction, value)?))
        });
        pairs.collect()
    }

    fn env(&mut self, instruction: &Instruction, pairs: &Pairs) -> Result<String> {
        let mut history = vec!["ENV".to_owned()];
        // All values are expanded before any is set.
        for (name, value) in self.pairs(instruction, pairs)? {
            check_secret(self.linter, "ENV", &name, instruction.span, &instruction.comments);
            self.state.variables.set(&name, &value);
            self.config.env.set(&name, &value);
            history.push(format!("{name}={value}"));
        }
        Ok(history.join(" "))
    }

    fn label(&mut self, instruction: &Instruction, pairs: &Pairs) -> Result<String> {
        let mut history = vec!["LABEL".to_owned()];
        for (name, value) in self.pairs(instruction, pairs)? {
            history.push(format!("{name}={value}"));
            self.config.labels.insert(name, value);
        }
        Ok(history.join(" "))
    }

    fn expose(&mut self, instruction: &Instruction, words: &[String]) -> Result<String> {
        let mut all = Vec::new();
        for word in words {
            let expanded = self.plan.lexer.expand(word, &self.state.variables).map_err(|mistake| mistake.near(word))?;
            for word in &expanded.words {
                let found = ports::parse(word)?;
                if found.upper_protocol {
                    let message = format!("the protocol of `{word}` in EXPOSE should be lowercase");
                    self.report(Rule::ExposeProtoCasing, message, instruction);
                }
                if found.is_mapping {
                    let message = format!("EXPOSE should not have an IP address or a host port, as `{word}` has");
                    self.report(Rule::ExposeInvalidFormat, message, instruction);
                }
                all.extend(found.list);
            }
        }
        let history = format!("EXPOSE [{}]", all.join(" "));
        self.config.exposed_ports.extend(all);
        Ok(history)
    }

    fn volume(&mut self, instruction: &Instruction, volumes: &[String]) -> Result<String> {
        let volumes: Vec<String> =
            volumes.iter().map(|volume| self.expand(instruction, volume)).collect::<Result<_>>()?;
        if volumes.iter().any(String::is_empty) {
            return Err(Mistake::value("a volume is empty"));
        }
        let history = format!("VOLUME [{}]", volumes.join(" "));
        self.config.volumes.extend(volumes);
        Ok(history)
    }

    fn stop_signal(&mut self, instruction: &Instruction, signal: &str) -> Result<String> {
        let signal = self.expand(instruction, signal)?;
        if !is_signal(&signal) {
            return Err(Mistake::value(format!("`{signal}` is no signal: write it like SIGTERM or 15")).near(&signal));
        }
        let history = format!("STOPSIGNAL {signal}");
        self.config.stop_signal = Some(signal);
        Ok(history)
    }

    fn workdir(&mut self, instruction: &Instruction, path: &str) -> Result<(Action, Option<String>)> {
        let path = self.expand(instruction, path)?;
        let first = !std::mem::replace(&mut self.state.has_workdir, true);
        if first && !path.starts_with('/') {
            let message = format!("relative workdir `{path}` can have unexpected results if the base image changes");
            self.report(Rule::WorkdirRelativePath, message, instruction);
        }
        let path = paths::working_dir(&self.config.working_dir, &path);
        let history = format!("WORKDIR {path}");
        self.config.working_dir.clone_from(&path);
        let action = if path == "/" {
            Action::Configure
        } else {
            Action::MakeDirectory(MakeDirectory { path, user: self.config.user.clone() })
        };
        Ok((action, Some(history)))
    }

    /// A source of another stage has to be one of those before this one.
    fn before(&self, origin: Origin, from: &str) -> Result<Origin> {
        match origin {
            Origin::Stage(id) if id >= self.id => {
                Err(Mistake::stage(format!("the stage `{from}` has to be defined before it is used")).near(from))
            }
            origin => Ok(origin),
        }
    }
}

const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// A number that is not 0, or a name with `SIG` before it or without.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |prefix: &str, most: u8| {
        let offset = name.strip_prefix(prefix).filter(|digits| !digits.starts_with(['+', '0']))?;
        offset.parse().ok().filter(|offset: &u8| (1..=most).contains(offset))
    };
    SIGNALS.contains(&name) || real_time("RTMIN+", 15).is_some() || real_time("RTMAX-", 14).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for signal in ["9", "SIGTERM", "term", "SIGRTMIN+15", "RTMAX-14", "-1"] {
            assert!(is_signal(signal), "{signal}");
        }
        for signal in ["0", "", "SIG", "SIGFOO", "RTMIN+16", "RTMIN+0", "SIGSIGTERM"] {
            assert!(!is_signal(signal), "{signal}");
        }
    }
}
