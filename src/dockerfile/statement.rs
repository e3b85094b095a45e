//! One logical line: its keyword, its flags, and its arguments in the form that the keyword wants.

use super::heredoc::Heredoc;
use super::mistake::{Mistake, Result};
use super::source::Span;

/// A logical line, cut but not understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Statement {
    /// As written.
    pub(super) keyword: String,
    /// `--name=value`, quotes and escapes taken off.
    pub(super) flags: Vec<String>,
    pub(super) arguments: Arguments,
    pub(super) heredocs: Vec<Heredoc>,
    /// All of it, without white space around it.
    pub(super) original: String,
    /// Comments right above it.
    pub(super) comments: Vec<String>,
    pub(super) span: Span,
}

/// Arguments.
#[derive(Clone, Debug)]
pub(super) enum Arguments {
    /// Words, or one text.
    Plain(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// `name=value ...`, or `name value`.
    Pairs { pairs: Vec<(String, String)>, legacy: bool },
    /// The instruction of ONBUILD.
    Trigger(Box<Statement>),
    /// `HEALTHCHECK CMD ...` or `HEALTHCHECK NONE`: the first word, and plain or JSON arguments.
    Health(String, Box<Arguments>),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

/// White space between words: no line ends, and nothing beyond ASCII.
pub(super) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

impl Statement {
    pub(super) fn parse(line: &str, escape: char) -> Result<Self> {
        let original = line.trim();
        let (keyword, rest) = split_blank(original);
        let (flags, arguments) = take_flags(rest.unwrap_or_default(), escape);
        let arguments = Arguments::parse(&keyword.to_lowercase(), arguments.trim(), escape)?;
        Ok(Self { keyword: keyword.to_owned(), flags, arguments, original: original.to_owned(), ..Self::default() })
    }

    /// Whether `<<` in it starts a here-document.
    pub(super) fn may_have_heredocs(&self) -> bool {
        let inner = match &self.arguments {
            Arguments::Trigger(inner) => inner,
            _ => self,
        };
        matches!(inner.keyword.to_lowercase().as_str(), "add" | "copy" | "run")
            && !matches!(inner.arguments, Arguments::Json(_))
    }
}

impl Arguments {
    fn parse(keyword: &str, text: &str, escape: char) -> Result<Self> {
        Ok(match keyword {
            "add" | "copy" | "volume" => match json(text)? {
                Some(words) => Self::Json(words),
                None => Self::Plain(split_blanks(text)),
            },
            "cmd" | "entrypoint" | "run" | "shell" => Self::maybe_json(text)?,
            "maintainer" | "stopsignal" | "user" | "workdir" => Self::one(text),
            "expose" | "from" => Self::Plain(split_blanks(text)),
            "arg" => Self::Plain(split_words(text, escape)),
            "env" | "label" => Self::pairs(keyword, text, escape)?,
            "healthcheck" if !text.is_empty() => {
                let (kind, rest) = split_blank(text);
                Self::Health(kind.to_owned(), Box::new(Self::maybe_json(rest.unwrap_or_default())?))
            }
            "onbuild" if !text.is_empty() => Self::Trigger(Box::new(Statement::parse(text, escape)?)),
            _ => Self::default(),
        })
    }

    fn one(text: &str) -> Self {
        Self::Plain(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] })
    }

    fn maybe_json(text: &str) -> Result<Self> {
        Ok(match json(text)? {
            Some(words) => Self::Json(words),
            None => Self::one(text),
        })
    }

    fn pairs(keyword: &str, text: &str, escape: char) -> Result<Self> {
        let words = split_words(text, escape);
        let Some(first) = words.first() else { return Ok(Self::default()) };
        if !first.contains('=') {
            return match split_blank(text) {
                (name, Some(value)) => {
                    Ok(Self::Pairs { pairs: vec![(name.to_owned(), value.to_owned())], legacy: true })
                }
                (name, None) => {
                    let message = format!("{} needs a name and a value", keyword.to_uppercase());
                    Err(Mistake::syntax(message).near(name).suggest(Some(format!("{name}=..."))))
                }
            };
        }
        let pairs = words.iter().map(|word| {
            let (name, value) = word.split_once('=').ok_or_else(|| {
                let message = format!("`{word}` has no `=`: {} takes name=value", keyword.to_uppercase());
                Mistake::syntax(message).near(word)
            })?;
            Ok((name.to_owned(), value.to_owned()))
        });
        Ok(Self::Pairs { pairs: pairs.collect::<Result<_>>()?, legacy: false })
    }
}

/// Splits at the first blanks: the text before them, and the text behind them.
fn split_blank(text: &str) -> (&str, Option<&str>) {
    match text.find(BLANKS) {
        Some(at) => (&text[..at], Some(text[at..].trim_start_matches(BLANKS))),
        None => (text, None),
    }
}

fn split_blanks(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// An array of texts, or `None` for what is no JSON array and may be meant for a shell.
fn json(text: &str) -> Result<Option<Vec<String>>> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let texts = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        other => Err(Mistake::syntax("a JSON array may hold texts only").near(other.to_string())),
    });
    texts.collect::<Result<_>>().map(Some)
}

/// Words with their quotes and escapes. White space within quotes, and white space that is escaped, splits nothing.
fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match quote {
            None if character.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
        // Nothing is escaped within single quotes.
        if character == escape && quote != Some('\'') {
            match characters.next() {
                Some(escaped) => word.extend([character, escaped]),
                // One at the end escapes nothing, and is dropped.
                None => break,
            }
        } else {
            word.push(character);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The flags in front of the arguments, and the rest. `--` alone ends them.
fn take_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, length) = take_flag(rest, escape);
        rest = &rest[length..];
        if flag == "--" {
            return (flags, rest);
        }
        flags.push(flag);
    }
}

/// One flag without quotes and escapes, and how long it is in the text.
fn take_flag(text: &str, escape: char) -> (String, usize) {
    let mut flag = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character == escape {
            flag.extend(characters.next().map(|(_, escaped)| escaped));
            continue;
        }
        match quote {
            None if BLANKS.contains(&character) => return (flag, at),
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => flag.push(character),
        }
    }
    (flag, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Statement {
        Statement::parse(line, '\\').unwrap()
    }

    fn plain(line: &str) -> Vec<String> {
        match parse(line).arguments {
            Arguments::Plain(words) => words,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn flags_stand_before_arguments() {
        let cases: [(&str, &[&str], &str); 6] = [
            ("RUN --a=b --c  x --d", &["--a=b", "--c"], "x --d"),
            ("RUN --a='b c' \"--d\" x", &["--a=b c"], "\"--d\" x"),
            ("RUN --a=b\\ c\\\"", &["--a=b c\""], ""),
            ("RUN -- --a=b", &[], "--a=b"),
            ("RUN - x", &[], "- x"),
            ("RUN --", &[], ""),
        ];
        for (line, flags, text) in cases {
            assert_eq!(parse(line).flags, flags, "{line}");
            assert_eq!(plain(line).join(""), text, "{line}");
        }
    }

    #[test]
    fn words_keep_quotes_and_escapes() {
        let cases: [(&str, &[&str]); 6] = [
            ("ARG a b=c", &["a", "b=c"]),
            ("ARG a='b c' d=\"e f\"", &["a='b c'", "d=\"e f\""]),
            ("ARG a=b\\ c d", &["a=b\\ c", "d"]),
            ("ARG a='b\\' c", &["a='b\\'", "c"]),
            ("ARG a=\"b\\\" c\" d", &["a=\"b\\\" c\"", "d"]),
            ("ARG a=b\\", &["a=b"]),
        ];
        for (line, words) in cases {
            assert_eq!(plain(line), words, "{line}");
        }
    }

    #[test]
    fn json_is_texts_only() {
        assert!(
            matches!(parse("CMD [\"a\",\"\\u2665 \\n\"]").arguments, Arguments::Json(words) if words == ["a", "♥ \n"])
        );
        assert!(matches!(parse("CMD []").arguments, Arguments::Json(words) if words.is_empty()));
        for line in ["CMD ['a']", "CMD [\"a\"", "CMD [ -f x ]", "CMD [\"a\"] b", "CMD [\"a\",]"] {
            assert_eq!(plain(line), [line.strip_prefix("CMD ").unwrap()], "{line}");
        }
        for line in ["CMD [1]", "CMD [\"a\", null]", "CMD [[\"a\"]]", "VOLUME [{}]", "HEALTHCHECK CMD [true]"] {
            assert!(Statement::parse(line, '\\').is_err(), "{line}");
        }
    }

    #[test]
    fn pairs_have_two_forms() {
        let pairs = |line: &str| match parse(line).arguments {
            Arguments::Pairs { pairs, legacy } => (pairs, legacy),
            other => panic!("{line}: {other:?}"),
        };
        let owned = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(pairs("ENV a  b  c=d "), (vec![owned("a", "b  c=d")], true));
        assert_eq!(pairs("ENV a=b \"c\"=d"), (vec![owned("a", "b"), owned("\"c\"", "d")], false));
        for line in ["ENV a", "LABEL a=b c"] {
            assert!(Statement::parse(line, '\\').is_err(), "{line}");
        }
    }
}
