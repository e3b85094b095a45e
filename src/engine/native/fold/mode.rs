//! The modes of `chmod` about which all programs agree: numbers without special bits, and `r`, `w`, `x` and `X` for named
//! classes. Without a class, the umask would have a say.

/// What `chmod` makes of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It becomes this one.
    Number(u32),
    /// It is changed, step by step.
    Changes(Vec<Change>),
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    operator: Operator,
    /// The bits of the classes.
    classes: u32,
    /// The bits that are set or cleared.
    bits: u32,
    /// And those that are if it is a directory, or if a bit for execution is set.
    if_executable: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

const EXECUTE: u32 = 0o111;

impl Mode {
    /// `None` for what is not certain.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
            // More digits mean something else to GNU's program: that special bits of directories are to be cleared.
            let usual = text.len() == 3 || (text.len() == 4 && text.starts_with('0'));
            return u32::from_str_radix(text, 8).ok().filter(|_| usual).map(Self::Number);
        }
        let changes: Vec<Change> = text.split(',').map(clause).collect::<Option<Vec<_>>>()?.concat();
        Some(Self::Changes(changes))
    }

    /// What a mode becomes. `None` if that depends on the program, or on how many names the file has: each of them
    /// changes it once more.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> Option<u32> {
        let once = self.once(mode, is_dir)?;
        (self.once(once, is_dir)? == once).then_some(once)
    }

    fn once(&self, mode: u32, is_dir: bool) -> Option<u32> {
        let changes = match self {
            Self::Number(number) => return Some(*number),
            Self::Changes(changes) => changes,
        };
        let before = is_dir || mode & EXECUTE != 0;
        changes.iter().try_fold(mode, |mode, change| {
            // Some programs look at the mode as it was, some at what it is by now.
            if change.if_executable != 0 && before != (is_dir || mode & EXECUTE != 0) {
                return None;
            }
            let bits = change.bits | if before { change.if_executable } else { 0 };
            Some(match change.operator {
                Operator::Add => mode | bits,
                Operator::Remove => mode & !bits,
                // X looks at the mode before the class is cleared.
                Operator::Set => (mode & !change.classes) | bits,
            })
        })
    }

    /// Whether setuid, setgid and sticky bits stay what they are in every program.
    pub(super) fn keeps_special_bits(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Changes(changes) => changes.iter().all(|change| change.operator != Operator::Set),
        }
    }
}

/// Classes, and operators with permissions: `ug+r-w`.
fn clause(text: &str) -> Option<Vec<Change>> {
    let end = text.find(|letter| !matches!(letter, 'u' | 'g' | 'o' | 'a'))?;
    let (who, mut rest) = text.split_at(end);
    if who.is_empty() {
        return None;
    }
    let classes = who.bytes().fold(0, |classes, class| {
        classes
            | match class {
                b'u' => 0o700,
                b'g' => 0o070,
                b'o' => 0o007,
                _ => 0o777,
            }
    });
    let mut changes = Vec::new();
    while let Some(operator) = rest.chars().next() {
        let operator = match operator {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            '=' => Operator::Set,
            _ => return None,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        changes.push(change(operator, classes, &rest[1..end])?);
        rest = &rest[end..];
    }
    Some(changes)
}

fn change(operator: Operator, classes: u32, permissions: &str) -> Option<Change> {
    let mut change = Change { operator, classes, bits: 0, if_executable: 0 };
    for permission in permissions.bytes() {
        match permission {
            b'r' => change.bits |= 0o444 & classes,
            b'w' => change.bits |= 0o222 & classes,
            b'x' => change.bits |= EXECUTE & classes,
            b'X' if operator != Operator::Remove => change.if_executable |= EXECUTE & classes,
            _ => return None,
        }
    }
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed_as_chmod_does() {
        let cases = [
            ("a+rw", 0o644, false, Some(0o666)),
            ("a+rw", 0o755, true, Some(0o777)),
            ("a+rw", 0o4511, false, Some(0o4777)),
            ("u=rwX,go=rX", 0o600, true, Some(0o755)),
            ("u=rwX,go=rX", 0o610, false, Some(0o755)),
            ("u=rwX,go=rX", 0o622, false, Some(0o644)),
            ("ug+rwX,o-rwx", 0o644, false, Some(0o660)),
            ("a+rX", 0o100, false, Some(0o555)),
            ("go-w", 0o777, false, Some(0o755)),
            ("u+r-w", 0o200, false, Some(0o400)),
            ("0755", 0o600, false, Some(0o755)),
            // What X looks at is not certain.
            ("a-x,a+X", 0o755, false, None),
            ("a-x,a+X", 0o644, false, Some(0o644)),
            ("a-x,a+X", 0o755, true, Some(0o755)),
            // A second name would change the file again.
            ("a+X,u+x", 0o600, false, None),
        ];
        for (text, before, is_dir, after) in cases {
            assert_eq!(Mode::parse(text).unwrap().apply(before, is_dir), after, "{text} of {before:o}");
        }
    }

    #[test]
    fn what_programs_disagree_about_is_refused() {
        for text in ["", "+x", "=r", "u+s", "a+t", "g=u", "7", "1777", "00755", "88", "a-X", "u", "a*r", "u+x,"] {
            assert_eq!(Mode::parse(text), None, "{text}");
        }
        assert!(
            !Mode::parse("u=rw").unwrap().keeps_special_bits() && !Mode::parse("755").unwrap().keeps_special_bits()
        );
    }
}
