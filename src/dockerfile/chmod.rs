//! `--chmod`: `0755`, or changes such as `u=rwX,go=rX` (POSIX `chmod`, as BSD understands it).

use serde::Serialize;

use super::mistake::{Mistake, Result};

/// What `--chmod` makes of a mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chmod {
    /// It becomes this one.
    Octal(u32),
    /// It is changed.
    Symbolic(Vec<Change>),
}

/// One change of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Sets these bits.
    Set(u32),
    /// Clears these bits.
    Clear(u32),
    /// Sets these bits if it is a directory, or had a bit for execution.
    SetX(u32),
    /// Copies one class's permissions to those of other classes.
    Copy {
        /// How far the class's bits are from those of `others`.
        shift: u32,
        /// The bits that may change.
        to: u32,
        /// What happens to them: `+`, `-` or `=`.
        operator: char,
    },
}

const SET_IDS: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const ALL: u32 = SET_IDS | 0o777;

impl Chmod {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Mistake::value(format!("`{text}` is no mode: {reason}")).near(text);
        if let Ok(mode) = u32::from_str_radix(text, 8) {
            if mode > 0o7777 {
                return Err(wrong("it is an octal number up to 07777"));
            }
            return Ok(Self::Octal(mode));
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(wrong("it is an octal number up to 07777"));
        }
        let clauses = text.split(',').map(clause);
        let changes: Option<Vec<Vec<Change>>> = clauses.collect();
        let changes = changes.ok_or_else(|| wrong("write it like 0755 or u=rwX,go=rX"))?;
        Ok(Self::Symbolic(changes.concat()))
    }

    /// What a mode becomes.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(changes) => changes.iter().fold(mode, |new, change| match change {
                Change::Set(bits) => new | bits,
                Change::Clear(bits) => new & !bits,
                Change::SetX(bits) if is_dir || mode & 0o111 != 0 => new | bits,
                Change::SetX(_) => new,
                Change::Copy { shift, to, operator } => {
                    // The class's bits, in the places of all classes.
                    let bits = (((new >> shift) & 0o7) * 0o111) & to;
                    match operator {
                        '+' => new | bits,
                        '-' => new & !bits,
                        _ => (new & !to) | bits,
                    }
                }
            }),
        }
    }
}

/// Classes, and operators with permissions: `ug+r-w`.
fn clause(text: &str) -> Option<Vec<Change>> {
    let end = text.find(|letter| !matches!(letter, 'u' | 'g' | 'o' | 'a'))?;
    let (classes, mut rest) = text.split_at(end);
    let who = classes.bytes().fold(0, |who, class| {
        who | match class {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => 0o0007,
            _ => ALL,
        }
    });
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let operator = rest.chars().next().filter(|operator| matches!(operator, '+' | '-' | '='))?;
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        operation(operator, &rest[1..end], who, &mut changes)?;
        rest = &rest[end..];
    }
    Some(changes)
}

fn operation(operator: char, permissions: &str, who: u32, changes: &mut Vec<Change>) -> Option<()> {
    let everyone = who == 0;
    let who = if everyone { ALL } else { who };
    let mut bits = 0;
    let mut if_executable = 0;
    let mut copies = Vec::new();
    for permission in permissions.bytes() {
        match permission {
            b'r' => bits |= 0o444 & who,
            b'w' => bits |= 0o222 & who,
            b'x' => bits |= 0o111 & who,
            b'X' if operator == '-' => bits |= 0o111 & who,
            b'X' => if_executable |= 0o111 & who,
            // For others alone, these have no meaning.
            b's' if who & !0o7 != 0 => bits |= SET_IDS & who,
            b't' if who & !0o7 != 0 => bits |= STICKY,
            b's' | b't' => {}
            b'u' => copies.push(6),
            b'g' => copies.push(3),
            b'o' => copies.push(0),
            _ => return None,
        }
    }
    if operator == '=' && copies.is_empty() {
        changes.push(Change::Clear(who | (bits & STICKY)));
    }
    if bits != 0 {
        changes.push(if operator == '-' { Change::Clear(bits) } else { Change::Set(bits) });
    }
    if if_executable != 0 {
        changes.push(Change::SetX(if_executable));
    }
    changes.extend(copies.into_iter().map(|shift| Change::Copy { shift, to: who & 0o777, operator }));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_set_and_changed() {
        let cases = [
            ("755", 0o600, false, 0o755),
            ("04755", 0o600, false, 0o4755),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("a=r", 0o4755, false, 0o444),
            ("=rw,+X", 0o755, false, 0o777),
            ("=rw,+X", 0o644, false, 0o666),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("go=u-w", 0o700, false, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("go=", 0o777, false, 0o700),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("u+r-x", 0o300, false, 0o600),
        ];
        for (text, before, is_dir, after) in cases {
            let mode = Chmod::parse(text).unwrap().apply(before, is_dir);
            assert_eq!(mode, after, "{text} of {before:o}: {mode:o}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "888", "10000", "u", "u+y", "x+r", "u+r,", ",u+r", "07x", "u*r"] {
            assert!(Chmod::parse(text).is_err(), "{text}");
        }
    }
}
