//! Lines of a file, joined to logical lines: comments left out, continuation lines put together, here-documents read.

use super::directives::Directives;
use super::heredoc::Heredoc;
use super::mistake::{Mistake, Result};
use super::source::Span;
use super::statement::Statement;

/// Longer lines are refused, by BuildKit too (the buffer of Go's `bufio.Scanner`).
pub(super) const MAX_LINE: usize = (64 << 10) - 1;

/// A text, cut into statements.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) directives: Directives,
    pub(super) statements: Vec<Statement>,
    /// Where an empty line stands between a continued line and the rest of it.
    pub(super) empty_continuations: Vec<Span>,
}

/// Cuts a text, which has no byte order mark.
pub(super) fn read(text: &str) -> Result<Text> {
    let mut reader = Reader { lines: text.split_inclusive('\n').collect(), ..Reader::default() };
    while let Some(line) = reader.next()? {
        reader.line(line)?;
    }
    if reader.text.statements.is_empty() {
        return Err(Mistake::syntax("the Dockerfile has no instructions").at(Span::of(reader.at)));
    }
    Ok(reader.text)
}

#[derive(Default)]
struct Reader<'a> {
    /// With their ends.
    lines: Vec<&'a str>,
    /// How many lines have been read: the number of the last one.
    at: usize,
    past_directives: bool,
    /// Comments above the next instruction.
    comments: Vec<String>,
    text: Text,
}

impl<'a> Reader<'a> {
    /// The next line, with its end.
    fn next(&mut self) -> Result<Option<&'a str>> {
        let Some(line) = self.lines.get(self.at).copied() else { return Ok(None) };
        self.at += 1;
        if line.trim_end_matches('\n').len() > MAX_LINE {
            let message = format!("the line is longer than {MAX_LINE} bytes");
            return Err(Mistake::syntax(message).at(Span::of(self.at)));
        }
        Ok(Some(line))
    }

    /// A line that continues no other one.
    fn line(&mut self, line: &str) -> Result<()> {
        let indented = line.starts_with(char::is_whitespace);
        let line = line.trim_end_matches(['\r', '\n']).trim_start();
        if !self.past_directives {
            if self.text.directives.take(line, self.at)? {
                return Ok(());
            }
            self.past_directives = true;
        }
        if let Some(comment) = line.strip_prefix('#') {
            // An indented comment describes nothing: BuildKit keeps its `#`, so that it has no name or option in front.
            match (if indented { line } else { comment }).trim() {
                "" => self.comments.clear(),
                comment => self.comments.push(comment.to_owned()),
            }
            return Ok(());
        }
        let start = self.at;
        let (first, continued) = self.split_continuation(line);
        if first.is_empty() && !continued {
            return Ok(());
        }
        let mut joined = first.to_owned();
        if continued {
            self.join(&mut joined)?;
        }
        let span = Span { line: start, end_line: self.at };
        let statement =
            self.statement(&joined, span).map_err(|mistake| mistake.at(Span { end_line: self.at, ..span }))?;
        self.text.statements.push(statement);
        Ok(())
    }

    /// Adds the lines that continue a line.
    fn join(&mut self, joined: &mut String) -> Result<()> {
        let mut empty = false;
        while let Some(line) = self.next()? {
            let line = line.trim_end_matches(['\r', '\n']);
            let content = line.trim_start();
            if content.starts_with('#') {
                continue;
            }
            if content.is_empty() {
                empty = true;
                continue;
            }
            // White space before it stays: it may be in the middle of a word.
            let (part, continued) = self.split_continuation(line);
            joined.push_str(part);
            if !continued {
                break;
            }
        }
        if empty {
            self.text.empty_continuations.push(Span::of(self.at));
        }
        Ok(())
    }

    /// Takes the escape character off the end of a line. Two of them are one that is escaped, and continue nothing.
    fn split_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        let escape = self.text.directives.escape_character();
        match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(rest) if !rest.ends_with(escape) => (rest, true),
            _ => (line, false),
        }
    }

    fn statement(&mut self, line: &str, span: Span) -> Result<Statement> {
        let mut statement = Statement::parse(line, self.text.directives.escape_character())?;
        statement.comments = std::mem::take(&mut self.comments);
        if statement.may_have_heredocs() && line.contains("<<") {
            statement.heredocs = Heredoc::of_line(line)?;
            for heredoc in &mut statement.heredocs {
                self.heredoc(heredoc)?;
            }
        }
        statement.span = Span { end_line: self.at, ..span };
        Ok(statement)
    }

    fn heredoc(&mut self, heredoc: &mut Heredoc) -> Result<()> {
        while let Some(line) = self.next()? {
            if heredoc.is_end(line.trim_end_matches(['\r', '\n'])) {
                return Ok(());
            }
            heredoc.content.push_str(line);
        }
        let message = format!("the here-document `{}` has no end", heredoc.name);
        Err(Mistake::syntax(message).near(format!("<<{}", heredoc.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Vec<(String, usize, usize)> {
        let text = read(text).unwrap();
        text.statements.into_iter().map(|found| (found.original, found.span.line, found.span.end_line)).collect()
    }

    #[test]
    fn lines_are_joined() {
        let text = "# a comment\n\nFROM x\r\nRUN a \\\n  # inside\n\n   b \\ \t\n c\nCOPY a\\\\\nADD \\\\\\\nUSER x\\";
        let expected = [
            ("FROM x".to_owned(), 3, 3),
            ("RUN a    b  c".to_owned(), 4, 8),
            ("COPY a\\\\".to_owned(), 9, 9),
            ("ADD \\\\\\".to_owned(), 10, 10),
            ("USER x".to_owned(), 11, 11),
        ];
        assert_eq!(spans(text), expected);
        assert_eq!(read(text).unwrap().empty_continuations, [Span::of(8)]);
    }

    #[test]
    fn directives_end_at_the_first_other_line() {
        let text = read("# escape=`\n# a comment\n# check=skip=all\nFROM x\nRUN a `\n b\n").unwrap();
        assert_eq!(text.directives.escape_character(), '`');
        assert_eq!(text.directives.check, None);
        assert_eq!(text.statements[1].original, "RUN a  b");
        assert_eq!(text.statements[0].comments, ["a comment", "check=skip=all"]);
        assert_eq!(read("\n# escape=`\nFROM x\n").unwrap().directives.escape_character(), '\\');
    }

    #[test]
    fn here_documents_belong_to_their_instruction() {
        let text = read("FROM x\nRUN <<a <<-b\n# 1\na\n\t2\n\tb\nUSER <<c\nRUN [\"<<d\"]\n").unwrap();
        let found: Vec<_> =
            text.statements[1].heredocs.iter().map(|found| (found.name.as_str(), found.content.as_str())).collect();
        assert_eq!(found, [("a", "# 1\n"), ("b", "\t2\n")]);
        assert_eq!(text.statements[1].span, Span { line: 2, end_line: 6 });
        assert_eq!(text.statements.len(), 4);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert!(read("FROM x\nRUN <<EOF\nEO\n").is_err());
        assert!(read("# only\n\n").is_err());
        assert!(read("").is_err());
        let line = "#".repeat(MAX_LINE);
        assert!(read(&format!("{line}\nFROM x\n")).is_ok());
        assert!(read(&format!("#{line}\nFROM x\n")).is_err());
    }
}
