//! What goes into a build.
//!
//! [`Context::open`] reads the ignore file ([`ignore`]), walks the root once, merges the extra files in and keeps the sorted
//! list of entries. Content is read only when it is asked for: entry by entry ([`Context::reader`]) or as an archive
//! ([`Context::pack`]).
//!
//! All of this blocks and knows nothing of tokio: asynchronous callers use `spawn_blocking`.

mod archive;
mod compress;
mod digest;
mod entry;
mod extra;
mod files;
pub mod ignore;
mod notice;
mod output;
mod pipeline;
mod reader;
mod report;
mod root;
mod secrets;
mod tar;
mod walk;
mod zip;

use std::path::PathBuf;

use serde::Serialize;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::request::{ContextSpec, DockerfileSpec};

pub use archive::{Format, Modes, PackOptions, Packed};
pub use entry::{Entry, FIXED_TIME, Kind, Mtime, compare_paths};
pub use files::DockerfileText;
pub use notice::Notice;
pub use reader::EntryReader;
pub use report::{Report, Size, Warning};

use root::Root;

/// What goes into one build, as it was when it was opened.
#[derive(Debug)]
pub struct Context {
    spec: ContextSpec,
    dockerfile: DockerfileSpec,
    root: Option<Root>,
    entries: Vec<Entry>,
    summary: Summary,
    notices: Vec<Notice>,
    ignore: IgnoreUse,
}

/// What the ignore file did.
#[derive(Debug, Default)]
struct IgnoreUse {
    /// Its name, if there is one.
    file: Option<String>,
    patterns: Vec<PatternUse>,
}

/// One pattern of the ignore file, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatternUse {
    /// Its line in the file; those that a caller appended are numbered after the last pattern.
    pub line: usize,
    /// The pattern, cleaned.
    pub pattern: String,
    /// How many entries it excluded, counted as in [`Summary::excluded`].
    pub excluded: u64,
}

/// A context in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Regular files, extra files and further names of hard linked files among them.
    pub files: u64,
    /// Directories; the root itself is none of them.
    pub dirs: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Pipes and devices.
    pub special: u64,
    /// The sum of the sizes of the files; a hard linked file counts once.
    pub bytes: u64,
    /// Files that exist in memory only.
    pub extra_files: u64,
    /// Entries that the ignore file excludes. An excluded directory counts as one where nothing in it was looked at.
    pub excluded: u64,
}

impl Context {
    /// Lists what goes into a build. The Dockerfile is not read yet, but it decides which ignore file is used.
    ///
    /// Fails with `ContextRoot`, `IgnoreFile`, `IgnorePattern`, `ContextPath` (an extra file in the wrong place),
    /// `ContextRead` (a directory that is not excluded cannot be read) and `Interrupted`.
    pub fn open(spec: &ContextSpec, dockerfile: &DockerfileSpec, cancel: &Cancel) -> Result<Self> {
        cancel.check()?;
        let extra = extra::entries(&spec.extra_files)?;
        let root = spec.root.as_deref().map(Root::open).transpose()?;
        let ignore_file = files::ignore_file(spec, dockerfile)?;
        let matcher = files::matcher(spec, ignore_file.as_ref())?;
        let omit = files::omitted(spec, ignore_file.as_ref());
        let walked = match &root {
            Some(root) => walk::walk(root, &matcher, &omit, cancel)?,
            None => walk::Walked { excluded_by: vec![0; matcher.len()], ..walk::Walked::default() },
        };
        let mut entries = extra::merge(walked.entries, extra)?;
        entry::find_hard_links(&mut entries);
        let patterns = matcher.patterns().zip(&walked.excluded_by);
        let used = |((pattern, line), excluded): ((Vec<u8>, &ignore::Line), &u64)| PatternUse {
            line: line.number,
            pattern: String::from_utf8_lossy(&pattern).into_owned(),
            excluded: *excluded,
        };
        let patterns = patterns.map(used).collect();
        Ok(Self {
            spec: spec.clone(),
            dockerfile: dockerfile.clone(),
            root,
            summary: Summary { excluded: walked.excluded, ..Summary::of(&entries) },
            entries,
            notices: walked.notices,
            ignore: IgnoreUse { file: ignore_file.map(|file| file.name), patterns },
        })
    }

    /// What is in the context, depth first, siblings by the bytes of their names, each directory before what is in it.
    ///
    /// This is the order that a `BuildKit` session wants. The root itself is not listed.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at a path, if there is one.
    pub fn find(&self, path: &[u8]) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| compare_paths(&entry.path, path)).ok()?;
        self.entries.get(index)
    }

    /// The content of a regular file or of a hard link. Fails with `ContextChanged` and `ContextRead`.
    pub fn reader(&self, entry: &Entry) -> Result<EntryReader> {
        EntryReader::open(self.root.as_ref(), entry)
    }

    /// Where an entry is on this machine, for messages.
    fn full_path(&self, entry: &Entry) -> PathBuf {
        self.root.as_ref().map_or_else(|| entry.as_path().to_owned(), |root| root.join(&entry.path))
    }

    /// The Dockerfile, read now. Excluding it from the context does not matter. Fails with `DockerfileMissing`.
    pub fn dockerfile(&self) -> Result<DockerfileText> {
        let found = files::dockerfile(&self.spec, &self.dockerfile)?;
        let entry = found.relative.as_deref().and_then(|path| self.find(path));
        let entry = entry.filter(|entry| entry.is_extra() == found.extra);
        let path_in_context = entry.and_then(|entry| String::from_utf8(entry.path.clone()).ok());
        Ok(DockerfileText { name: found.name, text: found.content, path_in_context })
    }

    /// The context in numbers.
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What the user should know of this context.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The ignore file that is used, if there is one.
    pub fn ignore_file(&self) -> Option<&str> {
        self.ignore.file.as_deref()
    }

    /// Its patterns, and what each of them did.
    pub fn patterns(&self) -> &[PatternUse] {
        &self.ignore.patterns
    }
}

impl Summary {
    fn of(entries: &[Entry]) -> Self {
        let mut summary = Self::default();
        for entry in entries {
            summary.bytes += entry.size();
            match entry.kind {
                Kind::File { .. } | Kind::Hardlink { .. } => summary.files += 1,
                Kind::Dir => summary.dirs += 1,
                Kind::Symlink { .. } => summary.symlinks += 1,
                Kind::Fifo | Kind::CharDevice { .. } | Kind::BlockDevice { .. } => summary.special += 1,
            }
            if entry.is_extra() && !entry.is_dir() {
                summary.extra_files += 1;
            }
        }
        summary
    }
}
