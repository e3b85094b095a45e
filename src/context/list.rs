//! A context as text: one line, or one JSON object, for each entry. Written as it goes, however many there are.

use std::io::{self, Write};
use std::str::FromStr;

use super::Context;
use super::entry::{Entry, Kind};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// How many entries are written between two looks at the cancel flag.
const CANCEL_EVERY: usize = 1024;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// The path, a line each; a `/` behind directories, ` -> target` behind symbolic links.
    Names,
    /// The same for a terminal: control characters are escaped.
    Terminal,
    /// Mode, size and path, a line each.
    Long,
    /// The same for a terminal.
    LongTerminal,
    /// The path alone, a NUL byte behind each.
    Null,
    /// A JSON array of objects with `path`, `kind`, `size`, `mode` and `target`. What is not UTF-8 is written as Python's
    /// `surrogateescape` does.
    Json,
}

impl FromStr for Style {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "names" => Self::Names,
            "terminal" => Self::Terminal,
            "long" => Self::Long,
            "long-terminal" => Self::LongTerminal,
            "null" => Self::Null,
            "json" => Self::Json,
            _ => {
                let reason = "it is none of names, terminal, long, long-terminal, null and json".to_owned();
                return Err(Error::InvalidOption { name: "style".to_owned(), reason });
            }
        })
    }
}

impl Context {
    /// Writes what is in the context, in the order of [`entries`](Self::entries).
    ///
    /// Fails with `Interrupted`, and with `ContextWrite` where `out` does.
    pub fn list(&self, style: Style, out: &mut impl Write, cancel: &Cancel) -> Result<()> {
        let failed = |source| Error::ContextWrite { source };
        let mut line = Vec::new();
        if style == Style::Json {
            out.write_all(b"[").map_err(failed)?;
        }
        for (number, entry) in self.entries().enumerate() {
            if number % CANCEL_EVERY == 0 {
                cancel.check()?;
            }
            line.clear();
            match style {
                Style::Json => {
                    line.extend_from_slice(if number == 0 { b"\n" } else { b",\n" });
                    json(&entry, &mut line)
                }
                Style::Null => line.write_all(&entry.path).and_then(|()| line.write_all(b"\0")),
                Style::Names | Style::Terminal => names(&entry, style == Style::Terminal, &mut line),
                Style::Long | Style::LongTerminal => write!(line, "{:04o} {:>12} ", entry.mode, entry.content_size())
                    .and_then(|()| names(&entry, style == Style::LongTerminal, &mut line)),
            }
            .and_then(|()| out.write_all(&line))
            .map_err(failed)?;
        }
        if style == Style::Json {
            out.write_all(b"\n]\n").map_err(failed)?;
        }
        out.flush().map_err(failed)
    }
}

fn names(entry: &Entry, escape: bool, line: &mut Vec<u8>) -> io::Result<()> {
    let mut put = |bytes: &[u8]| if escape { escaped(bytes, line) } else { line.write_all(bytes) };
    put(&entry.path)?;
    match &entry.kind {
        Kind::Dir => put(b"/")?,
        Kind::Symlink { target } => {
            put(b" -> ")?;
            put(target)?;
        }
        _ => {}
    }
    line.write_all(b"\n")
}

/// Text that cannot move the cursor, change colours or reorder what is shown.
fn escaped(bytes: &[u8], line: &mut Vec<u8>) -> io::Result<()> {
    for chunk in bytes.utf8_chunks() {
        for ch in chunk.valid().chars() {
            let hidden =
                matches!(ch, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
            if ch.is_control() || hidden {
                write!(line, "{}", ch.escape_default())?;
            } else {
                write!(line, "{ch}")?;
            }
        }
        for byte in chunk.invalid() {
            write!(line, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

fn json(entry: &Entry, line: &mut Vec<u8>) -> io::Result<()> {
    line.write_all(b"  {\"path\": ")?;
    string(&entry.path, line)?;
    write!(line, ", \"kind\": \"{}\", \"size\": {}, ", entry.kind.name(), entry.size())?;
    write!(line, "\"mode\": {}, \"target\": ", entry.mode)?;
    match &entry.kind {
        Kind::Symlink { target } | Kind::Hardlink { first: target, .. } => string(target, line)?,
        _ => line.write_all(b"null")?,
    }
    line.write_all(b"}")
}

/// A JSON string in ASCII; bytes that are no UTF-8 become lone surrogates.
fn string(bytes: &[u8], line: &mut Vec<u8>) -> io::Result<()> {
    line.write_all(b"\"")?;
    for chunk in bytes.utf8_chunks() {
        for ch in chunk.valid().chars() {
            match ch {
                '"' | '\\' => write!(line, "\\{ch}")?,
                ' '..='~' => write!(line, "{ch}")?,
                _ => {
                    let mut units = [0; 2];
                    for unit in ch.encode_utf16(&mut units) {
                        write!(line, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        for byte in chunk.invalid() {
            write!(line, "\\udc{byte:02x}")?;
        }
    }
    line.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_strings_are_pythons() {
        assert_eq!(text(|out| string("a\"\\\n\u{e9}\u{1f600}".as_bytes(), out)), r#""a\"\\\u000a\u00e9\ud83d\ude00""#);
        assert_eq!(text(|out| string(b"\xff\xc3(", out)), r#""\udcff\udcc3(""#);
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let shown = text(|out| escaped("a\u{1b}[31m\n\u{202e}é".as_bytes(), out));
        assert_eq!(shown, "a\\u{1b}[31m\\n\\u{202e}é");
        assert_eq!(text(|out| escaped(b"\xff", out)), "\\xff");
    }
}
