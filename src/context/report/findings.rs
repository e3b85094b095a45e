//! What should perhaps not be in a context, and the warnings about it.

use std::fmt;

use serde::Serialize;

use super::content::Looker;
use super::names;
use super::sizes::Size;
use crate::context::Context;
use crate::context::entry::{Entry, Kind, compare_paths, is_below};

/// A context above this size gets a warning, as ZenML's does.
pub(super) const LARGE: u64 = 50 << 20;
/// How many paths a warning names.
const EXAMPLES: usize = 3;
/// What ZenML marks a repository with; what is in it is needed.
pub(super) const ZENML: &[u8] = b".zen";
/// The mark of a virtual environment.
const PYVENV: &[u8] = b"pyvenv.cfg";

/// Why something should perhaps not be in a context. In the order of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Category {
    /// Keys, passwords, tokens.
    Credentials,
    /// A repository's history.
    History,
    /// A Python environment: it belongs to the machine that it is on.
    VirtualEnvironment,
    /// Model weights.
    Weights,
    /// A notebook with large outputs.
    Notebook,
    /// Records of experiments.
    Experiments,
    /// What tools make anew.
    Cache,
    /// A large directory that is called `data` or `datasets`.
    Data,
}

/// One thing that should perhaps not be in the context.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) category: Category,
    pub(super) what: &'static str,
    pub(super) path: Vec<u8>,
    pub(super) directory: bool,
    bytes: u64,
}

/// Something that is probably a mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Warning {
    /// The context is large.
    Large {
        /// The sum of the sizes.
        bytes: u64,
        /// How many files there are.
        files: u64,
        /// Whether there is an ignore file.
        ignored: bool,
        /// What takes up most of it, directly below the root.
        largest: Vec<Size>,
    },
    /// Something looks like credentials.
    Credentials(Found),
    /// A repository's history.
    History(Found),
    /// A Python environment.
    VirtualEnvironment(Found),
    /// Model weights.
    Weights(Found),
    /// Notebooks with large outputs.
    Notebook(Found),
}

/// Things of one kind that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What they look like.
    pub what: &'static str,
    /// How many there are.
    pub count: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// The paths of the first ones.
    pub paths: Vec<String>,
}

/// Findings, from entries in the order of a walk.
pub(super) struct Findings<'a> {
    context: &'a Context,
    looker: Looker,
    found: Vec<Finding>,
    /// The last finding is a directory, and the walk is in it.
    inside: bool,
}

impl<'a> Findings<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self { context, looker: Looker::default(), found: Vec::new(), inside: false }
    }

    /// Takes the next entry. Of what is in a directory that is a finding, only the size counts.
    pub(super) fn add(&mut self, entry: &Entry) {
        if self.inside
            && let Some(last) = self.found.last_mut()
        {
            if is_below(&entry.path, &last.path) {
                last.bytes += entry.size();
                return;
            }
            self.inside = false;
        }
        // An extra file is there because somebody put it there.
        if entry.is_extra() || is_below(&entry.path, ZENML) {
            return;
        }
        match entry.kind {
            Kind::Dir => self.directory(entry),
            Kind::File { .. } | Kind::Hardlink { .. } => self.file(entry),
            _ => {}
        }
    }

    fn directory(&mut self, entry: &Entry) {
        let environment = || {
            let marked = matches!(entry.name(), b"venv" | b"env" | b"virtualenv");
            let found = marked && self.context.find(&[&entry.path, &b"/"[..], PYVENV].concat()).is_some();
            found.then_some(Category::VirtualEnvironment)
        };
        if let Some(category) = names::directory(entry.name()).or_else(environment) {
            self.push(category, what(category), entry);
            self.inside = true;
        }
    }

    fn file(&mut self, entry: &Entry) {
        if entry.name() == PYVENV {
            return self.environment(&entry.path);
        }
        if let Some(guess) = names::file(&entry.path, entry.name(), entry.content_size())
            && self.looker.confirms(guess.look, self.context, entry)
        {
            self.push(guess.category, guess.what, entry);
        }
    }

    /// A virtual environment that has a name of its own. It is known by a file in it, when part of it has been seen.
    fn environment(&mut self, mark: &[u8]) {
        let Some(directory) = mark.strip_suffix(PYVENV).and_then(|path| path.strip_suffix(b"/")) else { return };
        let Some(entry) = self.context.find(directory) else { return };
        while self.found.last().is_some_and(|last| is_below(&last.path, directory)) {
            self.found.pop();
        }
        self.push(Category::VirtualEnvironment, what(Category::VirtualEnvironment), &entry);
        let before = |entry: &Entry| is_below(&entry.path, directory) && compare_paths(&entry.path, mark).is_le();
        let bytes = self.context.entries().filter(before).map(|entry| entry.size()).sum();
        if let Some(last) = self.found.last_mut() {
            last.bytes = bytes;
        }
        self.inside = true;
    }

    fn push(&mut self, category: Category, what: &'static str, entry: &Entry) {
        let path = entry.path.clone();
        self.found.push(Finding { category, what, path, directory: entry.is_dir(), bytes: entry.size() });
    }

    pub(super) fn finish(self) -> Vec<Finding> {
        self.found
    }
}

/// What a directory of this category is, for people.
pub(super) const fn what(category: Category) -> &'static str {
    match category {
        Category::History => "the history of a repository",
        Category::VirtualEnvironment => "a virtual environment",
        Category::Experiments => "records of experiments",
        Category::Cache => "a cache, or what tools keep for themselves",
        Category::Data => "data",
        Category::Credentials => "credentials",
        Category::Weights => "model weights",
        Category::Notebook => "a notebook with large outputs",
    }
}

/// One warning for each kind of finding, the most important first.
pub(super) fn warnings(found: &[Finding]) -> Vec<Warning> {
    let mut kinds: Vec<(Category, Found)> = Vec::new();
    for finding in found {
        let same = |(category, kind): &(Category, Found)| (*category, kind.what) == (finding.category, finding.what);
        let index = kinds.iter().position(same).unwrap_or(kinds.len());
        if index == kinds.len() {
            kinds.push((finding.category, Found { what: finding.what, count: 0, bytes: 0, paths: Vec::new() }));
        }
        let kind = &mut kinds[index].1;
        kind.count += 1;
        kind.bytes += finding.bytes;
        if kind.paths.len() < EXAMPLES {
            kind.paths.push(String::from_utf8_lossy(&finding.path).into_owned());
        }
    }
    kinds.sort_by_key(|(category, _)| *category);
    kinds.into_iter().filter_map(|(category, found)| warning(category, found)).collect()
}

fn warning(category: Category, found: Found) -> Option<Warning> {
    Some(match category {
        Category::Credentials => Warning::Credentials(found),
        Category::History => Warning::History(found),
        Category::VirtualEnvironment => Warning::VirtualEnvironment(found),
        Category::Weights => Warning::Weights(found),
        Category::Notebook => Warning::Notebook(found),
        // Not worth a warning: a suggestion names them.
        Category::Experiments | Category::Cache | Category::Data => return None,
    })
}

impl Warning {
    /// Its name in events; the one that it has in JSON.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Large { .. } => "large",
            Self::Credentials(_) => "credentials",
            Self::History(_) => "history",
            Self::VirtualEnvironment(_) => "virtual-environment",
            Self::Weights(_) => "weights",
            Self::Notebook(_) => "notebook",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large { bytes, files, ignored, largest } => {
                let plural = if *files == 1 { "" } else { "s" };
                write!(f, "the build context has {} in {files} file{plural}", Bytes(*bytes))?;
                let one = |size: &Size| {
                    let slash = if size.directory { "/" } else { "" };
                    format!("`{}{slash}` {}", size.path, Bytes(size.bytes))
                };
                if !largest.is_empty() {
                    write!(f, ", most of it in {}", largest.iter().map(one).collect::<Vec<_>>().join(", "))?;
                }
                let what = if *ignored { "exclude more in the" } else { "exclude what the image does not need in a" };
                write!(f, "; {what} .dockerignore file")
            }
            Self::Credentials(found) => found.fmt(f, false),
            Self::History(found) | Self::VirtualEnvironment(found) | Self::Weights(found) | Self::Notebook(found) => {
                found.fmt(f, true)
            }
        }
    }
}

impl Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, is_sure: bool) -> fmt::Result {
        let Self { what, count, bytes, paths } = self;
        let names = paths.iter().map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ");
        let size = if is_sure { format!(" ({})", Bytes(*bytes)) } else { String::new() };
        if *count == 1 {
            let verb = if is_sure { "is" } else { "looks like" };
            return write!(f, "{names} is in the build context and {verb} {what}{size}");
        }
        let verb = if is_sure { "are" } else { "look like" };
        let rest = count - paths.len() as u64;
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        write!(f, "{names}{rest} are in the build context and {verb} {}{size}", plural(what))
    }
}

fn plural(what: &str) -> &str {
    match what {
        "a private key" => "private keys",
        "a keystore" => "keystores",
        "a password store" => "password stores",
        "a Hugging Face token" => "Hugging Face tokens",
        "a virtual environment" => "virtual environments",
        "a notebook with large outputs" => "notebooks with large outputs",
        "the history of a repository" => "histories of repositories",
        // It has none, or is one.
        _ => what,
    }
}

/// A size for people, with a decimal unit as the Docker command line writes it.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if self.0 < 1000 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["kB", "MB", "GB"] {
            value /= 1000.0;
            if value < 999.5 {
                let digits = usize::from(value < 99.95);
                return write!(f, "{value:.digits$} {unit}");
            }
        }
        write!(f, "{:.1} TB", value / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (99_940, "99.9 kB"),
            (99_960, "100 kB"),
            (999_600, "1.0 MB"),
            (52_428_801, "52.4 MB"),
            (1_500_000_000_000, "1.5 TB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
