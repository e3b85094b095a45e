//! HEALTHCHECK.

use std::time::Duration;

use serde::Serialize;

use super::duration;
use super::{Command, Mistake, Result, at_least_one, nearest};
use crate::dockerfile::flags::{Flags, Takes};
use crate::dockerfile::statement::{Arguments, Statement};

/// How to see whether a container works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// The command; `None` takes back what the base has.
    pub command: Option<Command>,
    /// Between two checks.
    pub interval: Option<Duration>,
    /// After which a check has failed.
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    pub start_period: Option<Duration>,
    /// Between two checks in the start period.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make the container unhealthy.
    pub retries: u32,
}

const FLAGS: &[(&str, Takes)] = &[
    ("interval", Takes::Text),
    ("timeout", Takes::Text),
    ("start-period", Takes::Text),
    ("start-interval", Takes::Text),
    ("retries", Takes::Text),
];

impl Healthcheck {
    pub(super) fn parse(statement: &Statement) -> Result<Self> {
        let Arguments::Health(kind, arguments) = &statement.arguments else {
            return Err(at_least_one("HEALTHCHECK"));
        };
        let command = Command::of(arguments);
        let is_empty = matches!(&command, Command::Shell(text) if text.is_empty())
            || matches!(&command, Command::Exec(words) if words.is_empty());
        match kind.to_uppercase().as_str() {
            // BuildKit does not look at its flags.
            "NONE" if is_empty => return Ok(Self::default()),
            "NONE" => return Err(Mistake::syntax("HEALTHCHECK NONE takes no arguments")),
            "CMD" if is_empty => return Err(Mistake::syntax("a command is missing after HEALTHCHECK CMD")),
            "CMD" => {}
            other => {
                let message = format!("HEALTHCHECK takes CMD or NONE, not `{kind}`");
                return Err(Mistake::syntax(message).near(kind).suggest(nearest(other, ["CMD", "NONE"])));
            }
        }
        let flags = Flags::parse(&statement.flags, FLAGS)?;
        let time = |name: &str| match flags.text(name).filter(|text| !text.is_empty()) {
            Some(text) => interval(name, &text),
            None => Ok(None),
        };
        Ok(Self {
            command: Some(command),
            interval: time("interval")?,
            timeout: time("timeout")?,
            start_period: time("start-period")?,
            start_interval: time("start-interval")?,
            retries: retries(flags.text("retries").as_deref().unwrap_or_default())?,
        })
    }
}

/// Docker's least interval.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

fn interval(name: &str, text: &str) -> Result<Option<Duration>> {
    let Some(time) = duration::parse(text) else {
        let message = format!("`{text}` is no duration for --{name}: write it like 30s or 1m30s");
        return Err(Mistake::syntax(message).near(text));
    };
    if !time.is_zero() && time < MIN_INTERVAL {
        return Err(Mistake::syntax(format!("--{name} cannot be less than 1ms")).near(text));
    }
    Ok(Some(time).filter(|time| !time.is_zero()))
}

fn retries(text: &str) -> Result<u32> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse::<i32>().map(u32::try_from) {
        Ok(Ok(retries)) => Ok(retries),
        _ => Err(Mistake::syntax(format!("`{text}` is no number of retries")).near(text)),
    }
}
