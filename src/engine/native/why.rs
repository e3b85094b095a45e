//! Why a COPY or a RUN was not in the cache: what was different the last time that this instruction was built here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::shared::Shared;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};

/// The kind of the records.
const TRACE: &str = "step-trace";
/// Of more files than these nothing is noted but their digest.
const MOST_FILES: usize = 20_000;
/// How many files are named.
const NAMED: usize = 5;

/// What an instruction depended on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    /// What it was built upon.
    pub(super) parent: Digest,
    /// What it copied.
    pub(super) content: Digest,
    /// The files among that, unless there were too many.
    pub(super) files: Option<BTreeMap<String, Digest>>,
    /// What else a command depends on, by what it is called.
    #[serde(default)]
    pub(super) parts: BTreeMap<String, Digest>,
}

impl Trace {
    /// The trace of an instruction.
    pub(super) fn new(parent: Digest, content: Digest, files: &[(Vec<u8>, Digest)]) -> Self {
        let name = |(path, digest): &(Vec<u8>, Digest)| (String::from_utf8_lossy(path).into_owned(), *digest);
        let files = (files.len() <= MOST_FILES).then(|| files.iter().map(name).collect());
        Self { parent, content, files, parts: BTreeMap::new() }
    }

    /// The trace of a command, with its parts and the files that are mounted for it.
    pub(super) fn of_command(
        parent: Digest,
        content: Digest,
        parts: BTreeMap<String, Digest>,
        files: &[(Vec<u8>, Digest)],
    ) -> Self {
        Self { parts, ..Self::new(parent, content, files) }
    }

    /// What has changed since an earlier one.
    fn since(&self, before: &Self) -> String {
        if self.content != before.content && !self.parts.is_empty() {
            return self.parts_since(before);
        }
        if self.content != before.content {
            let Some((before, now)) = before.files.as_ref().zip(self.files.as_ref()) else {
                return "the files have changed".to_owned();
            };
            return changes(before, now);
        }
        if self.parent != before.parent {
            return "what it builds upon has changed".to_owned();
        }
        "its layer is no longer in the cache".to_owned()
    }

    /// Which parts have changed. Files that are mounted are named.
    fn parts_since(&self, before: &Self) -> String {
        let names = self.parts.keys().chain(before.parts.keys().filter(|name| !self.parts.contains_key(*name)));
        let changed: Vec<&str> =
            names.filter(|name| self.parts.get(*name) != before.parts.get(*name)).map(String::as_str).collect();
        let more = if changed.len() > NAMED { ", ..." } else { "" };
        let verb = if changed.len() == 1 { "has" } else { "have" };
        let told = format!("{}{more} {verb} changed", changed[..changed.len().min(NAMED)].join(", "));
        match before.files.as_ref().zip(self.files.as_ref()) {
            Some((before, now)) if before != now => format!("{told}: {}", changes(before, now)),
            _ => told,
        }
    }
}

fn changes(before: &BTreeMap<String, Digest>, now: &BTreeMap<String, Digest>) -> String {
    let changed = now.iter().filter(|(path, digest)| before.get(*path).is_some_and(|known| known != *digest));
    let groups = [
        ("changed", changed.map(|(path, _)| path.as_str()).collect::<Vec<_>>()),
        ("added", now.keys().filter(|path| !before.contains_key(*path)).map(String::as_str).collect()),
        ("removed", before.keys().filter(|path| !now.contains_key(*path)).map(String::as_str).collect()),
    ];
    let told: Vec<String> =
        groups.iter().filter(|(_, paths)| !paths.is_empty()).map(|(what, paths)| tell(what, paths)).collect();
    if told.is_empty() { "modes, owners or links have changed".to_owned() } else { told.join("; ") }
}

fn tell(what: &str, paths: &[&str]) -> String {
    let count = match paths.len() {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    };
    let more = if paths.len() > NAMED { ", ..." } else { "" };
    format!("{count} {what}: {}{more}", paths[..paths.len().min(NAMED)].join(", "))
}

impl Shared {
    /// Why an instruction is not in the cache; its trace is kept for the next time.
    pub(super) async fn why(&self, text: &str, trace: Trace) -> Result<String> {
        let (store, slot) = (self.store.clone(), self.slot(text));
        blocking(move || {
            let before = store.record(TRACE, &slot)?.and_then(|bytes| serde_json::from_slice::<Trace>(&bytes).ok());
            let bytes = serde_json::to_vec(&trace).map_err(|error| Error::internal(error.to_string()))?;
            store.put_record(TRACE, &slot, &bytes)?;
            Ok(before.map_or_else(|| "it was not built here before".to_owned(), |before| trace.since(&before)))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_named() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let trace = |parent: &str, files: &[(&str, &str)]| {
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_bytes().to_vec(), digest(text))).collect();
            Trace::new(digest(parent), digest(&format!("{files:?}")), &files)
        };
        let before = trace("p", &[("a", "1"), ("b", "1"), ("c", "1")]);
        let now = trace("p", &[("a", "2"), ("b", "1"), ("d", "1"), ("e", "1")]);
        assert_eq!(now.since(&before), "1 file changed: a; 2 files added: d, e; 1 file removed: c");
        assert_eq!(trace("q", &[("a", "1")]).since(&trace("p", &[("a", "1")])), "what it builds upon has changed");
        assert_eq!(before.since(&before), "its layer is no longer in the cache");
        let command = |parts: &[(&str, &str)], files: &[(&str, &str)]| {
            let parts: BTreeMap<_, _> = parts.iter().map(|(name, text)| ((*name).to_owned(), digest(text))).collect();
            let files: Vec<_> = files.iter().map(|(path, text)| (path.as_bytes().to_vec(), digest(text))).collect();
            Trace::of_command(digest("p"), digest(&format!("{parts:?}")), parts, &files)
        };
        let before = command(&[("the variable A", "1"), ("the user", "me")], &[]);
        let now = command(&[("the variable B", "1"), ("the user", "me")], &[]);
        assert_eq!(now.since(&before), "the variable B, the variable A have changed");
        let before = command(&[("what is mounted at /m", "1")], &[("a", "1")]);
        let now = command(&[("what is mounted at /m", "2")], &[("a", "2")]);
        assert_eq!(now.since(&before), "what is mounted at /m has changed: 1 file changed: a");
        let many: Vec<(String, &str)> = (0..9).map(|number| (number.to_string(), "1")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        assert_eq!(trace("p", &many).since(&trace("p", &[])), "9 files added: 0, 1, 2, 3, 4, ...");
    }
}
