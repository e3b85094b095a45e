//! A build that failed, told so that a person can mend it.
//!
//! Recent daemons say where in the Dockerfile an error belongs ([`details`]). Older ones only give a text, and the name of
//! the step that failed; then the place is found by that.

use tonic::Status;

use super::base_failure;
use super::details::{self, Details};
use super::dockerfile::{Dockerfile, Instruction};
use super::status::{FailedStep, Steps, is_own_step};
use crate::dockerfile::KEYWORDS;
use crate::error::{Error, Location, StepFailure};
use crate::spelling::distance;

/// All that is known of a failed build.
pub struct Failure<'a> {
    /// The answer to `Solve`.
    pub status: &'a Status,
    /// What the steps said.
    pub steps: &'a Steps,
    /// The Dockerfile.
    pub dockerfile: &'a Dockerfile,
    /// What went wrong on our side of the session, oldest first.
    pub trouble: Vec<Error>,
    /// An entry of the context whose name, or whose target, is no UTF-8.
    pub no_text: Option<&'a [u8]>,
    /// Whether a registry got credentials from us.
    pub had_credentials: &'a dyn Fn(&str) -> bool,
}

/// Makes the error that the caller gets.
pub fn explain(mut failure: Failure<'_>) -> Error {
    if std::error::Error::source(failure.status).is_some() {
        // The status was made here: the connection broke.
        let reason = super::transport::told(failure.status);
        return Error::DaemonProtocol { action: "the build".into(), reason };
    }
    let message = clean(failure.status.message());
    if let Some(error) = std::mem::take(&mut failure.trouble).into_iter().find(|error| is_cause(error, &message)) {
        return error;
    }
    let details = details::read(failure.status);
    let step = failed_step(&failure, &details);
    let place = Place { dockerfile: failure.dockerfile, details: &details, step: step.as_ref() };
    None.or_else(|| no_space(&message))
        .or_else(|| no_text(&message, failure.no_text))
        .or_else(|| secret_or_ssh(&message))
        .or_else(|| syntax(&message, &place))
        .or_else(|| base_failure::explain(&message, &place, failure.had_credentials))
        .or_else(|| failed_instruction(&message, &place, failure.steps))
        .or_else(|| dockerfile_mistake(failure.status.message(), &message, &place))
        .unwrap_or(Error::BuildFailed { message })
}

/// Where an error belongs, as far as is known.
pub(super) struct Place<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) details: &'a Details,
    pub(super) step: Option<&'a FailedStep>,
}

impl Place<'_> {
    /// The place that the daemon told, or that of `instruction`.
    pub(super) fn location(&self, instruction: Option<&Instruction>) -> Option<Location> {
        let told = self.details.lines.and_then(|(line, end)| self.dockerfile.location(line, end));
        told.or_else(|| instruction.and_then(|found| self.dockerfile.location(found.line, found.end_line)))
    }

    fn instruction(&self) -> Option<&Instruction> {
        let told = self.details.lines.and_then(|(line, _)| self.dockerfile.at_line(line));
        told.or_else(|| self.dockerfile.find_step(&self.step?.name))
    }
}

/// Takes off what BuildKit's layers put before the message that matters.
pub(super) fn clean(message: &str) -> String {
    const PREFIXES: [&str; 5] = [
        "failed to solve: ",
        "failed to solve with frontend dockerfile.v0: ",
        "failed to solve with frontend gateway.v0: ",
        "failed to create LLB definition: ",
        "rpc error: code = Unknown desc = ",
    ];
    let mut message = message.trim();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| message.strip_prefix(prefix)) {
        message = rest;
    }
    message.to_owned()
}

/// Whether an error of our side is why the build failed. A secret that is absent is none, where the step can do without.
fn is_cause(error: &Error, message: &str) -> bool {
    match error {
        Error::SecretUnavailable { id, .. } => {
            message.contains(&format!("secret {id}")) || message.contains(&error.to_string())
        }
        // Nor is a registry that gives no token for a cache, or for a mirror.
        Error::SshUnavailable { .. }
        | Error::Credentials { .. }
        // A build can do without a cache that is damaged.
        | Error::ImageInvalid { .. }
        | Error::RegistryDenied { .. }
        | Error::RegistryRefused { .. }
        | Error::RegistryUnreachable { .. }
        | Error::DaemonConfig { .. } => message.contains(&error.to_string()),
        // Without the context there is no build.
        _ => true,
    }
}

fn failed_step(failure: &Failure<'_>, details: &Details) -> Option<FailedStep> {
    let told = details.vertex.as_ref().and_then(|id| {
        let name = failure.steps.name(id)?.to_owned();
        Some(FailedStep { id: id.clone(), name, error: String::new() })
    });
    told.or_else(|| failure.steps.failed(failure.status.message()))
}

fn no_space(message: &str) -> Option<Error> {
    message.to_lowercase().contains("no space left on device").then(|| Error::NoSpace { message: message.to_owned() })
}

/// BuildKit since 0.17 (Docker 27.4) takes names as texts, and says no more than that one is none.
fn no_text(message: &str, path: Option<&[u8]>) -> Option<Error> {
    let path = path.filter(|_| message.contains("invalid UTF-8"))?;
    Some(Error::ContextPath {
        path: path.escape_ascii().to_string(),
        reason:
            "its name, or the target of the link, is not UTF-8, and this BuildKit takes nothing else; rename it, or \
                 exclude it in .dockerignore"
                .into(),
    })
}

/// A step wants a secret or an agent that the build was not given.
fn secret_or_ssh(message: &str) -> Option<Error> {
    if let Some((_, rest)) = message.split_once("secret ")
        && let Some((id, _)) = rest.split_once(" not found").or_else(|| rest.split_once(": not found"))
        && !id.contains(' ')
    {
        let id = id.trim_end_matches(':').to_owned();
        return Some(Error::SecretUnavailable { id, reason: "a step needs it, and the build was not given it".into() });
    }
    let id = if let Some((_, rest)) = message.split_once("no SSH key \"") {
        rest.split('"').next()?
    } else {
        message.split_once("unset ssh forward key ")?.1.split_whitespace().next()?
    };
    let id = if id.is_empty() { "default" } else { id };
    Some(Error::SshUnavailable { id: id.into(), reason: "a step needs it, and the build was not given it".into() })
}

/// `dockerfile parse error line 2: unknown instruction: RUNN`
fn syntax(message: &str, place: &Place<'_>) -> Option<Error> {
    let (_, rest) = message.split_once("parse error ")?;
    let rest = rest.strip_prefix("on ").unwrap_or(rest).strip_prefix("line ")?;
    let (line, text) = rest.split_once(": ")?;
    let line: usize = line.parse().ok()?;
    let end_line = place.dockerfile.at_line(line).map_or(line, |found| found.end_line);
    let mut location = place.dockerfile.location(line, end_line);
    let mut message = text.to_owned();
    if let Some(word) = text.strip_prefix("unknown instruction: ").and_then(|rest| rest.split_whitespace().next()) {
        if let Some(location) = &mut location {
            // The word is what is wrong, not its line.
            location.source.truncate(1);
            location.end_line = location.line;
            location.width = word.chars().count();
        }
        if !text.contains("did you mean")
            && let Some(known) = similar_instruction(word)
        {
            message = format!("{message} (did you mean {known}?)");
        }
    }
    Some(Error::Dockerfile { location: location.map(Box::new), message })
}

fn similar_instruction(word: &str) -> Option<&'static str> {
    let word = word.to_uppercase();
    let distances = KEYWORDS.iter().map(|known| (distance(&word, known), *known));
    // More than a third wrong is another word.
    distances.min().filter(|(distance, known)| distance * 3 <= known.len().max(3)).map(|(_, known)| known)
}

/// A step of the Dockerfile failed.
fn failed_instruction(message: &str, place: &Place<'_>, steps: &Steps) -> Option<Error> {
    let step = place.step?;
    let found = place
        .instruction()
        .or_else(|| base_failure::using_image_of(place.dockerfile, &step.name))
        .or_else(|| only_one_with(place.dockerfile, &step.name));
    if found.is_none() && !is_own_step(&step.name) {
        return None;
    }
    let without_number = step.name.split_once("] ").map_or(step.name.as_str(), |(_, text)| text);
    let text = if step.error.is_empty() { message.to_owned() } else { clean(&step.error) };
    Some(Error::StepFailed(Box::new(StepFailure {
        instruction: found.map_or_else(|| without_number.to_owned(), |found| found.text.clone()),
        exit_code: exit_code(message),
        location: place.location(found),
        tail: steps.tail(&step.id),
        message: missing_file(&text, found).unwrap_or(text),
    })))
}

/// `... exit code: 7`
fn exit_code(message: &str) -> Option<i64> {
    let (_, rest) = message.rsplit_once("exit code: ")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// `"/x" not found: not found` of a COPY says nothing of ignore files, the most common reason.
fn missing_file(message: &str, instruction: Option<&Instruction>) -> Option<String> {
    let instruction = instruction.filter(|found| matches!(found.keyword.as_str(), "COPY" | "ADD"))?;
    let (before, _) = message.split_once("not found")?;
    let path = before.rsplit('"').nth(1).filter(|path| !path.is_empty())?;
    let place = match instruction.text.split_whitespace().find_map(|word| word.strip_prefix("--from=")) {
        Some(from) => format!("is not in `{from}`"),
        None => "is not in the build context: it does not exist, or an ignore file excludes it".to_owned(),
    };
    Some(format!("`{path}` {place}"))
}

/// The frontend did not get as far as making steps.
fn dockerfile_mistake(raw: &str, message: &str, place: &Place<'_>) -> Option<Error> {
    if let Some((_, rest)) = message.split_once("target stage ")
        && rest.contains("could not be found")
    {
        return Some(Error::InvalidOption { name: "target".into(), reason: message.to_owned() });
    }
    let is_empty = message.contains("Dockerfile cannot be empty") || message.contains("file with no instructions");
    if !is_empty && !raw.contains("failed to create LLB definition") && place.details.lines.is_none() {
        return None;
    }
    let location = place.location(mentioned(place.dockerfile, message));
    Some(Error::Dockerfile { location: location.map(Box::new), message: message.to_owned() })
}

/// The one instruction that a message speaks of: by a piece of it, in quotes or brackets, or by its word.
fn mentioned<'a>(dockerfile: &'a Dockerfile, message: &str) -> Option<&'a Instruction> {
    let quoted = |open: char, close: char| {
        message.split_once(open).and_then(|(_, rest)| rest.rsplit_once(close)).map(|(inside, _)| inside)
    };
    let word = message.split_whitespace().next().filter(|word| KEYWORDS.contains(word));
    let pieces = [quoted('"', '"'), quoted('(', ')'), quoted('`', '`'), word];
    pieces.into_iter().flatten().find_map(|piece| only_one_with(dockerfile, piece))
}

/// The one instruction with this text in it.
fn only_one_with<'a>(dockerfile: &'a Dockerfile, text: &str) -> Option<&'a Instruction> {
    let mut found = dockerfile.instructions().iter().filter(|instruction| instruction.text.contains(text));
    found.next().filter(|_| !text.is_empty() && found.next().is_none())
}
