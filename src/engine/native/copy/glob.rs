//! Wildcards of sources: `filepath.Match` of Go, on bytes.
//!
//! `*` is any text without `/`, `?` one character but `/`, `[a-z]` and `[^a]` are one character (a `/` too, as in Go), and a
//! backslash takes the meaning from what follows it.

/// A pattern.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    /// This character.
    One(Letter),
    /// Any character but `/`.
    Any,
    /// A character of these ranges, or of none of them.
    Class { negated: bool, ranges: Vec<(Letter, Letter)> },
    /// Any text without `/`.
    Star,
}

/// A character, or a byte that is none: Go takes all of these for U+FFFD in a class, but as they are elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Letter {
    Char(char),
    Byte(u8),
}

impl Letter {
    const fn value(self) -> char {
        match self {
            Self::Char(letter) => letter,
            Self::Byte(_) => char::REPLACEMENT_CHARACTER,
        }
    }
}

/// A pattern that is not complete, or not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPattern;

impl Glob {
    /// Reads a pattern.
    pub(super) fn new(pattern: &[u8]) -> Result<Self, BadPattern> {
        let letters = letters(pattern);
        let mut rest = letters.as_slice();
        let mut parts = Vec::new();
        while let Some((letter, after)) = rest.split_first() {
            rest = after;
            parts.push(match letter {
                Letter::Char('*') => Part::Star,
                Letter::Char('?') => Part::Any,
                Letter::Char('[') => class(&mut rest)?,
                Letter::Char('\\') => {
                    let (escaped, after) = rest.split_first().ok_or(BadPattern)?;
                    rest = after;
                    Part::One(*escaped)
                }
                letter => Part::One(*letter),
            });
        }
        Ok(Self { parts })
    }

    /// Whether it matches the whole of a path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        // The places in the pattern that the text so far may lead to.
        let mut places = vec![false; self.parts.len() + 1];
        places[0] = true;
        self.skip_stars(&mut places);
        for letter in letters(path) {
            let mut next = vec![false; places.len()];
            for (place, part) in self.parts.iter().enumerate().filter(|(place, _)| places[*place]) {
                match part {
                    Part::Star => next[place] |= letter != Letter::Char('/'),
                    part => next[place + 1] |= part.takes(letter),
                }
            }
            self.skip_stars(&mut next);
            places = next;
        }
        places[self.parts.len()]
    }

    /// A star may be nothing.
    fn skip_stars(&self, places: &mut [bool]) {
        for (place, part) in self.parts.iter().enumerate() {
            places[place + 1] |= places[place] && matches!(part, Part::Star);
        }
    }

    /// How many `/` a path that it matches has at most.
    pub(super) fn most_slashes(&self) -> usize {
        self.parts.iter().filter(|part| part.takes(Letter::Char('/'))).count()
    }
}

impl Part {
    /// Whether it matches this character, and nothing more.
    fn takes(&self, letter: Letter) -> bool {
        match self {
            Self::One(one) => *one == letter,
            Self::Any => letter != Letter::Char('/'),
            Self::Class { negated, ranges } => {
                let letter = letter.value();
                ranges.iter().any(|(low, high)| (low.value()..=high.value()).contains(&letter)) != *negated
            }
            Self::Star => false,
        }
    }
}

/// What is behind a `[`, with its end.
fn class(rest: &mut &[Letter]) -> Result<Part, BadPattern> {
    let negated = rest.first() == Some(&Letter::Char('^'));
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&Letter::Char(']')) && !ranges.is_empty() {
            *rest = &rest[1..];
            return Ok(Part::Class { negated, ranges });
        }
        let low = class_letter(rest)?;
        let mut high = low;
        if rest.first() == Some(&Letter::Char('-')) {
            *rest = &rest[1..];
            high = class_letter(rest)?;
        }
        ranges.push((low, high));
    }
}

fn class_letter(rest: &mut &[Letter]) -> Result<Letter, BadPattern> {
    let mut take = || {
        let (letter, after) = rest.split_first()?;
        *rest = after;
        Some(*letter)
    };
    let letter = match take().ok_or(BadPattern)? {
        Letter::Char('-' | ']') => return Err(BadPattern),
        Letter::Char('\\') => take().ok_or(BadPattern)?,
        letter => letter,
    };
    // Go refuses bytes that are no character here, and a class that the pattern ends in.
    if matches!(letter, Letter::Byte(_)) || rest.is_empty() { Err(BadPattern) } else { Ok(letter) }
}

fn letters(bytes: &[u8]) -> Vec<Letter> {
    let letters = |chunk: std::str::Utf8Chunk<'_>| {
        let valid: Vec<Letter> = chunk.valid().chars().map(Letter::Char).collect();
        valid.into_iter().chain(chunk.invalid().iter().copied().map(Letter::Byte).collect::<Vec<_>>())
    };
    bytes.utf8_chunks().flat_map(letters).collect()
}

/// Splits a clean path where its first part with wildcards begins: the path before it, and the pattern.
///
/// A path without wildcards is taken as it stands, backslashes included: that is what `BuildKit` does.
pub(super) fn split(path: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    match parts.iter().position(|part| has_wildcards(part)) {
        Some(at) => (parts[..at].join(&b'/'), Some(parts[at..].join(&b'/'))),
        None => (path.to_vec(), None),
    }
}

fn has_wildcards(part: &[u8]) -> bool {
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        // Most of these are cases of Go's own tests of `path.Match`.
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a[^x]b", "a/b", true),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[[]xyz]", "[xyz]", true),
            ("*x", "xxx", true),
            ("", "", true),
            ("*", "", true),
            ("*", ".a", true),
        ];
        for (pattern, path, expected) in cases {
            let glob = Glob::new(pattern.as_bytes()).unwrap();
            assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        assert!(Glob::new(b"a?").unwrap().matches(b"a\xff"));
    }

    #[test]
    fn patterns_that_are_not_complete_are_refused() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "[]"] {
            assert_eq!(Glob::new(pattern.as_bytes()).err(), Some(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn patterns_begin_with_the_first_part_that_has_wildcards() {
        let split = |path: &str| {
            let (base, pattern) = split(path.as_bytes());
            (String::from_utf8(base).unwrap(), pattern.map(|pattern| String::from_utf8(pattern).unwrap()))
        };
        assert_eq!(split("a/b*/c"), ("a".into(), Some("b*/c".into())));
        assert_eq!(split("*"), (String::new(), Some("*".into())));
        assert_eq!(split("a/\\*b"), ("a/\\*b".into(), None));
        assert_eq!(split("a/[b/c"), ("a".into(), Some("[b/c".into())));
        assert_eq!(Glob::new(b"a*/b[^c]").unwrap().most_slashes(), 2);
    }
}
