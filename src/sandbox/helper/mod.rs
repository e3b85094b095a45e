//! The other end of [`super::Sandboxes`]: a process with one thread that does what it is asked for, until nobody asks any more.
//!
//! 1. It is told a level, and gets there (`enter`): for those with a user namespace, a child of it does.
//! 2. For each command it makes a child in new namespaces, the first process of the sandbox (`init`), which mounts the root
//!    (`root`, `mounts`), starts the command (`command`) and reaps what others leave.
//! 3. It waits for both: for what the child reports, and for the end of the one who asked, upon which everything ends (`work`).
//!
//! Whatever ends a process here ends those below it: the kernel kills a sandbox with its first process, and each process asks
//! to be killed with its parent.

mod bundle;
mod calls;
mod chroot;
mod command;
mod enter;
mod init;
mod mounts;
mod place;
mod privileges;
mod root;
mod runtime;
mod seccomp;
mod sys;
mod work;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, WaitOptions, waitpid};

use super::level::Level;
use super::protocol::{Answer, Failure, Request, receive, send};
use enter::Entered;

/// Serves whoever started this process and is at the other end of its standard input, a socket. What commands print goes to
/// standard output and standard error. Comes back when nobody asks any more.
///
/// The process must have one thread.
pub fn serve() {
    // Without anybody to tell, there is nothing to be said of an error.
    let _ = try_serve();
}

fn try_serve() -> io::Result<()> {
    sys::reset_signals();
    sys::close_on_exec(3)?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    sys::replace(0, std::fs::File::open("/dev/null")?.as_fd())?;
    let Some(Request::Start(level)) = receive(&control)? else { return Ok(()) };
    match enter::enter(level) {
        Ok(Entered::Here) => {}
        Ok(Entered::Child(child)) => {
            drop(control);
            let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
            for number in [1, 2] {
                sys::replace(number, null.as_fd())?;
            }
            return wait_for(child);
        }
        Err(failure) => return send(&control, &Answer::Failed(failure)),
    }
    send(&control, &Answer::Ready)?;
    while let Some(request) = receive(&control)? {
        send(&control, &answer(&control, level, &request))?;
    }
    Ok(())
}

fn answer(control: &UnixStream, level: Level, request: &Request) -> Answer {
    match request {
        Request::Start(_) => {
            Answer::Failed(Failure::setup("start", io::Error::other("this process has a level already")))
        }
        Request::Try { directory } => work::attempt(control, level, directory),
        Request::Run(spec) => work::run(control, spec),
        Request::Task(task) => work::task(control, task),
    }
}

fn wait_for(child: Pid) -> io::Result<()> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(|_| ())?),
        }
    }
}
