//! Root file systems of busybox, and commands in them, for this user and for one without rights.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cooper::cancel::Cancel;
use cooper::request::Helper;
use cooper::sandbox::{Finished, Level, Process, Root, Sandboxes, Spec, Stream};

/// Programs that are busybox under another name.
const APPLETS: [&str; 25] = [
    "sh", "id", "cat", "ls", "sleep", "stat", "chown", "chmod", "mount", "mknod", "touch", "mkdir", "ps", "kill", "ln",
    "rm", "mv", "env", "hostname", "head", "wc", "grep", "chroot", "rmdir", "unshare",
];
/// The user without rights, who has no subordinate ids.
const NOBODY: u32 = 61_234;
/// The one who has some: they are in files of its own, which lie over those of the machine for its processes.
const SOMEBODY: u32 = 61_235;

/// Who runs commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The user of the tests.
    Me,
    /// A user without rights, and with no ids but the own.
    Nobody,
    /// A user with subordinate ids.
    Somebody,
}

/// The ways in which commands are run in these tests.
pub(crate) const WAYS: [(Who, Level); 5] = [
    (Who::Me, Level::Root),
    (Who::Me, Level::Subordinate),
    (Who::Me, Level::Single),
    (Who::Somebody, Level::Subordinate),
    (Who::Nobody, Level::Single),
];

impl Who {
    /// The number, unless it is that of the tests.
    pub(crate) const fn uid(self) -> Option<u32> {
        match self {
            Self::Me => None,
            Self::Nobody => Some(NOBODY),
            Self::Somebody => Some(SOMEBODY),
        }
    }

    /// How a helper is started as this user. `dir` is for files that lie over those of the machine.
    pub(crate) fn helper(self, dir: &Path) -> Helper {
        let program = env!("CARGO_BIN_EXE_cooper-helper");
        let Some(uid) = self.uid() else { return Helper { program: program.into(), arguments: Vec::new() } };
        // Others may not get to where it was built.
        let copy = dir.join("helper");
        fs::copy(program, &copy).unwrap();
        let (passwd, ids) = (dir.join("passwd"), dir.join("subids"));
        let line = format!("cooper-test:x:{uid}:{uid}::/:/bin/sh\n");
        fs::write(&passwd, fs::read_to_string("/etc/passwd").unwrap() + &line).unwrap();
        fs::write(&ids, if self == Self::Somebody { "cooper-test:700000:65536\n" } else { "" }).unwrap();
        let script = r#"for file in passwd subuid subgid; do [ -e /etc/$file ] || : > /etc/$file; done
            mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/subids" /etc/subuid && mount --bind "$1/subids" /etc/subgid &&
            exec setpriv --reuid "$2" --regid "$2" --clear-groups "$1/helper""#;
        let dir = dir.to_str().unwrap();
        let arguments = ["-m", "--propagation", "private", "sh", "-c", script, "sh", dir, &uid.to_string()];
        Helper { program: "unshare".into(), arguments: arguments.map(Into::into).into() }
    }

    /// Gives a directory, and what is in it, to the user.
    pub(crate) fn give(self, path: &Path) {
        if let Some(uid) = self.uid() {
            let who = format!("{uid}:{uid}");
            let done = std::process::Command::new("chown").args(["-hR", &who]).arg(path).status();
            assert!(done.unwrap().success());
        }
    }
}

/// A root with nothing but busybox in it, as a layer, and what lies over it.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) who: Who,
    pub(crate) level: Level,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) finished: Finished,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Bed {
    pub(crate) fn new((who, level): (Who, Level)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let bin = dir.path().join("lower/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("the package busybox-static");
        for name in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        fs::create_dir(dir.path().join("lower/tmp")).unwrap();
        let sandboxes = Sandboxes::new(who.helper(dir.path()));
        let bed = Self { dir, sandboxes, who, level };
        bed.fresh();
        who.give(bed.dir.path());
        bed
    }

    /// An empty directory for what is written.
    pub(crate) fn fresh(&self) {
        let remove = cooper::sandbox::Task::Remove { paths: ["upper", "work"].map(|name| self.path(name)).into() };
        if self.path("upper").exists() {
            self.sandboxes.task(self.level, &remove, &Cancel::new()).unwrap();
        }
        for name in ["upper", "work"] {
            fs::create_dir(self.path(name)).unwrap();
            self.who.give(&self.path(name));
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn overlay(&self) -> Root {
        Root::Overlay { lowers: vec![self.path("lower")], upper: self.path("upper"), work: self.path("work") }
    }

    /// A shell's command.
    pub(crate) fn shell(&self, script: &str) -> Spec {
        let process = Process {
            argv: ["sh", "-c", script].map(str::to_owned).into(),
            env: vec![("PATH".into(), "/bin".into())],
            cwd: "/".into(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        Spec::new(self.level, self.overlay(), process)
    }

    /// Runs a command over an empty directory.
    pub(crate) fn run(&self, spec: &Spec) -> Ran {
        self.fresh();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut output = |stream, text: &[u8]| match stream {
            Stream::Out => out.extend_from_slice(text),
            Stream::Err => err.extend_from_slice(text),
        };
        let finished = self.sandboxes.run(spec, &mut output, &Cancel::new()).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { finished, out: text(out), err: text(err) }
    }

    /// What a shell's command prints that succeeds.
    pub(crate) fn says(&self, script: &str) -> String {
        let ran = self.run(&self.shell(script));
        assert!(ran.finished.exit.success(), "{:?} at {}: {ran:?}", self.who, self.level);
        ran.out
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // What belongs to subordinate ids.
        let task = cooper::sandbox::Task::Remove { paths: ["upper", "work"].map(|name| self.path(name)).into() };
        let _ = self.sandboxes.task(self.level, &task, &Cancel::new());
    }
}

/// Whether something is there, links included.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The ways that can be tried by this user: those that need another user need root.
pub(crate) fn ways() -> impl Iterator<Item = (Who, Level)> {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED: commands of root and of other users, since this is not root");
    }
    WAYS.into_iter().filter(move |(who, level)| root || (*who == Who::Me && *level == Level::Single))
}

/// How many processes have this argument.
pub(crate) fn running(mark: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())).count()
}
