//! Making trees and opening contexts.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::context::Context;
use cooper::request::{ContextSpec, DockerfileSpec, ExtraFile};

pub(crate) fn spec(root: &Path) -> ContextSpec {
    ContextSpec { root: Some(root.to_owned()), ..ContextSpec::default() }
}

pub(crate) fn open(spec: &ContextSpec) -> Context {
    Context::open(spec, &DockerfileSpec::default(), &Cancel::new()).unwrap()
}

pub(crate) fn open_dir(root: &Path) -> Context {
    open(&spec(root))
}

pub(crate) fn paths(context: &Context) -> Vec<String> {
    context.entries().map(|entry| entry.display_path().into_owned()).collect()
}

/// Writes a file and makes its parents.
pub(crate) fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

pub(crate) fn extra(path: &str, content: &str) -> ExtraFile {
    ExtraFile { path: path.into(), content: Bytes::copy_from_slice(content.as_bytes()), mode: 0o755 }
}

/// Set in a process that runs the body of a test.
const CHILD: &str = "COOPER_TEST_CHILD";
/// `nobody`.
pub(crate) const NOBODY: u32 = 65_534;

/// Runs the body of the test `name` (its full path) in a process of its own, which `wrap` may start in its own way, given
/// the program and its arguments.
pub(crate) fn in_child(name: &str, wrap: impl FnOnce(&Path, &[&str]) -> Command, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    // The binary may be where only root can go.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = wrap(&program, &["--exact", name]);
    command.env(CHILD, "1").current_dir("/");
    let output = loop {
        match command.output() {
            // Another thread started a process while the copy was open for writing, and that has it open until it runs its
            // program.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(Duration::from_millis(10));
            }
            output => break output.unwrap(),
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the body of the test `name` as a user whom permission bits hold back: in this process, or, since they do not hold
/// root back, in one that gives root up.
pub(crate) fn as_ordinary_user(name: &str, body: impl FnOnce()) {
    if !rustix::process::geteuid().is_root() {
        return body();
    }
    assert!(std::env::var_os(CHILD).is_none(), "root was not given up");
    let give_up = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env_remove("TMPDIR").uid(NOBODY).gid(NOBODY);
        command
    };
    in_child(name, give_up, body);
}

/// A temporary directory in memory where that is to be had: thousands of little trees on a disk take minutes.
pub(crate) fn tempdir_in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
