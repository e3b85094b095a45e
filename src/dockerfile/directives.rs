//! Parser directives: `# syntax=`, `# escape=` and `# check=` above everything else.

use super::mistake::{Mistake, Result};
use super::source::Span;

/// One directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its value, without white space around it.
    pub value: String,
    /// The line that it stands in.
    pub line: usize,
}

/// The directives of a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend that should read the file.
    pub syntax: Option<Directive>,
    /// `# escape=`: a backslash or a backtick.
    pub escape: Option<Directive>,
    /// `# check=`: the rules of the linter.
    pub check: Option<Directive>,
}

impl Directives {
    /// The escape character.
    pub fn escape_character(&self) -> char {
        self.escape.as_ref().and_then(|directive| directive.value.chars().next()).unwrap_or('\\')
    }

    /// Takes a line, which has no white space before it, if it is a directive.
    pub(super) fn take(&mut self, line: &str, number: usize) -> Result<bool> {
        let Some((name, value)) = split(line, "#") else { return Ok(false) };
        let slot = match name.as_str() {
            "syntax" => &mut self.syntax,
            "escape" => &mut self.escape,
            "check" => &mut self.check,
            _ => return Ok(false),
        };
        if slot.is_some() {
            let message = format!("only one `# {name}=` directive can be used");
            return Err(Mistake::syntax(message).at(Span::of(number)));
        }
        if name == "escape" && !matches!(value, "\\" | "`") {
            let message = format!("`{value}` is no escape character: it is a backslash or a backtick");
            return Err(Mistake::syntax(message).near(value).at(Span::of(number)));
        }
        *slot = Some(Directive { value: value.to_owned(), line: number });
        Ok(true)
    }
}

/// Fails where a text names a frontend that is not Docker's own: what that would make of the text, only it knows.
pub(super) fn check_frontend(text: &str) -> Result<()> {
    let Some(directive) = frontend(text) else { return Ok(()) };
    let image = directive.value.split(' ').next().unwrap_or_default();
    if is_docker_frontend(image) {
        return Ok(());
    }
    let message = format!(
        "the frontend `{image}` cannot be used: this builder reads Dockerfiles itself, as docker/dockerfile:1 does"
    );
    Err(Mistake::frontend(message).near(image).at(Span::of(directive.line)))
}

/// The frontend that a text names. Texts that are no Dockerfiles can do that too: with `// syntax=`, below a `#!` line, or
/// as a member of a JSON object.
fn frontend(text: &str) -> Option<Directive> {
    let (text, before) = match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => (rest, 1),
        _ => (text, 0),
    };
    for comment in ["#", "//"] {
        let lines = (before + 1..).zip(text.lines()).map_while(|(number, line)| Some((number, split(line, comment)?)));
        let known = lines.take_while(|(_, (name, _))| matches!(name.as_str(), "syntax" | "escape" | "check"));
        for (line, (name, value)) in known {
            if name == "syntax" {
                return Some(Directive { value: value.to_owned(), line });
            }
        }
    }
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some(Directive { value: value.to_owned(), line: before + 1 })
}

/// `docker/dockerfile` and `docker/dockerfile-upstream` of Docker Hub or a mirror of it, in any version and channel.
fn is_docker_frontend(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or_default();
    let name = match name.rfind(':') {
        Some(at) if !name[at..].contains('/') => &name[..at],
        _ => name,
    };
    let path = match name.split_once('/') {
        Some((registry, path)) if registry.contains(['.', ':']) || registry == "localhost" => path,
        _ => name,
    };
    matches!(path, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// `# Name = value` as its name in lower case and its value.
pub(super) fn split<'a>(line: &'a str, comment: &str) -> Option<(String, &'a str)> {
    let (name, value) = line.strip_prefix(comment)?.trim_start().split_once('=')?;
    let name = name.trim_end();
    let mut letters = name.bytes();
    let is_name = letters.next()?.is_ascii_alphabetic() && letters.all(|letter| letter.is_ascii_alphanumeric());
    let value = value.trim();
    (is_name && !value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_taken_by_name() {
        let mut directives = Directives::default();
        assert!(directives.take("# Syntax = docker/dockerfile:1 ", 1).unwrap());
        assert!(directives.take("#escape=`", 2).unwrap());
        assert!(!directives.take("# other=x", 3).unwrap());
        assert!(!directives.take("# no directive = at all", 3).unwrap());
        assert!(!directives.take("# check=", 3).unwrap());
        assert_eq!(directives.escape_character(), '`');
        assert_eq!(directives.syntax.as_ref().map(|found| found.value.as_str()), Some("docker/dockerfile:1"));
        assert!(directives.take("# escape=`", 4).is_err());
        assert!(Directives::default().take("# escape=x", 1).is_err());
    }

    #[test]
    fn only_docker_s_frontend_is_accepted() {
        let ours = [
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1@sha256:00",
            "docker/dockerfile-upstream:master",
            "mirror.example:5000/docker/dockerfile:1.4",
        ];
        let foreign = ["example/frontend:1", "docker/dockerfile/x", "r2d4/mockerfile", "ghcr.io/x/docker/dockerfile:1"];
        for (images, accepted) in [(&ours[..], true), (&foreign[..], false)] {
            for image in images {
                let text = format!("# escape=`\n# syntax={image} with more\nFROM x\n");
                assert_eq!(check_frontend(&text).is_ok(), accepted, "{image}");
            }
        }
    }

    #[test]
    fn frontends_are_named_in_many_ways() {
        let cases = [
            ("#!/usr/bin/env x\n# syntax=a", Some(("a", 2))),
            ("// syntax=a\n", Some(("a", 1))),
            ("// check=x\n// syntax=a\n", Some(("a", 2))),
            ("{\"syntax\": \"a\"}", Some(("a", 1))),
            ("# a comment\n# syntax=a\n", None),
            ("\n# syntax=a\n", None),
            ("{\"syntax\": 1}", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = frontend(text).map(|found| (found.value, found.line));
            assert_eq!(found, expected.map(|(value, line)| (value.to_owned(), line)), "{text}");
        }
    }
}
