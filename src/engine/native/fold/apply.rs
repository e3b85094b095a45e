//! What a command makes of a layer.

use std::collections::BTreeMap;

use super::command::{Change, Command};
use super::mode::Mode;
use crate::dockerfile::step::RunStep;
use crate::engine::native::copy::{Account, Files, Item, ItemKind, resolve};
use crate::error::Result;
use crate::layer::{LayerEntry, LayerKind};

/// Where commands are looked for if PATH says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories in which a running container has files or file systems that are not the image's.
const BUSY: [&[u8]; 5] = [b"etc", b"dev", b"proc", b"sys", b"run"];
/// Bits that `chown` clears, unless it is a directory.
const SET_IDS: u32 = 0o6000;
const SPECIAL: u32 = 0o7000;

/// Why a command has to be run.
type Outcome<T> = std::result::Result<T, String>;

/// A layer that is not written yet, and what is below it.
pub(super) struct Layer<'a> {
    entries: BTreeMap<Vec<u8>, LayerEntry>,
    base: &'a dyn Files,
}

/// A command whose names are numbers.
enum Numbers<'a> {
    Mode(&'a Mode),
    Owner { uid: Option<u32>, gid: Option<u32>, links: bool },
}

impl<'a> Layer<'a> {
    pub(super) fn new(entries: &[LayerEntry], base: &'a dyn Files) -> Self {
        let entries = entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect();
        Self { entries, base }
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = LayerEntry> {
        self.entries.into_values()
    }

    /// Whether the base has a program at a path, which the layer does not touch.
    pub(super) fn has_program(&self, path: &str) -> bool {
        self.program(path).is_some()
    }

    /// The path of a program of the base, all links followed.
    fn program(&self, path: &str) -> Option<Vec<u8>> {
        let path = self.resolve(path)?;
        let item = self.base.find(&path).filter(|_| !self.entries.contains_key(&path))?;
        (matches!(item.kind, ItemKind::File { .. }) && item.mode & 0o111 != 0).then_some(path)
    }

    /// A path with all links followed, of the layer and of the base.
    fn resolve(&self, path: &str) -> Option<Vec<u8>> {
        let target = |path: &[u8]| match self.entries.get(path) {
            Some(LayerEntry { kind: LayerKind::Symlink { target }, .. }) => Some(target.clone()),
            Some(_) => None,
            None => match self.base.find(path)?.kind {
                ItemKind::Symlink { target } => Some(target),
                _ => None,
            },
        };
        resolve(&[], path.as_bytes(), target).ok()
    }

    /// Does what a command does. The layer is of no use any more where the command has to be run.
    pub(super) fn run(&mut self, command: &Command, run: &RunStep, accounts: &dyn Account) -> Result<Outcome<()>> {
        let program = match self.find_program(command.change.program(), run) {
            Ok(program) => program,
            Err(reason) => return Ok(Err(reason)),
        };
        let directory = match self.directory(command, run) {
            Ok(directory) => directory,
            Err(reason) => return Ok(Err(reason)),
        };
        let numbers = match self.numbers(&command.change, &program, accounts)? {
            Ok(numbers) => numbers,
            Err(reason) => return Ok(Err(reason)),
        };
        Ok(self.change_all(&directory, &numbers))
    }

    /// The program that the shell finds.
    fn find_program(&self, name: &str, run: &RunStep) -> Outcome<Vec<u8>> {
        for directory in run.env.get("PATH").filter(|path| !path.is_empty()).unwrap_or(PATH).split(':') {
            if !directory.starts_with('/') {
                return Err(format!("PATH has `{directory}`, which is no absolute path"));
            }
            let path = format!("{directory}/{name}");
            if let Some(found) = self.program(&path) {
                return Ok(found);
            }
            let resolved = self.resolve(&path).unwrap_or_default();
            if self.entries.contains_key(&resolved) || self.base.find(&resolved).is_some() {
                return Err(format!("`{path}` is not a program of the base"));
            }
        }
        Err(format!("the base has no `{name}`"))
    }

    /// The directory that a command changes.
    fn directory(&self, command: &Command, run: &RunStep) -> Outcome<Vec<u8>> {
        let here = command.directory == ".";
        let written = if here { &run.working_dir } else { &command.directory };
        let resolved = self.resolve(written).ok_or_else(|| format!("`{written}` leads through too many links"))?;
        let parts: Vec<&[u8]> =
            written.as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        if !here && parts.join(&b'/') != resolved {
            return Err(format!("`{written}` leads through a link"));
        }
        let first = resolved.split(|byte| *byte == b'/').next().unwrap_or_default();
        if resolved.is_empty() || BUSY.contains(&first) {
            return Err(format!("a container has files of its own in `{written}`"));
        }
        let is_dir = match self.entries.get(&resolved) {
            Some(entry) => matches!(entry.kind, LayerKind::Dir),
            None => self.base.find(&resolved).is_some_and(|item| item.is_dir()),
        };
        if is_dir { Ok(resolved) } else { Err(format!("there is no directory `{written}`")) }
    }

    fn numbers<'b>(&self, change: &'b Change, program: &[u8], accounts: &dyn Account) -> Result<Outcome<Numbers<'b>>> {
        let (user, group) = match change {
            Change::Mode(mode) => return Ok(Ok(Numbers::Mode(mode))),
            Change::Owner { user, group } => (user, group),
        };
        for file in ["/etc/passwd", "/etc/group"] {
            if self.resolve(file).is_none_or(|path| self.entries.contains_key(&path)) {
                return Ok(Err(format!("the layer has `{file}`")));
            }
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| i32::try_from(*number).is_ok());
        let mut unknown = None;
        let mut uid = None;
        if let Some(user) = user {
            uid = match number(user) {
                Some(number) => Some(number),
                None => accounts.user(user)?.map(|owner| owner.uid),
            };
            unknown = uid.is_none().then_some(user);
        }
        let mut gid = None;
        if let Some(group) = group {
            gid = match number(group) {
                Some(number) => Some(number),
                None => accounts.group(group)?,
            };
            unknown = unknown.or(gid.is_none().then_some(group));
        }
        if let Some(name) = unknown {
            return Ok(Err(format!("the base knows no `{name}`")));
        }
        // GNU's changes links themselves; not every build of BusyBox does.
        let links = program.rsplit(|byte| *byte == b'/').next() != Some(b"busybox");
        Ok(Ok(Numbers::Owner { uid, gid, links }))
    }

    /// Changes a directory and everything in it.
    fn change_all(&mut self, directory: &[u8], numbers: &Numbers<'_>) -> Outcome<()> {
        let mut added = Vec::new();
        if !self.entries.contains_key(directory)
            && let Some(item) = self.base.find(directory)
        {
            added.extend(changed(&item, numbers)?);
        }
        let mut open = vec![directory.to_vec()];
        while let Some(inside) = open.pop() {
            for item in self.base.children(&inside) {
                let covered = self.entries.get(&item.path);
                let stays = covered.is_none_or(|entry| matches!(entry.kind, LayerKind::Dir));
                if covered.is_none() {
                    added.extend(changed(&item, numbers)?);
                }
                if item.is_dir() && stays {
                    open.push(item.path);
                }
            }
        }
        let below = [directory, b"/"].concat();
        for entry in self.entries.values_mut() {
            if entry.path == directory || entry.path.starts_with(&below) {
                numbers.change(entry)?;
            }
        }
        self.entries.extend(added.into_iter().map(|entry| (entry.path.clone(), entry)));
        Ok(())
    }
}

impl Numbers<'_> {
    fn change(&self, entry: &mut LayerEntry) -> Outcome<()> {
        let is_dir = matches!(entry.kind, LayerKind::Dir);
        let is_link = matches!(entry.kind, LayerKind::Symlink { .. });
        let shown = || format!("/{}", String::from_utf8_lossy(&entry.path));
        match self {
            Self::Mode(_) if is_link => {}
            Self::Mode(mode) => {
                if entry.mode & SPECIAL != 0 && !mode.keeps_special_bits() {
                    return Err(format!("what becomes of the special bits of `{}` depends on the program", shown()));
                }
                let certain = mode.apply(entry.mode, is_dir);
                entry.mode = certain.ok_or_else(|| format!("the mode of `{}` would not be certain", shown()))?;
            }
            Self::Owner { links: false, .. } if is_link => {
                return Err(format!("what becomes of the link `{}` depends on the program", shown()));
            }
            Self::Owner { uid, gid, .. } => {
                if !is_dir && (entry.mode & SET_IDS != 0 || !entry.xattrs.is_empty()) {
                    return Err(format!("the kernel would clear bits or capabilities of `{}`", shown()));
                }
                entry.uid = uid.unwrap_or(entry.uid);
                entry.gid = gid.unwrap_or(entry.gid);
            }
        }
        Ok(())
    }
}

/// What becomes of something of the base, if it does not stay as it is.
fn changed(item: &Item, numbers: &Numbers<'_>) -> Outcome<Option<LayerEntry>> {
    let kind = match &item.kind {
        // The content does not matter: where it would, the command is run.
        ItemKind::File { size, content, digest, .. } => {
            LayerKind::File { size: *size, content: content.clone(), digest: *digest }
        }
        ItemKind::Dir => LayerKind::Dir,
        ItemKind::Symlink { target } => LayerKind::Symlink { target: target.clone() },
        ItemKind::Fifo => LayerKind::Fifo,
        ItemKind::CharDevice { major, minor } => LayerKind::CharDevice { major: *major, minor: *minor },
        ItemKind::BlockDevice { major, minor } => LayerKind::BlockDevice { major: *major, minor: *minor },
    };
    let (path, xattrs) = (item.path.clone(), item.xattrs.clone());
    let (uid, gid) = (item.owner.uid, item.owner.gid);
    let before = LayerEntry { path, kind, mode: item.mode, uid, gid, mtime: item.mtime, xattrs };
    let mut after = before.clone();
    numbers.change(&mut after)?;
    if (after.mode, after.uid, after.gid) == (before.mode, before.uid, before.gid) {
        return Ok(None);
    }
    if matches!(after.kind, LayerKind::File { .. }) {
        let path = String::from_utf8_lossy(&after.path);
        return Err(format!("`/{path}` is in the base, and would have to be stored again"));
    }
    Ok(Some(after))
}
