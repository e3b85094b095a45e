//! The parts of Go's `strings`, `path/filepath` and `unicode/utf8` that `.dockerignore` semantics are made of, on bytes.

/// Splits the first character off, as Go's `utf8.DecodeRune`: an invalid byte is U+FFFD of width 1.
///
/// The flag says whether the character was valid. `bytes` must not be empty.
pub(super) fn decode(bytes: &[u8]) -> (char, usize, bool) {
    let width = match bytes[0] {
        0x00..=0x7f => return (char::from(bytes[0]), 1, true),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return (char::REPLACEMENT_CHARACTER, 1, false),
    };
    match bytes.get(..width).and_then(|part| std::str::from_utf8(part).ok()).and_then(|text| text.chars().next()) {
        Some(ch) => (ch, width, true),
        None => (char::REPLACEMENT_CHARACTER, 1, false),
    }
}

/// The text that Go sees when it ranges over the bytes: every invalid byte becomes one U+FFFD.
pub(super) fn to_text(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    while !bytes.is_empty() {
        let (ch, width, _) = decode(bytes);
        text.push(ch);
        bytes = &bytes[width..];
    }
    text
}

/// `strings.TrimSpace`.
pub(super) fn trim_space(mut bytes: &[u8]) -> &[u8] {
    while !bytes.is_empty() {
        let (ch, width, _) = decode(bytes);
        if !ch.is_whitespace() {
            break;
        }
        bytes = &bytes[width..];
    }
    while let Some(width) = last_space(bytes) {
        bytes = &bytes[..bytes.len() - width];
    }
    bytes
}

/// The width of the white space character at the end, if there is one. No white space is wider than three bytes.
fn last_space(bytes: &[u8]) -> Option<usize> {
    (1..=bytes.len().min(3)).find(|width| {
        let (ch, used, valid) = decode(&bytes[bytes.len() - width..]);
        valid && used == *width && ch.is_whitespace()
    })
}

/// `filepath.Clean` on Unix.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let mut out = if rooted { b"/".to_vec() } else { Vec::new() };
    out.extend(parts.join(&b'/'));
    if out.is_empty() { b".".to_vec() } else { out }
}

/// Whether `filepath.Match(pattern, ".")` returns an error: the check that Moby makes of every pattern.
///
/// It is weaker than a syntax check, because the match stops at the first chunk (the text up to a `*`) that does not
/// fit: `x*[` is accepted.
pub(super) fn is_bad_pattern(mut pattern: &[u8]) -> bool {
    let mut name: &[u8] = b".";
    'pattern: while !pattern.is_empty() {
        let (star, chunk, rest) = scan_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return false;
        }
        match match_chunk(chunk, name) {
            Ok(Some(left)) if left.is_empty() || !pattern.is_empty() => {
                name = left;
                continue;
            }
            Ok(_) => {}
            Err(BadPattern) => return true,
        }
        if star {
            for skipped in 1..=name.len() {
                match match_chunk(chunk, &name[skipped..]) {
                    Ok(Some(left)) if !pattern.is_empty() || left.is_empty() => {
                        name = left;
                        continue 'pattern;
                    }
                    Ok(_) => {}
                    Err(BadPattern) => return true,
                }
            }
        }
        return false;
    }
    false
}

struct BadPattern;

/// Splits `*`s and the text up to the next `*` off.
fn scan_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let pattern = &pattern[stars..];
    let mut in_class = false;
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            b'\\' if at + 1 < pattern.len() => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    (stars > 0, &pattern[..at], &pattern[at..])
}

/// Matches a chunk with the beginning of `name` and returns what is left of it. Reads the whole chunk even when the
/// match has failed.
fn match_chunk<'a>(mut chunk: &[u8], mut name: &'a [u8]) -> Result<Option<&'a [u8]>, BadPattern> {
    let mut failed = false;
    while let Some(first) = chunk.first() {
        failed |= name.is_empty();
        match first {
            b'[' => {
                let (ch, width, _) = if failed { ('\0', 0, true) } else { decode(name) };
                name = &name[width..];
                let (rest, matched) = match_class(&chunk[1..], ch)?;
                chunk = rest;
                failed |= !matched;
            }
            b'?' => {
                if !failed {
                    failed = name[0] == b'/';
                    name = &name[decode(name).1..];
                }
                chunk = &chunk[1..];
            }
            _ => {
                if *first == b'\\' {
                    chunk = &chunk[1..];
                }
                let literal = chunk.first().ok_or(BadPattern)?;
                if !failed {
                    failed = *literal != name[0];
                    name = &name[1..];
                }
                chunk = &chunk[1..];
            }
        }
    }
    Ok((!failed).then_some(name))
}

/// Reads a class after its `[`; returns what follows the class, and whether `ch` is in it.
fn match_class(mut chunk: &[u8], ch: char) -> Result<(&[u8], bool), BadPattern> {
    let negated = chunk.first() == Some(&b'^');
    if negated {
        chunk = &chunk[1..];
    }
    let mut matched = false;
    let mut ranges = 0;
    loop {
        if ranges > 0 && chunk.first() == Some(&b']') {
            return Ok((&chunk[1..], matched != negated));
        }
        let (low, rest) = class_char(chunk)?;
        let mut high = low;
        chunk = rest;
        if chunk[0] == b'-' {
            (high, chunk) = class_char(&chunk[1..])?;
        }
        matched |= low <= ch && ch <= high;
        ranges += 1;
    }
}

/// Reads one, possibly escaped, character of a class. Something must follow it.
fn class_char(chunk: &[u8]) -> Result<(char, &[u8]), BadPattern> {
    let chunk = match chunk.first() {
        None | Some(b'-' | b']') => return Err(BadPattern),
        Some(b'\\') => &chunk[1..],
        Some(_) => chunk,
    };
    if chunk.is_empty() {
        return Err(BadPattern);
    }
    let (ch, width, valid) = decode(chunk);
    let rest = &chunk[width..];
    if !valid || rest.is_empty() { Err(BadPattern) } else { Ok((ch, rest)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_is_gos() {
        let cases = [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/./b", "a/b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a/..", "../.."),
            ("/../a", "/a"),
            ("a/../../b", "../b"),
            ("!a/../b", "b"),
        ];
        for (path, expected) in cases {
            assert_eq!(clean(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }

    #[test]
    fn the_check_stops_at_the_first_chunk_that_fails() {
        for bad in ["[", "a[", "[]", "[a", "[a-", "[-a]", "\\", "a\\", "[]a]", "*[", "[\\"] {
            assert!(is_bad_pattern(bad.as_bytes()), "{bad}");
        }
        for good in ["", "a", "x*[", "a*\\", "[a-z]", "[^a]", "[z-a]", "\\[", "[\\]]", "a[b]*["] {
            assert!(!is_bad_pattern(good.as_bytes()), "{good}");
        }
        assert!(is_bad_pattern(b"[\xff]"));
    }

    #[test]
    fn space_is_unicode_white_space() {
        assert_eq!(trim_space(" \t\u{a0}\u{3000}a b\u{85}\r\n".as_bytes()), b"a b");
        assert_eq!(trim_space(b"a\xa0"), b"a\xa0");
        assert_eq!(trim_space(b" \n"), b"");
    }
}
