//! The root file system of a command: mounted, and then the only one that there is.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_move, unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::super::advice;
use super::super::level::Level;
use super::super::protocol::Failure;
use super::super::spec::Root;
use super::place::{Place, open, reach};

/// What mount(2) takes at most: a page.
const MAX_OPTIONS: usize = 4095;

/// Keeps mounts to this namespace.
pub(super) fn make_private() -> Result<(), Failure> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|error| Failure::setup("keep mounts private", error))
}

/// Mounts a root. It is not the one of this process yet.
pub(super) fn mount_root(root: &Root, level: Level) -> Result<Place, Failure> {
    let path = match root {
        Root::Overlay { lowers, upper, work } => {
            overlay(lowers, upper, work, upper, level).map_err(|error| Failure::Level(advice::overlay(&error)))?;
            upper
        }
        Root::Directory(directory) => {
            let bound = mount_bind_recursive(directory.as_path(), directory.as_path());
            bound.map_err(|error| Failure::Level(advice::mounting("a root directory", &error.into())))?;
            directory
        }
    };
    Place::open(path).map_err(|error| Failure::setup("open the root", error))
}

/// Mounts layers, the top one first, as one directory.
pub(super) fn overlay(lowers: &[PathBuf], upper: &Path, work: &Path, target: &Path, level: Level) -> io::Result<()> {
    if lowers.is_empty() {
        return Ok(mount_bind_recursive(upper, target)?);
    }
    let opened: Vec<OwnedFd> = lowers.iter().map(|lower| open(lower)).collect::<io::Result<_>>()?;
    let (upper, work) = (open(upper)?, open(work)?);
    let names: Vec<String> = opened.iter().map(reach).collect();
    let kind = if level == Level::Root { "redirect_dir=off,metacopy=off,index=off" } else { "userxattr" };
    let options = format!("lowerdir={},upperdir={},workdir={},{kind}", names.join(":"), reach(&upper), reach(&work));
    if options.len() > MAX_OPTIONS - ",volatile".len() {
        return Err(io::Error::other(format!("{} layers are too many for one mount", lowers.len())));
    }
    let attempt = |options: String| {
        let options = CString::new(options)?;
        Ok::<_, io::Error>(mount("overlay", target, "overlay", MountFlags::empty(), options.as_c_str()))
    };
    // What is in it is read when the command has ended, and nothing is synced until then.
    match attempt(format!("{options},volatile"))? {
        // Kernels before 5.10 do not know the option.
        Err(Errno::INVAL) => Ok(attempt(options)??),
        result => Ok(result?),
    }
}

/// Makes a root the root of this process and of its mount namespace; nothing else can be reached then.
pub(super) fn enter(place: &Place) -> Result<(), Failure> {
    let enter = || {
        fchdir(place.root())?;
        match pivot_root(".", ".") {
            Ok(()) => {
                // The old root lies over the new one now.
                unmount(".", UnmountFlags::DETACH)?;
            }
            // Filters of containers may forbid it, and a root in memory does: then ours is put over the old one.
            Err(Errno::PERM | Errno::INVAL | Errno::NOSYS) => {
                mount_move(".", "/")?;
                chroot(".")?;
            }
            Err(error) => return Err(error),
        }
        chdir("/")
    };
    enter().map_err(|error: Errno| Failure::setup("change the root", error))
}
