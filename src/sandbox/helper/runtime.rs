//! Commands that an OCI runtime runs (`runc`, `crun`), for sites that demand it. The root is mounted here; everything else is
//! the runtime's. It runs in a process namespace of its own, so that whatever it has started ends with that.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use rustix::process::{Signal, set_parent_process_death_signal, setsid};

use super::super::level::Level;
use super::super::protocol::Failure;
use super::super::spec::{Mount, Root, Spec};
use super::bundle::{self, Bound};
use super::place::{Kind, Place};
use super::{mounts, root, sys};
use crate::dockerfile::DEFAULT_PATH;

/// Where a bundle is, beside the root.
pub(super) fn directory(spec: &Spec) -> PathBuf {
    let beside = match &spec.root {
        Root::Overlay { upper, .. } => upper,
        Root::Directory(directory) => directory,
    };
    let name = beside.file_name().unwrap_or_default().to_string_lossy();
    beside.with_file_name(format!("{name}.bundle"))
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::setup(action, error)
}

/// Mounts the root and writes the bundle.
pub(super) fn set_up(spec: &Spec) -> Result<Place, Failure> {
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let _ = setsid();
    root::make_private()?;
    let mut place = root::mount_root(&spec.root, spec.level)?;
    let none = Some(c"");
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, none)
        .map_err(|error| failed("mount /proc for the runtime")(error.into()))?;
    let directory = directory(spec);
    // In memory: secrets are among the files.
    mount("tmpfs", &directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=700"))
        .map_err(|error| failed("keep a bundle in memory")(error.into()))?;
    let bound = files(spec, &directory).map_err(failed("write a bundle"))?;
    for path in ["/proc", "/dev", "/sys"] {
        place.target(path, Kind::Directory).map_err(failed("make the root"))?;
    }
    for Bound { source, target, .. } in &bound {
        let kind = if Path::new(source).is_dir() { Kind::Directory } else { Kind::File };
        place.target(target, kind).map_err(failed("make a place for a mount"))?;
    }
    let root = match &spec.root {
        Root::Overlay { upper, .. } => upper,
        Root::Directory(directory) => directory,
    };
    let config = bundle::config(spec, &root.to_string_lossy(), &bound);
    let write = fs::write(directory.join("config.json"), config.to_string());
    write.map_err(failed("write a bundle"))?;
    Ok(place)
}

/// Puts what is in memory, and what has to be mounted before, beside the bundle.
fn files(spec: &Spec, directory: &Path) -> io::Result<Vec<Bound>> {
    let mut bound = Vec::new();
    let mut put = |content: &[u8], target: &str, mode: u32, owner: (u32, u32)| {
        let path = directory.join(format!("file-{}", bound.len()));
        fs::write(&path, content)?;
        mounts::dress(&fs::File::open(&path)?, mode, owner)?;
        bound.push(Bound { source: path.display().to_string(), target: target.to_owned(), read_only: true });
        Ok::<_, io::Error>(())
    };
    put(&fs::read("/etc/resolv.conf").unwrap_or_default(), "/etc/resolv.conf", 0o644, (0, 0))?;
    put(mounts::hosts(&spec.hosts).as_bytes(), "/etc/hosts", 0o644, (0, 0))?;
    for mount in &spec.mounts {
        if let Mount::File { content, target, mode, uid, gid } = mount {
            put(content, target, *mode, (*uid, *gid))?;
        }
    }
    for (number, mount) in spec.mounts.iter().enumerate() {
        let made = directory.join(format!("mount-{number}"));
        let (source, target, read_only) = match mount {
            Mount::File { .. } => continue,
            Mount::Bind { source, target, read_only } => (source.clone(), target, *read_only),
            Mount::Tmpfs { target, size, mode } => {
                fs::create_dir(&made)?;
                let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
                let options = CString::new(format!("mode={mode:o}{size}"))?;
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                rustix::mount::mount("tmpfs", &made, "tmpfs", flags, options.as_c_str())?;
                (made, target, false)
            }
            Mount::Overlay { lowers, upper, work, target, read_only } => {
                fs::create_dir(&made)?;
                root::overlay(lowers, upper, work, &made, spec.level)?;
                (made, target, *read_only)
            }
        };
        bound.push(Bound { source: source.display().to_string(), target: target.clone(), read_only });
    }
    bound.sort_by_key(|bound| bound.target.split('/').filter(|part| !part.is_empty()).count());
    Ok(bound)
}

/// Becomes the runtime. Comes back only with a failure.
pub(super) fn become_runtime(spec: &Spec, runtime: &Path) -> Failure {
    let attempt = || -> io::Result<io::Error> {
        sys::reset_signals();
        sys::replace(0, fs::File::open("/dev/null")?.as_fd())?;
        sys::close_on_exec(3)?;
        let directory = directory(spec);
        let text = |text: &Path| CString::new(text.as_os_str().as_bytes());
        let mut arguments = vec![text(runtime)?, c"--root".to_owned(), text(&directory.join("state"))?];
        if spec.level != Level::Root {
            // It need not be told that it may not have control groups, but that it cannot.
            arguments.extend([c"--rootless=true".to_owned()].into_iter().filter(|_| is_runc(runtime)));
        }
        arguments.extend([c"run".to_owned(), c"--bundle".to_owned(), text(&directory)?]);
        arguments.push(CString::new(format!("cooper-{}", std::process::id()))?);
        let environment = [CString::new(format!("PATH={DEFAULT_PATH}"))?];
        Ok(sys::execute(&text(runtime)?, &arguments, &environment))
    };
    let error = attempt().unwrap_or_else(|error| error);
    Failure::setup(format!("run `{}`", runtime.display()), error)
}

fn is_runc(runtime: &Path) -> bool {
    runtime.file_name().is_some_and(|name| name.as_bytes().starts_with(b"runc"))
}
