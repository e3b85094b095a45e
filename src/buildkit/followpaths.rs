//! `followpaths`: the paths that a Dockerfile uses, with the symbolic links on the way to them.
//!
//! Without this, a Dockerfile that copies one file would sync the whole context.

use std::collections::BTreeSet;

use super::packet::FileType;
use super::source::{SyncDir, find, lower_bound};

/// More links than this on the way to one path is a loop that the set of known paths did not see.
const MAX_DEPTH: usize = 255;

/// Turns the paths into patterns of what to send: each path, and where symbolic links on it lead, sorted, without those
/// that are below another. `None` is everything.
pub fn follow(dir: &dyn SyncDir, paths: &[String]) -> Option<Vec<String>> {
    let mut resolver = Resolver { dir, resolved: BTreeSet::new() };
    for path in paths {
        resolver.add(path, 0);
    }
    without_nested(resolver.resolved)
}

/// Drops paths below other paths; `None` if one of them is the root.
fn without_nested(sorted: BTreeSet<String>) -> Option<Vec<String>> {
    let mut kept: Vec<String> = Vec::new();
    for path in sorted {
        if path == "." {
            return None;
        }
        let nested =
            kept.last().is_some_and(|last| path.strip_prefix(last.as_str()).is_some_and(|r| r.starts_with('/')));
        if !nested {
            kept.push(path);
        }
    }
    Some(kept)
}

struct Resolver<'a> {
    dir: &'a dyn SyncDir,
    resolved: BTreeSet<String>,
}

impl Resolver<'_> {
    fn add(&mut self, path: &str, depth: usize) {
        let path = clean(path);
        let mut current = String::new();
        let mut rest = path.as_str();
        loop {
            let (part, after) = rest.split_once('/').unwrap_or((rest, ""));
            current = if current.is_empty() { part.to_owned() } else { format!("{current}/{part}") };
            rest = after;
            let targets = self.targets(&current);
            if targets.is_empty() && !rest.is_empty() {
                continue;
            }
            let new = self.resolved.insert(current.clone());
            if new && depth < MAX_DEPTH {
                for target in targets {
                    self.add(&format!("{target}/{rest}"), depth + 1);
                }
            }
            return;
        }
    }

    /// Where a path leads if it is a symbolic link; the last component may have wildcards.
    fn targets(&self, path: &str) -> Vec<String> {
        let (parent, base) = path.rsplit_once('/').unwrap_or(("", path));
        if !has_wildcards(base) {
            return find(self.dir, path.as_bytes()).and_then(|at| self.target(at)).into_iter().collect();
        }
        let mut targets = Vec::new();
        for at in self.children(parent) {
            let node = self.dir.node(at);
            let name = node.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if matches(base, &String::from_utf8_lossy(name)) {
                targets.extend(self.target(at));
            }
        }
        targets
    }

    fn target(&self, at: usize) -> Option<String> {
        let node = self.dir.node(at);
        if node.kind != FileType::Symlink {
            return None;
        }
        let target = String::from_utf8_lossy(&node.target).into_owned();
        if target.starts_with('/') {
            return Some(target);
        }
        let path = String::from_utf8_lossy(&node.path);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        // From the root, so that `..` cannot leave it.
        Some(clean(&format!("/{parent}/{target}")))
    }

    fn children<'b>(&'b self, parent: &'b str) -> impl Iterator<Item = usize> + 'b {
        let prefix = if parent.is_empty() { String::new() } else { format!("{parent}/") };
        let start = if prefix.is_empty() { 0 } else { lower_bound(self.dir, prefix.as_bytes()) };
        let length = prefix.len();
        (start..self.dir.len())
            .take_while(move |at| self.dir.node(*at).path.starts_with(prefix.as_bytes()))
            .filter(move |at| !self.dir.node(*at).path[length..].contains(&b'/'))
    }
}

/// Go's `filepath.Join(".", path)`: no empty parts, no `.`, `..` resolved, nothing above the root, no leading `/`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if path.starts_with('/') => {}
            other => parts.push(other),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn has_wildcards(name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Go's `filepath.Match` of one path component; a malformed pattern matches nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    match_from(&pattern, &name)
}

fn match_from(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|skip| match_from(rest, &name[skip..])),
        ['?', rest @ ..] => !name.is_empty() && match_from(rest, &name[1..]),
        ['[', rest @ ..] => name.first().is_some_and(|first| {
            match_class(rest, *first).is_some_and(|(hit, rest)| hit && match_from(rest, &name[1..]))
        }),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
            name.first() == Some(literal) && match_from(rest, &name[1..])
        }
    }
}

/// Whether a character is in the class, and the pattern behind the class; `None` if the class has no end.
fn match_class(mut pattern: &[char], name: char) -> Option<(bool, &[char])> {
    let negated = pattern.first() == Some(&'^');
    if negated {
        pattern = &pattern[1..];
    }
    let (mut hit, mut ranges) = (false, 0);
    loop {
        if let [']', rest @ ..] = pattern
            && ranges > 0
        {
            return Some((hit != negated, rest));
        }
        let (low, rest) = class_char(pattern)?;
        pattern = rest;
        let mut high = low;
        if let ['-', rest @ ..] = pattern {
            (high, pattern) = class_char(rest)?;
        }
        hit |= (low..=high).contains(&name);
        ranges += 1;
    }
}

fn class_char(pattern: &[char]) -> Option<(char, &[char])> {
    match pattern {
        [] | ['-' | ']', ..] => None,
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => Some((*literal, rest)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::buildkit::source::Node;
    use crate::context::compare_paths;
    use crate::error::{Error, Result};

    /// Paths, each with the target if it is a link.
    struct Tree(Vec<(&'static str, Option<&'static str>)>);

    impl SyncDir for Tree {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn node(&self, index: usize) -> Node<'_> {
            let (path, target) = self.0[index];
            Node {
                path: path.as_bytes().into(),
                kind: if target.is_some() { FileType::Symlink } else { FileType::File },
                mode: 0o644,
                size: 0,
                mtime: 0,
                target: target.unwrap_or_default().as_bytes().into(),
                link_to: None,
                device: (0, 0),
            }
        }

        fn open(&self, _: usize) -> Result<Box<dyn Read + '_>> {
            Err(Error::internal("there is no content"))
        }
    }

    fn followed(paths: &[&str]) -> Option<Vec<String>> {
        let tree = Tree(vec![
            ("a", None),
            ("a/link", Some("../b/file")),
            ("a/up", Some("../../../b")),
            ("abs", Some("/b")),
            ("b", None),
            ("b/file", None),
            ("dangling", Some("nowhere")),
            ("dir", Some("a")),
            ("l1", Some("l2")),
            ("l2", Some("l1")),
            ("root", Some("/")),
        ]);
        let paths_in_order: Vec<_> = tree.0.iter().map(|(path, _)| path.as_bytes().to_vec()).collect();
        assert!(paths_in_order.is_sorted_by(|a, b| compare_paths(a, b).is_lt()));
        follow(&tree, &paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>())
    }

    fn assert_followed(paths: &[&str], expected: &[&str]) {
        let expected: Vec<String> = expected.iter().map(|&path| path.to_owned()).collect();
        assert_eq!(followed(paths), Some(expected), "{paths:?}");
    }

    #[test]
    fn links_lead_to_more_paths() {
        assert_followed(&["b/file"], &["b/file"]);
        assert_followed(&["/b//file/."], &["b/file"]);
        assert_followed(&["a/link"], &["a/link", "b/file"]);
        assert_followed(&["abs/file"], &["abs", "b/file"]);
        assert_followed(&["a/up/file"], &["a/up", "b/file"]);
        assert_followed(&["dir/link"], &["a/link", "b/file", "dir"]);
        assert_followed(&["dangling"], &["dangling", "nowhere"]);
        assert_followed(&["missing/x"], &["missing/x"]);
    }

    #[test]
    fn loops_end_and_the_root_is_everything() {
        assert_followed(&["l1"], &["l1", "l2"]);
        assert_eq!(followed(&["b", "root"]), None);
        assert_eq!(followed(&["."]), None);
        assert_followed(&["b/file", "b"], &["b"]);
    }

    #[test]
    fn wildcards_follow_what_they_match() {
        assert_followed(&["a/l*"], &["a/l*", "b/file"]);
        assert_followed(&["[ab]/file"], &["[ab]/file"]);
    }

    #[test]
    fn components_match_as_in_go() {
        let yes =
            [("*.py", "a.py"), ("a?c", "abc"), ("[^b-d]x", "ax"), ("\\*", "*"), ("*a*b", "xaybab"), ("[\\]]", "]")];
        let no = [("*.py", "a.pyc"), ("a?c", "ac"), ("[^b-d]x", "cx"), ("\\*", "a"), ("[", "["), ("[]a]", "]")];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
