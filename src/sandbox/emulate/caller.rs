//! The process that made a system call: its memory, and where `/proc` has it.

use std::cell::RefCell;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::process::{PidfdGetfdFlags, getpid, pidfd_getfd};

use super::sys;

/// The longest path, with the zero at its end.
const PATH_MAX: usize = 4096;
/// Memory is there or not in pieces of at least this size.
const PAGE: u64 = 4096;

/// The `/proc` of the sandbox.
#[derive(Debug)]
pub(super) struct Proc {
    /// Whether its numbers are those that notifications have. Else it is the one of the machine, or of a container.
    own: bool,
    /// The thread that was looked at last, as a file. That of a thread that is gone is no other's.
    last: RefCell<Option<(u32, OwnedFd)>>,
}

impl Proc {
    pub(super) fn new() -> Self {
        let own = getpid().as_raw_nonzero().to_string();
        let seen = std::fs::read_link("/proc/self");
        Self { own: seen.is_ok_and(|seen| seen.as_os_str() == own.as_str()), last: RefCell::new(None) }
    }

    /// An open file of a thread, by its descriptor.
    fn file(&self, thread: u32, descriptor: i32) -> Result<OwnedFd> {
        if descriptor < 0 {
            return Err(Errno::BADF);
        }
        let mut last = self.last.borrow_mut();
        if let Some((_, open)) = last.as_ref().filter(|(known, _)| *known == thread) {
            match pidfd_getfd(open, descriptor, PidfdGetfdFlags::empty()) {
                Err(Errno::SRCH) => {}
                result => return result,
            }
        }
        let open = sys::open_thread(thread)?;
        let file = pidfd_getfd(&open, descriptor, PidfdGetfdFlags::empty());
        *last = Some((thread, open));
        file
    }

    /// The number that a thread has there. Fails for threads but the first of a process where `/proc` is not ours and the
    /// kernel is older than 6.9.
    fn number(&self, thread: u32) -> Result<u32> {
        if self.own {
            return Ok(thread);
        }
        let file = sys::open_thread(thread)?;
        let path = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
        let text = std::fs::read_to_string(path).map_err(|_| Errno::SRCH)?;
        field(&text, "Pid:").and_then(|number| number.parse().ok()).ok_or(Errno::SRCH)
    }
}

/// A value of those that `/proc` has one a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A thread that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    listener: BorrowedFd<'a>,
    id: u64,
    /// As our namespace of processes has it.
    pub(super) thread: u32,
    proc: &'a Proc,
}

impl<'a> Caller<'a> {
    pub(super) const fn new(listener: BorrowedFd<'a>, id: u64, thread: u32, proc: &'a Proc) -> Self {
        Self { listener, id, thread, proc }
    }

    /// Fails if it is gone: what was found by its number may then be another's.
    pub(super) fn check(&self) -> Result<()> {
        if sys::is_waiting(self.listener, self.id) { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// Its directory in `/proc`.
    pub(super) fn directory(&self) -> Result<String> {
        Ok(format!("/proc/{}", self.proc.number(self.thread)?))
    }

    /// An open file of its. Fails with `EBADF` if it has no such file; in any other way where files cannot be had like this.
    pub(super) fn file(&self, descriptor: i32) -> Result<OwnedFd> {
        self.proc.file(self.thread, descriptor)
    }

    /// A path in its memory, as the kernel would read it.
    pub(super) fn path(&self, address: u64) -> Result<Vec<u8>> {
        let mut path = vec![0; PATH_MAX];
        let mut length = 0;
        while length < PATH_MAX {
            let at = address.checked_add(length as u64).ok_or(Errno::FAULT)?;
            let piece = usize::try_from(PAGE - at % PAGE).unwrap_or(PATH_MAX).min(PATH_MAX - length);
            let piece = &mut path[length..length + piece];
            let read = sys::read_memory(self.thread, at, piece).map_err(unreadable)?;
            if read == 0 {
                return Err(Errno::FAULT);
            }
            if let Some(end) = piece[..read].iter().position(|byte| *byte == 0) {
                path.truncate(length + end);
                return Ok(path);
            }
            length += read;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Memory of a known size.
    pub(super) fn read(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        let mut memory = vec![0; length];
        if length > 0 && sys::read_memory(self.thread, address, &mut memory).map_err(unreadable)? != length {
            return Err(Errno::FAULT);
        }
        Ok(memory)
    }

    /// Changes its memory.
    pub(super) fn write(&self, address: u64, memory: &[u8]) -> Result<()> {
        self.check()?;
        let written = sys::write_memory(self.thread, address, memory).map_err(unreadable)?;
        if written == memory.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    /// Which permissions are taken from what it makes.
    pub(super) fn umask(&self) -> Result<u32> {
        let status = std::fs::read_to_string(self.directory()? + "/status").map_err(|_| Errno::SRCH)?;
        let mask = field(&status, "Umask:").and_then(|mask| u32::from_str_radix(mask, 8).ok());
        self.check()?;
        mask.ok_or(Errno::SRCH)
    }
}

/// [`Errno::SRCH`] means to this module that the caller cannot be looked at: then it is the kernel that answers.
fn unreadable(error: Errno) -> Errno {
    match error {
        Errno::PERM | Errno::NOSYS => Errno::SRCH,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_names() {
        let text = "Name:\tx\nUmask:\t0022\nPid:\t77\n";
        assert_eq!(
            (field(text, "Umask:"), field(text, "Pid:"), field(text, "Tgid:")),
            (Some("0022"), Some("77"), None)
        );
    }

    #[test]
    fn memory_of_a_process_is_read_as_the_kernel_does() {
        let proc = Proc::new();
        let listener = std::fs::File::open("/dev/null").unwrap();
        let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let caller = Caller::new(std::os::fd::AsFd::as_fd(&listener), 0, me, &proc);
        let path = vec![b'x'; 5000];
        let at = |text: &[u8]| text.as_ptr().expose_provenance() as u64;
        assert_eq!(caller.path(at(b"/usr/bin\0")), Ok(b"/usr/bin".to_vec()));
        assert_eq!(caller.path(at(&path)), Err(Errno::NAMETOOLONG));
        for nowhere in [0, 8, u64::MAX - 8, 1 << 60] {
            assert_eq!(caller.path(nowhere), Err(Errno::FAULT), "{nowhere:#x}");
            assert_eq!(caller.read(nowhere, 8), Err(Errno::FAULT), "{nowhere:#x}");
        }
        assert_eq!(caller.read(0, 0), Ok(Vec::new()));
        assert_eq!(caller.check(), Err(Errno::SRCH));
        assert_eq!(caller.directory(), Ok(format!("/proc/{me}")));
    }
}
