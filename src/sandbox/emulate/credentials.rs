//! Who a process takes itself for, and how that may change (credentials(7)).

use rustix::io::{Errno, Result};

/// The ids of one kind, users' or groups'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    /// Whose process it is.
    pub(super) real: u32,
    /// As whom it acts.
    pub(super) effective: u32,
    /// To which it may come back.
    pub(super) saved: u32,
    /// As whom it acts on files: who owns what it makes.
    pub(super) file: u32,
}

/// A change of [`Ids`], as the system calls have it: the user's and the group's take the same arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// `setuid`.
    All(u32),
    /// `setreuid`: real and effective, where they are to change.
    Two(Option<u32>, Option<u32>),
    /// `setresuid`: real, effective and saved, where they are to change.
    Three(Option<u32>, Option<u32>, Option<u32>),
}

impl Ids {
    /// The same everywhere.
    pub(super) const fn new(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, file: id }
    }

    /// What they are after a change; `free` says that it may be to any id. The kernel's rules (kernel/sys.c), with its error.
    pub(super) fn changed(self, change: Change, free: bool) -> Result<Self> {
        let Self { real, effective, saved, .. } = self;
        let may = |id: Option<u32>, from: &[u32]| id.is_none_or(|id| free || from.contains(&id));
        let next = match change {
            Change::All(id) if free => Self::new(id),
            Change::All(id) if may(Some(id), &[real, saved]) => Self { effective: id, file: id, ..self },
            Change::Two(to_real, to_effective)
                if may(to_real, &[real, effective]) && may(to_effective, &[real, effective, saved]) =>
            {
                let now = to_effective.unwrap_or(effective);
                let is_other = to_real.is_some() || to_effective.is_some_and(|id| id != real);
                let saved = if is_other { now } else { saved };
                Self { real: to_real.unwrap_or(real), effective: now, saved, file: now }
            }
            Change::Three(to_real, to_effective, to_saved)
                if [to_real, to_effective, to_saved].into_iter().all(|id| may(id, &[real, effective, saved])) =>
            {
                let now = to_effective.unwrap_or(effective);
                Self { real: to_real.unwrap_or(real), effective: now, saved: to_saved.unwrap_or(saved), file: now }
            }
            _ => return Err(Errno::PERM),
        };
        Ok(next)
    }

    /// What they are after `setfsuid`, which says nothing of a failure.
    pub(super) fn with_file(self, id: u32, free: bool) -> Self {
        let Self { real, effective, saved, file } = self;
        let may = free || [real, effective, saved, file].contains(&id);
        if may && id != u32::MAX { Self { file: id, ..self } } else { self }
    }
}

/// Who a process takes itself for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Credentials {
    /// The user.
    pub(super) user: Ids,
    /// The group.
    pub(super) group: Ids,
    /// The other groups.
    pub(super) groups: Vec<u32>,
    /// Whether it keeps root's rights when it becomes another (`PR_SET_KEEPCAPS`).
    pub(super) keeps: bool,
    /// Whether it has kept them.
    pub(super) kept: bool,
}

impl Credentials {
    /// Those of a command.
    pub(super) const fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        Self { user: Ids::new(uid), group: Ids::new(gid), groups, keeps: false, kept: false }
    }

    /// With other ids of the user's.
    pub(super) fn with_user(&self, user: Ids) -> Self {
        let is_another = ![user.real, user.effective, user.saved].contains(&0);
        Self { user, kept: self.is_root() && is_another && (self.keeps || self.kept), ..self.clone() }
    }

    /// After another program was executed.
    pub(super) fn executed(&self) -> Self {
        Self { keeps: false, kept: false, ..self.clone() }
    }

    /// Whether it may do what only root may: what `CAP_SETUID`, `CAP_SETGID` and `CAP_CHOWN` would allow.
    pub(super) const fn is_root(&self) -> bool {
        self.user.effective == 0 || self.kept
    }

    /// Who owns what it makes.
    pub(super) const fn owner(&self) -> (u32, u32) {
        (self.user.file, self.group.file)
    }

    /// Whether it may give a file to somebody, for which `None` means no change (`setattr_prepare`, fs/attr.c).
    pub(super) fn may_give(&self, owner: (u32, u32), uid: Option<u32>, gid: Option<u32>) -> bool {
        let owns = self.user.file == owner.0;
        let keeps = uid.is_none_or(|uid| owns && uid == owner.0);
        let belongs = |gid: u32| gid == owner.1 || gid == self.group.file || self.groups.contains(&gid);
        self.is_root() || (keeps && gid.is_none_or(|gid| owns && belongs(gid)))
    }
}

/// All credentials that processes have or had, by number. The first are those of the command.
#[derive(Debug)]
pub(super) struct Table {
    known: Vec<Credentials>,
    room: usize,
}

impl Table {
    /// So many ids are kept in all: some ten thousand credentials, or a few with very many groups.
    const ROOM: usize = 1 << 20;

    pub(super) fn new(first: Credentials) -> Self {
        Self { known: vec![first], room: Self::ROOM }
    }

    /// The credentials with a number; the command's, if nobody got that number.
    pub(super) fn get(&self, number: usize) -> &Credentials {
        self.known.get(number).unwrap_or(&self.known[0])
    }

    /// Whether anybody can have others than the command.
    pub(super) const fn is_plain(&self) -> bool {
        self.known.len() == 1
    }

    /// The number of credentials. `EAGAIN` if there are too many.
    pub(super) fn number(&mut self, wanted: Credentials) -> Result<usize> {
        // Commands have a handful of them; the last ones are asked for most.
        if let Some(at) = self.known.iter().rposition(|known| *known == wanted) {
            return Ok(at);
        }
        self.room = self.room.checked_sub(16 + wanted.groups.len()).ok_or(Errno::AGAIN)?;
        self.known.push(wanted);
        Ok(self.known.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(real: u32, effective: u32, saved: u32, file: u32) -> Ids {
        Ids { real, effective, saved, file }
    }

    #[test]
    fn root_becomes_somebody_and_stays_so() {
        let app = Ids::new(0).changed(Change::All(1000), true).unwrap();
        assert_eq!(app, Ids::new(1000));
        for change in [Change::All(0), Change::Two(None, Some(0)), Change::Three(None, None, Some(0))] {
            assert_eq!(app.changed(change, false), Err(Errno::PERM), "{change:?}");
        }
        assert_eq!(app.changed(Change::Three(Some(1000), None, Some(1000)), false), Ok(app));
    }

    #[test]
    fn what_is_saved_can_come_back() {
        let away = Ids::new(0).changed(Change::Three(None, Some(33), None), true).unwrap();
        assert_eq!(away, ids(0, 33, 0, 33));
        assert_eq!(away.changed(Change::All(0), false), Ok(ids(0, 0, 0, 0)));
        assert_eq!(away.changed(Change::Two(Some(33), Some(0)), false), Ok(ids(33, 0, 0, 0)));
        assert_eq!(away.changed(Change::Two(None, Some(33)), false), Ok(ids(0, 33, 33, 33)));
        assert_eq!(away.changed(Change::Two(None, None), false), Ok(away));
        assert_eq!(away.changed(Change::Two(None, Some(7)), false), Err(Errno::PERM));
    }

    #[test]
    fn files_can_be_anothers() {
        let ids = Ids::new(0).with_file(5, true);
        assert_eq!((ids.file, ids.effective), (5, 0));
        assert_eq!(Ids::new(4).with_file(5, false), Ids::new(4));
        assert_eq!(ids.with_file(0, false), Ids::new(0));
        assert_eq!(ids.with_file(u32::MAX, true), ids);
    }

    #[test]
    fn owners_give_only_to_their_groups() {
        let app = Credentials::new(7, 8, vec![9]);
        assert!(app.may_give((7, 1), Some(7), Some(9)) && app.may_give((7, 1), None, Some(8)));
        assert!(app.may_give((7, 1), None, Some(1)) && app.may_give((0, 0), None, None));
        assert!(!app.may_give((7, 1), None, Some(3)) && !app.may_give((7, 1), Some(0), None));
        assert!(!app.may_give((0, 0), None, Some(8)) && !app.may_give((0, 0), Some(7), None));
        let root = Credentials { user: Ids::new(0), ..app };
        assert!(root.may_give((7, 1), Some(3), Some(3)));
    }

    #[test]
    fn rights_are_kept_until_something_is_executed() {
        let root = Credentials { keeps: true, ..Credentials::new(0, 0, Vec::new()) };
        let app = root.with_user(Ids::new(7));
        assert!(app.is_root() && app.with_user(Ids::new(8)).is_root() && !app.executed().is_root());
        assert!(!root.executed().with_user(Ids::new(7)).is_root());
        assert!(root.executed().is_root());
    }

    #[test]
    fn credentials_are_numbered_once() {
        let root = Credentials::new(0, 0, Vec::new());
        let app = Credentials { user: Ids::new(7), ..root.clone() };
        let mut table = Table::new(root.clone());
        assert!(table.is_plain());
        assert_eq!(
            (table.number(app.clone()), table.number(root.clone()), table.number(app.clone())),
            (Ok(1), Ok(0), Ok(1))
        );
        assert_eq!((table.get(1), table.get(0), table.get(99)), (&app, &root, &root));
        assert!(!table.is_plain());
        let many = Credentials { groups: vec![3; Table::ROOM], ..root };
        assert_eq!(table.number(many), Err(Errno::AGAIN));
    }
}
