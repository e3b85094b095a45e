//! The process that becomes the command.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, chdir, set_dumpable_behavior, umask};
use rustix::thread::{Gid, Uid, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::super::level::Level;
use super::super::protocol::Failure;
use super::super::spec::{Process, Spec};
use super::seccomp::Filters;
use super::{calls, privileges, sys};
use crate::dockerfile::DEFAULT_PATH;

/// What a shell says of a command that is not there.
const NOT_FOUND: i32 = 127;
/// What it says of one that cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// Becomes the command. Comes back only with a failure to set it up; a program that cannot be executed ends the process with the
/// status that a shell would give, and a line on its standard error.
///
/// Where owners are emulated, `parent` gets what has to answer this process's calls from then on.
pub(super) fn become_command(spec: &Spec, parent: Option<&UnixStream>) -> Failure {
    match set_up(spec, parent) {
        Ok(()) => execute(&spec.process),
        Err(failure) => failure,
    }
}

fn set_up(spec: &Spec, parent: Option<&UnixStream>) -> Result<(), Failure> {
    let Process { cwd, uid, gid, groups, .. } = &spec.process;
    let failed = |action: &'static str| move |error: io::Error| Failure::setup(action, error);
    sys::reset_signals();
    umask(Mode::from_raw_mode(0o022));
    privileges::set_limits(&spec.ulimits).map_err(failed("set limits"))?;
    fs::create_dir_all(cwd).and_then(|()| Ok(chdir(cwd.as_str())?)).map_err(failed("enter the working directory"))?;
    let null = fs::File::open("/dev/null").map_err(failed("open /dev/null"))?;
    sys::replace(0, null.as_fd()).map_err(failed("open /dev/null"))?;
    if spec.level == Level::Single {
        own_ids(*uid, *gid).map_err(failed("become the user"))?;
    } else {
        let groups: Vec<Gid> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups).map_err(|error| failed("set groups")(error.into()))?;
        let gid = Gid::from_raw(*gid);
        set_thread_res_gid(gid, gid, gid).map_err(|error| failed("set the group")(error.into()))?;
    }
    privileges::limit_programs().map_err(failed("limit capabilities"))?;
    if spec.no_new_privileges || spec.level == Level::Single {
        set_no_new_privs(true).map_err(|error| failed("allow no new privileges")(error.into()))?;
    }
    match Filters::new().and_then(|filters| filters.apply()) {
        // Root of a container may not set one, but is under that of the container.
        Err(error) if spec.level == Level::Chroot && error.kind() == io::ErrorKind::PermissionDenied => {}
        applied => applied.map_err(failed("filter system calls"))?,
    }
    if spec.level != Level::Single && *uid != 0 {
        // The kernel takes all capabilities away with root's id.
        let uid = Uid::from_raw(*uid);
        set_thread_res_uid(uid, uid, uid).map_err(|error| failed("set the user")(error.into()))?;
    } else if *uid == 0 {
        privileges::drop_capabilities().map_err(failed("drop capabilities"))?;
    }
    sys::close_on_exec(3).map_err(failed("close files"))?;
    match parent {
        Some(parent) if spec.level == Level::Single && *uid == 0 => {
            calls::announce(parent).map_err(failed("emulate owners"))
        }
        _ => Ok(()),
    }
}

/// Where there is one id only, it becomes that of the command's user, in a namespace of its own.
fn own_ids(uid: u32, gid: u32) -> io::Result<()> {
    if uid == 0 {
        // It has root's rights, and is told of its groups by what emulates them.
        return Ok(());
    }
    // Else its own files in /proc are not this process's; a program that is executed sets it anew.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    sys::new_user_namespace()?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} 0 1\n"))?;
    fs::write("/proc/self/gid_map", format!("{gid} 0 1\n"))
}

fn execute(process: &Process) -> Failure {
    let Some(program) = process.argv.first() else {
        return Failure::setup("execute a command", io::Error::from(io::ErrorKind::InvalidInput));
    };
    let texts = || {
        let arguments = process.argv.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()?;
        let variables = process.env.iter().map(|(name, value)| CString::new(format!("{name}={value}")));
        Ok::<_, std::ffi::NulError>((arguments, variables.collect::<Result<Vec<_>, _>>()?))
    };
    let (arguments, environment) = match texts() {
        Ok(texts) => texts,
        Err(error) => return Failure::setup("execute a command", io::Error::from(error)),
    };
    let mut denied = None;
    for candidate in candidates(program, &process.env) {
        let error = sys::execute(&candidate, &arguments, &environment);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            _ => {
                denied.get_or_insert(error);
            }
        }
    }
    let (status, reason) = match denied {
        Some(error) => (NOT_EXECUTABLE, error.to_string()),
        // A program that is there, whose interpreter is not, is not found either.
        None if program.contains('/') && Path::new(program).exists() => (
            NOT_FOUND,
            "its interpreter is not there (the first line of a script, or the loader of a program)".to_owned(),
        ),
        None if program.contains('/') => (NOT_FOUND, "no such file or directory".to_owned()),
        None => (NOT_FOUND, "executable file not found in $PATH".to_owned()),
    };
    let _ = writeln!(io::stderr(), "cannot run `{program}`: {reason}");
    sys::exit(status)
}

/// The paths at which a program may be.
fn candidates(program: &str, env: &[(String, String)]) -> Vec<CString> {
    if program.contains('/') {
        return CString::new(program).into_iter().collect();
    }
    let path = env.iter().rev().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    folders.filter_map(|folder| c_path(&Path::new(folder).join(OsStr::new(program)))).collect()
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_path() {
        let paths = |program: &str, path: Option<&str>| -> Vec<String> {
            let env: Vec<_> = path.iter().map(|path| ("PATH".to_owned(), (*path).to_owned())).collect();
            candidates(program, &env).into_iter().map(|path| path.into_string().unwrap()).collect()
        };
        assert_eq!(paths("sh", Some("/a:/b")), ["/a/sh", "/b/sh"]);
        assert_eq!(paths("sh", Some(":/b")), ["./sh", "/b/sh"]);
        assert_eq!(paths("./sh", Some("/a")), ["./sh"]);
        assert_eq!(paths("sh", None).len(), 6);
    }
}
