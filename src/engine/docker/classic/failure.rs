//! The error behind a classic builder's last words.

use std::sync::LazyLock;

use regex::Regex;

use super::steps::Steps;
use crate::buildkit::dockerfile::Dockerfile;
use crate::engine::docker::instructions;
use crate::error::{Error, Location, StepFailure};
use crate::moby::trouble;

static EXIT_CODE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?:returned a non-zero code:|exit status) (\d+)").expect("a constant pattern"));
static PARSE_ERROR: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)dockerfile parse error(?: on)? line (\d+): (.*)").expect("a constant pattern"));
static NO_DOCKERFILE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)(?:cannot locate|unable to find) (?:specified )?Dockerfile: ?(\S+)").expect("a constant pattern")
});

/// Where a step stands. `ended` steps came before it.
fn location(dockerfile: &Dockerfile, step: &str, ended: usize) -> Option<Location> {
    let instruction = instructions::find(dockerfile, step, ended)?;
    dockerfile.location(instruction.line, instruction.end_line)
}

fn line(dockerfile: &Dockerfile, number: usize) -> Option<Box<Location>> {
    let (line, end) = dockerfile.at_line(number).map_or((number, number), |found| (found.line, found.end_line));
    dockerfile.location(line, end).map(Box::new)
}

/// What `text` means, given what was built before.
pub(super) fn error(
    text: &str,
    code: Option<i64>,
    steps: &Steps,
    dockerfile: &Dockerfile,
    had_credentials: impl Fn(&str) -> bool,
) -> Error {
    let text = text.trim();
    if text.contains("requires BuildKit") || text.contains("requires buildkit") {
        return Error::Unsupported {
            engine: "the classic builder".into(),
            feature: steps.current.as_ref().map_or_else(|| "this Dockerfile".into(), |step| step.instruction.clone()),
            reason: format!(
                "{text}; use a daemon with BuildKit, and leave out options that only the classic builder has"
            ),
        };
    }
    let code = code.or_else(|| exit_code(text));
    let Some(step) = &steps.current else { return without_step(text, dockerfile) };
    let location = location(dockerfile, &step.instruction, steps.done.len());
    if code.is_none() {
        if let Some(image) = pulled_image(&step.instruction, text)
            && let Some(error) = trouble::pull_error(&image, text, had_credentials, location.clone())
        {
            return error;
        }
        if trouble::kind(text) == Some(trouble::Trouble::NoSpace) {
            return Error::NoSpace { message: text.to_owned() };
        }
    }
    Error::StepFailed(Box::new(StepFailure {
        instruction: step.instruction.clone(),
        exit_code: code,
        location,
        tail: steps.tail(),
        message: text.to_owned(),
    }))
}

fn exit_code(text: &str) -> Option<i64> {
    EXIT_CODE.captures(text).and_then(|found| found[1].parse().ok())
}

/// An error before the first step, or of the request as such.
fn without_step(text: &str, dockerfile: &Dockerfile) -> Error {
    if let Some(found) = PARSE_ERROR.captures(text) {
        let location = found[1].parse().ok().and_then(|line| self::line(dockerfile, line));
        return Error::Dockerfile { location, message: found[2].to_owned() };
    }
    if let Some(found) = NO_DOCKERFILE.captures(text) {
        return Error::DockerfileMissing { path: found[1].to_owned() };
    }
    if text.contains("failed to reach build target") || text.contains("target stage") {
        return Error::InvalidOption { name: "target".into(), reason: text.to_owned() };
    }
    if text.contains("Dockerfile") || text.contains("dockerfile") {
        return Error::Dockerfile { location: None, message: text.to_owned() };
    }
    if trouble::kind(text) == Some(trouble::Trouble::NoSpace) {
        return Error::NoSpace { message: text.to_owned() };
    }
    Error::BuildFailed { message: text.to_owned() }
}

/// The image that a step was about to pull when it failed.
fn pulled_image(instruction: &str, text: &str) -> Option<String> {
    let words: Vec<&str> = instruction.split_whitespace().collect();
    match words.first()?.to_ascii_uppercase().as_str() {
        "FROM" => words.iter().skip(1).find(|word| !word.starts_with("--")).map(|&name| resolved(name, text)),
        "COPY" => words.iter().find_map(|word| word.strip_prefix("--from=")).map(str::to_owned),
        _ => None,
    }
}

/// A name with variables, as the daemon resolved it in its sentence.
fn resolved(name: &str, text: &str) -> String {
    if !name.contains('$') {
        return name.to_owned();
    }
    for (before, after) in [("pull access denied for ", ","), ("manifest for ", " not found")] {
        if let Some((image, _)) = text.split_once(before).and_then(|(_, rest)| rest.split_once(after)) {
            return image.to_owned();
        }
    }
    name.to_owned()
}

/// What a refused request means.
pub(super) fn refused(error: Error, dockerfile: &Dockerfile) -> Error {
    match error {
        Error::DaemonRefused { action, status, message } if status == 400 || status >= 500 => {
            match without_step(&message, dockerfile) {
                Error::BuildFailed { message } => Error::DaemonRefused { action, status, message },
                better => better,
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "FROM busybox\nRUN echo a \\\n  && false\nCOPY missing /\n";

    fn dockerfile() -> Dockerfile {
        Dockerfile::parse("Dockerfile", TEXT.as_bytes())
    }

    fn fail(before: &str, text: &str, code: Option<i64>) -> Error {
        let mut steps = Steps::default();
        steps.text(before);
        error(text, code, &steps, &dockerfile(), |_| false)
    }

    #[test]
    fn a_failing_run_has_its_lines_and_its_output() {
        let before = "Step 1/3 : FROM busybox\nStep 2/3 : RUN echo a   && false\n ---> Running in 0123456789ab\na\n";
        let text = "The command '/bin/sh -c echo a && false' returned a non-zero code: 7";
        let Error::StepFailed(step) = fail(before, text, Some(7)) else { panic!("another error") };
        assert_eq!(step.exit_code, Some(7));
        assert_eq!(step.tail, ["a"]);
        let location = step.location.unwrap();
        assert_eq!((location.line, location.end_line), (2, 3));
    }

    #[test]
    fn other_failures_have_codes_of_their_own() {
        let cases = [
            ("Step 1/3 : FROM busybox\n", "manifest for busybox:latest not found: manifest unknown", "base-missing"),
            (
                "Step 1/3 : FROM busybox\n",
                "Get https://x/v2/: dial tcp: lookup x: no such host",
                "registry-unreachable",
            ),
            ("Step 1/3 : FROM busybox\n", "unauthorized: authentication required", "registry-denied"),
            ("Step 1/3 : FROM busybox\nStep 2/3 : RUN x\n", "write /x: no space left on device", "no-space"),
            ("Step 3/3 : COPY missing /\n", "COPY failed: file not found in build context", "step-failed"),
            (
                "Step 2/3 : RUN --mount=type=cache,target=/x y\n",
                "the --mount option requires BuildKit. Refer to",
                "unsupported",
            ),
            ("", "dockerfile parse error line 3: unknown instruction: RUNN", "dockerfile"),
            ("", "failed to reach build target x in Dockerfile", "invalid-option"),
            ("", "Cannot locate specified Dockerfile: Dockerfile", "dockerfile-missing"),
            ("", "the Dockerfile (Dockerfile) cannot be empty", "dockerfile"),
            ("", "something else", "build-failed"),
        ];
        for (before, text, code) in cases {
            assert_eq!(fail(before, text, None).code(), code, "{text}");
        }
        let Error::Dockerfile { location: Some(location), .. } = fail("", "dockerfile parse error line 4: x", None)
        else {
            panic!("another error")
        };
        assert_eq!(location.source, ["COPY missing /"]);
    }
}
