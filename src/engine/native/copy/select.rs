//! What COPY and ADD take, wherever it goes.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use super::files::{FileId, Files, Item, ItemKind, Owner};
use super::glob::{self, Glob};
use super::resolve::resolve;
use super::{CopyMistake, Failure, join, name, relative, shown};
use crate::cancel::Cancel;
use crate::context::ignore::{MatchInfo, Matcher};
use crate::dockerfile::step::{CopySource, CopyStep};
use crate::layer::{Content, LayerEntry, LayerKind};
use crate::mtime::Mtime;
use crate::rootfs::Xattrs;
use crate::spelling;

/// How many entries are passed over between two looks at the cancel flag.
const CANCEL_EVERY: usize = 1024;
/// Mode of a file that stands in the Dockerfile.
const INLINE_MODE: u32 = 0o644;

/// What a source is that is neither a path nor in the Dockerfile: the engine has fetched it.
pub enum Fetched<'a> {
    /// A file of the web. Its path is its name.
    File(Item),
    /// A git repository: everything in it.
    Tree(&'a dyn Files),
}

/// What an instruction takes: for the cache key ([`Selection::digest`](Self::digest)) and for [`place`](super::place).
#[derive(Clone, Debug)]
pub struct Selection {
    pub(super) roots: Vec<Root>,
    /// Whether owners of what is copied matter.
    pub(super) owners: bool,
}

/// One thing that is copied: a source, or one match of its wildcards.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// The name that a file gets in the destination, if that is a directory.
    pub(super) name: Vec<u8>,
    pub(super) item: Item,
    /// Whether a directory's contents are copied, and not the directory itself.
    pub(super) contents: bool,
    /// What is in it, each directory before what is in it.
    pub(super) inside: Vec<Selected>,
    /// Whether it is unpacked if it is an archive.
    pub(super) unpack: bool,
    /// What it has, if it turned out to be an archive.
    pub(super) unpacked: Option<Vec<LayerEntry>>,
}

/// Something in a directory that is copied.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    /// Relative to the directory.
    pub(super) path: Vec<u8>,
    pub(super) item: Item,
    /// A directory that is taken only because something in it is.
    pub(super) passed: bool,
    /// For a further name of a file: where its first one is in the list.
    pub(super) first: Option<usize>,
}

/// Finds what an instruction takes. `origin` is what its paths are looked up in, `fetched` has what its other sources are, by
/// their place in [`CopyStep::sources`].
///
/// Fails with a mistake where something is not there or a pattern is not valid, and with `Interrupted`.
pub fn select(
    step: &CopyStep,
    origin: &dyn Files,
    fetched: &BTreeMap<usize, Fetched<'_>>,
    cancel: &Cancel,
) -> Result<Selection, Failure> {
    let excludes = matcher("--exclude", &step.exclude)?;
    let mut roots = Vec::new();
    for (number, source) in step.sources.iter().enumerate() {
        match (source, fetched.get(&number)) {
            (CopySource::Path { path, pattern, required }, _) => {
                let includes = pattern.as_ref().map(std::slice::from_ref).unwrap_or_default();
                let filter = Filter::new(matcher("--parents", includes)?, excludes.as_ref(), step, pattern.as_deref());
                let search = Search { files: origin, filter: &filter, cancel };
                let found = search.path(path, step.unpack)?;
                if *required && pattern.is_some() && found.iter().all(|root| root.inside.is_empty()) {
                    let path = join(relative(path), pattern.as_deref().unwrap_or_default().as_bytes());
                    return Err(missing(origin, &path).into());
                }
                roots.extend(found);
            }
            (CopySource::Inline { name, content }, _) => roots.push(inline(name, content)),
            (CopySource::Url { unpack, .. }, Some(Fetched::File(item))) => {
                let root = Root::new(name(&item.path).to_vec(), item.clone());
                roots.push(Root { unpack: *unpack, ..root });
            }
            (CopySource::Git(_), Some(Fetched::Tree(files))) => {
                let filter = Filter::new(None, excludes.as_ref(), step, None);
                let search = Search { files: *files, filter: &filter, cancel };
                roots.push(Root { contents: false, ..search.root_at(&[], false)? });
            }
            (CopySource::Url { .. } | CopySource::Git(_), _) => {
                return Err(crate::Error::internal("a source of ADD that was not fetched").into());
            }
        }
    }
    Ok(Selection { roots, owners: step.chown.is_none() })
}

/// What is at one path, all links followed, with everything in it: what a mount of it shows.
///
/// Fails with a mistake if nothing is there, and with `Interrupted`.
pub fn at(files: &dyn Files, path: &[u8], cancel: &Cancel) -> Result<Selection, Failure> {
    let filter = Filter { includes: None, excludes: None, exceptions: false, prefix: Vec::new() };
    let root = Search { files, filter: &filter, cancel }.root_at(path, false)?;
    Ok(Selection { roots: vec![Root { name: Vec::new(), contents: false, ..root }], owners: true })
}

impl Selection {
    /// What [`at`] has found.
    pub fn item(&self) -> Option<&Item> {
        self.roots.first().map(|root| &root.item)
    }

    /// What [`at`] has found, as the entries of a layer: under a name, a single one.
    pub fn entries(&self, name: &str) -> Vec<LayerEntry> {
        let Some(root) = self.roots.first() else { return Vec::new() };
        let path = |inside: &[u8]| join(name.as_bytes(), inside);
        let mut entries = vec![entry(path(b""), &root.item, None)];
        for selected in &root.inside {
            let first = selected.first.map(|first| path(&root.inside[first].path));
            entries.push(entry(path(&selected.path), &selected.item, first));
        }
        entries
    }

    /// The files that are to be unpacked if they are archives, each with a number for [`Self::unpack`].
    pub fn archives(&self) -> impl Iterator<Item = (usize, &Item)> {
        let candidate = |root: &Root| root.unpack && matches!(root.item.kind, ItemKind::File { .. });
        self.roots
            .iter()
            .enumerate()
            .filter(move |(_, root)| candidate(root))
            .map(|(number, root)| (number, &root.item))
    }

    /// Says that a file is an archive, and what is in it: in the archive's order, with paths relative to its root.
    ///
    /// # Panics
    /// If there is no source of that number.
    pub fn unpack(&mut self, number: usize, entries: Vec<LayerEntry>) {
        self.roots[number].unpacked = Some(entries);
    }

    /// Whether nothing is taken: wildcards may match nothing.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// How many files, directories and links are copied.
    pub fn len(&self) -> usize {
        self.roots.iter().map(|root| root.inside.len() + usize::from(!(root.contents && root.item.is_dir()))).sum()
    }
}

impl Root {
    const fn new(name: Vec<u8>, item: Item) -> Self {
        Self { name, item, contents: true, inside: Vec::new(), unpack: false, unpacked: None }
    }
}

/// A file of the Dockerfile.
fn inline(name: &str, content: &str) -> Root {
    let name = name.as_bytes().to_vec();
    let content = Bytes::copy_from_slice(content.as_bytes());
    let kind =
        ItemKind::File { size: content.len() as u64, content: Content::Bytes(content), digest: None, first: None };
    let (mode, mtime) = (INLINE_MODE, Mtime::FIXED);
    let item = Item { path: name.clone(), kind, mode, owner: Owner::default(), mtime, xattrs: Xattrs::new() };
    Root::new(super::name(&name).to_vec(), item)
}

fn matcher(flag: &str, patterns: &[String]) -> Result<Option<Matcher>, CopyMistake> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let matcher = Matcher::from_patterns(flag, patterns.iter().map(String::as_bytes));
    matcher.map(Some).map_err(|_| {
        let bad = |pattern: &&String| Matcher::from_patterns(flag, [pattern.as_bytes()]).is_err();
        bad_pattern(patterns.iter().find(bad).map_or("", String::as_str))
    })
}

fn bad_pattern(pattern: &str) -> CopyMistake {
    CopyMistake::new(format!("the pattern `{pattern}` is not complete, or not valid")).near(pattern)
}

/// What of a directory is copied.
struct Filter<'a> {
    includes: Option<Matcher>,
    excludes: Option<&'a Matcher>,
    /// Whether something in an excluded directory may be taken back.
    exceptions: bool,
    /// Parts of the path that everything which is included begins with.
    prefix: Vec<&'a [u8]>,
}

/// What the patterns say of a path.
#[derive(Default)]
struct Verdict {
    taken: bool,
    excluded: bool,
    marks: Marks,
}

/// What they say of a directory, for what is in it.
#[derive(Clone, Default)]
struct Marks {
    includes: Option<MatchInfo>,
    excludes: Option<MatchInfo>,
}

impl<'a> Filter<'a> {
    fn new(
        includes: Option<Matcher>,
        excludes: Option<&'a Matcher>,
        step: &CopyStep,
        pattern: Option<&'a str>,
    ) -> Self {
        let exceptions = step.exclude.iter().any(|pattern| pattern.trim_start().starts_with('!'));
        Self { includes, excludes, exceptions, prefix: pattern.map(plain_prefix).unwrap_or_default() }
    }

    fn look(&self, path: &[u8], parent: &Marks) -> Result<Verdict, Failure> {
        let mut verdict = Verdict { taken: true, ..Verdict::default() };
        if let Some(includes) = &self.includes {
            let found = includes.matches(path, parent.includes.as_ref()).map_err(refused)?;
            verdict.taken = found.matched;
            verdict.marks.includes = Some(found.info);
        }
        if let Some(excludes) = self.excludes {
            let found = excludes.matches(path, parent.excludes.as_ref()).map_err(refused)?;
            verdict.excluded = found.matched;
            verdict.taken &= !found.matched;
            verdict.marks.excludes = Some(found.info);
        }
        Ok(verdict)
    }

    /// Whether something in a directory may be taken.
    fn may_enter(&self, path: &[u8], verdict: &Verdict) -> bool {
        let mut parts = path.split(|byte| *byte == b'/').zip(&self.prefix);
        (!verdict.excluded || self.exceptions) && parts.all(|(part, prefix)| part == *prefix)
    }
}

/// A pattern that Moby compiles only when it is used.
fn refused(error: crate::Error) -> Failure {
    match error {
        crate::Error::IgnorePattern { location, .. } => {
            bad_pattern(location.source.first().map_or("", String::as_str)).into()
        }
        other => other.into(),
    }
}

/// The first parts of a pattern in which nothing is special.
fn plain_prefix(pattern: &str) -> Vec<&[u8]> {
    let plain = |part: &&str| {
        part.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '@' | '=' | ','))
    };
    pattern.split('/').take_while(plain).map(str::as_bytes).collect()
}

/// Looks through a file system.
struct Search<'a> {
    files: &'a dyn Files,
    filter: &'a Filter<'a>,
    cancel: &'a Cancel,
}

impl Search<'_> {
    /// What a path stands for, with its wildcards.
    fn path(&self, path: &str, unpack: bool) -> Result<Vec<Root>, Failure> {
        let matches = match glob::split(relative(path)) {
            (path, None) => vec![path],
            (base, Some(pattern)) => self.matches(&base, &pattern)?,
        };
        matches.iter().map(|path| self.root_at(path, unpack)).collect()
    }

    /// The paths below a directory that match a pattern. Nothing is looked for in a directory that matches, nor behind links.
    fn matches(&self, base: &[u8], pattern: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let glob = Glob::new(pattern).map_err(|_| bad_pattern(&String::from_utf8_lossy(pattern)))?;
        let base = self.find(base)?.path;
        let cut = if base.is_empty() { 0 } else { base.len() + 1 };
        let mut found = Vec::new();
        let mut open = self.files.children(&base);
        open.reverse();
        while let Some(item) = open.pop() {
            self.cancel.check()?;
            let relative = &item.path[cut..];
            if glob.matches(relative) {
                found.push(item.path);
            } else if item.is_dir() && relative.split(|byte| *byte == b'/').count() <= glob.most_slashes() {
                open.extend(self.files.children(&item.path).into_iter().rev());
            }
        }
        Ok(found)
    }

    /// What is at a path, all links followed.
    fn find(&self, path: &[u8]) -> Result<Item, Failure> {
        let target = |path: &[u8]| match self.files.find(path)?.kind {
            ItemKind::Symlink { target } => Some(target),
            _ => None,
        };
        let resolved = resolve(&[], path, target)
            .map_err(|_| CopyMistake::new(format!("`{}` leads through too many links", shown(path))))?;
        self.files.find(&resolved).ok_or_else(|| missing(self.files, path).into())
    }

    fn root_at(&self, path: &[u8], unpack: bool) -> Result<Root, Failure> {
        let item = self.find(path)?;
        let mut root = Root { unpack, ..Root::new(name(path).to_vec(), item) };
        if root.item.is_dir() {
            let directory = root.item.path.clone();
            self.inside(&directory, &mut root.inside)?;
            find_first_names(&mut root.inside);
        }
        Ok(root)
    }

    /// Everything in a directory that is not filtered out.
    fn inside(&self, directory: &[u8], found: &mut Vec<Selected>) -> Result<(), Failure> {
        let cut = if directory.is_empty() { 0 } else { directory.len() + 1 };
        // Directories that are taken if something in them is.
        let mut pending: Vec<Item> = Vec::new();
        let mut open: Vec<(Item, Marks)> = Vec::new();
        let push = |open: &mut Vec<(Item, Marks)>, directory: &[u8], marks: &Marks| {
            open.extend(self.files.children(directory).into_iter().rev().map(|item| (item, marks.clone())));
        };
        push(&mut open, directory, &Marks::default());
        let mut count = 0;
        while let Some((item, marks)) = open.pop() {
            count += 1;
            if count % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            let path = item.path[cut..].to_vec();
            let verdict = self.filter.look(&path, &marks)?;
            if item.is_dir() && self.filter.may_enter(&path, &verdict) {
                push(&mut open, &item.path, &verdict.marks);
            }
            pending.retain(|above| is_inside(&item.path, &above.path));
            if verdict.taken {
                let passed = |item: Item| Selected { path: item.path[cut..].to_vec(), item, passed: true, first: None };
                found.extend(pending.drain(..).map(passed));
                found.push(Selected { path, item, passed: false, first: None });
            } else if item.is_dir() {
                pending.push(item);
            }
        }
        Ok(())
    }
}

fn is_inside(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Finds out which files are one and the same.
fn find_first_names(inside: &mut [Selected]) {
    let id = |selected: &Selected| match &selected.item.kind {
        ItemKind::File { first: Some(id), .. } => Some(id.clone()),
        ItemKind::File { content: Content::InLayer { layer, path }, .. } => {
            Some(FileId { layer: *layer, path: path.clone() })
        }
        ItemKind::File { .. } => Some(FileId { layer: 0, path: selected.item.path.clone() }),
        _ => None,
    };
    let is_further = |selected: &&Selected| matches!(selected.item.kind, ItemKind::File { first: Some(_), .. });
    let shared: HashSet<FileId> = inside.iter().filter(is_further).filter_map(id).collect();
    if shared.is_empty() {
        return;
    }
    let mut firsts: HashMap<FileId, usize> = HashMap::new();
    for (index, selected) in inside.iter_mut().enumerate() {
        if let Some(id) = id(selected).filter(|id| shared.contains(id)) {
            selected.first = Some(*firsts.entry(id).or_insert(index)).filter(|first| *first != index);
        }
    }
}

/// An item as a layer has it; `first` is the first name of a file that has several.
fn entry(path: Vec<u8>, item: &Item, first: Option<Vec<u8>>) -> LayerEntry {
    let Item { kind, mode, owner, mtime, xattrs, .. } = item.clone();
    let kind = match (kind, first) {
        (ItemKind::File { size, .. }, Some(first)) => LayerKind::Hardlink { first, size },
        (ItemKind::File { size, content, digest, .. }, None) => LayerKind::File { size, content, digest },
        (ItemKind::Dir, _) => LayerKind::Dir,
        (ItemKind::Symlink { target }, _) => LayerKind::Symlink { target },
        (ItemKind::Fifo, _) => LayerKind::Fifo,
        (ItemKind::CharDevice { major, minor }, _) => LayerKind::CharDevice { major, minor },
        (ItemKind::BlockDevice { major, minor }, _) => LayerKind::BlockDevice { major, minor },
    };
    LayerEntry { path, kind, mode, uid: owner.uid, gid: owner.gid, mtime, xattrs }
}

/// Says that something is not there, and what is there that has a similar name.
fn missing(files: &dyn Files, path: &[u8]) -> CopyMistake {
    let text = String::from_utf8_lossy(path).into_owned();
    let mut message = format!("`{}` is not in {}", shown(path), files.name());
    let why = files.why_missing(path);
    if let Some(why) = &why {
        message = format!("{message}: {why}");
    }
    let suggestion = if why.is_some() { None } else { similar(files, path) };
    CopyMistake { message, suggestion, near: Some(text) }
}

/// A path that differs little from one that is not there, in the first part that is not.
fn similar(files: &dyn Files, path: &[u8]) -> Option<String> {
    let mut at = Vec::new();
    let mut parts = path.split(|byte| *byte == b'/');
    for part in parts.by_ref() {
        let next = join(&at, part);
        if files.find(&next).is_some() {
            at = next;
            continue;
        }
        let wanted = String::from_utf8_lossy(part).into_owned();
        let names = files.children(&at).into_iter().map(|item| String::from_utf8_lossy(name(&item.path)).into_owned());
        let most = (wanted.chars().count() / 3).clamp(1, 3);
        let near =
            names.map(|name| (spelling::distance(&wanted, &name), name)).filter(|(distance, _)| *distance <= most);
        at = join(&at, near.min()?.1.as_bytes());
        break;
    }
    let rest: Vec<&[u8]> = parts.collect();
    let found = join(&at, &rest.join(&b'/'));
    files.find(&found).map(|item| String::from_utf8_lossy(&item.path).into_owned())
}
