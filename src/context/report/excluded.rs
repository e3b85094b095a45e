//! What an ignore file excludes, with all that is in excluded directories: the walk that a build does not do.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use serde::Serialize;

use super::CANCEL_EVERY;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::context::ignore::{Explanation, MatchInfo, Matcher};
use crate::context::root::Root;
use crate::error::Result;

/// How many paths are kept for each pattern.
const EXAMPLES: usize = 3;

/// What one pattern of an ignore file keeps out of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// Its line, as in [`PatternUse`](crate::context::PatternUse).
    pub line: usize,
    /// The pattern, cleaned.
    pub pattern: String,
    /// Files.
    pub files: u64,
    /// Bytes of these files; a hard linked file counts once.
    pub bytes: u64,
    /// Paths that the pattern itself matches.
    pub examples: Vec<String>,
    /// How many paths it matches, or would match, whatever other patterns say. 0: nothing here has such a name.
    pub matches: u64,
}

/// Looks at everything below a directory of the root that is not in the context. What cannot be read is left out.
///
/// Fails with `Interrupted`, and with `IgnorePattern` as a walk does.
pub(in crate::context) fn measure(context: &Context, start: &[u8], cancel: &Cancel) -> Result<Vec<Removed>> {
    let matcher = &context.ignore.matcher;
    let patterns = matcher.patterns().map(|(pattern, line)| Removed {
        line: line.number,
        pattern: String::from_utf8_lossy(&pattern).into_owned(),
        ..Removed::default()
    });
    let mut found = patterns.collect();
    if let Some(root) = &context.root {
        let mut walk = Walk { matcher, root, cancel, seen: 0, links: HashSet::new(), found: &mut found };
        walk.run(start)?;
    }
    Ok(found)
}

struct Walk<'a> {
    matcher: &'a Matcher,
    root: &'a Root,
    cancel: &'a Cancel,
    seen: usize,
    links: HashSet<(u64, u64)>,
    found: &'a mut Vec<Removed>,
}

/// A directory to look into.
struct Task {
    path: Vec<u8>,
    state: State,
}

/// What is known of the entries of a directory.
enum State {
    /// They are matched one by one.
    Match(Option<MatchInfo>),
    /// They are excluded by this pattern, all of them.
    Out(usize),
}

impl Walk<'_> {
    fn run(&mut self, start: &[u8]) -> Result<()> {
        let explanation = if start.is_empty() { Explanation::default() } else { self.matcher.explain(start)? };
        let last = explanation.steps.last().map(|step| step.pattern);
        let pruned = explanation.pruned.is_some() || self.matcher.may_skip(start);
        let state = match last {
            Some(pattern) if explanation.matched() && pruned => State::Out(pattern),
            _ => State::Match(self.info(start)?),
        };
        let mut tasks = vec![Task { path: start.to_vec(), state }];
        while let Some(task) = tasks.pop() {
            self.list(&task, &mut tasks)?;
        }
        Ok(())
    }

    /// What the entries of a directory need for matching.
    fn info(&self, directory: &[u8]) -> Result<Option<MatchInfo>> {
        let mut info = None;
        if directory.is_empty() {
            return Ok(info);
        }
        let ends = directory.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([directory.len()]) {
            info = Some(self.matcher.matches(&directory[..end], info.as_ref())?.info);
        }
        Ok(info)
    }

    fn list(&mut self, task: &Task, tasks: &mut Vec<Task>) -> Result<()> {
        let path: &[u8] = if task.path.is_empty() { b"." } else { &task.path };
        let Ok(directory) = self.root.open_file(path) else { return Ok(()) };
        let Ok(names) = Dir::read_from(&directory) else { return Ok(()) };
        let names = names.flatten().map(|item| item.file_name().to_bytes().to_vec());
        let mut names: Vec<Vec<u8>> = names.filter(|name| name != b"." && name != b"..").collect();
        names.sort_unstable();
        for name in &names {
            self.seen += 1;
            if self.seen.is_multiple_of(CANCEL_EVERY) {
                self.cancel.check()?;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let Ok(stat) = statat(directory.as_fd(), OsStr::from_bytes(name), flags) else { continue };
            let child = if task.path.is_empty() { name.clone() } else { [&task.path, &b"/"[..], name].concat() };
            tasks.extend(self.visit(child, &stat, &task.state)?);
        }
        Ok(())
    }

    /// Counts one entry, and returns what to look into if it is a directory.
    fn visit(&mut self, path: Vec<u8>, stat: &Stat, state: &State) -> Result<Option<Task>> {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        for pattern in self.matcher.all_matches(&path) {
            self.found[pattern].matches += 1;
        }
        let next = match state {
            State::Out(pattern) => {
                self.count(*pattern, stat);
                State::Out(*pattern)
            }
            State::Match(info) => {
                let found = self.matcher.matches(&path, info.as_ref())?;
                if let Some(pattern) = found.by {
                    self.count(pattern, stat);
                    self.note_example(pattern, &path, is_dir);
                }
                match found.by {
                    Some(pattern) if self.matcher.may_skip(&path) => State::Out(pattern),
                    _ => State::Match(Some(found.info)),
                }
            }
        };
        Ok(is_dir.then_some(Task { path, state: next }))
    }

    fn note_example(&mut self, pattern: usize, path: &[u8], is_dir: bool) {
        let examples = &mut self.found[pattern].examples;
        if examples.len() < EXAMPLES && self.matcher.all_matches(path).any(|index| index == pattern) {
            examples.push(format!("{}{}", String::from_utf8_lossy(path), if is_dir { "/" } else { "" }));
        }
    }

    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the types differ between systems")]
    fn count(&mut self, pattern: usize, stat: &Stat) {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return;
        }
        let removed = &mut self.found[pattern];
        removed.files += 1;
        if stat.st_nlink == 1 || self.links.insert((stat.st_dev as u64, stat.st_ino)) {
            removed.bytes += u64::try_from(stat.st_size).unwrap_or_default();
        }
    }
}
