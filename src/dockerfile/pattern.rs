//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*` is any text, `?` one character.

use regex::Regex;

use super::mistake::{Mistake, Result};

/// Which end of a value a pattern is taken off from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Front,
    Back,
}

/// Takes the shortest (`greedy`: the longest) match of a pattern off one end of a value.
pub(super) fn trim(value: &str, pattern: &str, end: End, greedy: bool) -> Result<String> {
    match end {
        End::Front => {
            let regex = compile(pattern, pattern, greedy, true)?;
            Ok(regex.find(value).map_or(value, |found| &value[found.end()..]).to_owned())
        }
        // The shortest match at the end is the shortest one at the front, both turned round.
        End::Back => {
            let regex = compile(&turn_pattern(pattern), pattern, greedy, true)?;
            let turned: String = value.chars().rev().collect();
            let rest = regex.find(&turned).map_or(turned.as_str(), |found| &turned[found.end()..]);
            Ok(rest.chars().rev().collect())
        }
    }
}

/// Replaces the first (`all`: every) longest match.
pub(super) fn replace(value: &str, pattern: &str, text: &str, all: bool) -> Result<String> {
    let regex = compile(pattern, pattern, true, false)?;
    if all {
        return Ok(regex.replace_all(value, |found: &regex::Captures<'_>| from_template(text, &found[0])).into_owned());
    }
    Ok(match regex.find(value) {
        Some(found) => format!("{}{text}{}", &value[..found.start()], &value[found.end()..]),
        None => value.to_owned(),
    })
}

/// What a match is replaced by. A `$0` in the text is the match, and other names of groups, of which there are none, are
/// empty: not by design, but because Go's `ReplaceAllString` does that.
fn from_template(text: &str, matched: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{').unwrap_or(rest);
        let braces = inner.len() < rest.len();
        let end = inner.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(inner.len());
        let (name, after) = inner.split_at(end);
        match if braces { after.strip_prefix('}') } else { Some(after) } {
            Some(after) if !name.is_empty() => {
                out.push_str(if name.bytes().all(|digit| digit == b'0') { matched } else { "" });
                rest = after;
            }
            _ => out.push('$'),
        }
    }
    out + rest
}

fn compile(pattern: &str, written: &str, greedy: bool, at_front: bool) -> Result<Regex> {
    let invalid = || Mistake::variable(format!("invalid pattern `{written}` in a substitution")).near(written);
    let mut out = String::with_capacity(pattern.len() + 4);
    if at_front {
        out.push('^');
    }
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            '\\' => match characters.peek() {
                // These end a substitution, so they have to be escaped; the pattern does not know of that.
                Some('}' | '/') => {}
                Some(escaped @ ('*' | '?' | '\\')) => {
                    out.push('\\');
                    out.push(*escaped);
                    characters.next();
                }
                _ => return Err(invalid()),
            },
            other => out.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&out).map_err(|_| invalid())
}

/// Turns a pattern round; an escape stays in front of what it escapes.
fn turn_pattern(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match (character, characters.clone().next()) {
            ('\\', Some(escaped)) => {
                characters.next();
                pieces.push(format!("\\{escaped}"));
            }
            _ => pieces.push(character.to_string()),
        }
    }
    pieces.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_trimmed() {
        let cases = [
            ("xxyy", "*x", End::Front, false, "xyy"),
            ("xxyy", "*x", End::Front, true, "yy"),
            ("xxyy", "", End::Front, true, "xxyy"),
            ("???y", "?\\?", End::Front, false, "?y"),
            ("a***yy*", "\\**\\*", End::Back, true, "a"),
            ("image.tar.gz", ".*", End::Back, false, "image.tar"),
            ("image.tar.gz", ".*", End::Back, true, "image"),
            ("🖖🚀👽", "\\*👽", End::Back, true, "🖖🚀👽"),
        ];
        for (value, pattern, end, greedy, expected) in cases {
            assert_eq!(trim(value, pattern, end, greedy).unwrap(), expected, "{value} {pattern} {end:?}");
        }
    }

    #[test]
    fn matches_are_replaced() {
        let cases = [
            ("/foo*/*/*.txt", "\\*/", ".", false, "/foo.*/*.txt"),
            ("/foo*/*/*.txt", "\\*/", ".", true, "/foo..*.txt"),
            ("a.b+c", ".", "-", true, "a-b+c"),
            ("xxyy", "", "ww", false, "wwxxyy"),
            ("a}b", "\\}", "/", false, "a/b"),
            ("ab", "?", "[$0$$${0}$1$x]${:}$", true, "[a$a]${:}$[b$b]${:}$"),
        ];
        for (value, pattern, text, all, expected) in cases {
            assert_eq!(replace(value, pattern, text, all).unwrap(), expected, "{value} {pattern}");
        }
    }

    #[test]
    fn an_escape_of_nothing_is_a_mistake() {
        for pattern in ["\\", "\\x", "\\\\\\"] {
            assert!(trim("x", pattern, End::Front, true).is_err(), "{pattern}");
        }
    }
}
