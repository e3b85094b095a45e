//! Secrets of a build: read when a command needs them, and kept out of what is told.

use std::sync::{Mutex, PoisonError};

use crate::buildkit::secrets::{MAX_SECRET, read};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::request::{SecretSource, SecretSpec};
use crate::secret::Secret;

/// What stands in place of a value.
const MASK: &[u8] = b"***";
/// Shorter values are words that may stand anywhere.
const SHORTEST: usize = 4;

/// The values that commands were given so far.
#[derive(Debug, Default)]
pub(in super::super) struct Known(Mutex<Vec<Secret<Vec<u8>>>>);

impl Known {
    /// The value of a secret; `None` if the build has none of that id.
    ///
    /// Fails with `SecretUnavailable` if the build has it and it cannot be read. Blocks.
    pub(super) fn get(
        &self,
        specs: &[SecretSpec],
        id: &str,
        environment: &Environment,
    ) -> Result<Option<Secret<Vec<u8>>>> {
        let Some(spec) = specs.iter().find(|spec| spec.id == id) else { return Ok(None) };
        let value = Secret::new(value(spec, environment)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value.clone());
        Ok(Some(value))
    }

    /// What finds these values in an output.
    pub(super) fn redactor(&self) -> Redactor {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut values: Vec<Secret<Vec<u8>>> = known
            .iter()
            .flat_map(|value| {
                let lines = value.expose().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                lines.filter(|line| line.len() >= SHORTEST).map(|line| Secret::new(line.to_vec())).collect::<Vec<_>>()
            })
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.expose().len()));
        Redactor { values, pending: Vec::new() }
    }
}

fn value(spec: &SecretSpec, environment: &Environment) -> Result<Vec<u8>> {
    let SecretSource::Env(name) = &spec.source else { return read(&spec.id, &spec.source) };
    let unavailable = |reason: String| Error::SecretUnavailable { id: spec.id.clone(), reason };
    let value = environment.variables().find(|(variable, _)| *variable == name.as_str()).map(|(_, value)| value);
    let value = value.ok_or_else(|| unavailable(format!("the environment variable `{name}` is not set")))?;
    let value = value.as_encoded_bytes().to_vec();
    if value.len() > MAX_SECRET {
        return Err(unavailable(format!("it is larger than BuildKit's limit of {} KiB", MAX_SECRET >> 10)));
    }
    Ok(value)
}

/// Takes values out of an output that comes in pieces. Lines are held back until they are complete: a value may be cut in two.
#[derive(Debug)]
pub(super) struct Redactor {
    values: Vec<Secret<Vec<u8>>>,
    pending: Vec<u8>,
}

impl Redactor {
    /// What may be shown now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.values.is_empty() {
            return bytes.to_vec();
        }
        self.pending.extend_from_slice(bytes);
        let end = self.pending.iter().rposition(|byte| matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
        let rest = self.pending.split_off(end);
        let shown = std::mem::replace(&mut self.pending, rest);
        self.masked(shown)
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let pending = std::mem::take(&mut self.pending);
        self.masked(pending)
    }

    fn masked(&self, mut text: Vec<u8>) -> Vec<u8> {
        for value in &self.values {
            let value = value.expose();
            let mut from = 0;
            while let Some(at) = find(&text[from..], value) {
                text.splice(from + at..from + at + value.len(), MASK.iter().copied());
                from += at + MASK.len();
            }
        }
        text
    }
}

fn find(text: &[u8], value: &[u8]) -> Option<usize> {
    text.windows(value.len()).position(|window| window == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: &[&str]) -> Redactor {
        let known = Known::default();
        for value in values {
            known.0.lock().unwrap().push(Secret::new(value.as_bytes().to_vec()));
        }
        known.redactor()
    }

    #[test]
    fn values_are_masked_also_where_they_are_cut() {
        let mut redactor = known(&["hunter2\n", "hunter2-long"]);
        let mut shown = redactor.push(b"a hun");
        shown.extend(redactor.push(b"ter2 b hunter2-long\nhunter2"));
        shown.extend(redactor.finish());
        assert_eq!(String::from_utf8(shown).unwrap(), "a *** b ***\n***");
    }

    #[test]
    fn without_secrets_nothing_waits() {
        let mut redactor = known(&["", "abc"]);
        assert_eq!(redactor.push(b"abc no line"), b"abc no line");
        assert!(redactor.finish().is_empty());
    }

    #[test]
    fn sources_are_read_in_the_environment_of_the_build() {
        let environment = Environment::with("/", [("TOKEN", "t0ken")]);
        let spec = |source| SecretSpec { id: "t".into(), source };
        let known = Known::default();
        let specs = [spec(SecretSource::Env("TOKEN".into()))];
        assert_eq!(known.get(&specs, "t", &environment).unwrap().unwrap().expose(), b"t0ken");
        assert!(known.get(&specs, "other", &environment).unwrap().is_none());
        let missing = [spec(SecretSource::Env("NONE".into()))];
        let error = known.get(&missing, "t", &environment).unwrap_err();
        assert_eq!(error.code(), "secret-unavailable");
    }
}
