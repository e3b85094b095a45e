//! The lines of an ignore file, read in the two steps that Moby has: a file becomes a list of texts, a text a pattern.

use super::{Malformed, Pattern};

/// What Unicode calls white space.
const SPACES: &str = "\t\n\u{b}\u{c}\r \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\
                      \u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";

/// The patterns of an ignore file.
pub(crate) fn patterns(file: &[u8]) -> Result<Vec<Pattern>, Malformed> {
    let file = file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file);
    file.split(|byte| *byte == b'\n').filter_map(text).filter_map(|text| pattern(&text)).collect()
}

/// The text of a line; `None` for a comment or an empty line.
fn text(line: &[u8]) -> Option<Vec<u8>> {
    let text = trim(line);
    if line.starts_with(b"#") || text.is_empty() {
        return None;
    }
    let (mark, path) = if text[0] == b'!' { (&b"!"[..], trim(&text[1..])) } else { (&b""[..], text) };
    let path = if path.is_empty() { Vec::new() } else { clean(path) };
    let path = if path.len() > 1 && path[0] == b'/' { &path[1..] } else { &path[..] };
    Some([mark, path].concat())
}

/// What a text says; `None` if nothing is left of it. The `!` is looked for once more, where the text is cleaned with it.
fn pattern(text: &[u8]) -> Option<Result<Pattern, Malformed>> {
    let text = trim(text);
    if text.is_empty() {
        return None;
    }
    let text = clean(text);
    let exception = text[0] == b'!';
    let text = if exception { text[1..].to_vec() } else { text };
    Some(if text.is_empty() { Err(Malformed) } else { Ok(Pattern { exception, text }) })
}

fn trim(mut text: &[u8]) -> &[u8] {
    let spaces = || SPACES.chars().map(|space| space.to_string().into_bytes());
    while let Some(rest) = spaces().find_map(|space| text.strip_prefix(&space[..])) {
        text = rest;
    }
    while let Some(rest) = spaces().find_map(|space| text.strip_suffix(&space[..])) {
        text = rest;
    }
    text
}

/// The shortest path that means the same: Go's `filepath.Clean`, by its four rules, each until it changes nothing.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path[0] == b'/';
    let mut parts: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
    parts.retain(|part| !part.is_empty() && part != b".");
    while let Some(at) = (1..parts.len()).find(|at| parts[*at] == b".." && parts[at - 1] != b"..") {
        parts.drain(at - 1..=at);
    }
    while rooted && parts.first().is_some_and(|part| part == b"..") {
        parts.remove(0);
        while let Some(at) = (1..parts.len()).find(|at| parts[*at] == b".." && parts[at - 1] != b"..") {
            parts.drain(at - 1..=at);
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", &joined[..]].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}
