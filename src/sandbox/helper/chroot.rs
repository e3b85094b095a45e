//! Commands of root where no namespaces can be had: in another root directory, and with nothing mounted. What would be mounted
//! is put into the root, and taken away again. The command sees this machine's processes and network, and may end them; it is
//! for those who ask for it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    CWD, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, linkat, makedev, mkdirat, mknodat, openat, renameat,
    symlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, fchdir, kill_process, set_child_subreaper, setsid, wait};

use super::super::outcome::{Exit, Finished};
use super::super::protocol::{Answer, Failure, receive, send};
use super::super::spec::{Mount, Root, Spec};
use super::place::{Kind, Place};
use super::{command, init, mounts, sys};
use crate::cancel::Cancel;
use crate::folders;
use crate::rootfs;

/// Devices of `/dev` by their numbers (Linux `admin-guide/devices.txt`).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// How often it is looked whether anybody still waits for the command.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Runs a command in a directory.
pub(super) fn run(control: &UnixStream, spec: &Spec) -> Answer {
    let Root::Directory(directory) = &spec.root else {
        let error = io::Error::other("a root of layers needs mounts");
        return Answer::Failed(Failure::setup("make the root", error));
    };
    let failed = |action: &'static str| move |error: io::Error| Failure::setup(action, error);
    let mut guests = match Guests::new(directory) {
        Ok(guests) => guests,
        Err(error) => return Answer::Failed(failed("open the root")(error)),
    };
    let ran = guests.invite(spec).map_err(failed("put mounts into the root")).and_then(|()| {
        let (child, mut report) = start(spec, &guests.place)?;
        let exit = wait_for(control, child).map_err(failed("wait for the command"))?;
        match receive(&mut report) {
            Ok(Some(failure)) => Err(failure),
            _ => Ok(exit),
        }
    });
    let left = guests.leave().map_err(failed("take mounts out of the root"));
    match ran {
        Ok(Some(exit)) => match left {
            Ok(()) => Answer::Finished(Finished { exit, owners: Vec::new() }),
            Err(failure) => Answer::Failed(failure),
        },
        // Nobody waits any more.
        Ok(None) => sys::exit(0),
        Err(failure) => Answer::Failed(failure),
    }
}

/// What is in a root for the time of a command only.
struct Guests {
    place: Place,
    /// Where things are that are in the way, and those that come back.
    aside: PathBuf,
    present: Vec<Guest>,
    count: usize,
}

struct Guest {
    parent: OwnedFd,
    name: String,
    /// What was there before.
    was: Option<PathBuf>,
    /// Where it came from, and goes back to.
    home: Option<PathBuf>,
}

impl Guests {
    fn new(root: &Path) -> io::Result<Self> {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        let aside = root.with_file_name(format!("{name}.aside"));
        mounts::make_directory(&aside)?;
        Ok(Self { place: Place::open(root)?, aside, present: Vec::new(), count: 0 })
    }

    fn invite(&mut self, spec: &Spec) -> io::Result<()> {
        for path in ["/proc", "/sys"] {
            self.place.target(path, Kind::Directory)?;
        }
        self.devices()?;
        let resolv = std::fs::read("/etc/resolv.conf").unwrap_or_default();
        self.file("/etc/resolv.conf", &resolv, 0o644, (0, 0))?;
        self.file("/etc/hosts", mounts::hosts(&spec.hosts).as_bytes(), 0o644, (0, 0))?;
        for mount in &spec.mounts {
            self.mount(mount)?;
        }
        Ok(())
    }

    /// Makes room at a path, whose parents are made if they are missing.
    fn room(&mut self, path: &str) -> io::Result<(OwnedFd, String)> {
        let clean = path.trim_end_matches('/');
        let (above, name) = clean.rsplit_once('/').unwrap_or(("", clean));
        let parent = self.place.target(above, Kind::Directory)?;
        let was = self.aside.join(self.count.to_string());
        self.count += 1;
        let was = match renameat(&parent, name, CWD, &was) {
            Ok(()) => Some(was),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        let guest = Guest { parent: parent.try_clone()?, name: name.to_owned(), was, home: None };
        self.present.push(guest);
        Ok((parent, name.to_owned()))
    }

    fn devices(&mut self) -> io::Result<()> {
        let (parent, name) = self.room("/dev")?;
        mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
        let dev = openat(&parent, &name, folders::DIRECTORY, Mode::empty())?;
        for (name, major, minor) in DEVICES {
            let mode = Mode::from_raw_mode(0o666);
            mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))?;
            rustix::fs::chmodat(&dev, name, mode, rustix::fs::AtFlags::empty())?;
        }
        openat(&dev, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(no_devices)?;
        for (to, name) in mounts::LINKS {
            symlinkat(to, &dev, name)?;
        }
        mkdirat(&dev, "shm", Mode::from_raw_mode(0o1777))?;
        Ok(rustix::fs::chmodat(&dev, "shm", Mode::from_raw_mode(0o1777), rustix::fs::AtFlags::empty())?)
    }

    fn file(&mut self, path: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
        let (parent, name) = self.room(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&parent, &name, flags, Mode::RUSR)?);
        file.write_all(content)?;
        fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
    }

    fn mount(&mut self, mount: &Mount) -> io::Result<()> {
        match mount {
            Mount::File { content, target, mode, uid, gid } => self.file(target, content, *mode, (*uid, *gid)),
            Mount::Tmpfs { target, mode, .. } => self.directory(target, (*mode, 0, 0), &[]),
            Mount::Overlay { lowers, upper, target, .. } => {
                let lowest_first: Vec<PathBuf> = lowers.iter().rev().cloned().collect();
                self.directory(target, attributes(upper)?, &lowest_first)
            }
            Mount::Bind { source, target, read_only } => {
                if std::os::unix::fs::FileTypeExt::is_socket(&source.symlink_metadata()?.file_type()) {
                    // Another name of it is as good.
                    let (parent, name) = self.room(target)?;
                    return Ok(linkat(CWD, source, &parent, &name, rustix::fs::AtFlags::empty())?);
                }
                if !source.is_dir() {
                    let (mode, uid, gid) = attributes(source)?;
                    return self.file(target, &std::fs::read(source)?, mode, (uid, gid));
                }
                if *read_only {
                    return self.directory(target, attributes(source)?, std::slice::from_ref(source));
                }
                let (parent, name) = self.room(target)?;
                renameat(CWD, source, &parent, &name)?;
                if let Some(guest) = self.present.last_mut() {
                    guest.home = Some(source.clone());
                }
                Ok(())
            }
        }
    }

    fn directory(&mut self, path: &str, attributes: Attributes, layers: &[PathBuf]) -> io::Result<()> {
        let (parent, name) = self.room(path)?;
        mkdirat(&parent, &name, Mode::RWXU)?;
        let directory = openat(&parent, &name, folders::DIRECTORY, Mode::empty())?;
        let reached = PathBuf::from(super::place::reach(&directory));
        rootfs::copy_layers(layers.iter().map(PathBuf::as_path), &reached, &Cancel::new()).map_err(io::Error::other)?;
        let (mode, uid, gid) = attributes;
        fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        Ok(fchmod(&directory, Mode::from_raw_mode(mode))?)
    }

    /// Takes everything away, the last first.
    fn leave(&mut self) -> io::Result<()> {
        let mut failed = None;
        while let Some(Guest { parent, name, was, home }) = self.present.pop() {
            let gone = match home {
                Some(home) => renameat(&parent, &name, CWD, &home).map_err(io::Error::from),
                None => folders::remove(parent.as_fd(), name.as_ref()),
            };
            let back = was.map_or(Ok(()), |was| renameat(CWD, &was, &parent, &name));
            if let Err(error) = gone.and(back.map_err(Into::into)) {
                failed.get_or_insert(error);
            }
        }
        self.place.clean();
        let _ = std::fs::remove_dir(&self.aside);
        failed.map_or(Ok(()), Err)
    }
}

/// Why a device that was just made cannot be used.
fn no_devices(error: Errno) -> io::Error {
    let place = "put the store (COOPER_CACHE_DIR) on a volume or a local disk that is not mounted with `nodev`";
    io::Error::other(format!("a device in the root cannot be opened: {error}; {place}"))
}

/// The mode of something, its owner and its group.
type Attributes = (u32, u32, u32);

fn attributes(path: &std::path::Path) -> io::Result<Attributes> {
    let found = rustix::fs::stat(path)?;
    Ok((found.st_mode & 0o7777, found.st_uid, found.st_gid))
}

/// Starts the command. What keeps it from that can be read from the socket, which is empty otherwise.
fn start(spec: &Spec, place: &Place) -> Result<(Pid, UnixStream), Failure> {
    let failed = |error: io::Error| Failure::setup("start a process", error);
    // Whatever loses its parent becomes a child of this process, so that nothing is left.
    set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| failed(error.into()))?;
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    if let Some(child) = sys::clone(0).map_err(failed)? {
        return Ok((child, ours));
    }
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = setsid();
    let entered = fchdir(place.root()).and_then(|()| rustix::process::chroot("."));
    let failure = match entered.and_then(|()| rustix::process::chdir("/")) {
        Ok(()) => command::become_command(spec, None),
        Err(error) => Failure::setup("change the root", error),
    };
    let _ = send(&theirs, &failure);
    sys::exit(255)
}

/// Waits for the command, and ends what it left. `None` if nobody waits any more.
fn wait_for(control: &UnixStream, child: Pid) -> io::Result<Option<Exit>> {
    let exit = loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => break Some(init::exit_of(status)),
            Ok(Some(_)) | Err(Errno::INTR) => continue,
            Ok(None) => {}
            Err(error) => return Err(error.into()),
        }
        let mut fds = [PollFd::new(control, PollFlags::IN)];
        if poll(&mut fds, Some(&TICK)).is_ok_and(|ready| ready > 0) {
            break None;
        }
    };
    end_children()?;
    Ok(exit)
}

/// Ends all processes below this one. Children of those that end become children of this one.
fn end_children() -> io::Result<()> {
    loop {
        for child in children()? {
            let _ = kill_process(child, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// The children of this process, by the parents that the system's list of processes names.
fn children() -> io::Result<Vec<Pid>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name before it may hold anything.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        if parent == Some(own) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
