//! What a command finds in its root besides its layers: `/proc`, `/dev`, `/sys`, the network's files, and the mounts of RUN.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, XattrFlags, fchmod, fchown, fsetxattr, openat, symlinkat};
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive};
use rustix::thread::{Gid, Uid};

use super::super::advice;
use super::super::level::Level;
use super::super::protocol::Failure;
use super::super::spec::{Mount, Network, Spec};
use super::place::{Kind, Place, kind_of, open, reach};
use super::root;
use crate::rootfs::OWNER;

/// Devices that every command has (runc `AllowedDevices`).
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links in `/dev`.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
    ("/proc/kcore", "core"),
];
/// What is covered: it says too much of the machine (moby `oci/defaults.go`).
pub(super) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What can be read only (the same place).
pub(super) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Directories of this machine, one of which is covered by files in memory while the root is made.
const COVERED: [&str; 5] = ["/sys", "/tmp", "/run", "/var", "/home"];
/// The host's name inside, as with BuildKit.
pub(super) const HOST_NAME: &str = "buildkitsandbox";

const NOTHING: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// A system that failed, and what was tried.
fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let action = action.into();
    move |error| Failure::setup(action, error)
}

/// Mounts everything.
pub(super) fn mount_all(place: &mut Place, spec: &Spec) -> Result<(), Failure> {
    let sys = open(Path::new("/sys")).ok();
    proc(place)?;
    devices(place, spec).map_err(failed("make /dev"))?;
    if let Some(sys) = sys {
        self::sys(place, &sys, spec.network).map_err(failed("mount /sys"))?;
    }
    let mut memory = Memory::new()?;
    network_files(place, spec, &mut memory).map_err(failed("mount /etc/resolv.conf and /etc/hosts"))?;
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target().split('/').filter(|part| !part.is_empty()).count());
    for mount in mounts {
        one(place, mount, spec.level, &mut memory)
            .map_err(|error| Failure::setup(format!("mount `{}`", mount.target()), error))?;
    }
    mask(place).map_err(failed("cover parts of /proc and /sys"))
}

/// Mounts a file system on a directory of the root.
fn file_system(place: &mut Place, kind: &str, path: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    let target = place.target(path, Kind::Directory)?;
    let options = std::ffi::CString::new(options)?;
    mount(kind, reach(&target), kind, flags, options.as_c_str())?;
    place.mounted(path)
}

/// Mounts `/proc`; whether it is one of this namespace alone.
pub(super) fn proc(place: &mut Place) -> Result<bool, Failure> {
    let own = file_system(place, "proc", "/proc", NOTHING, "");
    let Err(error) = own else { return Ok(true) };
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(Failure::Level(advice::mounting("/proc", &error)));
    }
    // Where parts of this machine's are covered, as in containers, a new one would show them.
    let mut bound = || {
        let target = place.target("/proc", Kind::Directory)?;
        mount_bind_recursive("/proc", reach(&target))?;
        place.mounted("/proc")
    };
    bound().map_err(failed("mount /proc"))?;
    Ok(false)
}

fn devices(place: &mut Place, spec: &Spec) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::STRICTATIME;
    file_system(place, "tmpfs", "/dev", flags, "mode=755,size=65536k")?;
    for name in DEVICES {
        let Ok(source) = open(&Path::new("/dev").join(name)) else { continue };
        let target = place.target(&format!("/dev/{name}"), Kind::File)?;
        mount_bind(reach(&source), reach(&target))?;
    }
    let dev = place.find("/dev")?;
    for (to, name) in LINKS {
        symlinkat(to, &dev, name)?;
    }
    let terminals = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = "newinstance,ptmxmode=0666,mode=0620";
    if file_system(place, "devpts", "/dev/pts", terminals, &format!("{options},gid=5")).is_err() {
        file_system(place, "devpts", "/dev/pts", terminals, options)?;
    }
    file_system(place, "tmpfs", "/dev/shm", NOTHING, &format!("mode=1777,size={}", spec.shm_size))?;
    // Kernels may be built without it.
    let _ = file_system(place, "mqueue", "/dev/mqueue", NOTHING, "");
    Ok(())
}

fn sys(place: &mut Place, host: &OwnedFd, network: Network) -> io::Result<()> {
    // A new one belongs to a network namespace that is ours.
    let flags = NOTHING | MountFlags::RDONLY;
    if network == Network::None && file_system(place, "sysfs", "/sys", flags, "").is_ok() {
        return Ok(());
    }
    let target = place.target("/sys", Kind::Directory)?;
    mount_bind_recursive(reach(host), reach(&target))?;
    place.mounted("/sys")?;
    place.make_read_only()
}

/// Files in memory that are mounted one by one.
struct Memory {
    directory: OwnedFd,
    count: usize,
}

impl Memory {
    fn new() -> Result<Self, Failure> {
        let make = || {
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            let over = COVERED.into_iter().find(|path| Path::new(path).is_dir()).ok_or_else(missing)?;
            // A here-document that is run is such a file.
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", over, "tmpfs", flags, Some(c"mode=700,size=16m"))?;
            Ok(Self { directory: open(Path::new(over))?, count: 0 })
        };
        make().map_err(failed("keep files in memory"))
    }

    fn file(&mut self, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<OwnedFd> {
        let name = self.count.to_string();
        self.count += 1;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(&self.directory, &name, flags, Mode::RUSR)?);
        io::Write::write_all(&mut file, content)?;
        dress(&file, mode, owner)?;
        Ok(openat(&self.directory, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// Gives a file its owner and its mode.
pub(super) fn dress(file: &std::fs::File, mode: u32, owner: (u32, u32)) -> io::Result<()> {
    if owner != (0, 0) && fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).is_err() {
        // Where there is one id, everything is the user's.
        note_owner(file, owner);
    }
    Ok(fchmod(file, Mode::from_raw_mode(mode))?)
}

/// Notes an owner that cannot be given, for what tells commands of owners. Not every file system keeps it.
pub(super) fn note_owner(file: impl AsFd, (uid, gid): (u32, u32)) {
    let _ = fsetxattr(file, OWNER, format!("{uid}:{gid}").as_bytes(), XattrFlags::empty());
}

fn network_files(place: &mut Place, spec: &Spec, memory: &mut Memory) -> io::Result<()> {
    let resolv = std::fs::read("/etc/resolv.conf").unwrap_or_default();
    let files = [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts(&spec.hosts).into_bytes())];
    for (path, content) in files {
        let file = memory.file(&content, 0o644, (0, 0))?;
        bind(place, &file, path, true)?;
    }
    Ok(())
}

/// The file of host names (BuildKit `executor/oci/hosts.go`).
pub(super) fn hosts(extra: &[(String, String)]) -> String {
    let lines = extra.iter().map(|(name, address)| format!("{address}\t{name}\n"));
    format!("127.0.0.1\tlocalhost {HOST_NAME}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
        + &lines.collect::<String>()
}

fn bind(place: &mut Place, source: &OwnedFd, path: &str, read_only: bool) -> io::Result<()> {
    let target = place.target(path, kind_of(source)?)?;
    mount_bind_recursive(reach(source), reach(&target))?;
    place.mounted(path)?;
    if read_only { place.make_read_only() } else { Ok(()) }
}

fn one(place: &mut Place, mount: &Mount, level: Level, memory: &mut Memory) -> io::Result<()> {
    match mount {
        Mount::Bind { source, target, read_only } => bind(place, &open(source)?, target, *read_only),
        Mount::Overlay { lowers, upper, work, target, read_only } => {
            let on = place.target(target, Kind::Directory)?;
            root::overlay(lowers, upper, work, Path::new(&reach(&on)), level)?;
            place.mounted(target)?;
            if *read_only { place.make_read_only() } else { Ok(()) }
        }
        Mount::Tmpfs { target, size, mode } => {
            let size = size.map(|size| format!(",size={size}")).unwrap_or_default();
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            file_system(place, "tmpfs", target, flags, &format!("mode={mode:o}{size}"))
        }
        Mount::File { content, target, mode, uid, gid } => {
            let file = memory.file(content, *mode, (*uid, *gid))?;
            bind(place, &file, target, true)
        }
    }
}

fn mask(place: &mut Place) -> io::Result<()> {
    let null = place.find("/dev/null")?;
    for path in MASKED {
        let Ok(target) = place.find(path) else { continue };
        match kind_of(&target)? {
            Kind::File => mount_bind(reach(&null), reach(&target))?,
            Kind::Directory => {
                let none: Option<&CStr> = None;
                mount("tmpfs", reach(&target), "tmpfs", NOTHING | MountFlags::RDONLY, none)?;
            }
        }
    }
    for path in READ_ONLY {
        let Ok(target) = place.find(path) else { continue };
        mount_bind_recursive(reach(&target), reach(&target))?;
        let bound = place.find(path)?;
        super::sys::read_only(&std::ffi::CString::new(reach(&bound))?)?;
    }
    Ok(())
}

/// An empty directory of this process's own, to try things in.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(CWD, path, Mode::RWXU)?)
}
