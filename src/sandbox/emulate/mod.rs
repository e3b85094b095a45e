//! Owners and users where there is one id: what a command does with others is emulated.
//!
//! In a user namespace with one id, `chown` to another fails, and so does `setuid`. A command's calls that have to do with owners
//! are therefore announced to us (seccomp's user notification), and we do what the kernel would do if it could:
//!
//! - `chown` and its like note who is to own a file ([`crate::rootfs::OWNER`], and [`InodeOwner`] for links and special files);
//!   what else the kernel does then, such as taking setuid bits and capabilities away, it does.
//! - `setuid`, `getuid` and their like answer as if a process had become another. It keeps the rights of root.
//! - What such a process makes is noted as its own.
//! - `stat` and its like say what is noted.
//!
//! **This keeps nobody from anything.** All that is done here the command could do itself, with its own rights: it may write the
//! notes, too. What is read from its memory may change at any time, and only harms it.
//!
//! What is not emulated: permissions (a process that became another still may do anything, also send signals to all), `access`,
//! `/proc/PID/status`, `getrlimit` for locks on files, credentials that sockets give, `exec` making the effective id the saved
//! one, groups that directories with the setgid bit give to what root makes in them, files that are made through links that lead
//! nowhere, sockets, and programs of other architectures. Links of lower layers look like root's. A command with another user
//! than root has a user namespace of its own, where nothing is emulated.

mod call;
mod caller;
mod create;
mod credentials;
mod files;
mod filter;
mod ids;
mod notes;
mod resolve;
mod sys;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use self::call::Call;
use self::caller::{Caller, Proc};
use self::credentials::{Credentials, Table};
use self::notes::Notes;
use self::resolve::Identity;
use self::sys::{Answer, Notification};
use super::InodeOwner;

pub(super) use self::filter::install;

/// What answers the calls of a command.
#[derive(Debug)]
pub(super) struct Emulator {
    listener: OwnedFd,
    proc: Proc,
    world: World,
}

/// What is remembered from call to call.
#[derive(Debug)]
struct World {
    /// Our root directory.
    root: Identity,
    /// Whether nobody can have another root or other mounts.
    alone: bool,
    table: Table,
    notes: Notes,
}

impl Emulator {
    /// For a process that sees what the command sees: its files, its processes, its `/proc`. It has all capabilities in the user
    /// namespace, and no other threads.
    ///
    /// `listener` comes from [`install`]. `upper` is the upper directory of the root, if that is an overlay. The command is root,
    /// with this group and these further ones.
    pub(super) fn new(listener: OwnedFd, upper: Option<OwnedFd>, gid: u32, groups: Vec<u32>) -> io::Result<Self> {
        sys::wake_up_here(listener.as_fd());
        let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let table = Table::new(Credentials::new(0, gid, groups));
        let notes = Notes::new(root.as_fd(), upper, (0, gid))?;
        Ok(Self { listener, proc: Proc::new(), world: World { root: Identity::of(&root)?, alone: true, table, notes } })
    }

    /// What can be read when a call waits for an answer.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Answers one call. Waits if there is none.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let listener = self.listener.as_fd();
        let Some(note) = sys::receive(listener)? else { return Ok(()) };
        let caller = Caller::new(listener, note.id, note.thread, &self.proc);
        let answer = match self.world.answer(&caller, &note) {
            Ok(answer) => answer,
            // The caller is gone, or cannot be looked at.
            Err(Errno::SRCH) => Answer::Continue,
            Err(error) => Answer::Error(error),
        };
        Ok(sys::send(listener, note.id, &answer)?)
    }

    /// Owners of files that can have no note.
    pub(super) fn into_owners(self) -> Vec<InodeOwner> {
        self.world.notes.into_owners()
    }
}

impl World {
    fn answer(&mut self, caller: &Caller<'_>, note: &Notification) -> Result<Answer> {
        match Call::of(note) {
            Call::Give(place, uid, gid) => self.give(caller, place, uid, gid),
            Call::Look(place, into, form) => self.look(caller, place, into, form),
            Call::Make(place, made) => self.make(caller, place, made),
            Call::Move => {
                self.alone = false;
                Ok(Answer::Continue)
            }
            Call::Other => Ok(Answer::Continue),
            ids => ids::answer(&mut self.table, caller, ids),
        }
    }
}
