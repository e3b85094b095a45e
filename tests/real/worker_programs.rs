//! Workers behind a program that copies bytes: in containers and pods, and over SSH. The programs here are ours, and a real
//! BuildKit is behind them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cooper::environment::Environment;

use crate::worker_bed::{Backend, Case, Held};
use crate::worker_proxy::Proxy;

/// Writes down what it was called with, and copies bytes until either side ends.
const COPIER: &str = r#"#!/usr/bin/env python3
import json, os, socket, sys, threading
with open(LOG, "a") as log:
    log.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\n")
worker = socket.create_connection(("127.0.0.1", PORT))
def send():
    while data := os.read(0, 65536):
        worker.sendall(data)
    worker.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := worker.recv(65536):
    os.write(1, data)
os.write(2, b"the copier ends")
"#;

const NAMES: [&str; 5] = ["docker", "podman", "nerdctl", "kubectl", "ssh"];

/// A folder of programs with this text.
fn programs(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

/// The environment of this process, with these programs before all others, or without any other.
fn with_path(folder: &Path, others: bool) -> Environment {
    let mut path = folder.as_os_str().to_owned();
    if others {
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
    }
    let variables = std::env::vars_os().filter(|(name, _)| name != "PATH");
    Environment::with("/", variables.chain([(OsString::from("PATH"), path)]))
}

/// Addresses, and what programs they are.
const CALLS: [(&str, &[&str]); 6] = [
    ("docker-container://bk", &["docker", "exec", "-i", "bk", "buildctl", "dial-stdio"]),
    ("docker-container://bk?context=far", &["docker", "--context=far", "exec", "-i", "bk", "buildctl", "dial-stdio"]),
    ("podman-container://bk", &["podman", "exec", "-i", "bk", "buildctl", "dial-stdio"]),
    (
        "nerdctl-container://bk?namespace=ci",
        &["nerdctl", "--namespace=ci", "exec", "-i", "bk", "buildctl", "dial-stdio"],
    ),
    (
        "kube-pod://bk-0?context=far&namespace=ci&container=b",
        &[
            "kubectl",
            "--context=far",
            "--namespace=ci",
            "exec",
            "-i",
            "--container=b",
            "bk-0",
            "--",
            "buildctl",
            "dial-stdio",
        ],
    ),
    (
        "ssh://me@box:2222",
        &[
            "ssh",
            "-o",
            "ConnectTimeout=30",
            "-o",
            "BatchMode=yes",
            "-T",
            "-l",
            "me",
            "-p",
            "2222",
            "--",
            "box",
            "buildctl",
            "dial-stdio",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_called_and_end_with_the_build() {
    let held = Held::now();
    let backends = [Some(Backend::inside()), Backend::buildkitd("BUILDKIT_HOST")];
    for backend in backends.into_iter().flatten() {
        let proxy = Proxy::before(backend.target.clone()).await;
        let log = tempfile::NamedTempFile::new().unwrap();
        let copier = COPIER
            .replace("LOG", &format!("{:?}", log.path().to_str().unwrap()))
            .replace("PORT", &proxy.address.port().to_string());
        let folder = programs(&copier);
        for (address, expected) in CALLS {
            std::fs::write(log.path(), "").unwrap();
            let mut case = Case::new(0.0).on_one(&backend, address);
            case.environment = with_path(folder.path(), true);
            let ended = case.run().await;
            case.is_right(&ended).await;
            assert_eq!(ended.chosen()[0].0, address);
            let calls = std::fs::read_to_string(log.path()).unwrap();
            let calls: Vec<Vec<String>> = calls.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            // One connection carries all: each is a login.
            assert_eq!(calls, [expected]);
        }
    }
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_missing_or_fails_is_named() {
    let held = Held::now();
    let failing = programs("#!/bin/sh\necho 'Error: no such container: bk' >&2\nexit 125\n");
    let silent = programs("#!/bin/sh\nexit 3\n");
    let empty = tempfile::tempdir().unwrap();
    let cases = [
        (failing.path(), "Error: no such container: bk"),
        (silent.path(), "it ended without an answer"),
        (empty.path(), "is not installed"),
    ];
    for (folder, told) in cases {
        for (address, call) in CALLS {
            let mut case = Case::new(0.0).on(&[address]);
            case.environment = with_path(folder, false);
            let ended = case.run().await;
            let error = ended.error();
            assert_eq!(error.code(), "worker-unreachable", "{error}");
            let text = error.to_string();
            assert!(text.contains(told) && text.contains(address) && text.contains(call[0]), "{text}");
        }
    }
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_in_the_middle_is_a_worker_that_went() {
    let held = Held::now();
    let backend = Backend::inside();
    let proxy = Proxy::before(backend.target.clone()).await;
    let folder = programs(&COPIER.replace("LOG", "\"/dev/null\"").replace("PORT", &proxy.address.port().to_string()));
    let control = proxy.control();
    let mut case = Case::new(1.0).on_one(&backend, "kube-pod://bk-0").once_started(move || control.reset());
    case.environment = with_path(folder.path(), true);
    let ended = case.run().await;
    // It is the only worker, and is tried once more.
    case.is_right(&ended).await;
    let [warning] = ended.warnings("worker-lost")[..] else { panic!("{}", ended.told()) };
    assert!(warning.starts_with("the BuildKit at kube-pod://bk-0 went away: "), "{warning}");
    drop(proxy);
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_leaves_no_program() {
    let held = Held::now();
    let backend = Backend::inside();
    let proxy = Proxy::before(backend.target.clone()).await;
    let folder = programs(&COPIER.replace("LOG", "\"/dev/null\"").replace("PORT", &proxy.address.port().to_string()));
    let mut case = Case::new(30.0).on_one(&backend, "ssh://box");
    case.environment = with_path(folder.path(), true);
    let cancel = case.cancel.clone();
    let case = case.once_started(move || cancel.cancel());
    let ended = case.run().await;
    assert_eq!(ended.error().code(), "interrupted");
    drop(proxy);
    held.is_all().await;
}
