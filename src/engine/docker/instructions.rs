//! What the engine looks for in a Dockerfile: the instruction of a classic step, and the images that a build may pull.

use std::collections::{BTreeMap, BTreeSet};

use crate::buildkit::dockerfile::{Dockerfile, Instruction};
use crate::reference::Reference;

/// White space does not matter in a comparison, nor does the keyword's case.
fn normalized(text: &str) -> String {
    let (keyword, arguments) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
    let words: Vec<&str> = arguments.split_whitespace().collect();
    format!("{} {}", keyword.to_ascii_uppercase(), words.join(" "))
}

/// Finds the instruction of a step: the first one that reads the same from number `from` on, then any that does.
pub(super) fn find<'a>(dockerfile: &'a Dockerfile, step: &str, from: usize) -> Option<&'a Instruction> {
    let step = normalized(step);
    let all = dockerfile.instructions();
    let same = |instruction: &&Instruction| normalized(&instruction.text) == step;
    all.iter().skip(from).find(same).or_else(|| all.iter().find(same))
}

/// The images that a build may pull: those of FROM and of `COPY --from`, without stages, `scratch` and names that depend
/// on something unknown.
pub(super) fn base_images(
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, Option<String>>,
) -> BTreeSet<Reference> {
    let mut arguments: BTreeMap<String, String> = BTreeMap::new();
    let mut stages = BTreeSet::new();
    let mut names = Vec::new();
    for instruction in dockerfile.instructions() {
        let words: Vec<&str> = instruction.text.split_whitespace().skip(1).collect();
        match instruction.keyword.as_str() {
            // Only an ARG before the first FROM counts in a FROM.
            "ARG" if stages.is_empty() && names.is_empty() => {
                for word in words {
                    let (name, default) =
                        word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
                    let given = build_args.get(name).cloned().flatten();
                    if let Some(value) =
                        given.or_else(|| default.map(|value| value.trim_matches(['"', '\'']).to_owned()))
                    {
                        arguments.insert(name.to_owned(), value);
                    }
                }
            }
            "FROM" => {
                let words: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
                names.extend(words.first().and_then(|name| expand(name, &arguments)));
                if let [_, r#as, stage] = words.as_slice()
                    && r#as.eq_ignore_ascii_case("as")
                {
                    stages.insert(stage.to_ascii_lowercase());
                }
            }
            "COPY" => names.extend(words.iter().filter_map(|word| word.strip_prefix("--from=")).map(str::to_owned)),
            _ => {}
        }
    }
    let image = |name: &String| {
        let stage = stages.contains(&name.to_ascii_lowercase()) || name.bytes().all(|b| b.is_ascii_digit());
        if stage || name == "scratch" { None } else { name.parse().ok() }
    };
    names.iter().filter_map(image).collect()
}

/// `$NAME`, `${NAME}` and `${NAME:-default}`; `None` if there is something else, or a name without a value.
fn expand(text: &str, arguments: &BTreeMap<String, String>) -> Option<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let (body, after) = inner.split_once('}')?;
            let (name, default) = body.split_once(":-").map_or((body, None), |(name, default)| (name, Some(default)));
            let value = arguments.get(name).map(String::as_str).filter(|value| !value.is_empty()).or(default)?;
            result.push_str(value);
            rest = after;
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            result.push_str(arguments.get(&rest[..end])?);
            rest = &rest[end..];
        }
    }
    result.push_str(rest);
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{feff}# syntax=x\n# comment\nARG TAG=3.12\nFROM --platform=linux/amd64 python:${TAG} AS base\n\nrun apt-get update && \\\n  # inside\n\n  apt-get  install x\nCOPY --from=base a b\nCOPY --from=localhost:5000/tool:1 a b\n  RUN false\nFROM base\nRUN false\nFROM ${OTHER:-scratch}\n";

    fn dockerfile(text: &str) -> Dockerfile {
        Dockerfile::parse("Dockerfile", text.as_bytes())
    }

    #[test]
    fn a_step_finds_its_instruction() {
        let dockerfile = dockerfile(TEXT);
        let lines = |step: &str, from| find(&dockerfile, step, from).map(|found| (found.line, found.end_line));
        assert_eq!(lines("RUN apt-get update &&   apt-get  install x", 0), Some((6, 9)));
        assert_eq!(lines("RUN false", 0), Some((12, 12)));
        assert_eq!(lines("RUN false", 6), Some((14, 14)));
        assert_eq!(lines("RUN nothing like this", 0), None);
    }

    #[test]
    fn base_images_are_resolved() {
        let names = |args: BTreeMap<String, Option<String>>| -> Vec<String> {
            base_images(&dockerfile(TEXT), &args).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(BTreeMap::new()), ["python:3.12", "localhost:5000/tool:1"]);
        let given = BTreeMap::from([("TAG".to_owned(), Some("3.13".to_owned()))]);
        assert_eq!(names(given), ["python:3.13", "localhost:5000/tool:1"]);
        assert!(base_images(&dockerfile("FROM $UNSET\n"), &BTreeMap::new()).is_empty());
    }
}
