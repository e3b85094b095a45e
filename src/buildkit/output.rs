//! What steps print: text that comes in pieces, and the last lines of it.

use std::collections::VecDeque;

use crate::error::MAX_TAIL_LINES;

/// Longer lines of output are cut in an error: a step may print megabytes without a line break.
const MAX_TAIL_LINE: usize = 2000;

/// Decodes UTF-8 that comes in pieces, without losing characters that are cut in two.
#[derive(Debug, Default)]
pub struct Utf8Decoder(Vec<u8>);

impl Utf8Decoder {
    /// The text of the next piece.
    pub fn decode(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.0);
        let mut text = String::with_capacity(pending.len());
        let mut chunks = pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let is_cut = chunks.peek().is_none()
                && std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if is_cut {
                // The character may go on in the next piece.
                self.0 = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> String {
        if std::mem::take(&mut self.0).is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.to_string() }
    }
}

/// The last lines of an output, as a terminal would show them.
#[derive(Debug, Default)]
pub struct Tail {
    lines: VecDeque<String>,
    open: String,
    /// What comes next is written over the open line, as progress bars do.
    returned: bool,
}

impl Tail {
    /// Adds a piece.
    pub fn push(&mut self, text: &str) {
        for piece in text.split_inclusive('\n') {
            let text = piece.strip_suffix('\n').unwrap_or(piece);
            let visible = text.trim_end_matches('\r');
            let last = visible.rsplit('\r').next().unwrap_or_default();
            if last.len() < visible.len() || (self.returned && !visible.is_empty()) {
                self.open.clear();
            }
            self.open.push_str(cut(last, MAX_TAIL_LINE.saturating_sub(self.open.len())));
            self.returned = text.ends_with('\r') || (self.returned && text.is_empty());
            if piece.ends_with('\n') {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if self.lines.len() == MAX_TAIL_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(std::mem::take(&mut self.open));
        self.returned = false;
    }

    /// The lines, the last one as far as it came.
    pub fn lines(&self) -> Vec<String> {
        let open = (!self.open.is_empty()).then(|| self.open.clone());
        let mut lines: Vec<_> = self.lines.iter().cloned().chain(open).collect();
        lines.drain(..lines.len().saturating_sub(MAX_TAIL_LINES));
        lines
    }
}

fn cut(text: &str, length: usize) -> &str {
    let end = (0..=length.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_shows_what_a_terminal_would() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(&format!("line {number}\n"));
        }
        tail.push("10%\r20%\r");
        tail.push("30%\r\n");
        tail.push(&"x".repeat(5 * MAX_TAIL_LINE));
        let lines = tail.lines();
        assert_eq!(lines.len(), MAX_TAIL_LINES);
        assert_eq!((lines[0].as_str(), lines[MAX_TAIL_LINES - 2].as_str()), ("line 62", "30%"));
        assert_eq!(lines[MAX_TAIL_LINES - 1].len(), MAX_TAIL_LINE);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_not_lost() {
        let mut decoder = Utf8Decoder::default();
        assert_eq!(decoder.decode(b"a\xffb\xe2\x82"), "a\u{fffd}b");
        assert_eq!(decoder.decode(b"\xac"), "\u{20ac}");
        assert_eq!(decoder.decode(b"\xe2"), "");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }
}
