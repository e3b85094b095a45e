//! `# check=skip=A,B;error=true;experimental=all`.

use super::rule::Rule;
use crate::dockerfile::directives;
use crate::dockerfile::instruction::parse_bool;
use crate::dockerfile::mistake::{Mistake, Result};

/// Which rules are looked at, and whether findings are errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Findings are errors.
    pub(crate) error: bool,
    skip: Rules,
    experimental: Rules,
}

/// Some rules. Names that are no rule's are kept: they may be those of a later version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rules {
    all: bool,
    names: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, names: Vec::new() },
            list => Self { all: false, names: list.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.all || self.names.contains(&rule.name())
    }
}

impl Options {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            match part.split_once('=').map(|(key, value)| (key.trim(), value)) {
                Some(("skip", value)) => options.skip = Rules::parse(value),
                Some(("experimental", value)) => options.experimental = Rules::parse(value),
                Some(("error", value)) => options.error = parse_bool("error", value.trim())?,
                _ => {
                    let message = format!("`{part}` is no check option: they are skip=, error= and experimental=");
                    return Err(Mistake::syntax(message).near(part));
                }
            }
        }
        Ok(options)
    }

    /// Those of a comment above an instruction, for that instruction alone.
    pub(super) fn of_comment(comment: &str) -> Option<Self> {
        let (name, value) = directives::split(comment, "")?;
        let value = value.split(' ').next().unwrap_or_default();
        if name == "check" { Self::parse(value).ok() } else { None }
    }

    /// Whether a rule is looked at.
    pub(crate) fn runs(&self, rule: Rule) -> bool {
        if rule.is_experimental() { self.experimental.has(rule) } else { !self.skip.has(rule) }
    }

    /// Whether a rule is skipped; an experimental one cannot be.
    pub(super) fn skips(&self, rule: Rule) -> bool {
        !rule.is_experimental() && self.skip.has(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_rules() {
        let options = Options::parse(" skip=StageNameCasing, FromAsCasing;error=true;experimental=all ").unwrap();
        assert!(options.error);
        assert!(!options.runs(Rule::StageNameCasing) && !options.runs(Rule::FromAsCasing));
        assert!(options.runs(Rule::UndefinedVar) && options.runs(Rule::InvalidDefinitionDescription));
        let options = Options::parse("skip=all").unwrap();
        assert!(!options.runs(Rule::UndefinedVar) && !options.runs(Rule::InvalidDefinitionDescription));
        for text in ["skip", "error=maybe", "what=1", "skip=a;error=true;experimental=b;x=1"] {
            let parsed = Options::parse(text);
            assert_eq!(parsed.is_err(), !text.contains("x=1"), "{text}");
        }
        assert!(Options::of_comment("check=skip=all").is_some());
        assert!(Options::of_comment("a comment").is_none());
    }
}
