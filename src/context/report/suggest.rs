//! Lines for an ignore file: what could be left out of this context, tried on it before it is said.

use std::fmt::Write as _;

use serde::Serialize;

use super::findings::{self, Bytes, Category, Finding};
use super::sizes::Measured;
use super::trial::{Trial, Verdict};
use crate::cancel::Cancel;
use crate::context::Context;
use crate::context::entry::is_below;
use crate::error::Result;

/// From so many things of one name on, one pattern stands for them all.
const GENERAL: usize = 3;
/// No more lines than somebody reads.
const MAX_LINES: usize = 100;
/// A directory `data` above this size is worth a line.
const LARGE_DATA: u64 = 10_000_000;
/// Directories that hold data rather than code.
const DATA: &[&[u8]] = &[b"data", b"dataset", b"datasets"];

/// What an ignore file could exclude besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The ignore file that the lines are for, if there is one.
    pub ignore_file: Option<String>,
    /// One line for each pattern.
    pub lines: Vec<SuggestedLine>,
    /// Files that would go, if all lines but the optional ones are added.
    pub files: u64,
    /// And bytes.
    pub bytes: u64,
    /// Ready to be appended to the ignore file; optional lines are comments.
    pub text: String,
}

/// One line for an ignore file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuggestedLine {
    /// In the syntax of `.dockerignore`.
    pub pattern: String,
    /// Why.
    pub category: Category,
    /// Why, for people.
    pub what: &'static str,
    /// Files that it removes, those of the lines before it left out of account.
    pub files: u64,
    /// Bytes that it removes.
    pub bytes: u64,
    /// The image may need this: only its user knows.
    pub optional: bool,
}

/// What one or several lines may be written for.
struct Candidate {
    category: Category,
    what: &'static str,
    /// One pattern for all of it.
    general: Option<String>,
    paths: Vec<Vec<u8>>,
}

impl Context {
    /// What the ignore file could exclude besides: credentials first. No line removes the Dockerfile, a file that says what
    /// to install, or `.zen`. The numbers are those of a trial with this context.
    ///
    /// Fails with `Interrupted`.
    pub fn suggest(&self, cancel: &Cancel) -> Result<Suggestion> {
        let (measured, found) = self.look(cancel)?;
        let mut trial = Trial::new(self, &found, cancel)?;
        let mut lines = settle(&trial, &candidates(&found))?;
        lines.truncate(MAX_LINES);
        let (mut lines, files, bytes) = trial.measure(lines)?;
        let sure = lines.clone();
        for candidate in data(&measured) {
            lines.extend(optional(&mut trial, &sure, (files, bytes), &candidate)?);
        }
        let ignore_file = self.ignore.file.clone();
        let text = text(&lines, (files, bytes), ignore_file.is_some());
        Ok(Suggestion { ignore_file, lines, files, bytes, text })
    }
}

/// Groups findings by what one pattern may stand for.
fn candidates(found: &[Finding]) -> Vec<Candidate> {
    let mut candidates: Vec<(Vec<u8>, Candidate)> = Vec::new();
    for finding in found {
        let key = common(finding);
        let same = |(known, candidate): &&mut (Vec<u8>, Candidate)| {
            *known == key && (candidate.category, candidate.what) == (finding.category, finding.what)
        };
        if let Some((_, candidate)) = candidates.iter_mut().find(same) {
            candidate.paths.push(finding.path.clone());
        } else {
            let paths = vec![finding.path.clone()];
            let candidate = Candidate { category: finding.category, what: finding.what, general: None, paths };
            candidates.push((key, candidate));
        }
    }
    for (key, candidate) in &mut candidates {
        // Caches come back, elsewhere too.
        if candidate.paths.len() >= GENERAL || candidate.category == Category::Cache {
            let glob = if key.starts_with(b".") && candidate.category == Category::Weights { "*" } else { "" };
            candidate.general = pattern(key).map(|name| format!("**/{glob}{name}"));
        }
    }
    let mut candidates: Vec<Candidate> = candidates.into_iter().map(|(_, candidate)| candidate).collect();
    candidates.sort_by_key(|candidate| candidate.category);
    candidates
}

/// What findings of one kind may have in common: the name, or the ending of weights.
fn common(finding: &Finding) -> Vec<u8> {
    let name = finding.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    match name.iter().rposition(|byte| *byte == b'.') {
        Some(at) if finding.category == Category::Weights && !finding.directory => name[at..].to_vec(),
        _ => name.to_vec(),
    }
}

fn line(candidate: &Candidate, pattern: String, optional: bool) -> SuggestedLine {
    SuggestedLine { pattern, category: candidate.category, what: candidate.what, files: 0, bytes: 0, optional }
}

/// Tries the lines until they remove what they are for and nothing that is needed.
fn settle(trial: &Trial<'_>, candidates: &[Candidate]) -> Result<Vec<SuggestedLine>> {
    let mut general: Vec<bool> = candidates.iter().map(|candidate| candidate.general.is_some()).collect();
    let mut lines: Vec<(usize, SuggestedLine)> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        match &candidate.general {
            Some(pattern) => lines.push((index, line(candidate, pattern.clone(), false))),
            None => lines.extend(exact(index, candidate)),
        }
    }
    while !lines.is_empty() {
        let patterns: Vec<&str> = lines.iter().map(|(_, line)| line.pattern.as_str()).collect();
        let verdicts = trial.run(&patterns)?.verdicts;
        if verdicts.iter().all(|verdict| *verdict == Verdict::Fine) {
            break;
        }
        let mut better = Vec::new();
        for ((index, line), verdict) in lines.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Fine => better.push((index, line)),
                // A pattern that takes too much is replaced by the paths, and a path that does is dropped.
                Verdict::TooMuch if general[index] => {
                    general[index] = false;
                    better.extend(exact(index, &candidates[index]));
                }
                Verdict::TooMuch => {}
            }
        }
        lines = better;
    }
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}

fn exact(index: usize, candidate: &Candidate) -> impl Iterator<Item = (usize, SuggestedLine)> {
    let patterns = candidate.paths.iter().take(MAX_LINES).filter_map(|path| pattern(path));
    patterns.map(move |pattern| (index, line(candidate, pattern, false)))
}

/// Large directories that hold data, by their names.
fn data(measured: &Measured) -> Vec<Candidate> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for size in measured.largest_directories.iter().filter(|size| size.bytes >= LARGE_DATA) {
        let path = size.path.as_bytes();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if DATA.contains(&name) && !found.iter().any(|outer| is_below(path, outer)) {
            found.push(path.to_vec());
        }
    }
    let what = findings::what(Category::Data);
    let candidate = |path| Candidate { category: Category::Data, what, general: None, paths: vec![path] };
    found.into_iter().map(candidate).collect()
}

/// A line that its reader must decide about, with what it would remove after the others.
fn optional(
    trial: &mut Trial<'_>,
    sure: &[SuggestedLine],
    (files, bytes): (u64, u64),
    candidate: &Candidate,
) -> Result<Option<SuggestedLine>> {
    let [path] = candidate.paths.as_slice() else { return Ok(None) };
    let Some(pattern) = pattern(path) else { return Ok(None) };
    let mut patterns: Vec<&str> = sure.iter().map(|line| line.pattern.as_str()).collect();
    patterns.push(&pattern);
    let outcome = trial.run_with_data(path, &patterns)?;
    let (files, bytes) = (outcome.files.saturating_sub(files), outcome.bytes.saturating_sub(bytes));
    let fine = outcome.verdicts.last() == Some(&Verdict::Fine) && bytes > 0;
    Ok(fine.then(|| SuggestedLine { files, bytes, ..line(candidate, pattern, true) }))
}

/// A pattern that matches this path and, but for white space and control characters, no other. `None` where the path is no
/// text.
fn pattern(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let mut pattern = String::with_capacity(text.len());
    for (at, ch) in text.char_indices() {
        let at_an_end = at == 0 || at + ch.len_utf8() == text.len();
        match ch {
            '*' | '?' | '[' | ']' | '^' | '\\' | '|' | '{' | '}' => pattern.extend(['\\', ch]),
            '#' | '!' if at == 0 => pattern.extend(['\\', ch]),
            // White space at an end would be trimmed, and a mark at the beginning dropped.
            ch if ch.is_control() || ch == '\u{feff}' || (ch.is_whitespace() && at_an_end) => pattern.push('?'),
            ch => pattern.push(ch),
        }
    }
    Some(pattern)
}

fn text(lines: &[SuggestedLine], (files, bytes): (u64, u64), has_file: bool) -> String {
    let mut text = String::new();
    if lines.is_empty() {
        return text;
    }
    // The file may end without an end of line.
    let start = if has_file { "\n" } else { "" };
    let sum = format!("{files} files, {} less", Bytes(bytes));
    let _ = writeln!(text, "{start}# From `cooper context suggest`: {sum}");
    for SuggestedLine { pattern, what, files, bytes, optional, .. } in lines {
        let unless = if *optional { "; remove the # before the next line unless the image needs it" } else { "" };
        let _ =
            writeln!(text, "# {} in {files} file{}: {what}{unless}", Bytes(*bytes), if *files == 1 { "" } else { "s" });
        let _ = writeln!(text, "{}{pattern}", if *optional { "# " } else { "" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::ignore::Matcher;

    #[test]
    fn a_pattern_matches_its_path_and_not_what_it_could_be_taken_for() {
        let cases = [
            ("a*b", "aab"),
            ("a?b", "axb"),
            ("#a", "a"),
            ("!a", "a"),
            ("a|b", "a"),
            ("a{2}", "aa"),
            ("a[b]", "ab"),
            ("^a", "a"),
            ("a\\b", "ab"),
            (" a ", "a"),
            ("a\nb", "ab"),
            ("x/ y", "x/y"),
            ("a.b+(c)$", "axb"),
            ("\u{feff}a", "a"),
            ("a\u{a0}", "a"),
            ("a|*", "ab"),
        ];
        for (path, other) in cases {
            for prefix in ["", "**/"] {
                let line = format!("{prefix}{}", pattern(path.as_bytes()).unwrap());
                let matcher = Matcher::parse("x", line.as_bytes()).unwrap();
                let found = |path: &str| matcher.all_matches(path.as_bytes()).next().is_some();
                assert!(found(path), "{path:?} {line:?}");
                assert!(!found(other), "{path:?} {line:?}");
            }
        }
        assert_eq!(pattern(b"\xff"), None);
    }
}
