//! Giving files away, and telling whose they are.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, Gid, OFlags, Uid, chownat, fcntl_getfl, fstat};
use rustix::io::{Errno, Result};

use super::call::{Form, Place};
use super::caller::Caller;
use super::resolve::Found;
use super::sys::{self, Answer};
use super::{World, ids};

impl World {
    /// Notes a file's new owner. The kernel is asked to give the file to the one that it belongs to anyway: it then takes setuid
    /// bits and capabilities away, has overlayfs copy the file, and says if that cannot be.
    pub(super) fn give(
        &mut self,
        caller: &Caller<'_>,
        place: Place,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Answer> {
        let found = Found::new(*caller, place)?;
        let file = found.opened().map_or_else(|| found.open(self.root), Ok)?;
        if place.path.is_none() && !place.empty && fcntl_getfl(&file)?.contains(OFlags::PATH) {
            return Err(Errno::BADF);
        }
        let before = self.notes.get(file.as_fd(), &fstat(&file)?);
        let owner = before.unwrap_or((0, 0));
        if !ids::of(&self.table, caller)?.may_give(owner, uid, gid) {
            return Err(Errno::PERM);
        }
        let (as_it_is, and_its_group) = (uid.map(|_| Uid::ROOT), gid.map(|_| Gid::ROOT));
        chownat(&file, "", as_it_is, and_its_group, AtFlags::EMPTY_PATH)?;
        if uid.is_some() || gid.is_some() {
            let owner = (uid.unwrap_or(owner.0), gid.unwrap_or(owner.1));
            // Overlayfs may have copied it by now.
            self.notes.change(file.as_fd(), &fstat(&file)?, before, owner)?;
        }
        Ok(Answer::Value(0))
    }

    /// Says whose a file is, if that is noted. Else the kernel says it.
    pub(super) fn look(&self, caller: &Caller<'_>, place: Place, into: u64, form: Form) -> Result<Answer> {
        let found = Found::new(*caller, place)?;
        let file = match found.opened() {
            Some(file) if !self.notes.may_have_open(file.as_fd()) => return Ok(Answer::Continue),
            Some(file) => file,
            None if self.surely_silent(&found)? => return Ok(Answer::Continue),
            None => found.open(self.root)?,
        };
        match self.notes.get(file.as_fd(), &fstat(&file)?) {
            Some(owner) => tell(caller, file.as_fd(), owner, into, form),
            None => Ok(Answer::Continue),
        }
    }

    /// Whether nothing is noted for a file, found out without opening it.
    fn surely_silent(&self, found: &Found<'_>) -> Result<bool> {
        Ok(self.alone && found.near()?.is_some_and(|near| !self.notes.may_have(&near, found.follows())))
    }
}

fn tell(caller: &Caller<'_>, file: BorrowedFd<'_>, owner: (u32, u32), into: u64, form: Form) -> Result<Answer> {
    match form {
        Form::Stat => {
            let mut found = sys::stat(file)?;
            (found.st_uid, found.st_gid) = owner;
            caller.write(into, sys::bytes(&found))?;
        }
        Form::Statx(flags, mask) => {
            let mut found = sys::statx(file, flags, mask)?;
            (found.stx_uid, found.stx_gid) = owner;
            caller.write(into, sys::bytes(&found))?;
        }
    }
    Ok(Answer::Value(0))
}
