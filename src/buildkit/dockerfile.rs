//! Enough of a Dockerfile to point into it: where each instruction stands, and which step BuildKit makes of it.

use std::collections::BTreeMap;

use crate::error::Location;

/// A Dockerfile's text, cut into instructions.
pub struct Dockerfile {
    name: String,
    lines: Vec<String>,
    instructions: Vec<Instruction>,
    syntax: bool,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its word, in capitals.
    pub keyword: String,
    /// All of it on one line, comments and continuation characters left out.
    pub text: String,
    /// First line, from 1.
    pub line: usize,
    /// Last line, from 1; that of a here-document's end, if it has one.
    pub end_line: usize,
}

impl Dockerfile {
    /// Cuts `text`; `name` is what the caller calls it. Never fails: what cannot be understood is an instruction too.
    pub fn parse(name: &str, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let directives = directives(&lines);
        let escape = directives.get("escape").and_then(|value| value.chars().next()).unwrap_or('\\');
        let instructions = cut(&lines, escape);
        Self { name: name.to_owned(), syntax: directives.contains_key("syntax"), instructions, lines }
    }

    /// Whether it names its own frontend (`# syntax=...`).
    pub fn has_syntax(&self) -> bool {
        self.syntax
    }

    /// The instructions in order.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The instruction that a line belongs to.
    pub fn at_line(&self, line: usize) -> Option<&Instruction> {
        self.instructions.iter().find(|instruction| (instruction.line..=instruction.end_line).contains(&line))
    }

    /// The place of some lines, for a code frame; a single line is marked as a whole.
    pub fn location(&self, line: usize, end_line: usize) -> Option<Location> {
        let end_line = end_line.min(self.lines.len());
        let source = self.lines.get(line.checked_sub(1)?..end_line.max(line)).map(<[String]>::to_vec)?;
        let first = source.first()?;
        let indent = first.chars().take_while(|character| character.is_whitespace()).count();
        let width = if source.len() == 1 { first.trim().chars().count() } else { 0 };
        Some(Location {
            file: self.name.clone(),
            line,
            end_line: end_line.max(line),
            column: indent + 1,
            width,
            source,
        })
    }

    /// The instruction that a step was made of, e.g. `[build 2/5] RUN make`.
    pub fn find_step(&self, step: &str) -> Option<&Instruction> {
        let (inside, text) = step.strip_prefix('[')?.split_once("] ")?;
        let keyword = text.split_whitespace().next()?.to_uppercase();
        let wanted = squeeze(text);
        let by_number = self.numbered().remove(&strip_platform(inside)).filter(|found| found.keyword == keyword);
        if by_number.is_some_and(|found| squeeze(&found.text) == wanted) {
            return by_number;
        }
        let mut same = self.instructions.iter().filter(|instruction| squeeze(&instruction.text) == wanted);
        match (same.next(), same.next()) {
            (Some(only), None) => Some(only),
            // Variables are expanded in a step's name; then the number has to do.
            _ => by_number,
        }
    }

    /// BuildKit's numbers: `stage n/m`, or `n/m` where there is one stage.
    fn numbered(&self) -> BTreeMap<String, &Instruction> {
        let mut stages: Vec<(String, Vec<&Instruction>)> = Vec::new();
        for instruction in &self.instructions {
            let words: Vec<&str> = instruction.text.split_whitespace().collect();
            match instruction.keyword.as_str() {
                "FROM" => {
                    let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
                    let base = words.get(1).copied().unwrap_or_default();
                    let is_stage = stages.iter().any(|(name, _)| name.eq_ignore_ascii_case(base));
                    let name = match words.get(2) {
                        Some(word) if word.eq_ignore_ascii_case("as") => words.get(3).map(|name| name.to_lowercase()),
                        _ => None,
                    };
                    // A base that is no image is no step.
                    let first = if base == "scratch" || is_stage { vec![] } else { vec![instruction] };
                    stages.push((name.unwrap_or_else(|| format!("stage-{}", stages.len())), first));
                }
                "RUN" | "COPY" | "ADD" | "WORKDIR" => {
                    if let Some((_, steps)) = stages.last_mut() {
                        steps.push(instruction);
                    }
                }
                _ => {}
            }
        }
        let single = stages.len() == 1;
        let mut numbered = BTreeMap::new();
        for (stage, steps) in stages {
            let total = steps.len();
            let prefix = if single { String::new() } else { format!("{stage} ") };
            numbered.extend((1..).zip(steps).map(|(n, step)| (format!("{prefix}{n}/{total}"), step)));
        }
        numbered
    }
}

/// `linux/amd64 build 2/5` is `build 2/5`; numbers are padded in builds of ten steps and more.
fn strip_platform(inside: &str) -> String {
    let words: Vec<&str> = inside.split_whitespace().collect();
    match words.as_slice() {
        [platform, rest @ ..] if !rest.is_empty() && platform.contains('/') => rest.join(" "),
        words => words.join(" "),
    }
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `# name=value` lines at the very top.
fn directives(lines: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (number, line) in lines.iter().enumerate() {
        if number == 0 && line.starts_with("#!") {
            continue;
        }
        let Some((name, value)) = line.trim_start().strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            break;
        };
        let name = name.trim().to_lowercase();
        if name.is_empty() || name.contains(char::is_whitespace) {
            break;
        }
        found.insert(name, value.trim().to_owned());
    }
    found
}

fn cut(lines: &[String], escape: char) -> Vec<Instruction> {
    let mut instructions = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if is_skipped(&lines[at]) {
            at += 1;
            continue;
        }
        let start = at;
        let mut text = String::new();
        let mut end = at;
        while at < lines.len() {
            if at > start && is_skipped(&lines[at]) {
                // Comments and empty lines do not end a continued line.
                at += 1;
                continue;
            }
            let line = lines[at].trim_end();
            end = at;
            at += 1;
            text.push_str(line.strip_suffix(escape).unwrap_or(line));
            if !line.ends_with(escape) {
                break;
            }
        }
        let keyword = text.split_whitespace().next().unwrap_or_default().to_uppercase();
        for (tabs, word) in here_documents(&keyword, &text) {
            while at < lines.len() {
                let line = if tabs { lines[at].trim_start_matches('\t') } else { &lines[at] };
                end = at;
                at += 1;
                if line == word {
                    break;
                }
            }
        }
        instructions.push(Instruction { keyword, text: squeeze(&text), line: start + 1, end_line: end + 1 });
    }
    instructions
}

fn is_skipped(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The words that end the here-documents of an instruction (`RUN <<EOF`), and whether tabs before them are dropped.
fn here_documents(keyword: &str, text: &str) -> Vec<(bool, String)> {
    if !matches!(keyword, "RUN" | "COPY" | "ADD" | "ONBUILD") {
        return Vec::new();
    }
    let words = text.split_whitespace().filter_map(|word| {
        let word = word.trim_start_matches(|character: char| character.is_ascii_digit()).strip_prefix("<<")?;
        let (tabs, word) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
        let word = word.trim_matches(|character| character == '"' || character == '\'');
        let is_name = !word.is_empty() && !word.contains(['<', '(', ')', ';', '|', '&']);
        is_name.then(|| (tabs, word.to_owned()))
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# syntax=docker/dockerfile:1
# a comment
FROM python:3 AS Build
ARG VERSION
RUN pip install \\
    # in between

    -r requirements.txt
RUN <<EOF
RUNN is no instruction here
EOF
workdir /app/$VERSION

FROM scratch
COPY --from=build /x /x
COPY --from=build /x /x
";

    fn dockerfile() -> Dockerfile {
        Dockerfile::parse("Dockerfile", TEXT.as_bytes())
    }

    fn line_of(step: &str) -> Option<(usize, usize)> {
        dockerfile().find_step(step).map(|found| (found.line, found.end_line))
    }

    #[test]
    fn instructions_have_their_lines() {
        let dockerfile = dockerfile();
        assert!(dockerfile.has_syntax());
        let lines: Vec<_> = dockerfile
            .instructions()
            .iter()
            .map(|found| (found.keyword.as_str(), found.line, found.end_line))
            .collect();
        let expected = [
            ("FROM", 3, 3),
            ("ARG", 4, 4),
            ("RUN", 5, 8),
            ("RUN", 9, 11),
            ("WORKDIR", 12, 12),
            ("FROM", 14, 14),
            ("COPY", 15, 15),
            ("COPY", 16, 16),
        ];
        assert_eq!(lines, expected);
        assert_eq!(dockerfile.at_line(7).unwrap().text, "RUN pip install -r requirements.txt");
    }

    #[test]
    fn steps_are_found_by_number_and_by_text() {
        assert_eq!(line_of("[build 2/4] RUN pip install     -r requirements.txt"), Some((5, 8)));
        assert_eq!(line_of("[linux/amd64 build 1/4] FROM docker.io/library/python:3@sha256:1"), Some((3, 3)));
        assert_eq!(line_of("[build 4/4] WORKDIR /app/1.0"), Some((12, 12)));
        assert_eq!(line_of("[stage-1 1/2] COPY --from=build /x /x"), Some((15, 15)));
        assert_eq!(line_of("[stage-1 2/2] COPY --from=build /x /x"), Some((16, 16)));
        assert_eq!(line_of("[internal] load build definition from Dockerfile"), None);
        assert_eq!(line_of("exporting to image"), None);
    }

    #[test]
    fn another_escape_character_is_honoured() {
        let text = "# escape=`\nFROM x\nRUN a `\n  b\nCOPY a\\\nRUN c\n";
        let dockerfile = Dockerfile::parse("Dockerfile", text.as_bytes());
        let lines: Vec<_> = dockerfile.instructions().iter().map(|found| (found.line, found.end_line)).collect();
        assert_eq!(lines, [(2, 2), (3, 4), (5, 5), (6, 6)]);
    }

    #[test]
    fn a_location_covers_its_lines() {
        let location = dockerfile().location(5, 8).unwrap();
        assert_eq!((location.source.len(), location.width), (4, 0));
        let location = dockerfile().location(12, 12).unwrap();
        assert_eq!((location.column, location.width), (1, "workdir /app/$VERSION".len()));
        assert!(dockerfile().location(99, 99).is_none());
        assert!(dockerfile().location(0, 0).is_none());
    }
}
