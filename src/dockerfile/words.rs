//! Quotes, escapes and variables in the words of an instruction, as BuildKit expands them.
//!
//! It looks like a shell and is none: there is no command substitution, no glob and no `$((...))`.
//!
//! - `'...'` is taken as it is. In `"..."`, variables are expanded, and the escape character works before `"`, `$` and
//!   itself. Elsewhere it takes any character as it is.
//! - `$name`, `${name}`, and the special parameters of a shell (`$1`, `$@`, ...), which are never set.
//! - `${name:-word}`, `:+`, `:?`, and the same without the colon, which then asks whether the variable is set, not whether
//!   it is empty; `word` is expanded too.
//! - `${name#pattern}`, `##`, `%`, `%%`, `${name/pattern/text}`, `${name//pattern/text}`: see [`super::pattern`].

use std::collections::BTreeSet;

use super::mistake::{Mistake, Result};
use super::pattern::{self, End};
use super::variables::Variables;

/// How deep `${a:-${b:-...}}` may go. Nobody writes that by hand, and a stack ends somewhere.
pub(super) const MAX_NESTING: usize = 100;

/// How words are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "four switches that have nothing to do with each other")]
pub(super) struct Lexer {
    /// What takes the next character as it is: a backslash, or what `# escape=` says.
    pub(super) escape: char,
    /// Quotes stay in the text.
    pub(super) keep_quotes: bool,
    /// Escape characters stay in the text.
    pub(super) keep_escapes: bool,
    /// Quotes mean nothing: the content of here-documents.
    pub(super) ignore_quotes: bool,
    /// Variables that are not set stay as they are written.
    pub(super) keep_unset: bool,
}

/// What a text expands to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expansion {
    /// As one text.
    pub(super) text: String,
    /// As words: split at white space that is neither quoted nor escaped, after variables were replaced.
    pub(super) words: Vec<String>,
    /// Variables that were asked for and are set.
    pub(super) set: BTreeSet<String>,
    /// Variables that were asked for and are not set.
    pub(super) unset: BTreeSet<String>,
}

impl Lexer {
    /// The usual one.
    pub(super) const fn new(escape: char) -> Self {
        Self { escape, keep_quotes: false, keep_escapes: false, ignore_quotes: false, keep_unset: false }
    }

    /// Expands a text.
    pub(super) fn expand(self, text: &str, variables: &Variables) -> Result<Expansion> {
        let mut run = Run {
            lexer: self,
            characters: text.chars().collect(),
            at: 0,
            depth: 0,
            variables,
            word: String::new(),
            set: BTreeSet::new(),
            unset: BTreeSet::new(),
        };
        let (text, words) = run.until(None)?;
        Ok(Expansion { text, words, set: run.set, unset: run.unset })
    }
}

struct Run<'a> {
    lexer: Lexer,
    characters: Vec<char>,
    at: usize,
    depth: usize,
    variables: &'a Variables,
    /// The word that has begun. There is one for all levels: a substitution with a modifier takes what stands right before it
    /// out of the words (`80${X:-80}` is the word `80`). That is a slip of BuildKit's, which the meaning of files hangs on.
    word: String,
    set: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek();
        self.at += usize::from(character.is_some());
        character
    }

    /// Reads up to `stop`, or to the end where that is `None`: as one text, and as words.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>)> {
        let mut text = String::new();
        let mut words = Vec::new();
        self.word.clear();
        while let Some(character) = self.peek() {
            if Some(character) == stop {
                self.at += 1;
                self.end_word(&mut words);
                return Ok((text, words));
            }
            match character {
                '$' => {
                    let value = self.dollar()?;
                    text.push_str(&value);
                    value.chars().for_each(|character| self.add(character, &mut words));
                }
                '<' => {
                    let value = self.less_than();
                    text.push_str(&value);
                    self.word.push_str(&value);
                }
                '\'' | '"' if !self.lexer.ignore_quotes => {
                    let value = if character == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    text.push_str(&value);
                    self.word.push_str(&value);
                }
                _ => self.plain(&mut text, &mut words),
            }
        }
        if let Some(stop) = stop {
            return Err(Mistake::variable(format!("a `{stop}` is missing")));
        }
        self.end_word(&mut words);
        Ok((text, words))
    }

    /// Adds a character that is not quoted to the words.
    fn add(&mut self, character: char, words: &mut Vec<String>) {
        if character.is_whitespace() {
            self.end_word(words);
        } else {
            self.word.push(character);
        }
    }

    fn end_word(&mut self, words: &mut Vec<String>) {
        if !self.word.is_empty() {
            words.push(std::mem::take(&mut self.word));
        }
    }

    fn plain(&mut self, text: &mut String, words: &mut Vec<String>) {
        let Some(character) = self.next() else { return };
        if character != self.lexer.escape {
            text.push(character);
            self.add(character, words);
            return;
        }
        if self.lexer.keep_escapes {
            text.push(character);
            self.word.push(character);
        }
        if let Some(escaped) = self.next() {
            text.push(escaped);
            self.word.push(escaped);
        }
    }

    fn single_quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.peek() {
                None => return Err(Mistake::variable("a closing `'` is missing").near("'")),
                Some('\'') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some(character) => {
                    self.at += 1;
                    text.push(character);
                }
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.peek() {
                None => return Err(Mistake::variable("a closing `\"` is missing").near("\"")),
                Some('"') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(character) if character == self.lexer.escape => {
                    self.at += 1;
                    self.escaped_in_quotes(&mut text);
                }
                Some(character) => {
                    self.at += 1;
                    text.push(character);
                }
            }
        }
    }

    /// The escape character has been read. Before anything but `"`, `$` and itself, it stands for itself.
    fn escaped_in_quotes(&mut self, text: &mut String) {
        let escape = self.lexer.escape;
        if self.lexer.keep_escapes {
            text.push(escape);
        }
        match self.peek() {
            None => {}
            Some(character) if character == '"' || character == '$' || character == escape => {
                self.at += 1;
                text.push(character);
            }
            Some(_) => text.push(escape),
        }
    }

    fn quote(&mut self, text: &mut String) {
        let quote = self.next();
        if self.lexer.keep_quotes {
            text.extend(quote);
        }
    }

    /// `<<` and the white space after it stay together, so that `<< EOF` is one word.
    fn less_than(&mut self) -> String {
        let mut text = String::new();
        text.extend(self.next());
        if self.peek() == Some('<') {
            text.extend(self.next());
            while let Some('\t' | '\r' | ' ') = self.peek() {
                text.extend(self.next());
            }
        }
        text
    }

    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(&name) {
                None if self.lexer.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        if self.depth == MAX_NESTING {
            return Err(Mistake::variable(format!("substitutions are nested more than {MAX_NESTING} deep")));
        }
        self.depth += 1;
        let value = self.braces();
        self.depth -= 1;
        value
    }

    /// What stands behind `${`.
    fn braces(&mut self) -> Result<String> {
        match self.peek() {
            None => return Err(missing_brace()),
            Some('{' | '}' | ':') => return Err(Mistake::variable("bad substitution").near("${")),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(missing_brace()),
            Some('}') => Ok(match self.get(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                Some(modifier @ ('-' | '+' | '?')) => self.modified(&name, modifier, true),
                other => Err(unknown_modifier(&format!(":{}", other.map(String::from).unwrap_or_default()))),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.modified(&name, modifier, false),
            Some('#') => self.trimmed(&name, '#', End::Front),
            Some('%') => self.trimmed(&name, '%', End::Back),
            Some('/') => self.replaced(&name),
            Some(other) => Err(unknown_modifier(&other.to_string())),
        }
    }

    /// `-`, `+` and `?`, with a colon before them (`empty_is_unset`) or without.
    fn modified(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Result<String> {
        let word = self.inner('}', false)?;
        let value = self.get(name);
        if value.is_none() && self.lexer.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let empty = empty_is_unset && value.as_deref() == Some("");
        let value = value.filter(|_| !empty);
        match (modifier, value) {
            ('-', value) => Ok(value.unwrap_or(word)),
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let default = if empty { "is not allowed to be empty" } else { "is not allowed to be unset" };
                let reason = if word.is_empty() { default } else { &word };
                Err(Mistake::variable(format!("{name}: {reason}")).near(format!("${{{name}")))
            }
        }
    }

    fn trimmed(&mut self, name: &str, modifier: char, end: End) -> Result<String> {
        let word = self.inner('}', true)?;
        let value = self.get(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{modifier}{word}}}"));
        }
        let (pattern, greedy) = word.strip_prefix(modifier).map_or((word.as_str(), false), |rest| (rest, true));
        pattern::trim(&value.unwrap_or_default(), pattern, end, greedy)
    }

    fn replaced(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let wanted = self.inner('/', true)?;
        let text = self.inner('}', true)?;
        let value = self.get(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}/{wanted}/{text}}}"));
        }
        pattern::replace(&value.unwrap_or_default(), &wanted, &text, all)
    }

    /// A part of a substitution. Escapes stay in patterns, which have a use for them.
    fn inner(&mut self, stop: char, keep_escapes: bool) -> Result<String> {
        let before = std::mem::replace(&mut self.lexer.keep_escapes, keep_escapes);
        let read = self.until(Some(stop));
        self.lexer.keep_escapes = before;
        read.map(|(text, _)| text)
    }

    /// Letters, digits and `_`; or digits alone; or one special parameter.
    fn name(&mut self) -> String {
        let Some(first) = self.peek() else { return String::new() };
        let start = self.at;
        if first.is_numeric() {
            self.skip(char::is_numeric);
        } else if "@*#?-$!".contains(first) {
            self.at += 1;
        } else {
            self.skip(|character| character.is_alphabetic() || character.is_numeric() || character == '_');
        }
        self.characters[start..self.at].iter().collect()
    }

    fn skip(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).map(str::to_owned);
        let names = if value.is_some() { &mut self.set } else { &mut self.unset };
        names.insert(name.to_owned());
        value
    }
}

fn missing_brace() -> Mistake {
    Mistake::variable("a `}` is missing").near("${")
}

fn unknown_modifier(modifier: &str) -> Mistake {
    Mistake::variable(format!("unsupported modifier `{modifier}` in a substitution")).near(modifier)
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use serde::Deserialize;

    use super::*;

    /// What BuildKit makes of a word; see `tests/corpus/dockerfile/README.md`.
    #[derive(Deserialize)]
    struct Recorded {
        text: String,
        escape: char,
        options: String,
        error: Option<String>,
        #[serde(default)]
        result: String,
        words: Option<Vec<String>>,
        #[serde(default)]
        set: BTreeSet<String>,
        #[serde(default)]
        unset: BTreeSet<String>,
    }

    fn variables() -> Variables {
        [("X", "/a/b.a/ba.tar.gz"), ("Y", ""), ("W", "a b"), ("A", "*.a")].into_iter().collect()
    }

    fn lexer(recorded: &Recorded) -> Lexer {
        let has = |option| recorded.options.contains(option);
        Lexer {
            escape: recorded.escape,
            keep_quotes: has('q'),
            keep_escapes: has('e'),
            ignore_quotes: has('i'),
            keep_unset: has('u'),
        }
    }

    #[test]
    fn words_are_what_buildkit_makes_of_them() {
        let more = env::var("COOPER_DOCKERFILE_CORPUS").map(|folder| format!("{folder}/words.jsonl"));
        let more = more.map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
        let corpus = include_str!("../../tests/corpus/dockerfile/words.jsonl");
        let mut seen = 0;
        for line in corpus.lines().chain(more.lines()) {
            let recorded: Recorded = serde_json::from_str(line).unwrap();
            let found = lexer(&recorded).expand(&recorded.text, &variables());
            assert_eq!(found.is_err(), recorded.error.is_some(), "{line}\n{found:?}");
            seen += 1;
            let Ok(found) = found else { continue };
            assert_eq!(found.text, recorded.result, "{line}");
            assert_eq!((&found.set, &found.unset), (&recorded.set, &recorded.unset), "{line}");
            assert_eq!(Some(found.words), recorded.words, "{line}");
        }
        assert!(seen >= 1000);
    }

    fn expand(text: &str) -> Result<Expansion> {
        Lexer::new('\\').expand(text, &variables())
    }

    #[test]
    fn words_are_split_after_expansion() {
        let words = |text: &str| expand(text).unwrap().words;
        assert_eq!(words("a$W \"$W\"c d\\ e"), ["aa", "b", "a bc", "d e"]);
        assert_eq!(words("80${Y:-80} x"), ["80", "x"]);
        assert!(words(" \"\" ''").is_empty());
    }

    #[test]
    fn a_variable_may_be_mandatory() {
        let message = |text: &str| format!("{:?}", expand(text).unwrap_err());
        assert!(message("${Q:?say $W}").contains("Q: say a b"));
        assert!(message("${Q?}").contains("not allowed to be unset"));
        assert!(message("${Y:?}").contains("not allowed to be empty"));
        assert_eq!(expand("${Y?}").unwrap().text, "");
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}x{}", "${Q:-".repeat(depth), "}".repeat(depth));
        assert_eq!(expand(&nested(MAX_NESTING)).unwrap().text, "x");
        assert!(expand(&nested(MAX_NESTING + 1)).is_err());
        assert!(expand(&"${Q:-".repeat(100_000)).is_err());
    }
}
