//! A look into files whose names say too little. Reading is bounded, and nothing that is read is kept.

use crate::context::Context;
use crate::context::entry::Entry;
use crate::error::Result;

/// How much of a file is searched; a bundle of certificates may have its key last.
const BEGINNING: u64 = 64 << 10;
/// How many files of one kind are looked into at most. Each kind has its own limit: ten thousand certificates must not
/// hide an `.env` file.
const MAX_LOOKS: usize = 1000;
/// The same for files of which only the ending is known: a data set may have millions that are called `.json`.
const MAX_JSON: usize = 500;
/// The key of a Google Cloud service account has 2.4 kB.
const SERVICE_ACCOUNT: u64 = 16 << 10;
/// How many notebooks are read, and how much of each.
const MAX_NOTEBOOKS: usize = 20;
const NOTEBOOK: u64 = 32 << 20;
/// Outputs above this size are worth a warning.
pub(super) const LARGE_OUTPUTS: u64 = 5_000_000;

/// What a private key begins with.
const KEYS: &[&str] = &["PRIVATE KEY-----", "PuTTY-User-Key-File"];

/// What is in the credentials of a service account of Google Cloud, of a service principal of Azure, and of a user.
const CLOUDS: &[&[&str]] = &[
    &["\"private_key\"", "\"service_account\""],
    &["\"clientSecret\"", "\"tenantId\""],
    &["\"client_secret\"", "\"refresh_token\""],
];

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The name says it all, unless the file is empty.
    Anything,
    /// A private key.
    Key,
    /// One of these texts.
    AnyOf(&'static [&'static str]),
    /// Credentials of a cloud in a small JSON file: one of very many that may have such a name.
    Json,
    /// A line `NAME=value`.
    Assignments,
    /// Outputs of a notebook.
    Outputs,
}

/// Looks into files until it has looked into enough of them.
#[derive(Default)]
pub(super) struct Looker {
    keys: usize,
    texts: usize,
    assignments: usize,
    json: usize,
    notebooks: usize,
}

impl Looker {
    /// Whether the content is what the name suggests. What cannot be read is an error when it is packed; here it is only
    /// nothing to warn of.
    pub(super) fn confirms(&mut self, look: Look, context: &Context, entry: &Entry) -> bool {
        let size = entry.content_size();
        if size == 0 || !self.may_look(look, size) {
            return false;
        }
        match look {
            Look::Anything => Ok(true),
            Look::Outputs => large_outputs(context, entry),
            Look::Key => beginning(context, entry).map(|text| any_of(&text, KEYS)),
            Look::AnyOf(texts) => beginning(context, entry).map(|text| any_of(&text, texts)),
            Look::Json => beginning(context, entry).map(|text| CLOUDS.iter().any(|parts| all_of(&text, parts))),
            Look::Assignments => beginning(context, entry).map(|text| assigns(&text)),
        }
        .unwrap_or_default()
    }

    fn may_look(&mut self, look: Look, size: u64) -> bool {
        let (count, most) = match look {
            Look::Anything => return true,
            Look::Outputs if size <= LARGE_OUTPUTS => return false,
            Look::Outputs => (&mut self.notebooks, MAX_NOTEBOOKS),
            Look::Json if size > SERVICE_ACCOUNT => return false,
            Look::Json => (&mut self.json, MAX_JSON),
            Look::Key => (&mut self.keys, MAX_LOOKS),
            Look::AnyOf(_) => (&mut self.texts, MAX_LOOKS),
            Look::Assignments => (&mut self.assignments, MAX_LOOKS),
        };
        *count += 1;
        *count <= most
    }
}

fn beginning(context: &Context, entry: &Entry) -> Result<Vec<u8>> {
    let mut reader = context.reader(entry)?;
    let length = usize::try_from(reader.size().min(BEGINNING)).unwrap_or_default();
    let mut text = vec![0; length];
    let count = reader.read_some(&mut text)?;
    text.truncate(count);
    Ok(text)
}

fn any_of(text: &[u8], parts: &[&str]) -> bool {
    parts.iter().any(|part| holds(text, part.as_bytes()))
}

fn all_of(text: &[u8], parts: &[&str]) -> bool {
    parts.iter().all(|part| holds(text, part.as_bytes()))
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Whether a line gives a variable a value.
fn assigns(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).any(|line| {
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { return false };
        let (name, value) = (line[..at].trim_ascii(), line[at + 1..].trim_ascii());
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
        let empty = matches!(value, b"" | b"\"\"" | b"''") || value.starts_with(b"#");
        !name.is_empty() && name.iter().all(is_name) && !empty
    })
}

fn large_outputs(context: &Context, entry: &Entry) -> Result<bool> {
    let mut reader = context.reader(entry)?;
    let mut outputs = Outputs::default();
    let mut buffer = vec![0; 256 << 10];
    let mut read = 0;
    while read < NOTEBOOK && outputs.bytes <= LARGE_OUTPUTS {
        let count = reader.read_some(&mut buffer)?;
        if count == 0 {
            break;
        }
        read += count as u64;
        outputs.add(&buffer[..count]);
    }
    Ok(outputs.bytes > LARGE_OUTPUTS)
}

/// Counts the bytes of all arrays that are called `outputs` in JSON text, which comes in pieces.
#[derive(Default)]
struct Outputs {
    bytes: u64,
    /// How deep the current byte is in such an array.
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// How far the current string is `outputs`; `None` if it is something else.
    matched: Option<usize>,
    /// The last thing was the string `outputs`, perhaps with a colon.
    named: bool,
}

impl Outputs {
    const NAME: &'static [u8] = b"outputs";

    fn add(&mut self, text: &[u8]) {
        for byte in text {
            self.bytes += u64::from(self.depth > 0);
            if self.in_string {
                self.string(*byte);
            } else {
                self.token(*byte);
            }
        }
    }

    fn string(&mut self, byte: u8) {
        if self.escaped {
            self.escaped = false;
            self.matched = None;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_string = false;
            self.named = self.matched == Some(Self::NAME.len());
        } else {
            self.matched = self.matched.filter(|at| Self::NAME.get(*at) == Some(&byte)).map(|at| at + 1);
        }
    }

    fn token(&mut self, byte: u8) {
        match byte {
            b'"' => (self.in_string, self.matched) = (true, Some(0)),
            b':' | b' ' | b'\n' | b'\r' | b'\t' => return,
            b'[' | b'{' if self.depth > 0 => self.depth += 1,
            b']' | b'}' if self.depth > 0 => self.depth -= 1,
            b'[' if self.named => self.depth = 1,
            _ => {}
        }
        self.named = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_have_values() {
        for text in ["A=1", "# x\n\nexport TOKEN = \"x\"\r\n", "a.b-c='y'", "URL=postgres://u:p@h/d?x=1"] {
            assert!(assigns(text.as_bytes()), "{text}");
        }
        for text in ["", "A=", "A=\"\"\nB=''", "#A=1", "A= # later", "just text", "=1", "if [ a = b ]"] {
            assert!(!assigns(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn outputs_are_counted_wherever_the_pieces_end() {
        let text = br#"{"cells": [{"outputs": [], "source": ["\"outputs\": [x"]},
            {"outputs": [{"data": "a]\"[", "outputs": [1]}], "metadata": {"outputs": 1, "x": ["y"]}}]}"#;
        let inner = br#"]{"data": "a]\"[", "outputs": [1]}]"#.len() as u64;
        for length in 1..=text.len() {
            let mut outputs = Outputs::default();
            text.chunks(length).for_each(|piece| outputs.add(piece));
            assert_eq!((outputs.bytes, outputs.depth), (inner, 0), "{length}");
        }
    }
}
