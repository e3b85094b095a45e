//! One pattern: what Moby's patternmatcher makes of it, its quirks included.

use regex::bytes::{Regex, RegexBuilder};

use super::{gopath, goregex};

/// A regular expression bigger than this is refused; the biggest that Go accepts, 1000 repeated classes, is a tenth of it.
const MAX_REGEX_BYTES: usize = 256 << 20;

/// One pattern of an ignore file.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// Without the `!`, cleaned.
    pub(super) text: Vec<u8>,
    /// Whether it began with `!`.
    pub(super) exception: bool,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Exact,
    /// `x**`: what is before the `**`.
    Prefix,
    /// `**x`: what is after the `**`.
    Suffix,
    Regex(Regex),
    /// Moby finds out when it first compares the pattern with a path, not when it reads it.
    Malformed,
}

/// A pattern that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// `!` with nothing behind it.
    LoneExclamation,
    /// The syntax is wrong.
    Syntax,
}

impl Pattern {
    /// Takes a pattern that has no white space around it and is not empty.
    pub(super) fn new(pattern: &[u8]) -> Result<Self, Bad> {
        let cleaned = gopath::clean(pattern);
        let (text, exception) = match cleaned.strip_prefix(b"!") {
            Some(b"") => return Err(Bad::LoneExclamation),
            Some(rest) => (rest.to_vec(), true),
            None => (cleaned, false),
        };
        if gopath::is_bad_pattern(&text) {
            return Err(Bad::Syntax);
        }
        let kind = compile(&text);
        Ok(Self { text, exception, kind })
    }

    /// Whether the pattern matches this path itself; `Err` where the pattern turns out to be malformed.
    pub(super) fn is_match(&self, path: &Path<'_>) -> Result<bool, Bad> {
        let text = self.text.as_slice();
        match &self.kind {
            Kind::Exact => Ok(path.bytes == text),
            Kind::Prefix => Ok(path.bytes.starts_with(&text[..text.len() - 2])),
            Kind::Suffix => {
                let suffix = &text[2..];
                // `**/x` matches `x` too.
                Ok(path.bytes.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path.bytes))
            }
            Kind::Regex(regex) => Ok(regex.is_match(path.text.as_bytes())),
            Kind::Malformed => Err(Bad::Syntax),
        }
    }

    /// The text without a last `/*` or `/**`.
    pub(super) fn without_trailing_glob(&self) -> &[u8] {
        let text = self.text.as_slice();
        let text = text.strip_suffix(b"/**").unwrap_or(text);
        text.strip_suffix(b"/*").unwrap_or(text)
    }

    /// Whether anything but a trailing glob in it is special.
    pub(super) fn has_wildcards(&self) -> bool {
        self.without_trailing_glob().iter().any(|byte| b"*[]?^\\".contains(byte))
    }
}

/// A path to match: as it is, and as Go's regular expressions see it.
pub(super) struct Path<'a> {
    bytes: &'a [u8],
    text: std::borrow::Cow<'a, str>,
}

impl<'a> Path<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => gopath::to_text(bytes).into(),
        };
        Self { bytes, text }
    }
}

fn compile(pattern: &[u8]) -> Kind {
    match expression(pattern) {
        (Found::Exact, _) => Kind::Exact,
        (Found::Prefix, _) => Kind::Prefix,
        (Found::Suffix, _) => Kind::Suffix,
        (Found::Regex, source) => goregex::translate(&source)
            .ok()
            .and_then(|source| RegexBuilder::new(&source).size_limit(MAX_REGEX_BYTES).build().ok())
            .map_or(Kind::Malformed, Kind::Regex),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

/// What kind of pattern it is, and its regular expression in Go's syntax.
fn expression(pattern: &[u8]) -> (Found, String) {
    let text = gopath::to_text(pattern);
    // The scanner that Moby reads the pattern with drops a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut chars = text.chars().peekable();
    let mut found = Found::Exact;
    let mut source = String::from("^");
    let mut first = true;
    while let Some(ch) = chars.next() {
        match ch {
            '*' if chars.next_if_eq(&'*').is_some() => {
                // `**/` is `**`.
                let _ = chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    source.push_str("(.*/)?");
                    found = Found::Regex;
                } else if found == Found::Exact {
                    found = Found::Prefix;
                } else {
                    source.push_str(".*");
                    found = Found::Regex;
                }
                if first {
                    found = Found::Suffix;
                }
            }
            '*' => {
                source.push_str("[^/]*");
                found = Found::Regex;
            }
            '?' => {
                source.push_str("[^/]");
                found = Found::Regex;
            }
            // `|`, `{` and `}` are missing here as they are in Moby: they keep their meaning in a regular expression.
            '.' | '+' | '(' | ')' | '$' => {
                source.push('\\');
                source.push(ch);
            }
            '\\' => {
                source.push('\\');
                if let Some(escaped) = chars.next() {
                    source.push(escaped);
                    found = Found::Regex;
                }
            }
            '[' | ']' => {
                source.push(ch);
                found = Found::Regex;
            }
            _ => source.push(ch),
        }
        first = false;
    }
    source.push('$');
    (found, source)
}
