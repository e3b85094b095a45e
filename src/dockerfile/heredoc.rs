//! Here-documents: which words of a line start one, and what is in it.

use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;

use super::mistake::Result;
use super::variables::Variables;
use super::words::Lexer;

/// A file descriptor, `<<`, `-` and a word. No `<` may follow: `<<<` is a here-string, which is the shell's own business.
static MARK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^(\d*)<<(-?)\s*([^<]*)$").expect("a constant pattern"));

/// One here-document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Heredoc {
    /// The word that ends it: its name as a file of COPY and ADD.
    pub name: String,
    /// The file descriptor before `<<`, 0 where there is none.
    pub descriptor: u32,
    /// Whether variables are expanded in it: no part of its word is quoted.
    pub expand: bool,
    /// Whether tabs before its lines are dropped (`<<-`).
    pub strip_tabs: bool,
    /// Its lines as they are in the file.
    pub content: String,
}

impl Heredoc {
    /// What the word `word` starts, without content yet. Fails where its quotes do not fit.
    pub(super) fn from_word(word: &str) -> Result<Option<Self>> {
        let Some(found) = MARK.captures(word) else { return Ok(None) };
        let rest = &found[3];
        if rest.is_empty() {
            return Ok(None);
        }
        let lexer = Lexer { keep_unset: true, ..Lexer::new('\\') };
        let words = lexer.expand(rest, &Variables::default())?.words;
        let [name] = &words[..] else { return Ok(None) };
        let raw = Lexer { keep_quotes: true, ..lexer }.expand(rest, &Variables::default())?.words;
        // The quotes that are in one and not in the other are those that quote something.
        let quotes = |words: &[String]| words.iter().map(|word| word.matches(['\'', '"']).count()).sum::<usize>();
        Ok(Some(Self {
            name: name.clone(),
            descriptor: found[1].parse().unwrap_or(0),
            expand: quotes(&words) == quotes(&raw),
            strip_tabs: !found[2].is_empty(),
            content: String::new(),
        }))
    }

    /// Those that a line starts, in order.
    pub(super) fn of_line(line: &str) -> Result<Vec<Self>> {
        let lexer = Lexer { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Lexer::new('\\') };
        // A line that is no sequence of words belongs to a shell that may understand it.
        let words = lexer.expand(line, &Variables::default()).map(|expansion| expansion.words).unwrap_or_default();
        words.iter().filter_map(|word| Self::from_word(word).transpose()).collect()
    }

    /// Whether a line, without its end, ends this document.
    pub(super) fn is_end(&self, line: &str) -> bool {
        let line = if self.strip_tabs { line.trim_start_matches('\t') } else { line };
        line == self.name
    }

    /// The content as a file or a script gets it.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<String> {
        Heredoc::of_line(line).unwrap().into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn words_of_a_line_start_documents() {
        let cases: [(&str, &[&str]); 12] = [
            ("RUN <<EOF", &["EOF"]),
            ("RUN <<- EOF", &[]),
            ("RUN << -EOF", &["-EOF"]),
            ("RUN 4<<EOF cat", &["EOF"]),
            ("COPY <<a <<b /dest", &["a", "b"]),
            ("RUN '<<EOF'", &[]),
            ("RUN \"<<EOF\"", &[]),
            ("RUN cat <<<EOF", &[]),
            ("RUN echo $((1<<2))", &[]),
            ("RUN <<$EOF", &["$EOF"]),
            ("RUN <<'one two'", &["one two"]),
            ("RUN it's <<EOF", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(names(line), expected, "{line}");
        }
    }

    #[test]
    fn quotes_stop_the_expansion() {
        let cases = [("<<eo'f'", "eof", false), ("<<eo\\'f", "eo'f", true), ("<<'e'o\\'f", "eo'f", false)];
        for (word, name, expand) in cases {
            let found = Heredoc::from_word(word).unwrap().unwrap();
            assert_eq!((found.name.as_str(), found.expand), (name, expand), "{word}");
        }
        for word in ["<<'EOF", "<<\"EOF", "<<EOF'"] {
            assert!(Heredoc::from_word(word).is_err(), "{word}");
        }
        for word in ["", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh"] {
            assert_eq!(Heredoc::from_word(word).unwrap(), None, "{word}");
        }
    }

    #[test]
    fn tabs_are_dropped_on_request() {
        let mut found = Heredoc::from_word("<<-EOF").unwrap().unwrap();
        found.content = "\thello\n\t\tworld\n  \tx\n".to_owned();
        assert_eq!(found.text(), "hello\nworld\n  \tx\n");
        assert!(found.is_end("\t\tEOF"));
        assert!(!found.is_end(" EOF"));
    }
}
