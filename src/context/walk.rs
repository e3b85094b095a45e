//! The walk over a root directory: parallel, pruned by the ignore patterns, in a stable order.
//!
//! Threads take directories from a common stack and list them; the lists are put together afterwards, depth first. What
//! is in the context, and in which order, does not depend on the threads.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::entry::{Entry, Kind, Links, Mtime, Source};
use super::ignore::{MatchInfo, Matcher};
use super::notice::Notice;
use super::root::{DIRECTORY, Root};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// More threads than this gain nothing: the kernel's directory locks are the limit.
const MAX_THREADS: usize = 8;
/// How many names are read between two looks at the cancel flag.
const CANCEL_EVERY: usize = 256;

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// In the order of a walk.
    pub(super) entries: Vec<Entry>,
    pub(super) notices: Vec<Notice>,
    /// How many entries were seen and left out; what is in a directory that was not read does not count.
    pub(super) excluded: u64,
    /// The same by pattern.
    pub(super) excluded_by: Vec<u64>,
}

/// Lists what is below the root and not excluded. `omit` holds paths to leave out besides.
pub(super) fn walk(root: &Root, matcher: &Matcher, omit: &[Vec<u8>], cancel: &Cancel) -> Result<Walked> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let walk = Walk { root, matcher, omit, cancel, state: Mutex::default(), changed: Condvar::new() };
    let top = openat(&root.fd, c".", DIRECTORY, Mode::empty())
        .map_err(|errno| Error::ContextRoot { path: root.path.clone(), source: errno.into() })?;
    let listing = walk.list(&top, b"", None)?;
    // A flat context is not worth a thread.
    let threads = if listing.directories.is_empty() { 1 } else { threads };
    walk.lock().finish(None, listing, &Arc::new(top));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| walk.run());
        }
        walk.run();
    });
    let state = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.error {
        Some(error) => Err(error),
        None => Ok(assemble(state.listings, matcher.len())),
    }
}

struct Walk<'a> {
    root: &'a Root,
    matcher: &'a Matcher,
    omit: &'a [Vec<u8>],
    cancel: &'a Cancel,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Directories to read; the last first, which keeps few of them open at a time.
    tasks: Vec<Task>,
    /// How many are being read.
    running: usize,
    /// What was found, by directory; `None` until it has been read.
    listings: Vec<Option<Listing>>,
    error: Option<Error>,
}

/// A directory to read.
struct Task {
    /// Its place in [`State::listings`].
    id: usize,
    /// The directory that it is in, open.
    parent: Arc<OwnedFd>,
    path: Vec<u8>,
    info: MatchInfo,
    excluded: bool,
}

/// What is in a directory.
#[derive(Default)]
struct Listing {
    nodes: Vec<Node>,
    /// For the nodes that are directories to read: the index of the node, and what its entries need for matching.
    directories: Vec<(usize, MatchInfo)>,
    notices: Vec<Notice>,
    excluded_by: Vec<usize>,
    /// The directory has gone since its parent was read.
    gone: bool,
}

struct Node {
    entry: Entry,
    /// The pattern that excludes it: it is part of the context only if something in it is.
    excluded_by: Option<usize>,
    /// The listing, if it is a directory that is read.
    listing: Option<usize>,
}

impl State {
    /// Stores what was found and queues the directories in it.
    fn finish(&mut self, id: Option<usize>, mut listing: Listing, directory: &Arc<OwnedFd>) {
        let id = id.unwrap_or_else(|| self.reserve());
        for (index, info) in std::mem::take(&mut listing.directories).into_iter().rev() {
            let child = self.reserve();
            let node = &mut listing.nodes[index];
            node.listing = Some(child);
            let (path, excluded) = (node.entry.path.clone(), node.excluded_by.is_some());
            self.tasks.push(Task { id: child, parent: Arc::clone(directory), path, info, excluded });
        }
        self.listings[id] = Some(listing);
    }

    fn reserve(&mut self) -> usize {
        self.listings.push(None);
        self.listings.len() - 1
    }
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads directories until there are none left.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop() {
                state.running += 1;
                drop(state);
                let found = self.read(&task);
                state = self.lock();
                state.running -= 1;
                match found {
                    Ok((listing, directory)) => state.finish(Some(task.id), listing, &directory),
                    Err(error) => {
                        state.tasks.clear();
                        state.error.get_or_insert(error);
                    }
                }
                self.changed.notify_all();
            } else if state.running == 0 || state.error.is_some() {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn read(&self, task: &Task) -> Result<(Listing, Arc<OwnedFd>)> {
        let name = task.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let opened = openat(&task.parent, OsStr::from_bytes(name), DIRECTORY, Mode::empty());
        let found = opened.map_err(|errno| self.failed(&task.path, errno)).and_then(|directory| {
            let listing = self.list(&directory, &task.path, Some(&task.info))?;
            Ok((listing, Arc::new(directory)))
        });
        match found {
            Err(Error::ContextRead { source, .. }) if is_gone(&source) => {
                Ok((Listing { gone: true, ..Listing::default() }, Arc::clone(&task.parent)))
            }
            // What may not be read and is excluded anyway is no concern of the user's.
            Err(Error::ContextRead { source, .. })
                if task.excluded && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok((Listing::default(), Arc::clone(&task.parent)))
            }
            found => found,
        }
    }

    fn failed(&self, path: &[u8], errno: Errno) -> Error {
        Error::ContextRead { path: self.root.join(path), source: errno.into() }
    }

    /// Reads one directory.
    fn list(&self, directory: &OwnedFd, path: &[u8], info: Option<&MatchInfo>) -> Result<Listing> {
        let mut names: Vec<(Vec<u8>, FileType)> = Vec::new();
        for (number, item) in Dir::read_from(directory).map_err(|errno| self.failed(path, errno))?.enumerate() {
            if number % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            let item = item.map_err(|errno| self.failed(path, errno))?;
            let name = item.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((name.to_vec(), item.file_type()));
            }
        }
        names.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        let mut listing = Listing { nodes: Vec::with_capacity(names.len()), ..Listing::default() };
        for (number, (name, kind)) in names.into_iter().enumerate() {
            if number % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            let mut child = Vec::with_capacity(path.len() + 1 + name.len());
            if !path.is_empty() {
                child.extend_from_slice(path);
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            self.visit(&mut listing, directory, &name, child, kind, info)?;
        }
        Ok(listing)
    }

    /// Decides about one name and looks at it if it may be part of the context.
    fn visit(
        &self,
        listing: &mut Listing,
        directory: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        mut kind: FileType,
        info: Option<&MatchInfo>,
    ) -> Result<()> {
        let found = self.matcher.matches(&path, info)?;
        let mut stat = None;
        if kind == FileType::Unknown {
            let Some(known) = self.stat(directory, name, &path)? else { return Ok(()) };
            kind = FileType::from_raw_mode(known.st_mode);
            stat = Some(known);
        }
        let is_dir = kind == FileType::Directory;
        if let Some(pattern) = found.by
            && (!is_dir || self.matcher.may_skip(&path))
        {
            listing.excluded_by.push(pattern);
            return Ok(());
        }
        if !is_dir && self.omit.contains(&path) {
            return Ok(());
        }
        if kind == FileType::Socket {
            listing.notices.push(Notice::SocketSkipped { path: String::from_utf8_lossy(&path).into_owned() });
            return Ok(());
        }
        let stat = match stat {
            Some(stat) => stat,
            None => match self.stat(directory, name, &path)? {
                Some(stat) => stat,
                None => return Ok(()),
            },
        };
        let Some(entry) = self.entry(directory, name, path, &stat)? else { return Ok(()) };
        if entry.is_dir() {
            listing.directories.push((listing.nodes.len(), found.info));
        }
        listing.nodes.push(Node { entry, excluded_by: found.by, listing: None });
        Ok(())
    }

    /// `None` if it has gone.
    fn stat(&self, directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Option<Stat>> {
        match statat(directory, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// `None` if it has gone, or has become something else.
    fn entry(&self, directory: &OwnedFd, name: &[u8], path: Vec<u8>, stat: &Stat) -> Result<Option<Entry>> {
        let mut links = None;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                links = hard_links(stat, size);
                Kind::File { size }
            }
            FileType::Directory => Kind::Dir,
            FileType::Symlink => match readlinkat(directory, OsStr::from_bytes(name), Vec::new()) {
                Ok(target) => Kind::Symlink { target: target.into_bytes() },
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(self.failed(&path, errno)),
            },
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => {
                Kind::CharDevice { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
            }
            FileType::BlockDevice => {
                Kind::BlockDevice { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) }
            }
            _ => return Ok(None),
        };
        Ok(Some(Entry { path, kind, mode: mode(stat), mtime: mtime(stat), source: Source::Disk { links } }))
    }
}

#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the types differ between systems")]
fn hard_links(stat: &Stat, size: u64) -> Option<Links> {
    (stat.st_nlink > 1).then_some(Links { device: stat.st_dev as u64, inode: stat.st_ino, size })
}

#[allow(clippy::useless_conversion, reason = "the types differ between systems")]
fn mode(stat: &Stat) -> u32 {
    u32::from(stat.st_mode) & 0o7777
}

#[allow(
    clippy::unnecessary_fallible_conversions,
    clippy::useless_conversion,
    reason = "the types differ between systems"
)]
fn mtime(stat: &Stat) -> Mtime {
    Mtime { seconds: stat.st_mtime.into(), nanoseconds: stat.st_mtime_nsec.try_into().unwrap_or_default() }
}

fn is_gone(error: &io::Error) -> bool {
    // A directory that has become a symbolic link or a file has gone as well.
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// A directory whose entries are being put in order.
struct Frame {
    nodes: std::vec::IntoIter<Node>,
    /// The directory itself, while it is excluded and nothing in it is part of the context.
    withheld: Option<(Entry, usize)>,
}

/// Puts the listings together, depth first. An excluded directory comes in with the first thing in it that is not.
fn assemble(mut listings: Vec<Option<Listing>>, patterns: usize) -> Walked {
    let mut walked = Walked { excluded_by: vec![0; patterns], ..Walked::default() };
    let mut take = |id: usize, walked: &mut Walked| -> Listing {
        let mut listing = listings.get_mut(id).and_then(Option::take).unwrap_or_default();
        walked.notices.append(&mut listing.notices);
        for pattern in &listing.excluded_by {
            walked.exclude(*pattern);
        }
        listing
    };
    let top = take(0, &mut walked);
    let mut frames = vec![Frame { nodes: top.nodes.into_iter(), withheld: None }];
    while let Some(frame) = frames.last_mut() {
        let Some(node) = frame.nodes.next() else {
            if let Some((_, pattern)) = frame.withheld.take() {
                walked.exclude(pattern);
            }
            frames.pop();
            continue;
        };
        let inner = node.listing.map(|id| take(id, &mut walked));
        if inner.as_ref().is_some_and(|listing| listing.gone) {
            continue;
        }
        let mut withheld = None;
        if let Some(pattern) = node.excluded_by {
            withheld = Some((node.entry, pattern));
        } else {
            let parents = frames.iter_mut().filter_map(|frame| frame.withheld.take());
            walked.entries.extend(parents.map(|(entry, _)| entry));
            walked.entries.push(node.entry);
        }
        if let Some(listing) = inner {
            frames.push(Frame { nodes: listing.nodes.into_iter(), withheld });
        }
    }
    walked
}

impl Walked {
    fn exclude(&mut self, pattern: usize) {
        self.excluded += 1;
        if let Some(count) = self.excluded_by.get_mut(pattern) {
            *count += 1;
        }
    }
}
