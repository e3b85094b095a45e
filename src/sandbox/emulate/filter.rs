//! Which system calls are announced: a program for the kernel's classic BPF.
//!
//! The `seccompiler` crate, which makes programs like this one, knows no `SECCOMP_RET_USER_NOTIF`.

use std::io;
use std::os::fd::OwnedFd;

use libc::sock_filter;

use super::sys;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Calls of the x32 ABI have this bit (`__X32_SYSCALL_BIT`, asm/unistd.h).
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const ANNOUNCE: u32 = libc::SECCOMP_RET_USER_NOTIF;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
#[cfg(target_arch = "x86_64")]
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// Opening makes a file with one of these: `O_CREAT`, and `O_TMPFILE` without its `O_DIRECTORY`.
const CREATES: i32 = libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY);

/// The limit that is used for credentials.
#[allow(clippy::unnecessary_cast, reason = "musl and glibc have different types for it")]
const LOCKS: u32 = libc::RLIMIT_LOCKS as u32;

/// Whether a call is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Whenever it is made.
    Always(libc::c_long),
    /// If an argument has one of these bits.
    Bits(libc::c_long, u8, u32),
    /// If an argument is this.
    Equal(libc::c_long, u8, u32),
}

/// What is announced. Those that are made most often come first. `statx` says what is asked for.
const RULES: &[Rule] = &[
    Rule::Always(libc::SYS_newfstatat),
    Rule::Always(libc::SYS_fstat),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_stat),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_lstat),
    Rule::Bits(libc::SYS_statx, 3, libc::STATX_UID | libc::STATX_GID),
    Rule::Bits(libc::SYS_openat, 2, CREATES.cast_unsigned()),
    #[cfg(target_arch = "x86_64")]
    Rule::Bits(libc::SYS_open, 1, CREATES.cast_unsigned()),
    Rule::Always(libc::SYS_openat2),
    Rule::Always(libc::SYS_fchown),
    Rule::Always(libc::SYS_fchownat),
    Rule::Always(libc::SYS_mkdirat),
    Rule::Always(libc::SYS_symlinkat),
    Rule::Always(libc::SYS_mknodat),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_creat),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_chown),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_lchown),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_symlink),
    #[cfg(target_arch = "x86_64")]
    Rule::Always(libc::SYS_mknod),
    Rule::Always(libc::SYS_getuid),
    Rule::Always(libc::SYS_geteuid),
    Rule::Always(libc::SYS_getgid),
    Rule::Always(libc::SYS_getegid),
    Rule::Always(libc::SYS_getresuid),
    Rule::Always(libc::SYS_getresgid),
    Rule::Always(libc::SYS_getgroups),
    Rule::Always(libc::SYS_setuid),
    Rule::Always(libc::SYS_setgid),
    Rule::Always(libc::SYS_setreuid),
    Rule::Always(libc::SYS_setregid),
    Rule::Always(libc::SYS_setresuid),
    Rule::Always(libc::SYS_setresgid),
    Rule::Always(libc::SYS_setfsuid),
    Rule::Always(libc::SYS_setfsgid),
    Rule::Always(libc::SYS_setgroups),
    Rule::Equal(libc::SYS_prctl, 0, libc::PR_SET_KEEPCAPS.cast_unsigned()),
    Rule::Equal(libc::SYS_prlimit64, 1, LOCKS),
    Rule::Equal(libc::SYS_setrlimit, 0, LOCKS),
    Rule::Equal(libc::SYS_getrlimit, 0, LOCKS),
    Rule::Always(libc::SYS_execve),
    Rule::Always(libc::SYS_execveat),
    Rule::Always(libc::SYS_chroot),
    Rule::Always(libc::SYS_pivot_root),
    Rule::Always(libc::SYS_setns),
    Rule::Always(libc::SYS_unshare),
];

/// Announces the calls of this process and its children from now on to whoever has the listener.
///
/// For a process with one thread that is about to execute a command and may gain no rights by that (`no_new_privs`), or has
/// `CAP_SYS_ADMIN`. Somebody has to answer, or its calls wait forever.
pub(in super::super) fn install() -> io::Result<OwnedFd> {
    Ok(sys::install(&program())?)
}

fn program() -> Vec<sock_filter> {
    let mut program = Vec::with_capacity(8 + 5 * RULES.len());
    // Programs of other architectures run as they would without us: there are calls that they make by other numbers.
    program.extend([load(4), if_equal(ARCH, 1, 0), end(ALLOW), load(0)]);
    #[cfg(target_arch = "x86_64")]
    program.extend([if_not_less(X32, 1), end(NO_SUCH_CALL)]);
    for rule in RULES {
        match *rule {
            Rule::Always(call) => program.extend([if_equal(number(call), 0, 1), end(ANNOUNCE)]),
            Rule::Bits(call, arg, bits) => program.extend([
                if_equal(number(call), 0, 4),
                load(16 + 8 * u32::from(arg)),
                if_bits(bits, 1),
                end(ANNOUNCE),
                end(ALLOW),
            ]),
            Rule::Equal(call, arg, value) => program.extend([
                if_equal(number(call), 0, 4),
                load(16 + 8 * u32::from(arg)),
                if_equal(value, 0, 1),
                end(ANNOUNCE),
                end(ALLOW),
            ]),
        }
    }
    program.push(end(ALLOW));
    program
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

const fn instruction(code: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    #[allow(clippy::cast_possible_truncation, reason = "operations are numbers of one byte")]
    sock_filter { code: code as u16, jt: then, jf: otherwise, k: value }
}

/// Loads the lower half of what is at this offset of `struct seccomp_data`.
const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

/// Skips so many instructions if it is equal, and so many if not.
const fn if_equal(value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, then, otherwise)
}

/// Skips so many instructions if it is less than this.
#[cfg(target_arch = "x86_64")]
const fn if_not_less(value: u32, skip: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, 0, skip)
}

/// Skips so many instructions if it has none of these bits.
const fn if_bits(bits: u32, skip: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, bits, 0, skip)
}

const fn end(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program does with a call, by the rules of classic BPF.
    fn verdict(program: &[sock_filter], arch: u32, call: u32, args: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&call.to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        for (at, arg) in args.iter().enumerate() {
            data[16 + 8 * at..24 + 8 * at].copy_from_slice(&arg.to_ne_bytes());
        }
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let k = usize::try_from(step.k).unwrap();
            let holds = match u32::from(step.code) {
                0x20 => {
                    value = u32::from_ne_bytes(data[k..k + 4].try_into().unwrap());
                    continue;
                }
                0x06 => return step.k,
                0x15 => value == step.k,
                0x35 => value >= step.k,
                0x45 => value & step.k != 0,
                other => panic!("{other:#x}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    fn of(call: libc::c_long, args: [u64; 6]) -> u32 {
        verdict(&program(), ARCH, number(call), args)
    }

    #[test]
    fn calls_about_owners_are_announced() {
        for call in [
            libc::SYS_newfstatat,
            libc::SYS_fchownat,
            libc::SYS_fchown,
            libc::SYS_setresuid,
            libc::SYS_getgroups,
            libc::SYS_mkdirat,
        ] {
            assert_eq!(of(call, [0; 6]), ANNOUNCE, "{call}");
        }
        for call in [libc::SYS_read, libc::SYS_wait4, libc::SYS_clone, libc::SYS_fchmod, libc::SYS_capset] {
            assert_eq!(of(call, [u64::MAX; 6]), ALLOW, "{call}");
        }
    }

    #[test]
    fn one_use_of_prctl_is_announced() {
        let first = |value: i32| [u64::from(value.cast_unsigned()), 1, 0, 0, 0, 0];
        assert_eq!(of(libc::SYS_prctl, first(libc::PR_SET_KEEPCAPS)), ANNOUNCE);
        assert_eq!(of(libc::SYS_prctl, first(libc::PR_SET_NAME)), ALLOW);
    }

    #[test]
    fn statx_is_announced_if_it_is_about_owners() {
        let mask = |mask: u32| [0, 0, 0, mask.into(), 0, 0];
        assert_eq!(of(libc::SYS_statx, mask(libc::STATX_BASIC_STATS)), ANNOUNCE);
        assert_eq!(of(libc::SYS_statx, mask(libc::STATX_SIZE | libc::STATX_MODE)), ALLOW);
    }

    #[test]
    fn only_opening_that_makes_a_file_is_announced() {
        let flags = |flags: i32| [0, 0, u64::from(flags.cast_unsigned()), 0, 0, 0];
        for (given, expected) in [
            (libc::O_RDONLY | libc::O_CLOEXEC, ALLOW),
            (libc::O_RDONLY | libc::O_DIRECTORY, ALLOW),
            (libc::O_WRONLY | libc::O_TRUNC, ALLOW),
            (libc::O_WRONLY | libc::O_CREAT, ANNOUNCE),
            (libc::O_RDWR | libc::O_TMPFILE, ANNOUNCE),
        ] {
            assert_eq!(of(libc::SYS_openat, flags(given)), expected, "{given:o}");
        }
    }

    #[test]
    fn other_architectures_are_left_alone() {
        assert_eq!(verdict(&program(), 0x4000_0003, number(libc::SYS_fchown), [0; 6]), ALLOW);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(verdict(&program(), ARCH, X32 | 1, [0; 6]), NO_SUCH_CALL);
    }
}
