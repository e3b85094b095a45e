//! The first process of a sandbox: it makes the root, starts the command, waits for it, and ends everything that is left.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, kill_process, set_dumpable_behavior, set_parent_process_death_signal,
    setsid, wait,
};

use super::super::emulate::Emulator;
use super::super::outcome::{Exit, Finished};
use super::super::protocol::{Answer, Failure, send};
use super::super::spec::{Network, Process, Root, Spec};
use super::place::{Place, open};
use super::{calls, command, mounts, root, runtime, sys};

/// Runs a command as the first process of new namespaces. What comes of it goes to `report`. Does not come back.
pub(super) fn run(spec: &Spec, report: &UnixStream) -> ! {
    // The root is mounted over it.
    let upper = upper(spec);
    let place = if spec.runtime.is_some() { runtime::set_up(spec) } else { set_up(spec) };
    let answer = match place.and_then(|place| start(spec, place, upper, report)) {
        Ok(finished) => Answer::Finished(finished),
        Err(failure) => Answer::Failed(failure),
    };
    let _ = send(report, &answer);
    sys::exit(0)
}

fn set_up(spec: &Spec) -> Result<Place, Failure> {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = setsid();
    let _ = rustix::system::sethostname(mounts::HOST_NAME.as_bytes());
    if spec.network == Network::None {
        sys::loopback_up().map_err(|error| Failure::setup("start the loopback interface", error))?;
    }
    root::make_private()?;
    let mut place = root::mount_root(&spec.root, spec.level)?;
    mounts::mount_all(&mut place, spec)?;
    root::enter(&place)?;
    // The command may be of the same user: it is not to look into this process, which has the contents of secrets.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| Failure::setup("hide a process", error))?;
    Ok(place)
}

/// The upper directory of a root.
fn upper(spec: &Spec) -> Option<OwnedFd> {
    match &spec.root {
        Root::Overlay { upper, .. } => open(upper).ok(),
        Root::Directory(_) => None,
    }
}

fn start(spec: &Spec, mut place: Place, upper: Option<OwnedFd>, report: &UnixStream) -> Result<Finished, Failure> {
    let signals = sys::child_signals().map_err(|error| Failure::setup("wait for processes", error))?;
    let (ours, childs) = UnixStream::pair().map_err(|error| Failure::setup("start a process", error))?;
    let Some(child) = sys::clone(0).map_err(|error| Failure::setup("start a process", error))? else {
        let failure = match &spec.runtime {
            Some(runtime) => runtime::become_runtime(spec, runtime),
            None => command::become_command(spec, Some(&childs)),
        };
        let _ = send(report, &Answer::Failed(failure));
        sys::exit(255)
    };
    drop(childs);
    let Process { gid, groups, .. } = &spec.process;
    let emulator = calls::take(&ours)
        .and_then(|listener| listener.map(|listener| Emulator::new(listener, upper, *gid, groups.clone())).transpose());
    let mut emulator = emulator.map_err(|error| Failure::setup("emulate owners", error))?;
    let exit = wait_for(child, &signals, emulator.as_mut());
    let exit = exit.map_err(|error| Failure::setup("wait for the command", error))?;
    end_all();
    place.clean();
    Ok(Finished { exit, owners: emulator.map(Emulator::into_owners).unwrap_or_default() })
}

/// Waits for a child, and for whatever else ends meanwhile. Answers calls until then.
fn wait_for(child: Pid, signals: &OwnedFd, mut emulator: Option<&mut Emulator>) -> io::Result<Exit> {
    let mut buffer = [0; 1024];
    loop {
        while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
            if pid == child {
                return Ok(exit_of(status));
            }
        }
        serve_until(signals, emulator.as_deref_mut())?;
        match read(signals, &mut buffer) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Answers calls until there is a signal.
fn serve_until(signals: &OwnedFd, mut emulator: Option<&mut Emulator>) -> io::Result<()> {
    loop {
        let signal = PollFd::new(signals, PollFlags::IN);
        let (signalled, calls) = if let Some(emulator) = &emulator {
            let mut both = [signal, PollFd::from_borrowed_fd(emulator.as_fd(), PollFlags::IN)];
            await_one(&mut both)?;
            (!both[0].revents().is_empty(), both[1].revents())
        } else {
            await_one(&mut [signal])?;
            (true, PollFlags::empty())
        };
        match &mut emulator {
            Some(emulator) if calls.contains(PollFlags::IN) => emulator.serve()?,
            // Nobody is left who could call.
            Some(_) if !calls.is_empty() => emulator = None,
            _ => {}
        }
        if signalled {
            return Ok(());
        }
    }
}

fn await_one(files: &mut [PollFd<'_>]) -> io::Result<()> {
    match poll(files, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How a process has ended.
pub(super) fn exit_of(status: rustix::process::WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => Exit::Signal(signal),
        (code, None) => Exit::Code(code.unwrap_or(255)),
    }
}

/// Ends everything else in this process's namespace, and waits until it is gone.
fn end_all() {
    loop {
        // From the first process of a namespace, this reaches all others.
        let _ = sys::kill_all();
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Waits for a process that has nothing more to do.
pub(super) fn end_softly(child: Pid) {
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(child), WaitOptions::empty()) {}
}

/// Ends one process and waits for it.
pub(super) fn end(child: Pid) {
    let _ = kill_process(child, Signal::KILL);
    end_softly(child);
}
