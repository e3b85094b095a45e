//! Rules about the text alone.

use std::collections::BTreeSet;

use super::{Linter, Rule};
use crate::dockerfile::instruction::{From, Instruction, Kind};
use crate::dockerfile::{Dockerfile, Stage};

/// Names that mean something else in `--from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Looks at each instruction by itself: those that were read, if there is a mistake.
pub(in crate::dockerfile) fn check_lines(linter: &mut Linter, file: &Dockerfile) {
    for span in &file.empty_continuations {
        linter.report(Rule::NoEmptyContinuation, "empty continuation line".to_owned(), *span, &[]);
    }
    for instruction in file.instructions() {
        check_instruction(linter, instruction);
    }
}

/// Looks at the stages together.
pub(in crate::dockerfile) fn check_stages(linter: &mut Linter, stages: &[Stage]) {
    check_names(linter, stages);
    check_casing(linter, stages);
}

fn check_instruction(linter: &mut Linter, instruction: &Instruction) {
    let Instruction { kind, span, comments, keyword, .. } = instruction;
    match kind {
        Kind::Maintainer(_) => {
            let message = "the MAINTAINER instruction is deprecated in favor of a label".to_owned();
            linter.report(Rule::MaintainerDeprecated, message, *span, comments);
        }
        Kind::From(from @ From { alias: Some((as_keyword, name)), .. }) => {
            if *name != name.to_lowercase() {
                let message = format!("stage name `{name}` should be lowercase");
                linter.report(Rule::StageNameCasing, message, *span, comments);
            }
            let other_case = *keyword == keyword.to_lowercase() && *as_keyword != as_keyword.to_lowercase()
                || *keyword == keyword.to_uppercase() && *as_keyword != as_keyword.to_uppercase();
            if other_case {
                let message = format!("the casing of `{as_keyword}` and `{keyword}` does not match");
                linter.report(Rule::FromAsCasing, message, *span, comments);
            }
            check_description(linter, instruction, &[from.name().unwrap_or_default()]);
        }
        Kind::Arg(arguments) => {
            let names: Vec<String> = arguments.iter().map(|argument| argument.name.clone()).collect();
            check_description(linter, instruction, &names);
        }
        _ => {}
    }
}

/// The last comment above a definition should begin with a name that it defines.
fn check_description(linter: &mut Linter, instruction: &Instruction, names: &[String]) {
    let Some(comment) = instruction.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| name == first) {
        return;
    }
    let name = if let [name] = names { name } else { "<arg_key>" };
    let keyword = instruction.kind.keyword();
    let message = format!("the comment for {keyword} should follow the format `# {name} <description>`");
    linter.report(Rule::InvalidDefinitionDescription, message, instruction.span, &instruction.comments);
}

fn check_names(linter: &mut Linter, stages: &[Stage]) {
    let mut seen = BTreeSet::new();
    for stage in stages {
        let Some(name) = stage.from.name() else { continue };
        if RESERVED.contains(&name.as_str()) {
            let message = format!("stage name should not be the reserved word `{name}`");
            linter.report(Rule::ReservedStageName, message, stage.head.span, &[]);
        }
        if seen.contains(&name) {
            let message = format!("duplicate stage name `{name}`; stage names should be unique");
            linter.report(Rule::DuplicateStageName, message, stage.head.span, &[]);
        }
        seen.insert(name);
    }
}

fn check_casing(linter: &mut Linter, stages: &[Stage]) {
    let all: Vec<&Instruction> =
        stages.iter().flat_map(|stage| std::iter::once(&stage.head).chain(&stage.instructions)).collect();
    let lower = all.iter().filter(|found| found.keyword == found.keyword.to_lowercase()).count();
    let upper = all.iter().filter(|found| found.keyword == found.keyword.to_uppercase()).count();
    for instruction in all {
        let keyword = &instruction.keyword;
        let (wanted, case) =
            if lower > upper { (keyword.to_lowercase(), "lowercase") } else { (keyword.to_uppercase(), "uppercase") };
        if *keyword != wanted {
            let message = format!("`{keyword}` should match the case of most instructions ({case})");
            linter.report(Rule::ConsistentInstructionCasing, message, instruction.span, &[]);
        }
    }
}
