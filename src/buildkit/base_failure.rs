//! Failures to get an image that a build starts from, copies from, or takes its frontend from.

use super::dockerfile::{Dockerfile, Instruction};
use super::failure::{Place, clean};
use crate::error::Error;
use crate::reference::Reference;

/// Explains a failure that belongs to an image; `None` if it belongs to something else.
pub(super) fn explain(message: &str, place: &Place<'_>, had_credentials: &dyn Fn(&str) -> bool) -> Option<Error> {
    let step_error = place.step.map(|step| clean(&step.error)).filter(|error| !error.is_empty());
    let image = place.step.and_then(|step| image_of_step(&step.name)).or_else(|| image_of_message(message))?;
    let text = step_error.unwrap_or_else(|| message.to_owned());
    let instruction = using(place.dockerfile, &image);
    let registry = image.parse::<Reference>().map_or_else(|_| image.clone(), |found| found.registry().to_owned());
    let reference = familiar(&image);
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&MISSING) {
        let location = place.location(instruction).map(Box::new);
        return Some(Error::BaseMissing { reference, location, message: text });
    }
    if has(&DENIED) {
        let had_credentials = had_credentials(&registry);
        return Some(Error::RegistryDenied { registry, reference, message: text, had_credentials });
    }
    if has(&UNREACHABLE) {
        return Some(Error::RegistryUnreachable { registry, reason: text });
    }
    None
}

/// A registry hides what it does not let anybody see: `pull access denied` is about both.
const MISSING: [&str; 6] = [
    "pull access denied",
    "manifest unknown",
    "name unknown",
    "not found",
    "no match for platform",
    "does not provide the specified platform",
];
const DENIED: [&str; 8] = [
    "401 unauthorized",
    "403 forbidden",
    "unauthorized",
    "authentication required",
    "authorization failed",
    "no basic auth credentials",
    "access denied",
    "denied:",
];
const UNREACHABLE: [&str; 14] = [
    "dial tcp",
    "no such host",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "i/o timeout",
    "deadline exceeded",
    "tls handshake",
    "tls: ",
    "x509:",
    "server gave http response",
    ": eof",
    "unexpected status",
    "failed with status code",
];

/// `[internal] load metadata for docker.io/library/x:latest`, `[1/2] FROM x@sha256:...`, `resolve image config for x`
fn image_of_step(name: &str) -> Option<String> {
    let text = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(name, |(_, text)| text);
    let rest = ["load metadata for ", "FROM ", "resolve image config for "]
        .iter()
        .find_map(|start| text.strip_prefix(start))?;
    let image = rest.split_whitespace().find(|word| !word.starts_with("--"))?;
    Some(image.strip_prefix("docker-image://").unwrap_or(image).to_owned())
}

fn image_of_message(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("failed to resolve source metadata for ")?;
    rest.split(": ").next().map(str::to_owned)
}

/// The name as people write it.
fn familiar(image: &str) -> String {
    let short = image.strip_prefix("docker.io/").unwrap_or(image);
    short.strip_prefix("library/").unwrap_or(short).to_owned()
}

/// The instruction that uses the image that a step gets.
pub(super) fn using_image_of<'a>(dockerfile: &'a Dockerfile, step: &str) -> Option<&'a Instruction> {
    using(dockerfile, &image_of_step(step)?)
}

/// The instruction that uses an image: `FROM x` or `COPY --from=x`.
fn using<'a>(dockerfile: &'a Dockerfile, image: &str) -> Option<&'a Instruction> {
    let wanted: Reference = image.parse().ok()?;
    let same = |text: &str| {
        text.parse::<Reference>().is_ok_and(|found| {
            (found.registry(), found.repository()) == (wanted.registry(), wanted.repository())
                && found.tag_or_latest() == wanted.tag_or_latest()
        })
    };
    dockerfile.instructions().iter().find(|instruction| {
        let mut words = instruction.text.split_whitespace().skip(1);
        match instruction.keyword.as_str() {
            "FROM" => words.find(|word| !word.starts_with("--")).is_some_and(same),
            _ => words.any(|word| {
                word.strip_prefix("--from=").is_some_and(same)
                    || word.strip_prefix("--mount=").is_some_and(|mount| {
                        mount.split(',').any(|field| field.strip_prefix("from=").is_some_and(same))
                    })
            }),
        }
    })
}
