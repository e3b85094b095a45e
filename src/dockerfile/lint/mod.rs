//! What can be said against a Dockerfile that works: BuildKit's checks, as far as they need no base image.
//!
//! `rule` has their names and words, `options` what `# check=` says about them. Some look at the text alone and are in
//! `text`; others at values, and are told of where those are made (`super::plan`, `super::evaluate`).

mod options;
mod rule;
mod secrets;
mod text;

use std::collections::BTreeSet;

use serde::Serialize;

pub(super) use options::Options;
pub use rule::Rule;
pub(super) use secrets::check_secret;
pub(super) use text::{check_lines, check_stages};

use super::source::{Source, Span};
use crate::error::Location;

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What is against it.
    pub message: String,
    /// Where.
    pub location: Location,
}

/// Which paths of the context an ignore file leaves out. It is asked only where no `!` pattern takes any back: whether
/// something is left in a directory that is excluded, one cannot tell otherwise.
pub trait Ignored {
    /// Whether this path is excluded. It is relative and clean; `.` asks whether all of the context is.
    fn excludes(&self, path: &str) -> bool;
}

/// Collects findings.
#[derive(Clone, Debug, Default)]
pub(super) struct Linter {
    options: Options,
    findings: Vec<(Rule, String, Span)>,
}

impl Linter {
    pub(super) fn new(options: Options) -> Self {
        Self { options, findings: Vec::new() }
    }

    /// Tells of something in an instruction with these comments above it, which may say that it is meant so.
    pub(super) fn report(&mut self, rule: Rule, message: String, span: Span, comments: &[String]) {
        let local = comments.iter().find_map(|comment| Options::of_comment(comment));
        let runs = self.options.runs(rule) && local.as_ref().is_none_or(|local| !local.skips(rule));
        let asked_for = rule.is_experimental() && local.is_some_and(|local| local.runs(rule));
        if runs || asked_for {
            self.findings.push((rule, message, span));
        }
    }

    /// What was found, in the order of the lines.
    pub(super) fn findings(mut self, source: &Source) -> Vec<Finding> {
        self.findings.sort_by_key(|(.., span)| span.line);
        // An instruction is looked at again by each stage that builds on it.
        let mut seen = BTreeSet::new();
        let findings = self.findings.into_iter().filter(|found| seen.insert(found.clone()));
        findings.map(|(rule, message, span)| Finding { rule, message, location: source.location(span, None) }).collect()
    }
}
