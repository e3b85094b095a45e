//! Which entries of a directory a daemon gets: `include-patterns`, `exclude-patterns` and `followpaths` of its request.

use super::followpaths::follow;
use super::packet::FileType;
use super::source::SyncDir;
use crate::context::ignore::{MatchInfo, Matcher};
use crate::error::Result;

/// What a daemon asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns {
    /// If any, only what matches is sent, with the directories that it is in.
    pub include: Vec<String>,
    /// What matches is not sent.
    pub exclude: Vec<String>,
    /// More to include, with symbolic links followed.
    pub follow: Vec<String>,
}

/// A directory on the way to the current entry.
struct Visited {
    prefix: Vec<u8>,
    index: usize,
    include: Option<MatchInfo>,
    exclude: Option<MatchInfo>,
    picked: bool,
}

/// The entries to send, in order. Fails with `IgnorePattern` for a malformed pattern.
pub fn pick(dir: &dyn SyncDir, patterns: &Patterns) -> Result<Vec<usize>> {
    let include = matcher("include-patterns", &included(dir, patterns))?;
    let exclude = matcher("exclude-patterns", &patterns.exclude)?;
    if include.is_none() && exclude.is_none() {
        return Ok((0..dir.len()).collect());
    }
    let mut picked = Vec::new();
    let mut parents: Vec<Visited> = Vec::new();
    let mut index = 0;
    while index < dir.len() {
        let node = dir.node(index);
        while parents.last().is_some_and(|parent| !node.path.starts_with(&parent.prefix)) {
            parents.pop();
        }
        let parent = parents.last();
        let is_dir = node.kind == FileType::Dir;
        let (mut wanted, mut include_info, mut exclude_info) = (true, None, None);
        if let Some(matcher) = &include {
            let found = matcher.matches(&node.path, parent.and_then(|parent| parent.include.as_ref()))?;
            wanted = found.matched;
            include_info = Some(found.info);
        }
        if let Some(matcher) = &exclude {
            let found = matcher.matches(&node.path, parent.and_then(|parent| parent.exclude.as_ref()))?;
            if found.matched && is_dir && matcher.may_skip(&node.path) {
                index = end_of(dir, index);
                continue;
            }
            wanted &= !found.matched;
            exclude_info = Some(found.info);
        }
        if wanted {
            for parent in parents.iter_mut().filter(|parent| !parent.picked) {
                parent.picked = true;
                picked.push(parent.index);
            }
            picked.push(index);
        }
        if is_dir {
            let mut prefix = node.path.to_vec();
            prefix.push(b'/');
            parents.push(Visited { prefix, index, include: include_info, exclude: exclude_info, picked: wanted });
        }
        index += 1;
    }
    Ok(picked)
}

/// The include patterns, those of the followed paths among them; none is everything.
fn included(dir: &dyn SyncDir, patterns: &Patterns) -> Vec<String> {
    let mut include = patterns.include.clone();
    if !patterns.follow.is_empty()
        && let Some(followed) = follow(dir, &patterns.follow)
    {
        include.extend(followed);
    }
    include
}

fn matcher(name: &str, patterns: &[String]) -> Result<Option<Matcher>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    Matcher::from_patterns(name, patterns.iter().map(String::as_bytes)).map(Some)
}

/// The first entry behind a directory and all that is in it.
fn end_of(dir: &dyn SyncDir, index: usize) -> usize {
    let mut prefix = dir.node(index).path.to_vec();
    prefix.push(b'/');
    (index + 1..dir.len()).find(|at| !dir.node(*at).path.starts_with(&prefix)).unwrap_or(dir.len())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::buildkit::source::Node;
    use crate::error::Error;

    /// Paths; those that end with `/` are directories.
    struct Tree(&'static [&'static str]);

    impl SyncDir for Tree {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn node(&self, index: usize) -> Node<'_> {
            let path = self.0[index];
            let kind = if path.ends_with('/') { FileType::Dir } else { FileType::File };
            let path = path.trim_end_matches('/').as_bytes().into();
            Node { path, kind, mode: 0o644, size: 0, mtime: 0, target: b""[..].into(), link_to: None, device: (0, 0) }
        }

        fn open(&self, _: usize) -> Result<Box<dyn Read + '_>> {
            Err(Error::internal("there is no content"))
        }
    }

    const TREE: Tree =
        Tree(&["a/", "a/b/", "a/b/x.py", "a/b/y.txt", "a/c", "d/", "d/deep/", "d/deep/e", "d/f", "main.py"]);

    fn picked(include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<&'static str> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let patterns = Patterns { include: owned(include), exclude: owned(exclude), follow: owned(follow) };
        pick(&TREE, &patterns).unwrap().into_iter().map(|index| TREE.0[index]).collect()
    }

    #[test]
    fn parents_come_with_what_is_wanted_and_only_then() {
        assert_eq!(picked(&["**/*.py"], &[], &[]), ["a/", "a/b/", "a/b/x.py", "main.py"]);
        assert_eq!(picked(&[], &[], &["d/deep"]), ["d/", "d/deep/", "d/deep/e"]);
        assert_eq!(picked(&[], &[], &["main.py"]), ["main.py"]);
        assert_eq!(picked(&[], &[], &["a", "main.py"]), ["a/", "a/b/", "a/b/x.py", "a/b/y.txt", "a/c", "main.py"]);
        assert_eq!(picked(&[], &[], &["."]).len(), TREE.0.len());
        assert_eq!(picked(&["nothing"], &[], &[]), [""; 0]);
    }

    #[test]
    fn exceptions_reach_into_excluded_directories() {
        assert_eq!(picked(&[], &["a", "d"], &[]), ["main.py"]);
        assert_eq!(picked(&[], &["a", "!a/b/x.py", "d"], &[]), ["a/", "a/b/", "a/b/x.py", "main.py"]);
        assert_eq!(picked(&[], &["*", "!**/*.py"], &[]), ["a/", "a/b/", "a/b/x.py", "main.py"]);
        assert_eq!(picked(&[], &["**/*.txt", "d/deep"], &["a", "d"]), ["a/", "a/b/", "a/b/x.py", "a/c", "d/", "d/f"]);
    }

    #[test]
    fn a_malformed_pattern_is_an_error() {
        let patterns = Patterns { exclude: vec!["a[".into()], ..Patterns::default() };
        assert_eq!(pick(&TREE, &patterns).unwrap_err().code(), "ignore-pattern");
    }
}
