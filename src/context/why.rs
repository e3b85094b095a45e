//! Why a path is in a context, or is not.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;
use serde::Serialize;

use super::Context;
use super::entry::{Entry, Kind, is_below};
use super::ignore::Explanation;
use super::report::measure;
use crate::cancel::Cancel;
use crate::error::Result;

/// Whether a path is in a context, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The path, relative to the root and cleaned; empty for the root.
    pub path: String,
    /// Whether it is in the context.
    pub included: bool,
    /// Why.
    pub reason: Reason,
    /// The patterns that had a say, in order: the last one decides.
    pub patterns: Vec<PatternMatch>,
    /// For a directory: what is in it.
    pub contents: Option<Contents>,
}

/// Why a path is in a context, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// In: it is the root.
    Root,
    /// In: no pattern matches it.
    NoPattern,
    /// In: a `!` pattern takes it back.
    TakenBack,
    /// In: a directory that is excluded, but something in it is not.
    HoldsIncluded,
    /// In: an extra file, or a directory of one; no pattern excludes those.
    ExtraFile,
    /// Out: a pattern matches it.
    Excluded,
    /// Out: a directory that it is in is excluded.
    ParentExcluded,
    /// Out: an ignore file that the caller leaves out.
    IgnoreFile,
    /// Out: a socket; no image can hold one.
    Socket,
    /// Out: there is no such file.
    Missing,
    /// Out: it is not below the root.
    Outside,
    /// Out: a part of the path is a symbolic link, and none is followed.
    BehindLink,
    /// Out: it cannot be looked at.
    Unreadable,
    /// Out: it was not there when the context was opened.
    Appeared,
}

/// A pattern that had a say about a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatternMatch {
    /// The ignore file; `None` for a pattern that a caller appended.
    pub file: Option<String>,
    /// The line in the file.
    pub line: usize,
    /// The line as it is there.
    pub source: String,
    /// The pattern, cleaned.
    pub pattern: String,
    /// Whether it excludes; else it takes back.
    pub excludes: bool,
    /// What it matches: the path, or a directory that it is in.
    pub matches: String,
}

/// What is in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Files in the context.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Files that are excluded.
    pub excluded_files: u64,
    /// Bytes of these.
    pub excluded_bytes: u64,
}

/// What is at a path on disk.
enum Found {
    Something(FileType),
    Nothing(Reason),
}

impl Context {
    /// Says why a path, relative to the root, is in the context or is not. It is in if and only if
    /// [`entries`](Self::entries) has it, or it is the root.
    ///
    /// Counts what is excluded in a directory. Fails with `Interrupted`, and with `IgnorePattern` as [`Context::open`].
    pub fn why(&self, path: &[u8], cancel: &Cancel) -> Result<Why> {
        let Some(path) = clean(path) else {
            let path = String::from_utf8_lossy(path).into_owned();
            return Ok(Why { path, included: false, reason: Reason::Outside, patterns: Vec::new(), contents: None });
        };
        let explanation = if path.is_empty() { Explanation::default() } else { self.ignore.matcher.explain(&path)? };
        let entry = self.find(&path);
        let (included, reason, is_dir) = match &entry {
            _ if path.is_empty() => (true, Reason::Root, true),
            Some(entry) => (true, reason_in(entry, &explanation), entry.is_dir()),
            None => {
                let found = self.on_disk(&path);
                let is_dir = matches!(found, Found::Something(FileType::Directory));
                (false, self.reason_out(&path, &found, &explanation), is_dir)
            }
        };
        let contents = if is_dir { Some(self.contents(&path, cancel)?) } else { None };
        let patterns = self.pattern_matches(&path, &explanation);
        Ok(Why { path: String::from_utf8_lossy(&path).into_owned(), included, reason, patterns, contents })
    }

    /// The pattern that keeps a path out of the context, or a directory that it is in; `None` where it is in, or is not
    /// there at all.
    pub fn excluded_by(&self, path: &[u8]) -> Option<PatternMatch> {
        let path = clean(path).filter(|path| !path.is_empty() && self.find(path).is_none())?;
        let explanation = self.ignore.matcher.explain(&path).ok()?;
        let reason = self.reason_out(&path, &self.on_disk(&path), &explanation);
        let excluded = matches!(reason, Reason::Excluded | Reason::ParentExcluded);
        self.pattern_matches(&path, &explanation).pop().filter(|_| excluded)
    }

    fn reason_out(&self, path: &[u8], found: &Found, explanation: &Explanation) -> Reason {
        let kind = match found {
            Found::Nothing(reason) => return *reason,
            Found::Something(kind) => *kind,
        };
        match explanation.steps.last() {
            Some(step) if step.excludes && step.length < path.len() => Reason::ParentExcluded,
            Some(step) if step.excludes => Reason::Excluded,
            _ if self.ignore.omit.iter().any(|omitted| omitted == path) => Reason::IgnoreFile,
            _ if kind == FileType::Socket => Reason::Socket,
            _ => Reason::Appeared,
        }
    }

    /// Looks at a path part by part: no part before the last may be a link.
    fn on_disk(&self, path: &[u8]) -> Found {
        let Some(root) = &self.root else { return Found::Nothing(Reason::Missing) };
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let part = OsStr::from_bytes(&path[..end]);
            let kind = match statat(&root.fd, part, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT | Errno::NOTDIR) => return Found::Nothing(Reason::Missing),
                Err(_) => return Found::Nothing(Reason::Unreadable),
            };
            if end == path.len() {
                return Found::Something(kind);
            }
            if kind == FileType::Symlink {
                return Found::Nothing(Reason::BehindLink);
            }
        }
        Found::Nothing(Reason::Missing)
    }

    fn contents(&self, path: &[u8], cancel: &Cancel) -> Result<Contents> {
        let mut contents = Contents::default();
        for removed in measure(self, path, cancel)? {
            contents.excluded_files += removed.files;
            contents.excluded_bytes += removed.bytes;
        }
        let is_file = |entry: &Entry| matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. });
        for entry in self.entries().filter(|entry| is_file(entry) && is_below(&entry.path, path)) {
            contents.files += 1;
            contents.bytes += entry.size();
        }
        Ok(contents)
    }

    fn pattern_matches(&self, path: &[u8], explanation: &Explanation) -> Vec<PatternMatch> {
        let patterns: Vec<_> = self.ignore.matcher.patterns().collect();
        let step = |step: &super::ignore::Step| {
            let (pattern, line) = patterns.get(step.pattern)?;
            Some(PatternMatch {
                file: self.ignore.file.clone().filter(|_| !line.appended),
                line: line.number,
                source: String::from_utf8_lossy(&line.source).into_owned(),
                pattern: String::from_utf8_lossy(pattern).into_owned(),
                excludes: step.excludes,
                matches: String::from_utf8_lossy(&path[..step.length]).into_owned(),
            })
        };
        explanation.steps.iter().filter_map(step).collect()
    }
}

fn reason_in(entry: &Entry, explanation: &Explanation) -> Reason {
    match explanation.steps.last() {
        _ if entry.is_extra() => Reason::ExtraFile,
        Some(step) if step.excludes => Reason::HoldsIncluded,
        Some(_) => Reason::TakenBack,
        None => Reason::NoPattern,
    }
}

/// The path without `.`, `..` and doubled slashes; `None` if it leads out.
fn clean(path: &[u8]) -> Option<Vec<u8>> {
    if path.starts_with(b"/") || path.contains(&0) {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "." } else { &self.path };
        write!(f, "`{path}` is {} the build context: ", if self.included { "in" } else { "not in" })?;
        match self.reason {
            Reason::Root => write!(f, "it is the root"),
            Reason::NoPattern => write!(f, "no pattern matches it"),
            Reason::TakenBack => self.decided(f, "takes back"),
            Reason::HoldsIncluded => {
                self.decided(f, "excludes")?;
                write!(f, ", but not all that is in it")
            }
            Reason::ExtraFile => write!(f, "it is an extra file, which no pattern excludes"),
            Reason::Excluded | Reason::ParentExcluded => self.decided(f, "excludes"),
            Reason::IgnoreFile => write!(f, "it is an ignore file, which is left out here"),
            Reason::Socket => write!(f, "it is a socket, which no image can hold"),
            Reason::Missing => write!(f, "there is no such file"),
            Reason::Outside => write!(f, "it is not below the root"),
            Reason::BehindLink => write!(f, "a part of the path is a symbolic link, and links are not followed"),
            Reason::Unreadable => write!(f, "it cannot be looked at"),
            Reason::Appeared => write!(f, "it was not there a moment ago"),
        }
    }
}

impl Why {
    /// Names the last pattern.
    fn decided(&self, f: &mut fmt::Formatter<'_>, verb: &str) -> fmt::Result {
        let Some(last) = self.patterns.last() else { return write!(f, "nothing says otherwise") };
        let PatternMatch { pattern, matches, file, line, .. } = last;
        match file {
            Some(file) => write!(f, "`{pattern}` in {file}, line {line}, {verb} ")?,
            None => write!(f, "`{pattern}`, which is always added, {verb} ")?,
        }
        if *matches == self.path { write!(f, "this") } else { write!(f, "the directory `{matches}`") }
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_cleaned_and_do_not_lead_out() {
        for (path, cleaned) in [("", ""), (".", ""), ("./a//b/", "a/b"), ("a/../b", "b"), ("a/..", "")] {
            assert_eq!(clean(path.as_bytes()).as_deref(), Some(cleaned.as_bytes()), "{path}");
        }
        for path in ["/a", "..", "a/../../b", "a\0b"] {
            assert_eq!(clean(path.as_bytes()), None, "{path}");
        }
    }
}
