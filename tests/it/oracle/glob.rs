//! One pattern against one path, by backtracking.

use super::Malformed;

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`
    One,
    /// `*`
    Part,
    /// `**` with something after it: nothing, or anything up to a `/`.
    Dirs,
    /// `**` at the end: anything.
    Rest,
    /// `[...]`. It takes a `/` too if that is in it.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// Whether a pattern matches a path, as a whole.
pub(super) fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let special = |text: &[u8]| text.iter().any(|byte| b"*?[]\\".contains(byte));
    // The three forms that Moby compares byte by byte.
    if !special(pattern) {
        return pattern == path;
    }
    if let Some(suffix) = pattern.strip_prefix(b"**")
        && !special(suffix)
    {
        return path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path);
    }
    if let Some(prefix) = pattern.strip_suffix(b"**")
        && !special(prefix)
    {
        return path.starts_with(prefix);
    }
    let pieces = pieces(&characters(pattern)).expect("the pattern is of the documented language");
    fits(&pieces, &characters(path))
}

/// Text, with U+FFFD for each byte that is not part of any.
fn characters(bytes: &[u8]) -> Vec<char> {
    let chunks = bytes.utf8_chunks();
    chunks.flat_map(|chunk| chunk.valid().chars().chain(chunk.invalid().iter().map(|_| '\u{fffd}'))).collect()
}

fn pieces(mut pattern: &[char]) -> Result<Vec<Piece>, Malformed> {
    let mut pieces = Vec::new();
    while let Some(first) = pattern.first() {
        let mut used = 1;
        let piece = match first {
            '*' if pattern.get(1) == Some(&'*') => {
                used = if pattern.get(2) == Some(&'/') { 3 } else { 2 };
                if used < pattern.len() { Piece::Dirs } else { Piece::Rest }
            }
            '*' => Piece::Part,
            '?' => Piece::One,
            '\\' => {
                used = 2;
                Piece::Char(*pattern.get(1).ok_or(Malformed)?)
            }
            '[' => {
                let (class, length) = class(pattern)?;
                used = length;
                class
            }
            other => Piece::Char(*other),
        };
        pieces.push(piece);
        pattern = &pattern[used..];
    }
    Ok(pieces)
}

/// A class, and how many characters of the pattern it is.
fn class(pattern: &[char]) -> Result<(Piece, usize), Malformed> {
    let negated = pattern.get(1) == Some(&'^');
    let mut at = if negated { 2 } else { 1 };
    let mut ranges = Vec::new();
    let one = |at: &mut usize| {
        if pattern.get(*at) == Some(&'\\') {
            *at += 1;
        }
        *at += 1;
        pattern.get(*at - 1).copied().ok_or(Malformed)
    };
    while pattern.get(at) != Some(&']') {
        let low = one(&mut at)?;
        let mut high = low;
        if pattern.get(at) == Some(&'-') && pattern.get(at + 1) != Some(&']') {
            at += 1;
            high = one(&mut at)?;
        }
        ranges.push((low, high));
    }
    Ok((Piece::Class { negated, ranges }, at + 1))
}

fn fits(pieces: &[Piece], path: &[char]) -> bool {
    let Some((piece, pieces)) = pieces.split_first() else { return path.is_empty() };
    let one = |takes: &dyn Fn(char) -> bool| path.first().is_some_and(|ch| takes(*ch)) && fits(pieces, &path[1..]);
    // Anything that a run may take, longer and longer.
    let run = |takes: &dyn Fn(&char) -> bool, stop: &dyn Fn(usize) -> bool| {
        let longest = path.iter().take_while(|ch| takes(ch)).count();
        (0..=longest).any(|length| stop(length) && fits(pieces, &path[length..]))
    };
    match piece {
        Piece::Char(expected) => one(&|ch| ch == *expected),
        Piece::One => one(&|ch| ch != '/'),
        Piece::Class { negated, ranges } => {
            one(&|ch| ranges.iter().any(|(low, high)| *low <= ch && ch <= *high) != *negated)
        }
        Piece::Part => run(&|ch| *ch != '/', &|_| true),
        // Unlike `*`, neither form of `**` reaches over the end of a line in a name.
        Piece::Rest => run(&|ch| *ch != '\n', &|_| true),
        Piece::Dirs => run(&|ch| *ch != '\n', &|length| length == 0 || path[length - 1] == '/'),
    }
}
