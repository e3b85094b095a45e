//! Dockerfiles: what is said against those that work.

use std::collections::BTreeSet;

use cooper::dockerfile::lint::{Ignored, Rule};
use cooper::dockerfile::{Inputs, check};

/// Excludes `secret` and what is in it.
struct Secret;

impl Ignored for Secret {
    fn excludes(&self, path: &str) -> bool {
        path == "secret" || path.starts_with("secret/")
    }
}

/// Rules and lines.
fn findings_with(text: &str, inputs: &Inputs) -> Vec<(Rule, usize)> {
    let report = check("Dockerfile", text.as_bytes(), inputs, Some(&Secret));
    assert!(report.error.is_none(), "{text}\n{:?}", report.error);
    report.findings.iter().map(|found| (found.rule, found.location.line)).collect()
}

fn findings(text: &str) -> Vec<(Rule, usize)> {
    findings_with(text, &inputs())
}

fn inputs() -> Inputs {
    Inputs::new("linux/amd64".parse().unwrap())
}

/// Dockerfiles with what is to be said of them, each rule once at least.
const CASES: &[(&str, &[(Rule, usize)])] = &[
    ("FROM x AS Name\n", &[(Rule::StageNameCasing, 1)]),
    (
        "FROM x as name\nfrom y AS other\nRUN z\n",
        &[(Rule::FromAsCasing, 1), (Rule::FromAsCasing, 2), (Rule::ConsistentInstructionCasing, 2)],
    ),
    ("from x AS name\nrun y\n", &[(Rule::FromAsCasing, 1)]),
    ("FROM x\nRUN a \\\n\n  b\n", &[(Rule::NoEmptyContinuation, 4)]),
    ("FROM x\nRun a\nCOPY a b\n", &[(Rule::ConsistentInstructionCasing, 2)]),
    ("from x\nrun a\nUSER me\n", &[(Rule::ConsistentInstructionCasing, 3)]),
    ("FROM x AS a\nFROM y AS a\n", &[(Rule::DuplicateStageName, 2)]),
    ("FROM x AS scratch\nFROM x AS context\n", &[(Rule::ReservedStageName, 1), (Rule::ReservedStageName, 2)]),
    ("FROM x\nCMD a\nENTRYPOINT b\n", &[(Rule::JSONArgsRecommended, 2), (Rule::JSONArgsRecommended, 3)]),
    ("FROM x\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a\n", &[]),
    ("FROM x\nMAINTAINER me\n", &[(Rule::MaintainerDeprecated, 2)]),
    ("ARG VERSION=1\nFROM x:a$VERSON\n", &[(Rule::UndefinedArgInFrom, 2)]),
    ("ARG A\nFROM --platform=${A:-linux/amd64} x:a$A\n", &[]),
    ("FROM x\nWORKDIR a\nWORKDIR b\n", &[(Rule::WorkdirRelativePath, 2)]),
    ("FROM x\nWORKDIR /a\nWORKDIR b\n", &[]),
    ("FROM scratch\nENV A=$NOPE\n", &[(Rule::UndefinedVar, 2)]),
    // The base may set it; a slip it is not.
    ("FROM x\nENV A=$NOPE\n", &[]),
    ("FROM x\nARG DIRECTORY\nCOPY a $DIRECTROY\n", &[(Rule::UndefinedVar, 3)]),
    ("FROM x\nWORKDIR $GOPATH/src\n", &[]),
    ("FROM scratch\nARG A\nENV B=$A$PATH\n", &[]),
    ("FROM scratch AS a\nARG A=1\nFROM a\nENV B=$A\nENV C=$B$D\n", &[(Rule::UndefinedVar, 5)]),
    ("FROM x\nCMD [\"a\"]\nRUN b\nCMD [\"c\"]\n", &[(Rule::MultipleInstructionsDisallowed, 2)]),
    ("FROM x\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\n", &[(Rule::MultipleInstructionsDisallowed, 2)]),
    ("FROM x AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n", &[]),
    ("FROM x\nENV a b\nLABEL c d\n", &[(Rule::LegacyKeyValueFormat, 2), (Rule::LegacyKeyValueFormat, 3)]),
    ("FROM --platform=$TARGETPLATFORM x\n", &[(Rule::RedundantTargetPlatform, 1)]),
    ("FROM --platform=${TARGETPLATFORM} x\n", &[(Rule::RedundantTargetPlatform, 1)]),
    ("FROM --platform=$BUILDPLATFORM x\n", &[]),
    (
        "FROM x\nARG API_KEY\nENV TOKEN=a PUBLIC_KEY=b\n",
        &[(Rule::SecretsUsedInArgOrEnv, 2), (Rule::SecretsUsedInArgOrEnv, 3)],
    ),
    ("FROM --platform=linux/amd64 x\n", &[(Rule::FromPlatformFlagConstDisallowed, 1)]),
    ("FROM --platform=linux/arm64 x AS build_arm64\n", &[]),
    (
        "FROM x\nCOPY secret/key /a\nADD ./secret /a\nCOPY . /a\n",
        &[(Rule::CopyIgnoredFile, 2), (Rule::CopyIgnoredFile, 3)],
    ),
    ("FROM y AS a\nFROM x\nCOPY --from=a secret /b\n", &[]),
    (
        "# check=experimental=all\n# something else\nARG A\n# b is it\nFROM x AS b\n",
        &[(Rule::InvalidDefinitionDescription, 3)],
    ),
    ("# something else\nFROM x AS b\n", &[]),
    ("FROM x\nEXPOSE 80/TCP\n", &[(Rule::ExposeProtoCasing, 2)]),
    (
        "FROM x\nEXPOSE 80:80\nEXPOSE 127.0.0.1:80:80\n",
        &[(Rule::ExposeInvalidFormat, 2), (Rule::ExposeInvalidFormat, 3)],
    ),
    // Told to keep quiet.
    ("# check=skip=JSONArgsRecommended,StageNameCasing\nFROM x AS A\nCMD a\n", &[]),
    ("FROM x\n# check=skip=JSONArgsRecommended\nCMD a\nENTRYPOINT b\n", &[(Rule::JSONArgsRecommended, 4)]),
];

#[test]
fn dockerfiles_are_judged() {
    let mut seen = BTreeSet::new();
    for (text, expected) in CASES {
        assert_eq!(findings(text), *expected, "{text}");
        seen.extend(expected.iter().map(|(rule, _)| *rule));
    }
    // The defaults are judged, not the values that are given.
    let mut inputs = inputs();
    inputs.build_args = [("BASE".to_owned(), "x".to_owned())].into();
    let invalid = findings_with("ARG BASE\nFROM $BASE\n", &inputs);
    assert_eq!(invalid, [(Rule::InvalidDefaultArgInFrom, 2)]);
    seen.extend(invalid.iter().map(|(rule, _)| *rule));
    let never: Vec<&Rule> = Rule::ALL.iter().filter(|rule| !seen.contains(rule)).collect();
    assert!(never.is_empty(), "no case has {never:?}");
}

#[test]
fn what_was_read_before_a_mistake_is_judged() {
    let report = check("Dockerfile", b"FROM x AS Name\nMAINTAINER me\nNOPE\nMAINTAINER you\n", &inputs(), None);
    let lines: Vec<usize> = report.findings.iter().map(|found| found.location.line).collect();
    assert_eq!((lines, report.error.unwrap().code()), (vec![1, 2], "dockerfile-syntax"));
}

#[test]
fn a_target_limits_what_is_looked_at() {
    let text = "FROM x AS a\nCMD a\nFROM x AS b\nCMD b\nEXPOSE nothing\n";
    let mut inputs = inputs();
    inputs.target = Some("a".into());
    assert_eq!(findings_with(text, &inputs), [(Rule::JSONArgsRecommended, 2)]);
    inputs.target = None;
    let report = check("Dockerfile", text.as_bytes(), &inputs, None);
    assert_eq!(report.error.map(|error| error.code()), Some("dockerfile-value"));
    assert_eq!(report.findings.len(), 2);
}

#[test]
fn options_of_the_linter_are_checked() {
    let report = check("Dockerfile", b"# check=error=true\nFROM x\nCMD a\n", &inputs(), None);
    assert!(report.findings_are_errors && report.findings.len() == 1);
    let report = check("Dockerfile", b"# check=what=1\nFROM x\n", &inputs(), None);
    let error = report.error.unwrap();
    assert_eq!((error.code(), error.location().unwrap().line), ("dockerfile-syntax", 1));
    // An argument of the build is stronger than the file.
    let mut inputs = inputs();
    inputs.build_args = [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "skip=JSONArgsRecommended".to_owned())].into();
    assert_eq!(findings_with("# check=skip=all\nFROM x AS A\nCMD a\n", &inputs), [(Rule::StageNameCasing, 2)]);
}
