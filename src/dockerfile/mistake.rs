//! A mistake in a Dockerfile, before it is known in which file and where it stands.

use super::source::{Source, Span};
use crate::error::Error;

/// What kind of mistake it is: each has an error code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Syntax,
    Variable,
    Value,
    Stage,
    Frontend,
}

/// A mistake. Layers that know more add to it: the parser of flags a suggestion, the reader of lines the place.
#[derive(Clone, Debug)]
pub(crate) struct Mistake {
    kind: Kind,
    message: String,
    suggestion: Option<String>,
    near: Option<String>,
    span: Option<Span>,
}

pub(crate) type Result<T, E = Mistake> = std::result::Result<T, E>;

impl Mistake {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), suggestion: None, near: None, span: None }
    }

    pub(crate) fn syntax(message: impl Into<String>) -> Self {
        Self::new(Kind::Syntax, message)
    }

    pub(crate) fn variable(message: impl Into<String>) -> Self {
        Self::new(Kind::Variable, message)
    }

    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::new(Kind::Value, message)
    }

    pub(crate) fn stage(message: impl Into<String>) -> Self {
        Self::new(Kind::Stage, message)
    }

    pub(crate) fn frontend(message: impl Into<String>) -> Self {
        Self::new(Kind::Frontend, message)
    }

    /// The text that the marker of the frame should stand under.
    pub(crate) fn near(mut self, text: impl Into<String>) -> Self {
        self.near.get_or_insert_with(|| text.into());
        self
    }

    /// What was probably meant.
    pub(crate) fn suggest(mut self, text: Option<impl Into<String>>) -> Self {
        self.suggestion = self.suggestion.or_else(|| text.map(Into::into));
        self
    }

    /// The lines that it is in, unless they are known already.
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    /// The same mistake, but one of these lines: what an image's trigger says stands in no file, only its `FROM` does.
    pub(crate) fn only_at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// The error that callers see.
    pub(crate) fn into_error(self, source: &Source) -> Error {
        let Self { kind, message, suggestion, near, span } = self;
        let location = Box::new(source.location(span.unwrap_or_default(), near.as_deref()));
        match kind {
            Kind::Syntax => Error::DockerfileSyntax { location, message, suggestion },
            Kind::Variable => Error::DockerfileVariable { location, message, suggestion },
            Kind::Value => Error::DockerfileValue { location, message, suggestion },
            Kind::Stage => Error::DockerfileStage { location, message, suggestion },
            Kind::Frontend => Error::DockerfileFrontend { location, message },
        }
    }
}

/// The known word that is at most two edits away from this one, if there is one: the nearest, and the first of those.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    let mut least = 3;
    for candidate in known {
        let distance = edits(word, candidate);
        if distance == 0 {
            // It is spelled right: the mistake is another one.
            return None;
        }
        if distance < least {
            least = distance;
            best = Some(candidate);
        }
    }
    best
}

/// Levenshtein's distance.
pub(crate) fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (one, other, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("mount", "mont", 1), ("a", "a", 0)] {
            assert_eq!(edits(one, other), distance, "{one} {other}");
            assert_eq!(edits(other, one), distance, "{other} {one}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["mount", "network", "security"];
        assert_eq!(nearest("mont", known), Some("mount"));
        assert_eq!(nearest("netwrk", known), Some("network"));
        assert_eq!(nearest("volume", known), None);
        assert_eq!(nearest("mount", known), None);
    }
}
