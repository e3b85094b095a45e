//! Why a path is matched: every pattern that had a say, in order.

use super::pattern::{Path, Pattern};
use super::{MatchInfo, Matcher};
use crate::error::Result;

/// What the patterns say of a path, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The patterns that changed what is said of the path, in order: the last one decides.
    pub steps: Vec<Step>,
    /// The length of the directory's path below which nothing is looked at, where the path is in such a one.
    pub pruned: Option<usize>,
}

/// A pattern that changed what is said of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place in [`Matcher::patterns`].
    pub pattern: usize,
    /// Whether it excludes; else it takes back.
    pub excludes: bool,
    /// The length of the part of the path that it matches: that of the whole path, or of a directory that it is in.
    pub length: usize,
}

impl Explanation {
    /// Whether the path is matched, that is excluded by an ignore file.
    pub fn matched(&self) -> bool {
        self.steps.last().is_some_and(|step| step.excludes)
    }
}

impl Matcher {
    /// Goes down to a path as a walk does. Everything before its last `/` is taken for directories.
    ///
    /// Fails with `IgnorePattern`, as [`Matcher::matches`].
    pub fn explain(&self, path: &[u8]) -> Result<Explanation> {
        let mut lengths: Vec<Option<usize>> = vec![None; self.len()];
        let mut info: Option<MatchInfo> = None;
        let mut pruned = None;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let found = self.matches(&path[..end], info.as_ref())?;
            for (length, marked) in lengths.iter_mut().zip(&found.info.0) {
                // A mark is inherited from the directory, or new.
                *length = marked.then(|| length.unwrap_or(end));
            }
            if found.matched && end < path.len() && self.may_skip(&path[..end]) {
                pruned = Some(end);
                break;
            }
            info = Some(found.info);
        }
        let step = |(pattern, length): (usize, Option<usize>)| {
            Some(Step { pattern, excludes: !self.patterns[pattern].exception, length: length? })
        };
        Ok(Explanation { steps: lengths.into_iter().enumerate().filter_map(step).collect(), pruned })
    }

    /// The patterns that match this path itself, whatever the others say of it.
    pub fn all_matches(&self, path: &[u8]) -> impl Iterator<Item = usize> {
        let path = Path::new(path);
        let matching = move |(_, pattern): &(usize, &Pattern)| pattern.is_match(&path) == Ok(true);
        self.patterns.iter().enumerate().filter(matching).map(|(index, _)| index)
    }

    /// The same with more lines at the end of the file, and the place of the first of them. What a caller appended stays
    /// behind them. Fails with `IgnorePattern`.
    pub fn extended<'a>(&self, lines: impl IntoIterator<Item = &'a [u8]>) -> Result<(Self, usize)> {
        let mut longer = self.clone();
        let at = self.lines.iter().position(|line| line.appended).unwrap_or(self.len());
        let (patterns, tail) = (longer.patterns.split_off(at), longer.lines.split_off(at));
        let last = longer.lines.last().map_or(0, |line| line.number);
        for (number, line) in (last + 1..).zip(lines) {
            longer.add_line(number, line, false)?;
        }
        longer.patterns.extend(patterns);
        longer.lines.extend(tail);
        Ok((longer, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(file: &str, path: &str) -> (Vec<(usize, bool, usize)>, Option<usize>) {
        let matcher = Matcher::parse(".dockerignore", file.as_bytes()).unwrap();
        let found = matcher.explain(path.as_bytes()).unwrap();
        (found.steps.iter().map(|step| (step.pattern, step.excludes, step.length)).collect(), found.pruned)
    }

    #[test]
    fn every_pattern_that_had_a_say_is_told() {
        let file = "data\n!data/keep\n**/*.log\n";
        assert_eq!(explain(file, "src/a.py"), (vec![], None));
        assert_eq!(explain(file, "data"), (vec![(0, true, 4)], None));
        assert_eq!(explain(file, "data/x/y"), (vec![(0, true, 4)], Some(6)));
        assert_eq!(explain(file, "data/keep/y"), (vec![(0, true, 4), (1, false, 9)], None));
        assert_eq!(explain(file, "data/keep/y.log"), (vec![(0, true, 4), (1, false, 9), (2, true, 15)], None));
        assert_eq!(explain("data\n", "data/x/y"), (vec![(0, true, 4)], Some(4)));
    }
}
