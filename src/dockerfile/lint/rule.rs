//! The rules.

use serde::{Serialize, Serializer};

/// A rule, by BuildKit's name for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "`description` says what each asks for")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 21] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JSONArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// Its name, as `# check=skip=` takes it.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// What it asks for.
    pub const fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "The name of a stage is in lower case",
            Self::FromAsCasing => "`AS` is in the case of `FROM`",
            Self::NoEmptyContinuation => "No empty line stands within an instruction",
            Self::ConsistentInstructionCasing => "All instructions are in upper case, or all in lower case",
            Self::DuplicateStageName => "Each stage has a name of its own",
            Self::ReservedStageName => "No stage is called `scratch` or `context`",
            Self::JSONArgsRecommended => "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program",
            Self::MaintainerDeprecated => "An author is named by a label, not by MAINTAINER",
            Self::UndefinedArgInFrom => "FROM uses arguments that are declared before it",
            Self::WorkdirRelativePath => "The first WORKDIR does not depend on the base image's",
            Self::UndefinedVar => "Variables are set before they are used",
            Self::MultipleInstructionsDisallowed => "A stage has one CMD, ENTRYPOINT and HEALTHCHECK: the last counts",
            Self::LegacyKeyValueFormat => "ENV and LABEL are written with `=`",
            Self::RedundantTargetPlatform => "FROM does not ask for the platform that it gets anyway",
            Self::SecretsUsedInArgOrEnv => "Secrets are mounted, not written to ARG and ENV, which an image keeps",
            Self::InvalidDefaultArgInFrom => "FROM works with the defaults of its arguments",
            Self::FromPlatformFlagConstDisallowed => "FROM is not bound to one platform",
            Self::CopyIgnoredFile => "COPY and ADD ask for nothing that the ignore file excludes",
            Self::InvalidDefinitionDescription => "A comment right above a stage or ARG begins with its name",
            Self::ExposeProtoCasing => "The protocol of EXPOSE is in lower case",
            Self::ExposeInvalidFormat => "EXPOSE has ports of the container only",
        }
    }

    /// Whether it has to be asked for (`# check=experimental=...`).
    pub const fn is_experimental(self) -> bool {
        matches!(self, Self::InvalidDefinitionDescription)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_listed_once() {
        let mut rules = Rule::ALL.to_vec();
        rules.dedup();
        assert_eq!(rules.len(), Rule::ExposeInvalidFormat as usize + 1);
        assert_eq!(Rule::JSONArgsRecommended.name(), "JSONArgsRecommended");
    }

    #[test]
    fn every_rule_is_documented() {
        let page = include_str!("../../../docs/dockerfile.md");
        for rule in Rule::ALL {
            let experimental = if rule.is_experimental() { " (experimental)" } else { "" };
            let row = format!("| `{}` | {}{experimental} |", rule.name(), rule.description());
            assert!(page.contains(&row), "{row}");
        }
    }
}
