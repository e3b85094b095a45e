//! Which commands can be folded, as they are written.

use super::mode::Mode;
use crate::dockerfile::step::RunStep;

/// The shell that a command in the shell form is for.
pub(super) const SHELL: &str = "/bin/sh";

/// One command that changes everything in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) change: Change,
    /// The directory, as it is written.
    pub(super) directory: String,
}

/// What it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `chmod`.
    Mode(Mode),
    /// `chown`: a user, a group or both.
    Owner { user: Option<String>, group: Option<String> },
}

impl Change {
    /// The name of the program.
    pub(super) const fn program(&self) -> &'static str {
        match self {
            Self::Mode(_) => "chmod",
            Self::Owner { .. } => "chown",
        }
    }
}

/// The commands of a RUN, if it consists of nothing but such ones.
pub(super) fn read(run: &RunStep) -> Option<Vec<Command>> {
    if run.script.is_some() {
        return None;
    }
    let words: Vec<&str> = run.command.iter().map(String::as_str).collect();
    match words.as_slice() {
        [SHELL, "-c", line] => shell(line),
        words => Some(vec![command(words)?]),
    }
}

/// A line for the shell in which no character has a meaning but those of `&&`, and none can get one.
fn shell(line: &str) -> Option<Vec<Command>> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_=+,./:@- &".contains(letter);
    if !line.chars().all(plain) {
        return None;
    }
    let commands = line.split("&&").map(|part| {
        let words: Vec<&str> = part.split(' ').filter(|word| !word.is_empty()).collect();
        command(&words)
    });
    commands.collect()
}

fn command(words: &[&str]) -> Option<Command> {
    let [program, "-R", change, directory] = words else { return None };
    let change = match *program {
        "chmod" => Change::Mode(Mode::parse(change)?),
        "chown" => owner(change)?,
        _ => return None,
    };
    let is_plain = *directory == "." || (directory.starts_with('/') && !directory.contains("/."));
    is_plain.then(|| Command { change, directory: (*directory).to_owned() })
}

/// `user`, `user:group` or `:group`. What `user:` and a number with a sign are depends on the program.
fn owner(text: &str) -> Option<Change> {
    let is_name = |name: &str| {
        let mut letters = name.chars();
        letters.next().is_some_and(|first| first.is_ascii_alphanumeric() || first == '_')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
    };
    let name = |name: &str| is_name(name).then(|| Some(name.to_owned()));
    Some(match text.split_once(':') {
        None => Change::Owner { user: name(text)?, group: None },
        Some(("", group)) => Change::Owner { user: None, group: name(group)? },
        Some((user, group)) => Change::Owner { user: name(user)?, group: name(group)? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Option<Vec<String>> {
        let commands = shell(line)?;
        Some(commands.iter().map(|command| format!("{} {}", command.change.program(), command.directory)).collect())
    }

    #[test]
    fn only_the_exact_forms_are_read() {
        assert_eq!(shown("chmod -R a+rw ."), Some(vec!["chmod .".to_owned()]));
        let both = shown("chmod  -R u=rwX,go=rX /app && chown -R app:app .");
        assert_eq!(both, Some(vec!["chmod /app".to_owned(), "chown .".to_owned()]));
        for line in [
            "",
            "chmod a+rw .",
            "chmod -R a+rw",
            "chmod -R a+rw . .",
            "chmod -Rv a+rw .",
            "chmod -R a+rw . || true",
            "chmod -R a+rw . & chown -R a .",
            "chmod -R a+rw . &&",
            "chmod -R a+rw . &&& chown -R a .",
            "chmod -R a+rw ..",
            "chmod -R a+rw /a/../b",
            "chmod -R a+rw sub",
            "chmod -R a+rw *",
            "chmod -R 'a+rw' .",
            "chmod -R a+rw $PWD",
            "chmod -R a+rw .\nrm x",
            "X=1 chmod -R a+rw .",
            "/bin/chmod -R a+rw .",
            "chown -R app: .",
            "chown -R +5 .",
            "chown -R a.b .",
            "chown -R : .",
            "sudo chown -R app .",
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }
}
