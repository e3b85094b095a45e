//! `.dockerignore`: which paths a context leaves out, exactly as `BuildKit` decides it.
//!
//! Three pieces of Moby define the behaviour: `moby/patternmatcher` (what a pattern matches),
//! `moby/patternmatcher/ignorefile` (how a file is read) and the walker of `tonistiigi/fsutil` (what a match means for a
//! tree). This module has the first two and the walker's decisions; it does no I/O. It works on bytes, because a path is
//! bytes and a pattern is compared with them.
//!
//! - A file has one pattern a line. `#` starts a comment in the first column only; white space around a pattern does not
//!   count; a pattern is cleaned as a path (`a/../b` is `b`), and one leading `/` is dropped.
//! - A pattern is matched with a path and with each of its parents. The last pattern that matches decides; `!` takes back.
//! - `*` and `?` stop at a `/`, `**` does not. `[a-z]` and `\x` are those of Go's `regexp`, and so are `|`, `{2}` and `^`,
//!   which Moby forgets to escape.
//! - `**x` matches every path that ends with `x` (`wxyx` too); `x/**` every path below `x`.

mod explain;
mod gopath;
mod goregex;
mod pattern;

use std::sync::Arc;

use crate::error::{Error, Location, Result};
use pattern::{Bad, Path, Pattern};

pub use explain::{Explanation, Step};

/// Lines of this many bytes or more are refused, by Moby too (the buffer of Go's `bufio.Scanner`).
pub const MAX_LINE: usize = 64 << 10;

/// A list of patterns, ready to match.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    lines: Vec<Line>,
    file: Arc<str>,
    exceptions: bool,
    /// Whether no `!` pattern has wildcards before its last part.
    plain_exceptions: bool,
}

/// Where a pattern comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// The line as it is in the file, without its end.
    pub source: Vec<u8>,
    /// It stands in no file: a caller appended it.
    pub appended: bool,
}

/// Which patterns matched a directory: what [`Matcher::matches`] needs for the entries in it.
#[derive(Clone, Debug, Default)]
pub struct MatchInfo(Vec<bool>);

/// What the patterns say of a path.
#[derive(Clone, Debug)]
pub struct Match {
    /// Whether the path is matched, that is excluded by an ignore file.
    pub matched: bool,
    /// The index of the pattern that decided so, if the path is matched.
    pub by: Option<usize>,
    /// For the entries in it, if it is a directory.
    pub info: MatchInfo,
}

impl Matcher {
    /// Reads an ignore file; `file` is its name in errors. Fails with `IgnorePattern`.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self> {
        let mut matcher = Self { file: file.into(), plain_exceptions: true, ..Self::default() };
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        for (number, line) in (1..).zip(content.split(|byte| *byte == b'\n')) {
            matcher.add_line(number, line.strip_suffix(b"\r").unwrap_or(line), false)?;
        }
        Ok(matcher)
    }

    /// Appends lines that stand in no file. Fails with `IgnorePattern`.
    pub fn append<'a>(&mut self, lines: impl IntoIterator<Item = &'a [u8]>) -> Result<()> {
        let last = self.lines.last().map_or(0, |line| line.number);
        for (number, line) in (last + 1..).zip(lines) {
            self.add_line(number, line, true)?;
        }
        Ok(())
    }

    /// Takes patterns that have been read from a file already, as a builder sends them over a session.
    ///
    /// White space is trimmed and paths are cleaned, but a `#` or a leading `/` is part of the pattern. Fails with
    /// `IgnorePattern`; the line is the pattern's place in the list.
    pub fn from_patterns<'a>(name: &str, patterns: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let mut matcher = Self { file: name.into(), plain_exceptions: true, ..Self::default() };
        for (number, pattern) in (1..).zip(patterns) {
            matcher.add(pattern, Line { number, source: pattern.to_vec(), appended: false })?;
        }
        Ok(matcher)
    }

    /// One line, by the rules of `ignorefile.ReadAll`.
    fn add_line(&mut self, number: usize, source: &[u8], appended: bool) -> Result<()> {
        let line = Line { number, source: source.to_vec(), appended };
        if source.len() >= MAX_LINE {
            return Err(self.error(&line, "the line is longer than 64 KiB"));
        }
        if source.starts_with(b"#") {
            return Ok(());
        }
        let pattern = gopath::trim_space(source);
        if pattern.is_empty() {
            return Ok(());
        }
        let (pattern, exception) =
            pattern.strip_prefix(b"!").map_or((pattern, false), |rest| (gopath::trim_space(rest), true));
        let mut normal = if exception { b"!".to_vec() } else { Vec::new() };
        if !pattern.is_empty() {
            let cleaned = gopath::clean(pattern);
            let relative = cleaned.strip_prefix(b"/").filter(|rest| !rest.is_empty());
            normal.extend_from_slice(relative.unwrap_or(&cleaned));
        }
        self.add(&normal, line)
    }

    /// One pattern, by the rules of `patternmatcher.New`.
    fn add(&mut self, pattern: &[u8], line: Line) -> Result<()> {
        let pattern = gopath::trim_space(pattern);
        if pattern.is_empty() {
            return Ok(());
        }
        let pattern = Pattern::new(pattern).map_err(|bad| self.error(&line, reason(bad)))?;
        self.exceptions |= pattern.exception;
        self.plain_exceptions &= !(pattern.exception && pattern.has_wildcards());
        self.patterns.push(pattern);
        self.lines.push(line);
        Ok(())
    }

    fn error(&self, line: &Line, reason: &str) -> Error {
        let source = String::from_utf8_lossy(&line.source).into_owned();
        let start = source.len() - source.trim_start().len();
        let location = Location {
            file: self.file.to_string(),
            line: line.number,
            end_line: line.number,
            column: source[..start].chars().count() + 1,
            width: source.trim().chars().count(),
            source: vec![source],
        };
        Error::IgnorePattern { location: Box::new(location), reason: reason.to_owned() }
    }

    /// Matches a path, given what was found for the directory that it is in; `None` at the top.
    ///
    /// Fails with `IgnorePattern` when a pattern that Moby compiles only on use turns out to be malformed.
    pub fn matches(&self, path: &[u8], parent: Option<&MatchInfo>) -> Result<Match> {
        let path = Path::new(path);
        let mut found = Match { matched: false, by: None, info: MatchInfo(vec![false; self.patterns.len()]) };
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.is_some_and(|parent| parent.0.get(index).copied().unwrap_or_default());
            if !inherited {
                // An exception changes nothing for a path that is not matched, and the reverse. That this leaves a
                // directory unmarked, though the pattern matches it, is part of the behaviour.
                if pattern.exception != found.matched {
                    continue;
                }
                if !pattern.is_match(&path).map_err(|bad| self.error(&self.lines[index], reason(bad)))? {
                    continue;
                }
            }
            found.info.0[index] = true;
            found.matched = !pattern.exception;
            found.by = found.matched.then_some(index);
        }
        Ok(found)
    }

    /// Matches a path by itself and by each of its parents (`MatchesOrParentMatches`).
    pub fn matches_or_parent(&self, path: &[u8]) -> Result<bool> {
        let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| Path::new(&path[..at]));
        let parents: Vec<Path<'_>> = parents.collect();
        let path = Path::new(path);
        let mut matched = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            if pattern.exception != matched {
                continue;
            }
            let itself = pattern.is_match(&path).map_err(|bad| self.error(&self.lines[index], reason(bad)))?;
            if itself || parents.iter().any(|parent| pattern.is_match(parent) == Ok(true)) {
                matched = !pattern.exception;
            }
        }
        Ok(matched)
    }

    /// Whether nothing below a matched directory can be taken back, so that it need not be read.
    pub fn may_skip(&self, directory: &[u8]) -> bool {
        if !self.exceptions {
            return true;
        }
        self.plain_exceptions
            && !self.patterns.iter().filter(|pattern| pattern.exception).any(|pattern| {
                let below = pattern.without_trailing_glob();
                match below.strip_prefix(directory) {
                    Some(rest) => rest.is_empty() || rest[0] == b'/',
                    None => false,
                }
            })
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The patterns in order: cleaned, with the `!`, and where each comes from.
    pub fn patterns(&self) -> impl Iterator<Item = (Vec<u8>, &Line)> {
        self.patterns.iter().zip(&self.lines).map(|(pattern, line)| {
            let mut text = if pattern.exception { b"!".to_vec() } else { Vec::new() };
            text.extend_from_slice(&pattern.text);
            (text, line)
        })
    }
}

const fn reason(bad: Bad) -> &'static str {
    match bad {
        Bad::LoneExclamation => "there is nothing after the `!`",
        Bad::Syntax => "a bracket, escape or repetition is not complete or not valid",
    }
}
