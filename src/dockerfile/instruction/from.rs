//! FROM.

use super::{Mistake, Result, words};
use crate::dockerfile::flags::{Flags, Takes};
use crate::dockerfile::statement::Statement;

/// Begins a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// The image, stage or named context that it builds on, with variables.
    pub base: String,
    /// `as` and the stage's name, both as written.
    pub alias: Option<(String, String)>,
    /// `--platform`, with variables.
    pub platform: Option<String>,
}

impl From {
    pub(super) fn parse(statement: &Statement) -> Result<Self> {
        let (base, alias) = match words(statement) {
            [base] => (base.clone(), None),
            [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
                if !is_stage_name(&name.to_lowercase()) {
                    let message = format!(
                        "`{name}` is no name for a stage: it begins with a letter and has letters, digits, `-`, `_` and `.`"
                    );
                    return Err(Mistake::syntax(message).near(name));
                }
                (base.clone(), Some((keyword.clone(), name.clone())))
            }
            _ => return Err(Mistake::syntax("FROM takes a base, or a base, `AS` and a name")),
        };
        let flags = Flags::parse(&statement.flags, &[("platform", Takes::Text)])?;
        Ok(Self { base, alias, platform: flags.text("platform").filter(|platform| !platform.is_empty()) })
    }

    /// The stage's name. Names are the same whatever their case.
    pub fn name(&self) -> Option<String> {
        self.alias.as_ref().map(|(_, name)| name.to_lowercase())
    }
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}
