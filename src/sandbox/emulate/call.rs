//! System calls as what they ask for.

use libc::c_long;

use super::credentials::Change;
use super::sys::Notification;

/// Where a system call says that a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A descriptor of the caller, or `AT_FDCWD`.
    pub(super) base: i32,
    /// Where the path is in the caller's memory; none, if it is the base that is meant.
    pub(super) path: Option<u64>,
    /// Whether a link at its end is followed.
    pub(super) follow: bool,
    /// Whether an empty path means the base.
    pub(super) empty: bool,
}

impl Place {
    const fn path(path: u64, follow: bool) -> Self {
        Self { base: libc::AT_FDCWD, path: Some(path), follow, empty: false }
    }

    const fn at(base: u64, path: u64, flags: i32) -> Self {
        let empty = flags & libc::AT_EMPTY_PATH != 0;
        // Newer kernels need no empty path, then.
        let path = if empty && path == 0 { None } else { Some(path) };
        Self { base: int(base), path, follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0, empty }
    }

    const fn file(base: u64) -> Self {
        Self { base: int(base), path: None, follow: true, empty: false }
    }
}

/// What `stat` or `statx` is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `struct stat`.
    Stat,
    /// `struct statx`, with these flags and this mask.
    Statx(i32, u32),
}

/// Whose ids a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Users.
    User,
    /// Groups.
    Group,
}

/// Something that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// A file, opened with these flags. Of what `openat2` is given only the address is known, and its size.
    File { flags: u64, mode: u32 },
    /// See above.
    FileHow { how: u64, size: u64 },
    /// A directory.
    Directory { mode: u32 },
    /// A link to what is at an address.
    Symlink { target: u64 },
    /// A special file.
    Node { mode: u32, device: u64 },
}

/// What a process wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// To give a file away; `None` keeps what is.
    Give(Place, Option<u32>, Option<u32>),
    /// To know about a file; the answer goes to an address.
    Look(Place, u64, Form),
    /// To make something.
    Make(Place, Made),
    /// To know its real or its effective id.
    Get(Kind, bool),
    /// To know three ids.
    GetThree(Kind, [u64; 3]),
    /// To know its groups: how many there is room for, and where.
    Groups(i32, u64),
    /// To change its ids.
    Set(Kind, Change),
    /// To act on files as another.
    SetFile(Kind, u32),
    /// To have other groups: how many, and where they are.
    SetGroups(i32, u64),
    /// To set the limit for locks on files, if the first is an address, and to know it, if the second is one.
    Limit(u64, u64),
    /// To keep root's rights when it becomes another, or not.
    Keep(bool),
    /// To execute a program.
    Execute,
    /// To have another root, or other mounts.
    Move,
    /// Nothing of interest.
    Other,
}

#[allow(clippy::cast_possible_truncation, reason = "the kernel takes the lower half of a register for these, too")]
const fn int(value: u64) -> i32 {
    value as i32
}

#[allow(clippy::cast_possible_truncation, reason = "the kernel takes the lower half of a register for these, too")]
const fn id(value: u64) -> u32 {
    value as u32
}

/// -1 changes nothing.
const fn wanted(value: u64) -> Option<u32> {
    let id = id(value);
    if id == u32::MAX { None } else { Some(id) }
}

impl Call {
    /// What a notification asks for. Flags that nobody knows are left to the kernel to refuse.
    pub(super) fn of(note: &Notification) -> Self {
        let [first, b, c, d, e, _] = note.args;
        let known = |flags: u64, known: i32| (int(flags) & !known == 0).then_some(int(flags));
        let links = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
        let syncs = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
        match note.call {
            libc::SYS_fchownat => match known(e, libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) {
                Some(flags) => Self::Give(Place::at(first, b, flags), wanted(c), wanted(d)),
                None => Self::Other,
            },
            libc::SYS_fchown => Self::Give(Place::file(first), wanted(b), wanted(c)),
            libc::SYS_newfstatat => match known(d, links) {
                Some(flags) => Self::Look(Place::at(first, b, flags), c, Form::Stat),
                None => Self::Other,
            },
            libc::SYS_fstat => Self::Look(Place::file(first), b, Form::Stat),
            libc::SYS_statx => match known(c, links | syncs) {
                Some(flags) => Self::Look(Place::at(first, b, flags), e, Form::Statx(flags & syncs, id(d))),
                None => Self::Other,
            },
            libc::SYS_openat => Self::Make(Place::at(first, b, 0), Made::File { flags: id(c).into(), mode: id(d) }),
            libc::SYS_openat2 => Self::Make(Place::at(first, b, 0), Made::FileHow { how: c, size: d }),
            libc::SYS_mkdirat => Self::Make(Place::at(first, b, 0), Made::Directory { mode: id(c) }),
            libc::SYS_symlinkat => Self::Make(Place::at(b, c, 0), Made::Symlink { target: first }),
            libc::SYS_mknodat => Self::Make(Place::at(first, b, 0), Made::Node { mode: id(c), device: id(d).into() }),
            call => Self::old(call, note.args).unwrap_or_else(|| Self::of_ids(call, note.args)),
        }
    }

    /// Calls that newer architectures do without.
    #[cfg(target_arch = "x86_64")]
    const fn old(call: c_long, args: [u64; 6]) -> Option<Self> {
        let [a, b, c, ..] = args;
        let place = Place::path(a, true);
        Some(match call {
            libc::SYS_chown => Self::Give(place, wanted(b), wanted(c)),
            libc::SYS_lchown => Self::Give(Place::path(a, false), wanted(b), wanted(c)),
            libc::SYS_stat => Self::Look(place, b, Form::Stat),
            libc::SYS_lstat => Self::Look(Place::path(a, false), b, Form::Stat),
            libc::SYS_open => Self::Make(place, Made::File { flags: id(b) as u64, mode: id(c) }),
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                Self::Make(place, Made::File { flags: flags.cast_unsigned() as u64, mode: id(b) })
            }
            libc::SYS_mkdir => Self::Make(place, Made::Directory { mode: id(b) }),
            libc::SYS_symlink => Self::Make(Place::path(b, false), Made::Symlink { target: a }),
            libc::SYS_mknod => Self::Make(place, Made::Node { mode: id(b), device: id(c) as u64 }),
            _ => return None,
        })
    }

    #[cfg(not(target_arch = "x86_64"))]
    const fn old(_: c_long, _: [u64; 6]) -> Option<Self> {
        None
    }

    const fn of_ids(call: c_long, args: [u64; 6]) -> Self {
        let [a, b, c, d, ..] = args;
        match call {
            libc::SYS_getuid => Self::Get(Kind::User, false),
            libc::SYS_geteuid => Self::Get(Kind::User, true),
            libc::SYS_getgid => Self::Get(Kind::Group, false),
            libc::SYS_getegid => Self::Get(Kind::Group, true),
            libc::SYS_getresuid => Self::GetThree(Kind::User, [a, b, c]),
            libc::SYS_getresgid => Self::GetThree(Kind::Group, [a, b, c]),
            libc::SYS_getgroups => Self::Groups(int(a), b),
            libc::SYS_setuid => Self::Set(Kind::User, Change::All(id(a))),
            libc::SYS_setgid => Self::Set(Kind::Group, Change::All(id(a))),
            libc::SYS_setreuid => Self::Set(Kind::User, Change::Two(wanted(a), wanted(b))),
            libc::SYS_setregid => Self::Set(Kind::Group, Change::Two(wanted(a), wanted(b))),
            libc::SYS_setresuid => Self::Set(Kind::User, Change::Three(wanted(a), wanted(b), wanted(c))),
            libc::SYS_setresgid => Self::Set(Kind::Group, Change::Three(wanted(a), wanted(b), wanted(c))),
            libc::SYS_setfsuid => Self::SetFile(Kind::User, id(a)),
            libc::SYS_setfsgid => Self::SetFile(Kind::Group, id(a)),
            libc::SYS_setgroups => Self::SetGroups(int(a), b),
            libc::SYS_prlimit64 => Self::Limit(c, d),
            libc::SYS_setrlimit => Self::Limit(b, 0),
            libc::SYS_getrlimit => Self::Limit(0, b),
            libc::SYS_prctl if int(a) == libc::PR_SET_KEEPCAPS && b <= 1 => Self::Keep(b == 1),
            libc::SYS_execve | libc::SYS_execveat => Self::Execute,
            libc::SYS_chroot | libc::SYS_pivot_root | libc::SYS_setns | libc::SYS_unshare => Self::Move,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(call: c_long, args: [u64; 6]) -> Call {
        Call::of(&Notification { id: 1, thread: 1, call, args })
    }

    #[test]
    fn upper_halves_of_registers_do_not_count() {
        let high = 0xdead_0000_0000_0000_u64;
        let minus = u64::from(u32::MAX);
        let at = u64::from(libc::AT_FDCWD.cast_unsigned());
        let place = Place { base: libc::AT_FDCWD, path: Some(high), follow: false, empty: false };
        let nofollow = u64::from(libc::AT_SYMLINK_NOFOLLOW.cast_unsigned());
        assert_eq!(
            call(libc::SYS_fchownat, [high | at, high, high | 7, minus, high | nofollow, 0]),
            Call::Give(place, Some(7), None)
        );
        assert_eq!(
            call(libc::SYS_setreuid, [u64::MAX, high, 0, 0, 0, 0]),
            Call::Set(Kind::User, Change::Two(None, Some(0)))
        );
    }

    #[test]
    fn what_the_kernel_would_refuse_is_left_to_it() {
        assert_eq!(call(libc::SYS_fchownat, [0, 0, 0, 0, 0x200, 0]), Call::Other);
        assert_eq!(call(libc::SYS_newfstatat, [0, 0, 0, 1, 0, 0]), Call::Other);
        assert_eq!(call(libc::SYS_read, [0; 6]), Call::Other);
    }

    #[test]
    fn an_empty_path_may_mean_the_file_itself() {
        let empty = libc::AT_EMPTY_PATH.cast_unsigned().into();
        let Call::Look(place, 9, Form::Stat) = call(libc::SYS_newfstatat, [5, 0, 9, empty, 0, 0]) else { panic!() };
        assert_eq!(place, Place { base: 5, path: None, follow: true, empty: true });
        let Call::Look(place, ..) = call(libc::SYS_newfstatat, [5, 64, 9, empty, 0, 0]) else { panic!() };
        assert_eq!(place, Place { base: 5, path: Some(64), follow: true, empty: true });
    }
}
