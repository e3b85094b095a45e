//! System calls that have no safe form elsewhere: filters and their notifications, the memory and the limits of another
//! process, and `stat` as the kernel writes it.
#![allow(
    unsafe_code,
    reason = "seccomp, its ioctls, process_vm_readv, process_vm_writev, prlimit and stat take raw pointers"
)]

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use libc::{c_int, c_long, c_uint, c_ulong};
use rustix::io::{Errno, Result};

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notification {
    /// Its number, for the answer.
    pub(super) id: u64,
    /// The thread that called, as our namespace of processes has it.
    pub(super) thread: u32,
    /// Which system call.
    pub(super) call: c_long,
    /// What it was given.
    pub(super) args: [u64; 6],
}

/// What a system call comes back with.
#[derive(Debug)]
pub(super) enum Answer {
    /// What the kernel makes of it.
    Continue,
    /// This.
    Value(i64),
    /// This error.
    Error(Errno),
    /// This file, as a new descriptor of the caller; whether it is closed by `exec`.
    File(OwnedFd, bool),
}

/// Answers and questions run on the processor of the one who waits for them (linux/seccomp.h, since 6.6).
const SYNC_WAKE_UP: u64 = 1;

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn check(result: c_long) -> Result<c_long> {
    if result < 0 { Err(last()) } else { Ok(result) }
}

/// Installs a filter in this process and gives its listener. What is running for somebody is not interrupted by signals that
/// do not end the caller, where the kernel knows that (since 5.19): it would be done twice.
pub(super) fn install(program: &[libc::sock_filter]) -> Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let install = |flags: c_ulong| {
        // SAFETY: the kernel copies `filter.len` instructions from where `filter.filter` points, and changes nothing.
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) })
    };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = match install(listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::INVAL) => install(listener)?,
        result => result?,
    };
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks the kernel not to move answers between processors. Older kernels do not know that.
pub(super) fn wake_up_here(listener: BorrowedFd<'_>) {
    // SAFETY: the flags are the argument itself.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}

/// Takes a notification; none, if its caller died or was interrupted. Waits if there is none.
pub(super) fn receive(listener: BorrowedFd<'_>) -> Result<Option<Notification>> {
    let data = libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] };
    let mut note = libc::seccomp_notif { id: 0, pid: 0, flags: 0, data };
    // SAFETY: `note` is as large as the kernel writes: later fields would change the number of the request.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut note) };
    match check(result.into()) {
        Ok(_) => {
            Ok(Some(Notification { id: note.id, thread: note.pid, call: note.data.nr.into(), args: note.data.args }))
        }
        Err(Errno::NOENT | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers a notification. That nobody waits any more is no mistake.
pub(super) fn send(listener: BorrowedFd<'_>, id: u64, answer: &Answer) -> Result<()> {
    let (val, error, flags) = match answer {
        Answer::Continue => (0, 0, u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1)),
        Answer::Value(value) => (*value, 0, 0),
        Answer::Error(error) => (0, -error.raw_os_error(), 0),
        Answer::File(file, cloexec) => return give(listener, id, file, *cloexec),
    };
    let response = libc::seccomp_notif_resp { id, val, error, flags };
    // SAFETY: the kernel reads one structure of this size.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) };
    unless_gone(result)
}

/// Gives a file to the caller, and its number as the answer; what the kernel says if the caller can have no more.
fn give(listener: BorrowedFd<'_>, id: u64, file: &OwnedFd, cloexec: bool) -> Result<()> {
    let given = libc::seccomp_notif_addfd {
        id,
        flags: c_uint::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).unwrap_or(2),
        srcfd: file.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if cloexec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the kernel reads one structure of this size.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const given) };
    match check(result.into()) {
        Ok(_) | Err(Errno::NOENT | Errno::INPROGRESS) => Ok(()),
        Err(error) => send(listener, id, &Answer::Error(error)),
    }
}

fn unless_gone(result: c_int) -> Result<()> {
    match check(result.into()) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a notification's caller still waits: what was found under its number is then the caller's.
pub(super) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Reads memory of another process, as much as there is in one piece; at most `into` in all.
pub(super) fn read_memory(thread: u32, address: u64, into: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = remote(address, into.len());
    // SAFETY: the kernel writes at most `into.len()` bytes into `into`; the remote address is checked by it.
    let result = unsafe { libc::process_vm_readv(thread.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    done(result)
}

/// Writes memory of another process; how much was written.
pub(super) fn write_memory(thread: u32, address: u64, from: &[u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = remote(address, from.len());
    // SAFETY: the kernel reads `from.len()` bytes of `from`; the remote address is checked by it.
    let result = unsafe { libc::process_vm_writev(thread.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    done(result)
}

fn remote(address: u64, length: usize) -> libc::iovec {
    // An address that is none of this machine's is none of any process.
    let address = usize::try_from(address).unwrap_or_default();
    libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut::<c_void>(address), iov_len: length }
}

fn done(result: isize) -> Result<usize> {
    usize::try_from(result).map_err(|_| last())
}

/// The soft limit of a process for locks on files.
pub(super) fn limit(thread: u32) -> Result<libc::rlimit64> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one structure.
    let result = unsafe { libc::prlimit64(thread.cast_signed(), libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut now) };
    check(result.into()).map(|_| now)
}

/// Sets the limits of a process for locks on files.
pub(super) fn set_limit(thread: u32, limit: libc::rlimit64) -> Result<()> {
    // SAFETY: the kernel reads one structure.
    let result =
        unsafe { libc::prlimit64(thread.cast_signed(), libc::RLIMIT_LOCKS, &raw const limit, std::ptr::null_mut()) };
    check(result.into()).map(drop)
}

/// A process, or a thread, as a file.
pub(super) fn open_thread(thread: u32) -> Result<OwnedFd> {
    let open = |flags: c_int| {
        // SAFETY: no pointers.
        check(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) })
    };
    // PIDFD_THREAD (linux/pidfd.h, since 6.9): a thread that is not the first of its process.
    let fd = match open(libc::O_EXCL) {
        Err(Errno::INVAL) => open(0)?,
        result => result?,
    };
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What `stat` says of a file, as the kernel writes it.
pub(super) fn stat(file: BorrowedFd<'_>) -> Result<libc::stat> {
    // SAFETY: zeros are a valid value of a structure of integers.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    let empty = c"".as_ptr();
    // SAFETY: the path is an empty C string, and the kernel writes one structure.
    let result = unsafe { libc::fstatat(file.as_raw_fd(), empty, &raw mut found, libc::AT_EMPTY_PATH) };
    check(result.into()).map(|_| found)
}

/// What `statx` says of a file, as the kernel writes it.
pub(super) fn statx(file: BorrowedFd<'_>, flags: c_int, mask: c_uint) -> Result<libc::statx> {
    // SAFETY: zeros are a valid value of a structure of integers.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let empty = c"".as_ptr();
    let flags = flags | libc::AT_EMPTY_PATH;
    // SAFETY: the path is an empty C string, and the kernel writes one structure.
    let result = unsafe { libc::syscall(libc::SYS_statx, file.as_raw_fd(), empty, flags, mask, &raw mut found) };
    check(result).map(|_| found)
}

/// What the kernel writes.
pub(super) trait Structure: Copy {}

impl Structure for libc::stat {}
impl Structure for libc::statx {}

/// The bytes of a structure that the kernel has written, gaps and all.
pub(super) fn bytes<T: Structure>(structure: &T) -> &[u8] {
    // SAFETY: the memory was zeroed before the kernel wrote it, so that all of it has a value, and it lives as long as the
    // structure.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(structure).cast(), size_of::<T>()) }
}
