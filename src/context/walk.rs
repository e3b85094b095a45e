//! The walk over a root directory: parallel, pruned by the ignore patterns, in a stable order.
//!
//! Threads take directories from a common stack and list them; the lists are put together afterwards, depth first. What
//! is in the context, and in which order, does not depend on the threads.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, Stat, openat, readlinkat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::entry::compare_paths;
use super::ignore::{MatchInfo, Matcher};
use super::listing::{Listing, Name, Record, Tag};
use super::notice::Notice;
use super::root::{DIRECTORY, Root};
use super::stamp::{Stamp, mtime};
use super::tree::{Linked, Tree};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// More threads than this gain nothing: the kernel's directory locks are the limit.
const MAX_THREADS: usize = 8;
/// How many names are read between two looks at the cancel flag.
const CANCEL_EVERY: usize = 256;

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) tree: Tree,
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
    let found = walk.list(&top, b"", None)?;
    // A flat context is not worth a thread.
    let threads = if found.directories.is_empty() { 1 } else { threads };
    let mut state = walk.lock();
    let id = state.reserve();
    state.finish(id, found, b"", &Arc::new(top));
    drop(state);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| walk.run());
        }
        walk.run();
    });
    let state = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.error {
        Some(error) => Err(error),
        None => Ok(assemble(state.found, matcher.len())),
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
    /// What was found, by directory; `None` until it has been read. A directory comes before those in it.
    found: Vec<Option<Found>>,
    error: Option<Error>,
}

/// A directory to read.
struct Task {
    /// Its place in [`State::found`].
    id: usize,
    /// The directory that it is in, open.
    parent: Arc<OwnedFd>,
    path: Vec<u8>,
    info: MatchInfo,
    excluded: bool,
}

/// What was found in a directory.
#[derive(Default)]
struct Found {
    listing: Listing,
    /// The directories to read.
    directories: Vec<Directory>,
    /// Indexes of directories that a pattern excludes, and the pattern: such a directory is part of the context only if
    /// something in it is.
    withheld: Vec<(usize, usize)>,
    notices: Vec<Notice>,
    excluded_by: Vec<usize>,
    /// The directory has gone since its parent was read.
    gone: bool,
}

/// A directory in a directory.
struct Directory {
    /// Its index in the listing.
    index: usize,
    /// What the entries in it need for matching.
    info: MatchInfo,
    excluded: bool,
}

impl State {
    /// Stores what was found and queues the directories in it.
    fn finish(&mut self, id: usize, mut found: Found, path: &[u8], directory: &Arc<OwnedFd>) {
        for inner in std::mem::take(&mut found.directories).into_iter().rev() {
            let child = self.reserve();
            let listing = &mut found.listing;
            listing.records[inner.index].data = child as u64;
            let path = join(path, listing.name(&listing.records[inner.index]));
            let parent = Arc::clone(directory);
            self.tasks.push(Task { id: child, parent, path, info: inner.info, excluded: inner.excluded });
        }
        self.found[id] = Some(found);
    }

    fn reserve(&mut self) -> usize {
        self.found.push(None);
        self.found.len() - 1
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
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
                    Ok((found, directory)) => state.finish(task.id, found, &task.path, &directory),
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

    fn read(&self, task: &Task) -> Result<(Found, Arc<OwnedFd>)> {
        let directory = match openat(&task.parent, name_of(&task.path), DIRECTORY, Mode::empty()) {
            Ok(directory) => directory,
            // A directory that has become a symbolic link or a file has gone as well.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Ok((Found { gone: true, ..Found::default() }, Arc::clone(&task.parent)));
            }
            // What may not be read and is excluded anyway is no concern of the user's.
            Err(Errno::ACCESS | Errno::PERM) if task.excluded => {
                return Ok((Found::default(), Arc::clone(&task.parent)));
            }
            Err(errno) => return Err(self.failed(&task.path, errno)),
        };
        match self.list(&directory, &task.path, Some(&task.info)) {
            Ok(found) => Ok((found, Arc::new(directory))),
            Err(Error::ContextRead { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok((Found { gone: true, ..Found::default() }, Arc::clone(&task.parent)))
            }
            Err(error) => Err(error),
        }
    }

    fn failed(&self, path: &[u8], errno: Errno) -> Error {
        Error::ContextRead { path: self.root.join(path), source: errno.into() }
    }

    /// Reads one directory.
    fn list(&self, directory: &OwnedFd, path: &[u8], info: Option<&MatchInfo>) -> Result<Found> {
        let mut found = Found::default();
        let mut names: Vec<(Name, FileType)> = Vec::new();
        // The same open directory, not one opened anew: that would need the permission to look into it, and the names of
        // what is excluded can do without.
        let items = fcntl_dupfd_cloexec(directory, 0).and_then(Dir::new).map_err(|errno| self.failed(path, errno))?;
        for (number, item) in items.enumerate() {
            if number % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            let item = item.map_err(|errno| self.failed(path, errno))?;
            let name = item.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((found.listing.add_name(name)?, item.file_type()));
            }
        }
        let compare = |left: &(Name, FileType), right: &(Name, FileType)| {
            found.listing.bytes(left.0).cmp(found.listing.bytes(right.0))
        };
        sort(&mut names, compare, self.cancel)?;
        found.listing.records.reserve_exact(names.len());
        let mut child = join(path, b"");
        let prefix = child.len();
        for (number, (name, kind)) in names.into_iter().enumerate() {
            if number % CANCEL_EVERY == 0 {
                self.cancel.check()?;
            }
            child.truncate(prefix);
            child.extend_from_slice(found.listing.bytes(name));
            self.visit(&mut found, directory, Seen { name, path: &child, kind }, info)?;
        }
        found.listing.shrink();
        Ok(found)
    }

    /// Decides about one name and looks at it if it may be part of the context.
    fn visit(
        &self,
        found: &mut Found,
        directory: &OwnedFd,
        mut seen: Seen<'_>,
        info: Option<&MatchInfo>,
    ) -> Result<()> {
        let decision = self.matcher.matches(seen.path, info)?;
        let look = || match self.stat(directory, seen.path) {
            // As with a directory that may not be read: it is excluded anyway.
            Err(Error::ContextRead { source, .. })
                if decision.by.is_some() && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(None)
            }
            found => found,
        };
        let mut stat = None;
        if seen.kind == FileType::Unknown {
            let Some(known) = look()? else { return Ok(()) };
            seen.kind = FileType::from_raw_mode(known.st_mode);
            stat = Some(known);
        }
        let is_dir = seen.kind == FileType::Directory;
        if let Some(pattern) = decision.by
            && (!is_dir || self.matcher.may_skip(seen.path))
        {
            found.excluded_by.push(pattern);
            return Ok(());
        }
        if !is_dir && self.omit.iter().any(|path| path == seen.path) {
            return Ok(());
        }
        if seen.kind == FileType::Socket {
            found.notices.push(Notice::SocketSkipped { path: String::from_utf8_lossy(seen.path).into_owned() });
            return Ok(());
        }
        let stat = match stat {
            Some(stat) => stat,
            None => match look()? {
                Some(stat) => stat,
                None => return Ok(()),
            },
        };
        let Some((tag, data)) = self.tag(&mut found.listing, directory, seen.path, &stat)? else { return Ok(()) };
        let index = found.listing.records.len();
        if tag == Tag::Dir {
            found.directories.push(Directory { index, info: decision.info, excluded: decision.by.is_some() });
            found.withheld.extend(decision.by.map(|pattern| (index, pattern)));
        }
        let record = Record::new(seen.name, tag, mode(&stat), data, mtime(&stat), Stamp::of(&stat));
        found.listing.records.push(record);
        Ok(())
    }

    /// `None` if it has gone.
    fn stat(&self, directory: &OwnedFd, path: &[u8]) -> Result<Option<Stat>> {
        match statat(directory, name_of(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(path, errno)),
        }
    }

    /// What something is; `None` if it has gone, or has become something else. A directory gets its number later.
    fn tag(&self, listing: &mut Listing, directory: &OwnedFd, path: &[u8], stat: &Stat) -> Result<Option<(Tag, u64)>> {
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let device = || u64::from(rustix::fs::major(stat.st_rdev)) << 32 | u64::from(rustix::fs::minor(stat.st_rdev));
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile if stat.st_nlink > 1 => {
                listing.links.push(linked(stat, size));
                (Tag::Linked, listing.links.len() as u64 - 1)
            }
            FileType::RegularFile => (Tag::File, size),
            FileType::Directory => (Tag::Dir, 0),
            FileType::Symlink => match readlinkat(directory, name_of(path), Vec::new()) {
                Ok(target) => (Tag::Symlink, listing.add_target(target.as_bytes())),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(self.failed(path, errno)),
            },
            FileType::Fifo => (Tag::Fifo, 0),
            FileType::CharacterDevice => (Tag::CharDevice, device()),
            FileType::BlockDevice => (Tag::BlockDevice, device()),
            _ => return Ok(None),
        }))
    }
}

/// A name in a directory.
struct Seen<'a> {
    name: Name,
    /// Its path in the context.
    path: &'a [u8],
    /// What the directory says that it is.
    kind: FileType,
}

fn name_of(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
}

#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the types differ between systems")]
fn linked(stat: &Stat, size: u64) -> Linked {
    Linked::new(stat.st_dev as u64, stat.st_ino, size)
}

#[allow(clippy::useless_conversion, reason = "the types differ between systems")]
fn mode(stat: &Stat) -> u32 {
    u32::from(stat.st_mode) & 0o7777
}

/// Puts together what was found, without the directories that are excluded and have nothing in them that is not.
fn assemble(mut found: Vec<Option<Found>>, patterns: usize) -> Walked {
    let mut walked = Walked { excluded_by: vec![0; patterns], ..Walked::default() };
    // A directory comes before those in it, so from the end on it is known what is in each.
    let mut state = vec![Inside::Something; found.len()];
    let mut listings = vec![Listing::default(); found.len()];
    for (number, found) in found.iter_mut().enumerate().rev() {
        let Found { mut listing, withheld, notices, excluded_by, gone, .. } = found.take().unwrap_or_default();
        walked.notices.extend(notices);
        for pattern in excluded_by {
            walked.exclude(pattern);
        }
        let (mut index, mut withheld) = (0, withheld.into_iter().peekable());
        listing.records.retain(|record| {
            let pattern = withheld.next_if(|(at, _)| *at == index).map(|(_, pattern)| pattern);
            index += 1;
            match (record.listing().map(|inner| state[inner as usize]), pattern) {
                (Some(Inside::Gone), _) => false,
                (Some(Inside::Nothing), Some(pattern)) => {
                    walked.exclude(pattern);
                    false
                }
                _ => true,
            }
        });
        state[number] = match () {
            () if gone => Inside::Gone,
            () if listing.records.is_empty() => Inside::Nothing,
            () => Inside::Something,
        };
        listings[number] = listing;
    }
    // Which directory was read first is chance.
    walked.notices.sort_unstable_by(|left, right| compare_paths(left.path().as_bytes(), right.path().as_bytes()));
    walked.tree = Tree::new(listings);
    walked
}

/// What is in a directory that was read.
#[derive(Clone, Copy)]
enum Inside {
    Something,
    Nothing,
    /// It has gone.
    Gone,
}

/// As many names are sorted between two looks at the cancel flag.
const SORTED_AT_ONCE: usize = 1 << 16;

/// Sorts; a long list in pieces, which are merged, so that a million names can be interrupted.
fn sort<T: Copy>(list: &mut Vec<T>, compare: impl Fn(&T, &T) -> Ordering, cancel: &Cancel) -> Result<()> {
    for piece in list.chunks_mut(SORTED_AT_ONCE) {
        cancel.check()?;
        piece.sort_unstable_by(&compare);
    }
    let mut length = SORTED_AT_ONCE;
    let mut merged = Vec::with_capacity(if length < list.len() { list.len() } else { 0 });
    while length < list.len() {
        merged.clear();
        for pair in list.chunks(2 * length) {
            let (left, right) = pair.split_at(length.min(pair.len()));
            let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
            while let Some(next) = match (left.peek(), right.peek()) {
                (Some(first), Some(second)) if compare(second, first).is_lt() => right.next(),
                (Some(_), _) => left.next(),
                (None, _) => right.next(),
            } {
                merged.push(*next);
                if merged.len() % SORTED_AT_ONCE == 0 {
                    cancel.check()?;
                }
            }
        }
        std::mem::swap(list, &mut merged);
        length *= 2;
    }
    Ok(())
}

impl Walked {
    fn exclude(&mut self, pattern: usize) {
        self.excluded += 1;
        if let Some(count) = self.excluded_by.get_mut(pattern) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_sorted_in_pieces() {
        for length in [0, 1, SORTED_AT_ONCE, SORTED_AT_ONCE + 1, 5 * SORTED_AT_ONCE + 7] {
            // Steps of a number without a common divisor: a permutation.
            let mut list: Vec<usize> = (0..length).map(|index| (index * 7_919 + 13) % length.max(1)).collect();
            let mut expected = list.clone();
            expected.sort_unstable();
            sort(&mut list, Ord::cmp, &Cancel::new()).unwrap();
            assert!(list == expected, "{length}");
        }
        let cancel = Cancel::new();
        cancel.cancel();
        assert_eq!(sort(&mut vec![2, 1], Ord::cmp, &cancel).unwrap_err().code(), "interrupted");
    }
}
