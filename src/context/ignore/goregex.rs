//! Go regular expressions (RE2 syntax, Perl flags) written again as those of the `regex` crate.
//!
//! Moby builds the source of a Go regular expression out of a pattern and leaves several special characters as they are
//! (`|`, `{`, `}`, `^`, and whatever follows a backslash), so the syntax of Go's package shows through in ignore files.
//! The two syntaxes differ in what is an error, in classes, escapes and repetitions: each piece is parsed by Go's rules
//! and emitted in a spelling that has one meaning only.

use std::fmt::Write as _;

/// The text is no Go regular expression.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

type Result<T> = std::result::Result<T, Malformed>;

/// The most that a repetition may count to.
const MAX_REPEAT: u32 = 1000;

/// Translates a regular expression.
pub(super) fn translate(source: &str) -> Result<String> {
    let mut parser =
        Parser { rest: source, out: String::with_capacity(source.len() * 2), groups: Vec::new(), last: None };
    while !parser.rest.is_empty() {
        parser.piece()?;
    }
    if parser.groups.is_empty() { Ok(parser.out) } else { Err(Malformed) }
}

struct Parser<'a> {
    rest: &'a str,
    out: String,
    /// Where each open group begins in `out`.
    groups: Vec<usize>,
    /// Where the last atom begins in `out`, and whether it has a repetition already; `None` where none can follow.
    last: Option<(usize, bool)>,
}

impl<'a> Parser<'a> {
    fn piece(&mut self) -> Result<()> {
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else { return Ok(()) };
        let after = chars.as_str();
        match first {
            '(' => {
                self.groups.push(self.out.len());
                self.out.push_str("(?:");
                self.last = None;
            }
            ')' => {
                let start = self.groups.pop().ok_or(Malformed)?;
                self.out.push(')');
                self.last = Some((start, false));
            }
            '|' => {
                self.out.push('|');
                self.last = None;
            }
            '^' => self.atom("(?:^)"),
            '$' => self.atom("(?:$)"),
            '.' => self.atom("."),
            '[' => {
                let (class, rest) = Class::parse(after)?;
                self.atom(&class);
                self.rest = rest;
                return Ok(());
            }
            '*' | '+' | '?' => return self.repeat(&first.to_string(), after),
            '{' => match parse_counts(after) {
                None => self.literal('{'),
                Some((counts, rest)) => return self.repeat(&counts.operator()?, rest),
            },
            '\\' => return self.escape(after),
            _ => self.literal(first),
        }
        self.rest = after;
        Ok(())
    }

    fn atom(&mut self, text: &str) {
        self.last = Some((self.out.len(), false));
        self.out.push_str(text);
    }

    fn literal(&mut self, ch: char) {
        let mut text = String::new();
        push_char(&mut text, ch);
        self.atom(&text);
    }

    fn repeat(&mut self, operator: &str, after: &'a str) -> Result<()> {
        let (after, lazy) = after.strip_prefix('?').map_or((after, ""), |rest| (rest, "?"));
        // No argument, or a repetition of a repetition.
        let Some((start, false)) = self.last else { return Err(Malformed) };
        self.out.insert_str(start, "(?:");
        self.out.push(')');
        self.out.push_str(operator);
        self.out.push_str(lazy);
        self.last = Some((start, true));
        self.rest = after;
        Ok(())
    }

    fn escape(&mut self, after: &'a str) -> Result<()> {
        let mut chars = after.chars();
        let rest = match chars.next().ok_or(Malformed)? {
            'A' => self.assertion("(?:^)", chars.as_str()),
            'z' => self.assertion("(?:$)", chars.as_str()),
            'b' => self.assertion(r"(?-u:\b)", chars.as_str()),
            'B' => self.assertion(r"(?-u:\B)", chars.as_str()),
            'Q' => {
                let (literals, rest) = after[1..].split_once(r"\E").unwrap_or((&after[1..], ""));
                literals.chars().for_each(|ch| self.literal(ch));
                if literals.is_empty() {
                    // Nothing was added; a repetition now belongs to what came before, stacked or not.
                    self.last = self.last.map(|(start, _)| (start, false));
                }
                rest
            }
            _ => {
                if let Some((group, rest)) = group_escape(after)? {
                    self.atom(&format!("[{group}]"));
                    rest
                } else {
                    let (code, rest) = parse_escape(after)?;
                    let class = Class { items: vec![(code, code)], ..Class::default() };
                    self.atom(&class.emit());
                    rest
                }
            }
        };
        self.rest = rest;
        Ok(())
    }

    fn assertion(&mut self, text: &str, rest: &'a str) -> &'a str {
        self.atom(text);
        rest
    }
}

/// The bounds of a repetition. A number that is too big for its type is one that is too big to count to.
struct Counts {
    min: u32,
    max: Option<u32>,
}

/// Reads `2}`, `2,}` or `2,3}`; `None` means that the `{` before it is a literal.
fn parse_counts(text: &str) -> Option<(Counts, &str)> {
    let (min, rest) = parse_count(text)?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => parse_count(rest).map(|(max, rest)| (Some(max), rest))?,
    };
    Some((Counts { min, max }, rest.strip_prefix('}')?))
}

fn parse_count(text: &str) -> Option<(u32, &str)> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    let leading_zero = length > 1 && digits.starts_with('0');
    (length > 0 && !leading_zero).then(|| (digits.parse().unwrap_or(u32::MAX), rest))
}

impl Counts {
    fn operator(&self) -> Result<String> {
        match *self {
            Self { min, max: None } if min <= MAX_REPEAT => Ok(format!("{{{min},}}")),
            Self { min, max: Some(max) } if min <= max && max <= MAX_REPEAT => Ok(format!("{{{min},{max}}}")),
            _ => Err(Malformed),
        }
    }
}

/// Reads what follows a backslash: one character. It may be a surrogate, which no text holds.
fn parse_escape(text: &str) -> Result<(u32, &str)> {
    let mut chars = text.chars();
    let first = chars.next().ok_or(Malformed)?;
    let code = match first {
        '1'..='7' if !chars.as_str().starts_with(|next| matches!(next, '0'..='7')) => return Err(Malformed),
        '0'..='7' => {
            let length = text.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let code = u32::from_str_radix(&text[..length], 8).map_err(|_| Malformed)?;
            return Ok((code, &text[length..]));
        }
        'x' => return parse_hex(chars.as_str()),
        'a' => 7,
        'f' => 12,
        'n' => 10,
        'r' => 13,
        't' => 9,
        'v' => 11,
        _ if first.is_ascii() && !first.is_ascii_alphanumeric() => u32::from(first),
        _ => return Err(Malformed),
    };
    Ok((code, chars.as_str()))
}

fn parse_hex(text: &str) -> Result<(u32, &str)> {
    let (digits, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or(Malformed)?,
        None => text.split_at_checked(2).ok_or(Malformed)?,
    };
    let mut code = 0;
    for digit in digits.chars() {
        code = code * 16 + digit.to_digit(16).ok_or(Malformed)?;
        if code > u32::from(char::MAX) {
            return Err(Malformed);
        }
    }
    if digits.is_empty() { Err(Malformed) } else { Ok((code, rest)) }
}

/// Reads `d`, `D`, ..., `pL`, `p{Greek}` after a backslash, as text for the inside of a class.
fn group_escape(text: &str) -> Result<Option<(String, &str)>> {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return Ok(None) };
    if matches!(first, 'p' | 'P') {
        return unicode_group(first == 'P', chars.as_str()).map(Some);
    }
    let (ranges, negated) = match first {
        'd' => (DIGIT, false),
        'D' => (DIGIT, true),
        's' => (SPACE, false),
        'S' => (SPACE, true),
        'w' => (WORD, false),
        'W' => (WORD, true),
        _ => return Ok(None),
    };
    Ok(Some((group(ranges, negated), chars.as_str())))
}

const DIGIT: &str = "0-9";
const SPACE: &str = r"\t\n\x{C}\r\x{20}";
const WORD: &str = r"0-9A-Z\x{5F}a-z";

fn group(ranges: &str, negated: bool) -> String {
    format!("[{}{ranges}]", if negated { "^" } else { "" })
}

/// The general categories that Go knows by name.
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Co", "Cs", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl", "No", "P",
    "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl", "Zp", "Zs",
];

fn unicode_group(negated: bool, text: &str) -> Result<(String, &str)> {
    let (name, rest) = match text.strip_prefix('{') {
        Some(braced) => braced.split_once('}').ok_or(Malformed)?,
        None => text.split_at(text.chars().next().ok_or(Malformed)?.len_utf8()),
    };
    let (name, negated) = name.strip_prefix('^').map_or((name, negated), |name| (name, !negated));
    let ranges = match name {
        "Any" => r"\x{0}-\x{10FFFF}".to_owned(),
        // Go's C has no unassigned characters, and no text has surrogates.
        "C" => r"\p{Cc}\p{Cf}\p{Co}".to_owned(),
        "Cs" => r"[^\x{0}-\x{10FFFF}]".to_owned(),
        _ if CATEGORIES.contains(&name) => format!(r"\p{{{name}}}"),
        // A name that the regex crate does not know makes the expression malformed there.
        _ if name.len() > 2
            && name.starts_with(|ch: char| ch.is_ascii_uppercase())
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') =>
        {
            format!(r"\p{{sc={name}}}")
        }
        _ => return Err(Malformed),
    };
    Ok((group(&ranges, negated), rest))
}

/// `[...]`
#[derive(Default)]
struct Class {
    negated: bool,
    items: Vec<(u32, u32)>,
    /// Nested classes.
    groups: String,
}

impl Class {
    /// Parses what follows a `[`.
    fn parse(mut text: &str) -> Result<(String, &str)> {
        let mut class = Self::default();
        if let Some(rest) = text.strip_prefix('^') {
            class.negated = true;
            text = rest;
        }
        let mut first = true;
        loop {
            if !first && let Some(rest) = text.strip_prefix(']') {
                return Ok((class.emit(), rest));
            }
            first = false;
            text = class.item(text)?;
        }
    }

    fn item<'a>(&mut self, text: &'a str) -> Result<&'a str> {
        if let Some(named) = text.strip_prefix("[:")
            && let Some((name, rest)) = named.split_once(":]")
        {
            self.groups.push_str(&group(posix_ranges(name)?, name.starts_with('^')));
            return Ok(rest);
        }
        if let Some(escaped) = text.strip_prefix('\\')
            && let Some((group, rest)) = group_escape(escaped)?
        {
            self.groups.push_str(&group);
            return Ok(rest);
        }
        let (low, rest) = class_char(text)?;
        match rest.strip_prefix('-') {
            Some(after) if !after.is_empty() && !after.starts_with(']') => {
                let (high, rest) = class_char(after)?;
                if high < low {
                    return Err(Malformed);
                }
                self.items.push((low, high));
                Ok(rest)
            }
            _ => {
                self.items.push((low, low));
                Ok(rest)
            }
        }
    }

    fn emit(&self) -> String {
        let mut out = String::from(if self.negated { "[^" } else { "[" });
        let mut empty = self.groups.is_empty();
        for (low, high) in self.items.iter().flat_map(|range| without_surrogates(*range)) {
            // Writing to a string cannot fail.
            let _ = write!(out, r"\x{{{low:X}}}-\x{{{high:X}}}");
            empty = false;
        }
        out.push_str(&self.groups);
        if empty {
            // Surrogates only: nothing, spelled so that it can stand in a class.
            out.push_str(r"[^\x{0}-\x{10FFFF}]");
        }
        out.push(']');
        out
    }
}

fn class_char(text: &str) -> Result<(u32, &str)> {
    if let Some(escaped) = text.strip_prefix('\\') {
        return parse_escape(escaped);
    }
    let mut chars = text.chars();
    let ch = chars.next().ok_or(Malformed)?;
    Ok((u32::from(ch), chars.as_str()))
}

fn without_surrogates((low, high): (u32, u32)) -> impl Iterator<Item = (u32, u32)> {
    let below = (low, high.min(0xd7ff));
    let above = (low.max(0xe000), high);
    [below, above].into_iter().filter(|(low, high)| low <= high)
}

/// The ranges of `[:name:]` or `[:^name:]`.
fn posix_ranges(name: &str) -> Result<&'static str> {
    Ok(match name.strip_prefix('^').unwrap_or(name) {
        "alnum" => "0-9A-Za-z",
        "alpha" => "A-Za-z",
        "ascii" => r"\x{0}-\x{7F}",
        "blank" => r"\t\x{20}",
        "cntrl" => r"\x{0}-\x{1F}\x{7F}",
        "digit" => DIGIT,
        "graph" => r"\x{21}-\x{7E}",
        "lower" => "a-z",
        "print" => r"\x{20}-\x{7E}",
        "punct" => r"\x{21}-\x{2F}\x{3A}-\x{40}\x{5B}-\x{60}\x{7B}-\x{7E}",
        "space" => r"\x{9}-\x{D}\x{20}",
        "upper" => "A-Z",
        "word" => WORD,
        "xdigit" => "0-9A-Fa-f",
        _ => return Err(Malformed),
    })
}

fn push_char(out: &mut String, ch: char) {
    if ch.is_ascii_alphanumeric() || ch == '/' {
        out.push(ch);
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, r"\x{{{:X}}}", u32::from(ch));
    }
}

#[cfg(test)]
mod tests {
    use regex::bytes::Regex;

    use super::*;

    fn matches(source: &str, text: &str) -> bool {
        Regex::new(&translate(source).unwrap()).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn go_syntax_is_understood() {
        let cases = [
            ("^a|b$", "ax", "xa"),
            ("^a{2}$", "aa", "a"),
            ("^a{,2}$", "a{,2}", "aa"),
            ("^a{02}$", "a{02}", "aa"),
            (r"^\Qa.*b\E+$", "a.*bb", "axb"),
            (r"^\x41\x{1F600}\101$", "A\u{1f600}A", "A"),
            (r"^[\d-?]$", "-", "5-"),
            ("^[[:^alpha:]x]$", "x", "y"),
            ("^[&&~~-]$", "&", "+"),
            ("^[[a]$", "[", "b"),
            (r"^\p{Greek}\pL\P{^Lu}$", "\u{3b1}xY", "axY"),
            (r"^\w\b\W$", "a ", "\u{e9} "),
            ("^[^/]$", "\n", "/"),
        ];
        for (source, yes, no) in cases {
            assert!(matches(source, yes), "{source} should match {yes:?}");
            assert!(!matches(source, no), "{source} should not match {no:?}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        let bad = [
            "a**",
            "a{2}{3}",
            "^|*",
            "a{1001}",
            "a{3,2}",
            r"\1",
            r"\8",
            r"\C",
            r"\E",
            r"\q",
            r"\x{110000}",
            r"\xg0",
            "[b-a]",
            "[",
            "[]",
            "[[:foo:]]",
            r"\pX",
            r"\p{Foo",
            "a)",
            "(a",
            "\\",
            "a{99999999999}",
            "a{1,99999999999}",
            "\\\u{e9}",
        ];
        for source in bad {
            let refused = translate(source).map_or(true, |text| Regex::new(&text).is_err());
            assert!(refused, "{source}");
        }
    }
}
