//! `cooper build --check`: a request's Dockerfile, with its arguments and its ignore file, and nothing built.

use crate::context::ignore::Matcher;
use crate::context::{ignore_patterns, read_dockerfile};
use crate::dockerfile::lint::Ignored;
use crate::dockerfile::{Inputs, Report, check};
use crate::environment::Environment;
use crate::error::Result;
use crate::platform::Platform;
use crate::request::{BuildOptions, BuildRequest};

/// Checks what a request would build. What is wrong in the Dockerfile is in the report.
///
/// Fails with `DockerfileMissing`, `ContextRead`, `ContextPath`, `IgnoreFile` or `IgnorePattern` if there is nothing to check.
pub fn check_request(request: &BuildRequest, environment: &Environment) -> Result<Report> {
    let dockerfile = read_dockerfile(&request.context, &request.dockerfile)?;
    let patterns = ignore_patterns(&request.context, &request.dockerfile)?;
    let ignored = Patterns::new(patterns);
    let ignored = ignored.as_ref().map(|patterns| patterns as &dyn Ignored);
    let inputs = inputs(&request.options, environment);
    Ok(check(&dockerfile.name, &dockerfile.text, &inputs, ignored))
}

fn inputs(options: &BuildOptions, environment: &Environment) -> Inputs {
    let given = options.build_args.iter().filter_map(|(name, value)| {
        let value = value.clone().or_else(|| environment.var(name).map(str::to_owned))?;
        Some((name.clone(), value))
    });
    Inputs {
        build_args: given.collect(),
        build_platform: Platform::of_containers(),
        target_platform: options.platform().cloned(),
        target: options.target.clone(),
        contexts: options.build_contexts.keys().cloned().collect(),
    }
}

/// The patterns of an ignore file without exceptions.
struct Patterns {
    matcher: Matcher,
    /// Whether one of them is there to exclude all.
    excludes_all: bool,
}

impl Patterns {
    fn new(matcher: Matcher) -> Option<Self> {
        let any = |wanted: &dyn Fn(&[u8]) -> bool| matcher.patterns().any(|(pattern, _)| wanted(&pattern));
        if matcher.is_empty() || any(&|pattern| pattern.starts_with(b"!")) {
            return None;
        }
        let excludes_all = any(&|pattern| matches!(pattern, b"*" | b"**" | b"**/*"));
        Some(Self { matcher, excludes_all })
    }
}

impl Ignored for Patterns {
    fn excludes(&self, path: &str) -> bool {
        if path == "." {
            return self.excludes_all;
        }
        // A pattern that turns out to be malformed only now excludes nothing.
        self.matcher.matches_or_parent(path.as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::request::{ContextSpec, DockerfileSpec, EngineSpec};

    fn excluded(patterns: &str, path: &str) -> Option<bool> {
        let matcher = Matcher::parse(".dockerignore", patterns.as_bytes()).unwrap();
        Patterns::new(matcher).map(|patterns| patterns.excludes(path))
    }

    #[test]
    fn paths_are_excluded_by_patterns() {
        let cases = [
            ("*.py\nsecret", "secret/key", Some(true)),
            ("*.py", "a.py", Some(true)),
            ("*.py", "dir/a.py", Some(false)),
            ("*.py", ".", Some(false)),
            ("**", ".", Some(true)),
            ("*\n!a", "b", None),
            ("", "b", None),
        ];
        for (patterns, path, expected) in cases {
            assert_eq!(excluded(patterns, path), expected, "{patterns:?} {path}");
        }
    }

    #[test]
    fn a_request_is_checked_with_all_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("Dockerfile"), "FROM scratch\nARG A\nCOPY $A /\nCMD x\n").unwrap();
        fs::write(folder.path().join(".dockerignore"), "hidden\n").unwrap();
        let mut request = BuildRequest {
            context: ContextSpec { root: Some(folder.path().to_owned()), ..ContextSpec::default() },
            dockerfile: DockerfileSpec::default(),
            tags: Vec::new(),
            options: BuildOptions { build_args: [("A".to_owned(), None)].into(), ..BuildOptions::default() },
            push: false,
            outputs: Vec::new(),
            engine: EngineSpec::default(),
        };
        let environment = Environment::with("/", [("A", "hidden/file")]);
        let report = check_request(&request, &environment).unwrap();
        let rules: Vec<String> = report.findings.iter().map(|found| found.rule.name()).collect();
        assert_eq!(
            (rules, report.error.is_none()),
            (vec!["CopyIgnoredFile".into(), "JSONArgsRecommended".into()], true)
        );
        request.options.target = Some("nope".into());
        let report = check_request(&request, &environment).unwrap();
        assert_eq!(report.error.unwrap().code(), "dockerfile-stage");
        request.dockerfile = DockerfileSpec::InContext("missing".into());
        assert_eq!(check_request(&request, &environment).unwrap_err().code(), "dockerfile-missing");
    }
}
