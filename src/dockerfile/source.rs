//! The text of a Dockerfile, and places in it.

use serde::Serialize;

use crate::error::Location;

/// Some lines of a text, from 1, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// The first line.
    pub line: usize,
    /// The last line.
    pub end_line: usize,
}

impl Span {
    /// One line.
    pub const fn of(line: usize) -> Self {
        Self { line, end_line: line }
    }
}

/// A text that can be pointed into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    lines: Vec<String>,
}

impl Source {
    /// Takes a text under the name that its reader knows it by.
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// What the text is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many lines it has.
    pub fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// Lines for a code frame. Where `near` stands in one of them, that line alone is shown, with a marker; else a single
    /// line is marked as a whole.
    pub fn location(&self, span: Span, near: Option<&str>) -> Location {
        let first = span.line.clamp(1, self.lines.len().max(1));
        let last = span.end_line.clamp(first, self.lines.len().max(first));
        let lines = self.lines.get(first - 1..last).unwrap_or_default();
        let found = near.filter(|text| !text.is_empty()).and_then(|text| find(lines, text));
        let (line, end_line, column, width) = match found {
            Some((index, column, width)) => (first + index, first + index, column, width),
            None if lines.len() == 1 => {
                let indent = lines[0].chars().take_while(|character| character.is_whitespace()).count();
                (first, last, indent + 1, lines[0].trim().chars().count())
            }
            None => (first, last, 1, 0),
        };
        let source = self.lines.get(line - 1..end_line).map(<[String]>::to_vec).unwrap_or_default();
        Location { file: self.name.clone(), line, end_line, column, width, source }
    }
}

/// The index of the first line with this text, and its place in characters.
fn find(lines: &[String], text: &str) -> Option<(usize, usize, usize)> {
    let (index, at) = lines.iter().enumerate().find_map(|(index, line)| Some((index, line.find(text)?)))?;
    Some((index, lines[index][..at].chars().count() + 1, text.chars().count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_as_small_as_it_can_be() {
        let source = Source::new("Dockerfile", "FROM x\n  RUN a \\\n    --mont=b\n");
        let whole = source.location(Span { line: 2, end_line: 3 }, None);
        assert_eq!((whole.line, whole.end_line, whole.width, whole.source.len()), (2, 3, 0, 2));
        let word = source.location(Span { line: 2, end_line: 3 }, Some("--mont"));
        assert_eq!((word.line, word.end_line, word.column, word.width), (3, 3, 5, 6));
        let line = source.location(Span::of(2), Some("absent"));
        assert_eq!((line.line, line.column, line.width), (2, 3, 7));
    }

    #[test]
    fn places_outside_are_moved_inside() {
        assert_eq!(Source::new("x", "a\n").location(Span { line: 7, end_line: 9 }, None).line, 1);
        assert!(Source::new("x", "").location(Span::of(3), None).source.is_empty());
    }
}
