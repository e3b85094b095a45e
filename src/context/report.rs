//! What is in a context, why it is as big as it is, and what should perhaps not be in it.

use std::fmt;

use serde::Serialize;

use super::entry::{Entry, Kind};
use super::notice::Notice;
use super::secrets;
use super::{Context, PatternUse, Summary};

/// How many files and directories are listed as the largest.
const TOP: usize = 20;
/// A context above this size gets a warning, as ZenML's does.
const LARGE: u64 = 50 << 20;

/// A context, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The root, if there is one.
    pub root: Option<String>,
    /// The ignore file, if there is one.
    pub ignore_file: Option<String>,
    /// The context in numbers.
    pub summary: Summary,
    /// The largest files, the largest first.
    pub largest_files: Vec<Size>,
    /// The directories with the most bytes in and below them, the largest first.
    pub largest_directories: Vec<Size>,
    /// What each pattern of the ignore file excluded.
    pub patterns: Vec<PatternUse>,
    /// What the user should look at.
    pub warnings: Vec<Warning>,
    /// What was left out.
    pub notices: Vec<Notice>,
}

/// How big something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Its path in the context.
    pub path: String,
    /// Bytes of the files in it, or of the file.
    pub bytes: u64,
    /// Files in and below it; 1 for a file.
    pub files: u64,
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
        /// Whether there is an ignore file.
        ignored: bool,
    },
    /// Something looks like credentials, or like a repository's history.
    Secret {
        /// Its path in the context.
        path: String,
        /// What it looks like.
        reason: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large { bytes, ignored } => {
                let size = bytes.div_ceil(1 << 20);
                let what = if *ignored { "exclude more in" } else { "exclude what the image does not need with" };
                write!(f, "the build context has {size} MiB; {what} a .dockerignore file")
            }
            Self::Secret { path, reason } => write!(f, "`{path}` is part of the build context and looks like {reason}"),
        }
    }
}

impl Context {
    /// Describes the context. Reads the beginning of files whose names suggest a private key, and nothing else.
    pub fn report(&self) -> Report {
        let mut files: Vec<&Entry> = self.entries.iter().filter(|entry| entry.size() > 0).collect();
        files.sort_by_key(|entry| std::cmp::Reverse(entry.size()));
        files.truncate(TOP);
        let size = |entry: &&Entry| Size { path: entry.display_path().into_owned(), bytes: entry.size(), files: 1 };
        let mut directories = directory_sizes(&self.entries);
        directories.retain(|directory| directory.bytes > 0);
        directories.sort_by_key(|directory| std::cmp::Reverse(directory.bytes));
        directories.truncate(TOP);
        Report {
            root: self.root.as_ref().map(|root| root.path.display().to_string()),
            ignore_file: self.ignore.file.clone(),
            summary: self.summary.clone(),
            largest_files: files.iter().map(size).collect(),
            largest_directories: directories,
            patterns: self.ignore.patterns.clone(),
            warnings: self.warnings(),
            notices: self.notices.clone(),
        }
    }

    /// What the user should look at: a context above 50 MiB, and what looks like credentials.
    pub fn warnings(&self) -> Vec<Warning> {
        let bytes = self.summary.bytes;
        let large = (bytes > LARGE).then_some(Warning::Large { bytes, ignored: self.ignore.file.is_some() });
        let secret = |entry: &Entry| {
            let reason = secrets::look(self, entry)?;
            Some(Warning::Secret { path: entry.display_path().into_owned(), reason })
        };
        // An extra file is there because somebody put it there.
        let walked = self.entries.iter().filter(|entry| !entry.is_extra());
        large.into_iter().chain(walked.filter_map(secret)).collect()
    }
}

/// The size of every directory, with all that is below it.
fn directory_sizes(entries: &[Entry]) -> Vec<Size> {
    let mut sizes: Vec<Size> = Vec::new();
    // The directories that the current entry is in: their places in `sizes`, and their paths with a slash.
    let mut open: Vec<(usize, Vec<u8>)> = Vec::new();
    for entry in entries {
        while open.last().is_some_and(|(_, prefix)| !entry.path.starts_with(prefix)) {
            open.pop();
        }
        match entry.kind {
            Kind::Dir => {
                open.push((sizes.len(), [&entry.path[..], b"/"].concat()));
                sizes.push(Size { path: entry.display_path().into_owned(), bytes: 0, files: 0 });
            }
            Kind::File { .. } | Kind::Hardlink { .. } => {
                for (index, _) in &open {
                    sizes[*index].bytes += entry.size();
                    sizes[*index].files += 1;
                }
            }
            _ => {}
        }
    }
    sizes
}
