//! Work that a helper does in a child, while it watches whether anybody still wants it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

use super::super::level::Level;
use super::super::protocol::{Answer, Failure, Tried, receive, send};
use super::super::spec::{Network, Root, Spec};
use super::super::{ScanContents, Task, TaskAnswer, advice};
use super::place::{Kind, Place};
use super::{chroot, init, mounts, root, runtime, sys};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::folders;
use crate::rootfs::{self, Contents, Fixes};

/// Namespaces that every command has to itself.
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Runs a command.
pub(super) fn run(control: &UnixStream, spec: &Spec) -> Answer {
    if spec.level == Level::Chroot {
        return chroot::run(control, spec);
    }
    if spec.runtime.is_some() {
        return with_bundle(control, spec);
    }
    let network = if spec.network == Network::None { libc::CLONE_NEWNET } else { 0 };
    in_child(control, NAMESPACES | network, |report| init::run(spec, report))
}

/// The same by an OCI runtime, which makes namespaces for the command in those that are made here.
fn with_bundle(control: &UnixStream, spec: &Spec) -> Answer {
    let bundle = runtime::directory(spec);
    if let Err(error) = mounts::make_directory(&bundle) {
        return Answer::Failed(Failure::setup("make a directory", error));
    }
    let answer = in_child(control, libc::CLONE_NEWNS | libc::CLONE_NEWPID, |report| init::run(spec, report));
    let _ = std::fs::remove_dir(&bundle);
    answer
}

/// Does something with files.
pub(super) fn task(control: &UnixStream, task: &Task) -> Answer {
    in_child(control, 0, |report| {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let answer = do_task(task).map_or_else(|error| Answer::Failed(Failure::of(error)), Answer::Task);
        let _ = send(report, &answer);
        sys::exit(0)
    })
}

/// Finds out what works.
pub(super) fn attempt(control: &UnixStream, level: Level, directory: &Path) -> Answer {
    if level == Level::Chroot {
        let reason = "nothing can be mounted at the level `chroot`".to_owned();
        return Answer::Tried(Tried { overlay: Some(super::super::Problem { reason, advice: None }), own_proc: false });
    }
    let directory = directory.join(format!("try-{}", std::process::id()));
    if let Err(error) = make_layers(&directory) {
        return Answer::Failed(Failure::setup("make a directory to try things in", error));
    }
    let answer = in_child(control, NAMESPACES, |report| {
        let answer = try_out(level, &directory).map_or_else(Answer::Failed, Answer::Tried);
        let _ = send(report, &answer);
        sys::exit(0)
    });
    let _ = folders::remove_all(&directory);
    answer
}

/// Starts a child and waits for what it reports. If nobody waits for this process any more, child and process end.
pub(super) fn in_child(control: &UnixStream, namespaces: libc::c_int, child: impl FnOnce(&UnixStream)) -> Answer {
    let failed = |error| Answer::Failed(Failure::setup("start a process", error));
    let (ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return failed(error),
    };
    match sys::clone(namespaces) {
        Ok(Some(process)) => {
            drop(theirs);
            wait_for_report(control, &ours, process)
        }
        Ok(None) => {
            drop(ours);
            child(&theirs);
            sys::exit(255)
        }
        Err(error) => failed(error),
    }
}

fn wait_for_report(control: &UnixStream, report: &UnixStream, child: Pid) -> Answer {
    loop {
        let mut fds = [PollFd::new(report, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        // There is nothing to be said to a process at work: whatever comes is the end of the one that asked.
        if !fds[1].revents().is_empty() {
            init::end(child);
            sys::exit(0);
        }
        if !fds[0].revents().is_empty() {
            break;
        }
    }
    let answer = receive::<Answer>(report);
    init::end_softly(child);
    match answer {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Failed(Failure::setup("run a command", io::Error::other("its first process was ended"))),
        Err(error) => Answer::Failed(Failure::setup("run a command", error)),
    }
}

fn do_task(task: &Task) -> Result<TaskAnswer, Error> {
    // Who does not want it any more ends this process.
    let cancel = Cancel::new();
    let store = |path: &Path, action: &str| {
        let (path, action) = (path.to_owned(), action.to_owned());
        move |source| Error::Store { path, action, source }
    };
    match task {
        Task::Remove { paths } => {
            let mut removed = paths.iter().map(|path| (path, folders::remove_all(path)));
            match removed.find_map(|(path, removed)| removed.err().map(|error| (path, error))) {
                Some((path, error)) => Err(store(path, "remove a directory")(error)),
                None => Ok(TaskAnswer::Done),
            }
        }
        Task::Own { tree, fixes } => {
            let told = rootfs::own(tree, &Fixes::from_bytes(fixes)?, &cancel)?;
            Ok(if told.is_empty() { TaskAnswer::Done } else { TaskAnswer::Incomplete(told) })
        }
        Task::Copy { layers, to } => {
            rootfs::copy_layers(layers.iter().map(PathBuf::as_path), to, &cancel)?;
            Ok(TaskAnswer::Done)
        }
        Task::Scan { tree, contents, into } => {
            let contents = match contents {
                ScanContents::Nothing => Contents::Nothing,
                ScanContents::All => Contents::All,
                ScanContents::Since(directory) => Contents::Since(directory.clone()),
            };
            rootfs::scan(tree, &contents, into, &cancel)?;
            Ok(TaskAnswer::Done)
        }
        Task::MakeDirectory { path, mode, uid, gid } => {
            make_directory(path, *mode, (*uid, *gid)).map_err(store(path, "make a directory"))?;
            Ok(TaskAnswer::Done)
        }
    }
}

fn make_directory(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> io::Result<()> {
    use rustix::fs::{CWD, Gid, Mode, Uid, chmod, chownat};
    match mounts::make_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match chownat(CWD, path, owner, group, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => {}
        // The id is none of this namespace's: where there is one, it is noted.
        Err(Errno::INVAL) => mounts::note_owner(std::fs::File::open(path)?, (uid, gid)),
        Err(error) => return Err(error.into()),
    }
    Ok(chmod(path, Mode::from_raw_mode(mode))?)
}

fn make_layers(directory: &Path) -> io::Result<()> {
    for name in ["", "lower", "upper", "work"] {
        mounts::make_directory(&directory.join(name))?;
    }
    std::fs::write(directory.join("lower/file"), "")
}

/// Mounts what commands need, and sees whether a file of a layer can be removed.
fn try_out(level: Level, directory: &Path) -> Result<Tried, Failure> {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    root::make_private().map_err(|failure| match failure {
        Failure::Setup { action, reason } => Failure::Level(advice::mounting(&action, &io::Error::other(reason))),
        other => other,
    })?;
    let at = |name: &str| directory.join(name);
    let layers = Root::Overlay { lowers: vec![at("lower")], upper: at("upper"), work: at("work") };
    let overlay = match root::mount_root(&layers, level) {
        Ok(_) => std::fs::remove_file(at("upper/file")).err().map(|error| advice::overlay(&error)),
        Err(Failure::Level(problem)) => Some(problem),
        Err(failure) => return Err(failure),
    };
    let root = if overlay.is_none() { layers } else { Root::Directory(at("lower")) };
    let mut place: Place = if overlay.is_none() {
        Place::open(&at("upper")).map_err(|error| Failure::setup("open the root", error))?
    } else {
        root::mount_root(&root, level)?
    };
    let own_proc = mounts::proc(&mut place)?;
    place.target("/dev", Kind::Directory).map_err(|error| Failure::setup("make a directory", error))?;
    root::enter(&place)?;
    Ok(Tried { overlay, own_proc })
}
