//! What more lines in the ignore file would remove: the walk's decisions, made again over the entries of a context.

use std::collections::{HashMap, HashSet};

use super::CANCEL_EVERY;
use super::findings::{Finding, ZENML};
use super::suggest::SuggestedLine;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::context::entry::{Entry, Kind, is_below};
use crate::context::files;
use crate::context::ignore::{MatchInfo, Matcher};
use crate::error::Result;

/// Names of files that say what an image is made of.
const NEEDED: &[&str] =
    &["pyproject.toml", "setup.py", "setup.cfg", "Pipfile", "environment.yml", "environment.yaml", "MANIFEST.in"];
const NEEDED_BEGINNINGS: &[&str] = &["Dockerfile", "requirements", "constraints"];
const NEEDED_ENDINGS: &[&str] = &[".lock", ".dockerfile"];
/// Endings of files that make a directory more than data.
const CODE: &[&str] = &[".py", ".toml", ".sh"];

/// Whether a line may be suggested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// It removes something that is needed, or that it is not for.
    TooMuch,
}

/// What lines would do.
pub(super) struct Outcome {
    pub(super) verdicts: Vec<Verdict>,
    /// Files and bytes by line.
    removed: Vec<(u64, u64)>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

pub(super) struct Trial<'a> {
    context: &'a Context,
    cancel: &'a Cancel,
    /// The patterns that apply already, or will with an ignore file.
    matcher: Matcher,
    /// What lines may be for: these, with all that is in them.
    findings: HashSet<Vec<u8>>,
    /// And this directory, unless there is something in it that is needed.
    data: Option<Vec<u8>>,
    dockerfile: Option<Vec<u8>>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(context: &'a Context, found: &[Finding], cancel: &'a Cancel) -> Result<Self> {
        let mut matcher = context.ignore.matcher.clone();
        if context.ignore.file.is_none() {
            matcher = Matcher::parse("", b"")?;
            matcher.append(context.spec.extra_patterns.iter().map(String::as_bytes))?;
        }
        let dockerfile = files::dockerfile(&context.spec, context.root.as_ref(), &context.dockerfile);
        let dockerfile = dockerfile.ok().and_then(|found| found.relative);
        let findings = found.iter().map(|finding| finding.path.clone()).collect();
        Ok(Self { context, cancel, matcher, findings, data: None, dockerfile })
    }

    /// The same, with a line for a directory of data.
    pub(super) fn run_with_data(&mut self, directory: &[u8], lines: &[&str]) -> Result<Outcome> {
        self.data = Some(directory.to_vec());
        let outcome = self.run(lines);
        self.data = None;
        outcome
    }

    /// The lines that remove something, with what they remove, and the sums.
    pub(super) fn measure(&self, lines: Vec<SuggestedLine>) -> Result<(Vec<SuggestedLine>, u64, u64)> {
        let patterns: Vec<&str> = lines.iter().map(|line| line.pattern.as_str()).collect();
        let outcome = self.run(&patterns)?;
        let measured = lines.into_iter().zip(&outcome.removed).filter(|(_, (files, _))| *files > 0);
        let lines = measured.map(|(line, (files, bytes))| SuggestedLine { files: *files, bytes: *bytes, ..line });
        Ok((lines.collect(), outcome.files, outcome.bytes))
    }

    /// What a context with these lines would lack.
    pub(super) fn run(&self, lines: &[&str]) -> Result<Outcome> {
        let (matcher, first) = self.matcher.extended(lines.iter().map(|line| line.as_bytes()))?;
        let removed = vec![(0, 0); lines.len()];
        let outcome = Outcome { verdicts: vec![Verdict::Fine; lines.len()], removed, files: 0, bytes: 0 };
        let mut pass = Pass { trial: self, matcher, first, open: Vec::new(), linked: HashMap::new(), outcome };
        for (number, entry) in self.context.entries().enumerate() {
            if number % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            if let Kind::Hardlink { first, .. } = &entry.kind {
                pass.linked.insert(first.clone(), None);
            }
        }
        for (number, entry) in self.context.entries().enumerate() {
            if number % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            pass.visit(&entry)?;
        }
        Ok(pass.outcome)
    }

    /// Whether a line may not remove this.
    fn is_needed(&self, path: &[u8], within: Within) -> bool {
        if self.dockerfile.as_deref() == Some(path) || path == ZENML || is_below(path, ZENML) {
            return true;
        }
        let name = String::from_utf8_lossy(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        let installs = NEEDED.contains(&&*name)
            || NEEDED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            || ends(NEEDED_ENDINGS);
        match within {
            Within::Finding => false,
            Within::Data => installs || ends(CODE),
            Within::Nothing => installs,
        }
    }
}

/// What an entry is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Finding,
    Data,
}

/// One pass over the entries.
struct Pass<'a> {
    trial: &'a Trial<'a>,
    matcher: Matcher,
    /// The place of the first line among the patterns.
    first: usize,
    open: Vec<Open>,
    /// First names of hard linked files: the line that removes it, and the size, once it is removed.
    linked: HashMap<Vec<u8>, Option<(usize, u64)>>,
    outcome: Outcome,
}

/// A directory that the current entry is in.
struct Open {
    path: Vec<u8>,
    state: State,
    within: Within,
}

enum State {
    Match(MatchInfo, Option<usize>),
    /// All that is in it is removed, by this pattern.
    Out(usize),
}

impl Pass<'_> {
    fn visit(&mut self, entry: &Entry) -> Result<()> {
        while self.open.last().is_some_and(|open| !is_below(&entry.path, &open.path)) {
            self.open.pop();
        }
        let parent = self.open.last();
        let within = parent.map_or(Within::Nothing, |parent| parent.within);
        let state = match parent.map(|parent| &parent.state) {
            Some(State::Out(pattern)) => State::Out(*pattern),
            Some(State::Match(info, _)) => self.matches(entry, Some(info))?,
            None => self.matches(entry, None)?,
        };
        let by = match &state {
            State::Out(pattern) => Some(*pattern),
            State::Match(_, by) => *by,
        };
        // Extra files stay, whatever is excluded.
        let by = by.filter(|_| !entry.is_extra());
        let line = by.and_then(|by| by.checked_sub(self.first)).filter(|line| *line < self.outcome.removed.len());
        let within = match within {
            Within::Nothing if self.trial.findings.contains(&entry.path) => Within::Finding,
            Within::Nothing if self.trial.data.as_deref() == Some(&entry.path) => Within::Data,
            within => within,
        };
        if let Some(line) = line {
            self.remove(entry, line, within);
        } else if let Kind::Hardlink { first, .. } = &entry.kind {
            self.keep_link(first);
        }
        if entry.is_dir() {
            self.open.push(Open { path: entry.path.clone(), state, within });
        }
        Ok(())
    }

    fn matches(&self, entry: &Entry, parent: Option<&MatchInfo>) -> Result<State> {
        let found = self.matcher.matches(&entry.path, parent)?;
        Ok(match found.by {
            Some(pattern) if entry.is_dir() && self.matcher.may_skip(&entry.path) => State::Out(pattern),
            by => State::Match(found.info, by),
        })
    }

    /// Counts what a line removes; it may remove what the lines are for, and nothing else.
    fn remove(&mut self, entry: &Entry, line: usize, within: Within) {
        // A directory that holds none of these is removed for what is in it.
        let is_stray = within == Within::Nothing;
        if is_stray || self.trial.is_needed(&entry.path, within) {
            self.outcome.verdicts[line] = Verdict::TooMuch;
        }
        if !matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. }) {
            return;
        }
        if let Some(first) = self.linked.get_mut(&entry.path) {
            *first = Some((line, entry.size()));
        }
        self.outcome.removed[line].0 += 1;
        self.outcome.removed[line].1 += entry.size();
        self.outcome.files += 1;
        self.outcome.bytes += entry.size();
    }

    /// A further name of a file stays: so do the bytes, though the first name is removed.
    fn keep_link(&mut self, first: &[u8]) {
        if let Some((line, size)) = self.linked.get_mut(first).and_then(Option::take) {
            self.outcome.removed[line].1 -= size;
            self.outcome.bytes -= size;
        }
    }
}
