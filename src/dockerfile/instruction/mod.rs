//! Instructions, as far as their text alone says what they are. Variables are not expanded yet.

mod copy;
mod duration;
mod from;
mod health;
mod mount;
mod print;
mod run;

use serde::Serialize;

pub use copy::Transfer;
pub use from::From;
pub use health::Healthcheck;
pub use mount::{Mount, MountKind, MountSpec, Sharing};
pub use run::{Device, Network, Run, Security};

pub(super) use mount::parse_bool;

use super::flags::Flags;
use super::mistake::{Mistake, Result, nearest};
use super::source::Span;
use super::statement::{Arguments, Statement};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its keyword as written: `FROM`, `from`.
    pub keyword: String,
    /// What it is.
    pub kind: Kind,
    /// All of it on one line: comments and continuation characters left out, here-documents too.
    pub text: String,
    /// Comments right above it, without `#`.
    pub comments: Vec<String>,
    /// The lines that it takes up, here-documents included.
    pub span: Span,
}

/// What an instruction is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the instruction of its name")]
pub enum Kind {
    Add(Transfer),
    Arg(Vec<Argument>),
    Cmd(Command),
    Copy(Transfer),
    Entrypoint(Command),
    Env(Pairs),
    Expose(Vec<String>),
    From(From),
    Healthcheck(Healthcheck),
    Label(Pairs),
    Maintainer(String),
    /// The instruction that an image built from this one should begin with, here-documents included.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A name of ARG and its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its default, with quotes and variables.
    pub default: Option<String>,
}

/// Names and values of ENV and LABEL, with quotes and variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// In order.
    pub pairs: Vec<(String, String)>,
    /// Whether they are written `name value`.
    pub legacy: bool,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A text for the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// Every keyword.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Instruction {
    /// Understands a statement. The mistake is one of its lines.
    pub(super) fn parse(statement: Statement) -> Result<Self> {
        let kind = Kind::parse(&statement).map_err(|mistake| mistake.at(statement.span))?;
        let Statement { keyword, original: text, comments, span, .. } = statement;
        Ok(Self { keyword, kind, text, comments, span })
    }
}

impl Kind {
    fn parse(statement: &Statement) -> Result<Self> {
        let keyword = statement.keyword.to_uppercase();
        Ok(match keyword.as_str() {
            "ADD" => Self::Add(Transfer::add(statement)?),
            "ARG" => Self::Arg(arguments(statement)?),
            "CMD" => Self::Cmd(command(statement)?),
            "COPY" => Self::Copy(Transfer::copy(statement)?),
            "ENTRYPOINT" => Self::Entrypoint(command(statement)?),
            "ENV" => Self::Env(pairs(&keyword, statement)?),
            "EXPOSE" => {
                let mut ports = some_words(&keyword, statement)?;
                ports.sort_unstable();
                Self::Expose(ports)
            }
            "FROM" => Self::From(From::parse(statement)?),
            "HEALTHCHECK" => Self::Healthcheck(Healthcheck::parse(statement)?),
            "LABEL" => Self::Label(pairs(&keyword, statement)?),
            "MAINTAINER" => Self::Maintainer(one_word(&keyword, statement)?),
            "ONBUILD" => Self::Onbuild(trigger(statement)?),
            "RUN" => Self::Run(Run::parse(statement)?),
            "SHELL" => Self::Shell(shell(statement)?),
            // BuildKit does not look at the flags of this one, nor at those of ARG.
            "STOPSIGNAL" => Self::Stopsignal(one(&keyword, statement)?),
            "USER" => Self::User(one_word(&keyword, statement)?),
            "VOLUME" => Self::Volume(volumes(statement)?),
            "WORKDIR" => Self::Workdir(one_word(&keyword, statement)?),
            _ => return Err(unknown(&statement.keyword)),
        })
    }

    /// Its keyword in capitals.
    pub const fn keyword(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::From(_) => "FROM",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }
}

fn unknown(keyword: &str) -> Mistake {
    let upper = keyword.to_uppercase();
    let suggestion = nearest(&upper, KEYWORDS);
    let message = format!("unknown instruction `{keyword}`");
    Mistake::syntax(message).near(keyword).suggest(suggestion)
}

fn at_least_one(keyword: &str) -> Mistake {
    Mistake::syntax(format!("{keyword} needs at least one argument"))
}

/// The words of an instruction, whether they are JSON or not.
fn words(statement: &Statement) -> &[String] {
    match &statement.arguments {
        Arguments::Plain(words) | Arguments::Json(words) => words,
        _ => &[],
    }
}

fn one(keyword: &str, statement: &Statement) -> Result<String> {
    match words(statement) {
        [word] => Ok(word.clone()),
        _ => Err(Mistake::syntax(format!("{keyword} needs exactly one argument"))),
    }
}

/// One argument, no flags.
fn one_word(keyword: &str, statement: &Statement) -> Result<String> {
    let word = one(keyword, statement)?;
    Flags::parse(&statement.flags, &[])?;
    Ok(word)
}

/// One argument or more, no flags.
fn some_words(keyword: &str, statement: &Statement) -> Result<Vec<String>> {
    let words = words(statement);
    if words.is_empty() {
        return Err(at_least_one(keyword));
    }
    Flags::parse(&statement.flags, &[])?;
    Ok(words.to_vec())
}

fn volumes(statement: &Statement) -> Result<Vec<String>> {
    let volumes: Vec<String> =
        some_words("VOLUME", statement)?.into_iter().map(|volume| volume.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return Err(Mistake::syntax("a volume has no name"));
    }
    Ok(volumes)
}

/// The command of CMD and ENTRYPOINT.
fn command(statement: &Statement) -> Result<Command> {
    Flags::parse(&statement.flags, &[])?;
    Ok(Command::of(&statement.arguments))
}

impl Command {
    fn of(arguments: &Arguments) -> Self {
        match arguments {
            Arguments::Json(words) => Self::Exec(words.clone()),
            Arguments::Plain(words) => Self::Shell(words.concat()),
            _ => Self::Shell(String::new()),
        }
    }
}

fn shell(statement: &Statement) -> Result<Vec<String>> {
    Flags::parse(&statement.flags, &[])?;
    match &statement.arguments {
        Arguments::Json(words) if !words.is_empty() => Ok(words.clone()),
        Arguments::Plain(words) if !words.is_empty() => {
            Err(Mistake::syntax("SHELL takes a JSON array, such as [\"/bin/bash\", \"-c\"]").near(&words[0]))
        }
        _ => Err(at_least_one("SHELL")),
    }
}

fn arguments(statement: &Statement) -> Result<Vec<Argument>> {
    let words = words(statement);
    if words.is_empty() {
        return Err(at_least_one("ARG"));
    }
    let arguments = words.iter().map(|word| match word.split_once('=') {
        Some(("", _)) => Err(Mistake::syntax("ARG needs a name before `=`").near(word)),
        Some((name, default)) => Ok(Argument { name: name.to_owned(), default: Some(default.to_owned()) }),
        None => Ok(Argument { name: word.clone(), default: None }),
    });
    arguments.collect()
}

fn pairs(keyword: &str, statement: &Statement) -> Result<Pairs> {
    Flags::parse(&statement.flags, &[])?;
    let Arguments::Pairs { pairs, legacy } = &statement.arguments else { return Err(at_least_one(keyword)) };
    if let Some((_, value)) = pairs.iter().find(|(name, _)| name.is_empty()) {
        return Err(Mistake::syntax(format!("{keyword} needs a name before `=`")).near(format!("={value}")));
    }
    Ok(Pairs { pairs: pairs.clone(), legacy: *legacy })
}

/// The text of ONBUILD's instruction, as it is kept in an image.
fn trigger(statement: &Statement) -> Result<String> {
    let Arguments::Trigger(inner) = &statement.arguments else { return Err(at_least_one("ONBUILD")) };
    Flags::parse(&statement.flags, &[])?;
    match inner.keyword.to_uppercase().as_str() {
        "ONBUILD" => return Err(Mistake::syntax("ONBUILD ONBUILD is not allowed").near(&inner.keyword)),
        keyword @ ("FROM" | "MAINTAINER") => {
            return Err(Mistake::syntax(format!("{keyword} is not allowed behind ONBUILD")).near(&inner.keyword));
        }
        _ => {}
    }
    let mut text = statement.original[statement.keyword.len()..].trim_start().to_owned();
    for heredoc in &statement.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}
