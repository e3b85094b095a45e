//! Why commands cannot be isolated on a machine, and what can be done about it.

use std::fs;
use std::io;
use std::path::Path;

use super::level::Problem;

/// Whether a kernel setting has a value.
fn is(setting: &str, value: &str) -> bool {
    fs::read_to_string(Path::new("/proc/sys").join(setting)).is_ok_and(|text| text.trim() == value)
}

/// Whether this process's system calls are filtered, as they are in containers.
fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// What keeps a user from making a user namespace.
pub(super) fn user_namespace(error: &io::Error) -> Problem {
    let (why, advice) = if is("user/max_user_namespaces", "0") {
        (
            "this machine allows none (`user.max_user_namespaces` is 0)",
            "have the administrator run `sysctl user.max_user_namespaces=28633`",
        )
    } else if is("kernel/unprivileged_userns_clone", "0") {
        (
            "this machine allows them to root only (`kernel.unprivileged_userns_clone` is 0)",
            "have the administrator run `sysctl kernel.unprivileged_userns_clone=1`",
        )
    } else if is_filtered() {
        (
            "this container's filter of system calls forbids them",
            "run the container with `--security-opt seccomp=unconfined`, or the pod with a `seccompProfile` of type Unconfined",
        )
    } else {
        return Problem { reason: format!("a user namespace cannot be made: {error}"), advice: None };
    };
    Problem { reason: format!("a user namespace cannot be made: {why}"), advice: Some(advice.to_owned()) }
}

/// What keeps a user from mapping ids.
pub(super) fn mapping(error: &io::Error) -> Problem {
    let reason = format!("the ids of a user namespace cannot be mapped: {error}");
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Problem { reason: format!("{reason}: AppArmor forbids it"), advice: Some(apparmor()) };
    }
    Problem { reason, advice: None }
}

/// What keeps a user from mounting in a namespace.
pub(super) fn mounting(what: &str, error: &io::Error) -> Problem {
    let reason = format!("{what} cannot be mounted: {error}");
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Problem { reason: format!("{reason}: AppArmor forbids it"), advice: Some(apparmor()) };
    }
    if error.raw_os_error() == Some(libc::EPERM) && is_filtered() {
        let advice = "run the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`";
        return Problem { reason, advice: Some(advice.to_owned()) };
    }
    Problem { reason, advice: None }
}

/// Where the store is on a file system that overlayfs does not take.
pub(super) fn overlay(error: &io::Error) -> Problem {
    let problem = mounting("overlayfs", error);
    let advice = problem.advice.or_else(|| {
        (error.raw_os_error() == Some(libc::EINVAL)).then(|| {
            "put the store (COOPER_CACHE_DIR) on a local disk or a volume: not on overlayfs, as a container's own files are, \
             nor on NFS"
                .to_owned()
        })
    });
    Problem { reason: problem.reason, advice }
}

fn apparmor() -> String {
    "have the administrator run `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give the interpreter an AppArmor \
     profile that allows `userns`"
        .to_owned()
}
