//! Who a process is told that it is.
//!
//! Credentials go from a process to its children, however these are made and whoever of them ends first, and stay when
//! another program is executed. What does all that in the kernel and has no other effect is a resource limit: the one for
//! locks on files has done nothing since Linux 2.4. So a process' soft limit for these is the number of its credentials.

use rustix::io::{Errno, Result};

use super::call::{Call, Kind};
use super::caller::Caller;
use super::credentials::{Change, Credentials, Ids, Table};
use super::sys::{self, Answer};

/// A limit that is a number of credentials, and this: `COOP`. Others are those with which the command was started.
const TAG: u64 = 0x434f_4f50_0000_0000;
/// So many groups a process may be in (`NGROUPS_MAX`).
const MAX_GROUPS: i32 = 65_536;

/// Who a caller takes itself for.
pub(super) fn of<'a>(table: &'a Table, caller: &Caller<'_>) -> Result<&'a Credentials> {
    if table.is_plain() {
        return Ok(table.get(0));
    }
    let limit = sys::limit(caller.thread).map_err(|_| Errno::SRCH)?.rlim_cur;
    let number = limit.checked_sub(TAG).and_then(|number| usize::try_from(number).ok());
    Ok(table.get(number.unwrap_or_default()))
}

/// Makes a caller take itself for somebody.
fn become_(table: &mut Table, caller: &Caller<'_>, wanted: Credentials) -> Result<()> {
    let mut limit = sys::limit(caller.thread)?;
    limit.rlim_cur = TAG + table.number(wanted)? as u64;
    caller.check()?;
    // Fails if somebody has lowered the hard limit.
    sys::set_limit(caller.thread, limit).map_err(|_| Errno::PERM)
}

/// Answers a call about ids.
pub(super) fn answer(table: &mut Table, caller: &Caller<'_>, call: Call) -> Result<Answer> {
    let now = of(table, caller)?;
    let value = match call {
        Call::Get(kind, effective) => {
            let ids = ids(now, kind);
            i64::from(if effective { ids.effective } else { ids.real })
        }
        Call::GetThree(kind, to) => {
            let ids = ids(now, kind);
            for (address, id) in to.into_iter().zip([ids.real, ids.effective, ids.saved]) {
                caller.write(address, &id.to_ne_bytes())?;
            }
            0
        }
        Call::Groups(room, to) => groups(caller, now, room, to)?,
        Call::SetGroups(count, from) => {
            let wanted = Credentials { groups: read_groups(caller, now, count, from)?, ..now.clone() };
            become_(table, caller, wanted)?;
            0
        }
        Call::Set(kind, change) => {
            if change == Change::All(u32::MAX) {
                return Err(Errno::INVAL);
            }
            let next = ids(now, kind).changed(change, now.is_root())?;
            let wanted = with(now, kind, next);
            become_(table, caller, wanted)?;
            0
        }
        Call::SetFile(kind, id) => {
            let before = ids(now, kind);
            let wanted = with(now, kind, before.with_file(id, now.is_root()));
            if wanted != *now {
                become_(table, caller, wanted)?;
            }
            i64::from(before.file)
        }
        Call::Limit(_, to) => {
            // Programs that set all limits anew, as PAM does, are not to touch it. It has no effect, whatever it is said to be.
            if to != 0 {
                let most = sys::limit(caller.thread)?.rlim_max.to_ne_bytes();
                caller.write(to, &[most, most].concat())?;
            }
            0
        }
        Call::Keep(keeps) => {
            let wanted = Credentials { keeps, ..now.clone() };
            become_(table, caller, wanted)?;
            return Ok(Answer::Continue);
        }
        Call::Execute => {
            let wanted = now.executed();
            if wanted != *now {
                become_(table, caller, wanted)?;
            }
            return Ok(Answer::Continue);
        }
        _ => return Ok(Answer::Continue),
    };
    Ok(Answer::Value(value))
}

const fn ids(of: &Credentials, kind: Kind) -> Ids {
    match kind {
        Kind::User => of.user,
        Kind::Group => of.group,
    }
}

fn with(of: &Credentials, kind: Kind, ids: Ids) -> Credentials {
    match kind {
        Kind::User => of.with_user(ids),
        Kind::Group => Credentials { group: ids, ..of.clone() },
    }
}

fn groups(caller: &Caller<'_>, now: &Credentials, room: i32, to: u64) -> Result<i64> {
    let count = i32::try_from(now.groups.len()).map_err(|_| Errno::INVAL)?;
    if room < 0 || (room > 0 && room < count) {
        return Err(Errno::INVAL);
    }
    if room > 0 && count > 0 {
        let bytes: Vec<u8> = now.groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        caller.write(to, &bytes)?;
    }
    Ok(count.into())
}

fn read_groups(caller: &Caller<'_>, now: &Credentials, count: i32, from: u64) -> Result<Vec<u32>> {
    if !now.is_root() {
        return Err(Errno::PERM);
    }
    if !(0..=MAX_GROUPS).contains(&count) {
        return Err(Errno::INVAL);
    }
    let bytes = caller.read(from, 4 * usize::try_from(count).unwrap_or_default())?;
    let mut groups: Vec<u32> =
        bytes.chunks_exact(4).map(|group| u32::from_ne_bytes([group[0], group[1], group[2], group[3]])).collect();
    groups.sort_unstable();
    Ok(groups)
}
