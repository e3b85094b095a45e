//! What goes into a build.
//!
//! [`Context::open`] reads the ignore file ([`ignore`]), walks the root once, merges the extra files in and keeps the sorted
//! list of entries. Content is read only when it is asked for: entry by entry ([`Context::reader`]) or as an archive
//! ([`Context::pack`]).
//!
//! All of this blocks and knows nothing of tokio: asynchronous callers use `spawn_blocking`.

mod archive;
mod digest;
mod entry;
mod extra;
mod files;
pub mod ignore;
mod index;
mod list;
mod listing;
mod notice;
mod output;
mod reader;
mod report;
mod root;
mod stamp;
mod tar;
mod tree;
mod walk;
mod why;
mod zip;

use std::path::PathBuf;

use serde::Serialize;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::request::{ContextSpec, DockerfileSpec};

pub use archive::{Format, Modes, PackOptions, Packed};
pub use digest::ContextDigest;
pub use entry::{Entry, FIXED_TIME, Kind, Mtime, compare_paths};
pub use files::DockerfileText;
pub use index::Index;
pub use list::Style;
pub use notice::Notice;
pub use reader::EntryReader;
pub use report::{Category, Found, Node, Overview, Removed, Report, Size, SuggestedLine, Suggestion, Warning};
pub use tree::{Entries, EntryId};
pub use why::{Contents, PatternMatch, Reason, Why};

use ignore::Matcher;
use root::Root;
use tree::Tree;

/// The Dockerfile of a build whose context is not opened. Whether it is part of that context is not looked at.
///
/// Fails with `ContextRoot`, `DockerfileMissing`, or `ContextRead` if it cannot be read.
pub fn read_dockerfile(spec: &ContextSpec, dockerfile: &DockerfileSpec) -> Result<DockerfileText> {
    let root = spec.root.as_deref().map(Root::open).transpose()?;
    let found = files::dockerfile(spec, root.as_ref(), dockerfile)?;
    Ok(DockerfileText { name: found.name, text: found.content, path_in_context: None })
}

/// The patterns of the ignore file of a build whose context is not opened; none where there is no ignore file.
///
/// Fails with `ContextRoot`, `IgnoreFile`, `IgnorePattern` or `ContextPath`.
pub fn ignore_patterns(spec: &ContextSpec, dockerfile: &DockerfileSpec) -> Result<ignore::Matcher> {
    let root = spec.root.as_deref().map(Root::open).transpose()?;
    let ignore_file = files::ignore_file(spec, root.as_ref(), dockerfile)?;
    files::matcher(spec, ignore_file.as_ref())
}

/// What goes into one build, as it was when it was opened.
#[derive(Debug)]
pub struct Context {
    spec: ContextSpec,
    dockerfile: DockerfileSpec,
    root: Option<Root>,
    tree: Tree,
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
    matcher: Matcher,
    /// Paths that are left out besides.
    omit: Vec<Vec<u8>>,
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
        let ignore_file = files::ignore_file(spec, root.as_ref(), dockerfile)?;
        let matcher = files::matcher(spec, ignore_file.as_ref())?;
        let omit = files::omitted(spec, ignore_file.as_ref());
        let walked = match &root {
            Some(root) => walk::walk(root, &matcher, &omit, cancel)?,
            None => walk::Walked { excluded_by: vec![0; matcher.len()], ..walk::Walked::default() },
        };
        let mut tree = walked.tree;
        tree.insert(&extra)?;
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
            summary: Summary { excluded: walked.excluded, ..tree.summary() },
            tree,
            notices: walked.notices,
            ignore: IgnoreUse { file: ignore_file.map(|file| file.name), patterns, matcher, omit },
        })
    }

    /// What is in the context, depth first, siblings by the bytes of their names, each directory before what is in it.
    ///
    /// This is the order that a `BuildKit` session wants. The root itself is not listed. An entry is made when it is
    /// asked for: a list of them takes several times the room that the context does.
    pub fn entries(&self) -> Entries<'_> {
        self.tree.entries()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there is nothing in the context.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at a path, if there is one.
    pub fn find(&self, path: &[u8]) -> Option<Entry> {
        self.tree.find(path)
    }

    /// What is in a directory, by the bytes of the names; nothing for what is no directory. The root has the empty path.
    pub fn children(&self, directory: &[u8]) -> Vec<Entry> {
        self.tree.children(directory)
    }

    /// An entry again, by the [`Entry::id`] that it has in this context.
    ///
    /// # Panics
    /// If no entry of this context has that id.
    pub fn entry(&self, id: EntryId) -> Entry {
        self.tree.entry(id)
    }

    /// The content of a regular file or of a hard link. Fails with `ContextChanged` and `ContextRead`.
    pub fn reader(&self, entry: &Entry) -> Result<EntryReader> {
        EntryReader::open(self.root.as_ref(), entry)
    }

    /// Appends the content of a small file if it is what it was when the context was opened; its length.
    pub(crate) fn append_unchanged(&self, entry: &Entry, buffer: &mut Vec<u8>) -> Option<usize> {
        let root = self.root.as_ref().filter(|_| !entry.is_extra())?;
        reader::append_unchanged(root, entry, buffer)
    }

    /// Where an entry is on this machine, for messages.
    pub(crate) fn full_path(&self, entry: &Entry) -> PathBuf {
        self.root.as_ref().map_or_else(|| entry.as_path().to_owned(), |root| root.join(&entry.path))
    }

    /// The Dockerfile, read now. Excluding it from the context does not matter. Fails with `DockerfileMissing`.
    pub fn dockerfile(&self) -> Result<DockerfileText> {
        let found = files::dockerfile(&self.spec, self.root.as_ref(), &self.dockerfile)?;
        let entry = found.relative.as_deref().and_then(|path| self.find(path));
        let entry = entry.filter(|entry| entry.is_extra() == found.extra);
        let path_in_context = entry.and_then(|entry| String::from_utf8(entry.path).ok());
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
