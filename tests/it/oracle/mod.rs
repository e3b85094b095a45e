//! A second, plain reading of the rules of ignore files: what the Dockerfile reference, the documentation of Moby's
//! `patternmatcher` and `ignorefile` and of Go's `filepath.Clean` say, put down as simply as it can be, however slow.
//!
//! It shares no code and no method with `cooper::context::ignore`: patterns are matched by backtracking over characters,
//! not by regular expressions; nothing is carried from a directory to what is in it.
//!
//! It knows the documented language: literals, `*`, `?`, `**`, classes, `\` before punctuation, `!`, comments, and how lines
//! and paths are cleaned. What Go's regular expressions add to it without a document saying so (`|`, `{2}`, `^`, `\d`,
//! `[[:alpha:]]`) and malformed patterns are covered by answers of Moby's own code, recorded in `tests/corpus`.
//! [`random`] makes trees and ignore files of either kind.

pub(crate) mod compare;
mod glob;
mod lines;
pub(crate) mod random;

use std::collections::BTreeMap;

pub(crate) use lines::patterns;

/// What is at a path of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Dir,
    File,
    /// A symbolic link; where to does not matter, since none is followed.
    Link,
}

/// Everything below a root, directories included. The key is the path as a list of names, which sorts as a walk does.
pub(crate) type Tree = BTreeMap<Vec<Vec<u8>>, Node>;

/// A pattern that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One pattern, cleaned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Whether it began with `!`.
    pub(crate) exception: bool,
    pub(crate) text: Vec<u8>,
}

impl Pattern {
    fn matches(&self, path: &[Vec<u8>]) -> bool {
        glob::matches(&self.text, &path.join(&b'/'))
    }
}

/// Whether the patterns exclude a path.
///
/// The last pattern that applies decides. A pattern applies to a path if it matches it, or if it decided something about
/// a directory that the path is in: a pattern that would change nothing where it stands (an exception for what no pattern
/// before it excludes, another for what is excluded already) has not decided anything.
pub(crate) fn excluded(patterns: &[Pattern], path: &[Vec<u8>]) -> bool {
    let last = (0..patterns.len()).rev().find(|index| applies(patterns, *index, path));
    last.is_some_and(|index| !patterns[index].exception)
}

fn applies(patterns: &[Pattern], index: usize, path: &[Vec<u8>]) -> bool {
    let (before, pattern) = (&patterns[..index], &patterns[index]);
    let inherited = path.len() > 1 && applies(patterns, index, &path[..path.len() - 1]);
    inherited || (pattern.matches(path) && excluded(before, path) == pattern.exception)
}

/// Whether the patterns exclude a path, looking at the path and its parents only: `MatchesOrParentMatches`.
pub(crate) fn excluded_by_itself(patterns: &[Pattern], path: &[Vec<u8>]) -> bool {
    patterns.iter().fold(false, |excluded, pattern| {
        let applies = (1..=path.len()).any(|length| pattern.matches(&path[..length]));
        if applies { !pattern.exception } else { excluded }
    })
}

/// What a context has of a tree: what is not excluded, and the directories on the way to it.
pub(crate) fn walk(patterns: &[Pattern], tree: &Tree) -> Vec<Vec<u8>> {
    let seen = |path: &[Vec<u8>]| (1..path.len()).all(|length| looked_into(patterns, &path[..length]));
    let kept: Vec<&Vec<Vec<u8>>> = tree.keys().filter(|path| !excluded(patterns, path) && seen(path)).collect();
    let needed = |path: &&Vec<Vec<u8>>| kept.iter().any(|kept| kept.starts_with(path));
    tree.keys().filter(needed).map(|path| path.join(&b'/')).collect()
}

/// Whether a walk reads a directory.
///
/// `BuildKit` leaves an excluded one out where no exception leads into it, by a rough rule that is its own: of each
/// exception, a `/**` and then a `/*` at the end do not count, and if nothing special is left in any of them, the directory
/// must be on the way to one. So `!a/*/**` does not take anything back.
fn looked_into(patterns: &[Pattern], directory: &[Vec<u8>]) -> bool {
    let exceptions = patterns.iter().filter(|pattern| pattern.exception).map(|pattern| {
        let text = pattern.text.strip_suffix(b"/**").unwrap_or(&pattern.text);
        text.strip_suffix(b"/*").unwrap_or(text)
    });
    let leads_into =
        |text: &[u8]| text.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>().starts_with(directory);
    let special = |text: &[u8]| text.iter().any(|byte| b"*?[]^\\".contains(byte));
    !excluded(patterns, directory) || exceptions.clone().any(special) || exceptions.clone().any(leads_into)
}
