//! How a helper gets to its level: into a user namespace, whose ids another process has to map.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, set_parent_process_death_signal};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::super::advice;
use super::super::idmap::{IdMap, IdRange};
use super::super::level::{Level, Problem};
use super::super::protocol::Failure;
use super::sys;

/// Where the programs are that map subordinate ids: they have the setuid bit.
const PROGRAMS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// What has become of this process.
pub(super) enum Entered {
    /// It is at the level, and serves.
    Here,
    /// A child is. This process has nothing to do but to end when the child has.
    Child(Pid),
}

/// Brings this process, or a child of it, to a level.
pub(super) fn enter(level: Level) -> Result<Entered, Failure> {
    match level {
        Level::Root => root().map(|()| Entered::Here),
        Level::Chroot => chroot().map(|()| Entered::Here),
        Level::Subordinate | Level::Single => user_namespace(level),
        Level::None => Err(Failure::setup("isolate a command", io::Error::from(io::ErrorKind::Unsupported))),
    }
}

fn problem(reason: impl Into<String>, advice: Option<&str>) -> Failure {
    Failure::Level(Problem { reason: reason.into(), advice: advice.map(str::to_owned) })
}

fn root() -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Err(problem("this user is not root", None));
    }
    // In a child: this process stays where it can clean up.
    match sys::clone(libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) {
        Ok(None) => sys::exit(0),
        Ok(Some(child)) => {
            let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
            Ok(())
        }
        Err(error) => Err(problem(
            format!("root may not make namespaces here: {error}"),
            Some("run the container with the capability SYS_ADMIN, or with user namespaces allowed"),
        )),
    }
}

fn chroot() -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Err(problem("this user is not root", None));
    }
    rustix::process::chroot("/").map_err(|error| {
        problem(format!("another root directory is not allowed: {error}"), Some("grant the capability SYS_CHROOT"))
    })
}

fn user_namespace(level: Level) -> Result<Entered, Failure> {
    let map = IdMap::of(level).map_err(Failure::Level)?;
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| Failure::setup("make a socket", error))?;
    let Some(child) = sys::clone(0).map_err(|error| Failure::setup("start a process", error))? else {
        drop(ours);
        return inside(theirs).map(|()| Entered::Here);
    };
    drop(theirs);
    let mapped = map_ids(&mut ours, child, level, &map);
    if let Err(failure) = mapped {
        let _ = rustix::process::kill_process(child, Signal::KILL);
        let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
        return Err(failure);
    }
    Ok(Entered::Child(child))
}

/// The child's part: it makes the namespace, waits for its ids, and becomes root there.
fn inside(mut parent: UnixStream) -> Result<(), Failure> {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if let Err(error) = sys::new_user_namespace() {
        let _ = parent.write_all(&error.raw_os_error().unwrap_or(-1).to_le_bytes());
        sys::exit(1);
    }
    let mut word = [0; 1];
    if parent.write_all(&0_i32.to_le_bytes()).is_err() || parent.read_exact(&mut word).is_err() {
        sys::exit(1);
    }
    // With a single id there is nothing to be set, and groups may not be.
    let _ = set_thread_groups(&[]);
    let _ = set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT);
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
        .map_err(|error| Failure::setup("become root of the namespace", error))?;
    // Changing ids has taken it away.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    Ok(())
}

fn map_ids(child: &mut UnixStream, pid: Pid, level: Level, map: &IdMap) -> Result<(), Failure> {
    let mut status = [0; 4];
    let status = child.read_exact(&mut status).map(|()| i32::from_le_bytes(status));
    match status {
        Ok(0) => {}
        Ok(error) => return Err(Failure::Level(advice::user_namespace(&io::Error::from_raw_os_error(error)))),
        Err(error) => return Err(Failure::setup("make a user namespace", error)),
    }
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    let direct = level == Level::Single || geteuid().is_root();
    let mapped = if direct { write_maps(&proc, level, map) } else { run_programs(pid, map) };
    mapped?;
    child.write_all(b"x").map_err(|error| Failure::setup("make a user namespace", error))
}

fn lines(ranges: &[IdRange]) -> String {
    let lines = ranges.iter().map(|range| format!("{} {} {}", range.inside, range.outside, range.count));
    lines.collect::<Vec<_>>().join("\n")
}

fn write_maps(proc: &str, level: Level, map: &IdMap) -> Result<(), Failure> {
    let write = |name: &str, text: &str| fs::write(format!("{proc}/{name}"), text);
    let all = || {
        if level == Level::Single {
            // Who maps their own group only may not change groups: a group may be one that is denied something.
            write("setgroups", "deny")?;
        }
        write("uid_map", &lines(&map.uids))?;
        write("gid_map", &lines(&map.gids))
    };
    all().map_err(|error| Failure::Level(advice::mapping(&error)))
}

fn run_programs(pid: Pid, map: &IdMap) -> Result<(), Failure> {
    for (name, ranges) in [("newuidmap", &map.uids), ("newgidmap", &map.gids)] {
        let found = PROGRAMS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
        let Some(program) = found else {
            return Err(problem(
                format!("there is no `{name}` to map subordinate ids with"),
                Some("install the package `uidmap` (Debian, Ubuntu) or `shadow-utils`"),
            ));
        };
        let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.count]);
        let mut command = Command::new(&program);
        command.arg(pid.as_raw_nonzero().to_string()).args(numbers.map(|number| number.to_string()));
        let output = command.stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(problem(
                    format!("`{name}` does not map the subordinate ids: {said}"),
                    Some(
                        "it needs the setuid bit, or the file capability `cap_setuid` (`cap_setgid`); containers drop it with `no_new_privs`",
                    ),
                ));
            }
            Err(error) => return Err(problem(format!("`{}` cannot be run: {error}", program.display()), None)),
        }
    }
    Ok(())
}
