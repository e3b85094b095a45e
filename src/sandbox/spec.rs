//! What is to be run: the job that a helper is given.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::level::Level;
use super::wire;

/// A command and the world that it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// How it is isolated: a level of which `probe` says that it works.
    pub level: Level,
    /// Its root file system.
    pub root: Root,
    /// What is mounted on top, besides `/proc`, `/sys`, `/dev`, `/etc/resolv.conf` and `/etc/hosts`. Those with fewer parts
    /// in their target come first, otherwise the order is kept.
    pub mounts: Vec<Mount>,
    /// The command.
    pub process: Process,
    /// Its network.
    pub network: Network,
    /// Names in `/etc/hosts` beside the usual ones: name and address.
    pub hosts: Vec<(String, String)>,
    /// How large `/dev/shm` may become, in bytes.
    pub shm_size: u64,
    /// Resource limits; others are as they are for this process.
    pub ulimits: Vec<Ulimit>,
    /// Whether programs with the setuid bit keep the rights of who starts them. At [`Level::Single`] they always do.
    pub no_new_privileges: bool,
    /// An OCI runtime (crun or runc) that is to do it, in place of the helper itself.
    #[serde(default, with = "wire::optional_path")]
    pub runtime: Option<PathBuf>,
}

impl Spec {
    /// As large as Docker makes `/dev/shm`.
    pub const SHM_SIZE: u64 = 64 << 20;

    /// A command with nothing special about it.
    pub fn new(level: Level, root: Root, process: Process) -> Self {
        Self {
            level,
            root,
            mounts: Vec::new(),
            process,
            network: Network::Host,
            hosts: Vec::new(),
            shm_size: Self::SHM_SIZE,
            ulimits: Vec::new(),
            no_new_privileges: false,
            runtime: None,
        }
    }
}

/// The root file system of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Root {
    /// Layers, and a directory for what is written. Paths may hold any character.
    Overlay {
        /// Directories of layers in overlayfs' form, the top one first.
        #[serde(with = "wire::paths")]
        lowers: Vec<PathBuf>,
        /// Where changes go. What runs the command mounts the overlay there, where nobody else sees it.
        #[serde(with = "wire::path")]
        upper: PathBuf,
        /// An empty directory on the same file system, for overlayfs itself.
        #[serde(with = "wire::path")]
        work: PathBuf,
    },
    /// A directory that has everything, and is written to.
    Directory(#[serde(with = "wire::path")] PathBuf),
}

/// Something that is mounted into the root. A target is an absolute path; links are followed inside of the root. What is
/// missing of a target is made, and removed again afterwards if it is still empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mount {
    /// A file or directory of this machine.
    Bind {
        /// The file or directory; links in it are followed.
        #[serde(with = "wire::path")]
        source: PathBuf,
        /// Where it is seen.
        target: String,
        /// Whether it, and all that is mounted below it, is read-only.
        read_only: bool,
    },
    /// Layers as a directory that can be written to, where what is written is not kept.
    Overlay {
        /// Directories of layers in overlayfs' form, the top one first.
        #[serde(with = "wire::paths")]
        lowers: Vec<PathBuf>,
        /// Where changes go.
        #[serde(with = "wire::path")]
        upper: PathBuf,
        /// An empty directory on the same file system, for overlayfs itself.
        #[serde(with = "wire::path")]
        work: PathBuf,
        /// Where it is seen.
        target: String,
        /// Whether it cannot be written to after all.
        #[serde(default)]
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Where it is seen.
        target: String,
        /// How large it may become, in bytes.
        size: Option<u64>,
        /// The mode of the directory.
        mode: u32,
    },
    /// A file that is kept in memory only (at [`Level::Chroot`]: in the root while the command runs), and read-only.
    File {
        /// What is in it.
        #[serde(with = "wire::content")]
        content: Vec<u8>,
        /// Where it is seen.
        target: String,
        /// Its mode.
        mode: u32,
        /// Who owns it.
        uid: u32,
        /// Which group owns it.
        gid: u32,
    },
}

impl Mount {
    /// Where it is seen.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. }
            | Self::Overlay { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::File { target, .. } => target,
        }
    }
}

/// The command itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program, looked up in the `PATH` of `env` if it has no slash, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working directory, which is made if it is missing.
    pub cwd: String,
    /// Who runs it.
    pub uid: u32,
    /// With which group.
    pub gid: u32,
    /// With which other groups.
    pub groups: Vec<u32>,
}

/// The network of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// That of this machine.
    Host,
    /// A loopback interface and nothing else.
    None,
}

/// A resource limit, by its name without `RLIMIT_`, in lower case: `nofile`, `nproc`, ... -1 means no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Which resource.
    pub name: String,
    /// The limit that is in force.
    pub soft: i64,
    /// How far the command may raise it.
    pub hard: i64,
}

impl Ulimit {
    /// The limits that Linux has, and their numbers (setrlimit(2)).
    pub const KNOWN: [(&'static str, u32); 16] = [
        ("as", libc::RLIMIT_AS),
        ("core", libc::RLIMIT_CORE),
        ("cpu", libc::RLIMIT_CPU),
        ("data", libc::RLIMIT_DATA),
        ("fsize", libc::RLIMIT_FSIZE),
        ("locks", libc::RLIMIT_LOCKS),
        ("memlock", libc::RLIMIT_MEMLOCK),
        ("msgqueue", libc::RLIMIT_MSGQUEUE),
        ("nice", libc::RLIMIT_NICE),
        ("nofile", libc::RLIMIT_NOFILE),
        ("nproc", libc::RLIMIT_NPROC),
        ("rss", libc::RLIMIT_RSS),
        ("rtprio", libc::RLIMIT_RTPRIO),
        ("rttime", libc::RLIMIT_RTTIME),
        ("sigpending", libc::RLIMIT_SIGPENDING),
        ("stack", libc::RLIMIT_STACK),
    ];

    /// The number of a limit; `None` if there is none of that name.
    pub fn number(name: &str) -> Option<u32> {
        Self::KNOWN.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }
}
