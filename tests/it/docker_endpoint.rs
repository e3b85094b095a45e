//! Which daemon is found: the Docker CLI's rules, on a machine of the test's own.

use std::fs;
use std::path::Path;

use cooper::cancel::Cancel;
use cooper::daemon::endpoint::{Endpoint, resolve};
use cooper::digest::Digest;
use cooper::engine::Engine;
use cooper::engine::docker::DockerEngine;
use cooper::environment::Environment;
use cooper::event::Events;
use cooper::registry::credentials::Anonymous;
use cooper::request::{EngineSpec, Job, Pem};

use crate::docker_fake::Fake;

/// A home with a Docker config in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::create_dir(home.path().join(".docker")).unwrap();
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn config(&self, text: &str) {
        fs::write(self.path().join(".docker/config.json"), text).unwrap();
    }

    fn context(&self, name: &str, endpoint: &str, files: &[&str]) {
        let id = Digest::of(name.as_bytes()).hex();
        let meta = self.path().join(".docker/contexts/meta").join(&id);
        fs::create_dir_all(&meta).unwrap();
        let text = format!(r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{endpoint}}}}}"#);
        fs::write(meta.join("meta.json"), text).unwrap();
        let tls = self.path().join(".docker/contexts/tls").join(&id).join("docker");
        fs::create_dir_all(&tls).unwrap();
        for file in files {
            fs::write(tls.join(file), "pem").unwrap();
        }
    }

    fn environment(&self, variables: &[(&str, &str)]) -> Environment {
        let home = [("HOME", self.path().to_str().unwrap())];
        Environment::with(self.path(), home.into_iter().chain(variables.iter().copied()))
    }

    fn resolve(&self, spec: &EngineSpec, variables: &[(&str, &str)]) -> Vec<Endpoint> {
        resolve(spec, &self.environment(variables)).unwrap()
    }

    fn one(&self, spec: &EngineSpec, variables: &[(&str, &str)]) -> String {
        let found = self.resolve(spec, variables);
        assert_eq!(found.len(), 1, "{found:?}");
        format!("{} from {}", found[0].address, found[0].source)
    }
}

#[test]
fn who_is_asked_first() {
    let home = Home::new();
    home.config(r#"{"currentContext": "colima", "auths": {}}"#);
    home.context("colima", r#"{"Host":"unix:///home/me/.colima/docker.sock","SkipTLSVerify":false}"#, &[]);
    home.context("other", r#"{"Host":"ssh://me@box"}"#, &[]);
    let none = EngineSpec::default();
    let given = EngineSpec { endpoints: vec!["tcp://a:1".into()], ..EngineSpec::default() };
    let named = EngineSpec { docker_context: Some("other".into()), ..EngineSpec::default() };
    let host = ("DOCKER_HOST", "tcp://b:2");
    let context = ("DOCKER_CONTEXT", "other");
    assert_eq!(home.one(&given, &[host, context]), "tcp://a:1 from the given endpoint");
    assert_eq!(home.one(&named, &[host]), "ssh://me@box from Docker context `other`");
    assert_eq!(home.one(&none, &[host, context]), "tcp://b:2 from DOCKER_HOST");
    assert_eq!(home.one(&none, &[context]), "ssh://me@box from Docker context `other` of DOCKER_CONTEXT");
    assert_eq!(
        home.one(&none, &[]),
        "unix:///home/me/.colima/docker.sock from Docker context `colima`, the current one"
    );
    let default = EngineSpec { docker_context: Some("default".into()), ..EngineSpec::default() };
    assert!(home.resolve(&default, &[]).len() > 1);
}

#[test]
fn the_usual_places_come_last_and_podman_after_docker() {
    let home = Home::new();
    let found = home.resolve(&EngineSpec::default(), &[("XDG_RUNTIME_DIR", "/run/user/7")]);
    let root = home.path().display();
    let addresses: Vec<String> = found.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(
        addresses,
        [
            format!("unix://{root}/var/run/docker.sock"),
            format!("unix://{root}/.docker/run/docker.sock"),
            "unix:///run/user/7/docker.sock".to_owned(),
            "unix:///run/user/7/podman/podman.sock".to_owned(),
            format!("unix://{root}/run/podman/podman.sock"),
        ]
    );
}

#[test]
fn tls_follows_the_variables_and_the_context() {
    let home = Home::new();
    let certificates = home.path().join("certs");
    fs::create_dir(&certificates).unwrap();
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::write(certificates.join(file), "pem").unwrap();
    }
    let path = certificates.to_str().unwrap();
    let host = ("DOCKER_HOST", "tcp://b");
    let verified =
        home.resolve(&EngineSpec::default(), &[host, ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", path)]);
    assert_eq!(verified[0].address.to_string(), "tcp://b:2376");
    let tls = verified[0].tls.as_ref().unwrap();
    assert!(!tls.skip_verify);
    assert_eq!(tls.ca, Some(Pem::File(certificates.join("ca.pem"))));
    assert_eq!(tls.key, Some(Pem::File(certificates.join("key.pem"))));
    let unverified = home.resolve(&EngineSpec::default(), &[host, ("DOCKER_TLS", "1")]);
    assert!(unverified[0].tls.as_ref().unwrap().skip_verify);
    let plain = home.resolve(&EngineSpec::default(), &[host]);
    assert_eq!((plain[0].address.to_string().as_str(), &plain[0].tls), ("tcp://b:2375", &None));
    home.context("secure", r#"{"Host":"tcp://c:9"}"#, &["ca.pem", "cert.pem", "key.pem"]);
    let spec = EngineSpec { docker_context: Some("secure".into()), ..EngineSpec::default() };
    let tls = home.resolve(&spec, &[])[0].tls.clone().unwrap();
    let Some(Pem::File(cert)) = tls.cert else { panic!("{tls:?}") };
    assert!(cert.ends_with("docker/cert.pem"));
}

#[test]
fn settings_that_cannot_be_read_are_errors() {
    let home = Home::new();
    let fails = |spec: &EngineSpec, variables: &[(&str, &str)], part: &str| {
        let error = resolve(spec, &home.environment(variables)).unwrap_err();
        assert_eq!(error.code(), "daemon-config");
        assert!(error.to_string().contains(part), "{error}");
    };
    let none = EngineSpec::default();
    fails(&none, &[("DOCKER_HOST", "ftp://x")], "DOCKER_HOST");
    fails(&none, &[("DOCKER_CONTEXT", "missing")], "no such context");
    home.context("kubernetes", "null", &[]);
    fails(&none, &[("DOCKER_CONTEXT", "kubernetes")], "no Docker endpoint");
    home.config("{\n\"auths\": {\"r\": {\"auth\": \"aHVudGVyMg==\"}},\n oops}");
    fails(&none, &[], "line 3");
}

fn job() -> Job {
    Job { events: Events::none(), cancel: Cancel::new(), credentials: std::sync::Arc::new(Anonymous) }
}

#[tokio::test]
async fn the_first_daemon_that_answers_is_used() {
    let home = Home::new();
    let fake = Fake::start(|_, _| None);
    let podman = home.path().join("run/podman");
    fs::create_dir_all(&podman).unwrap();
    std::os::unix::fs::symlink(fake.path("docker.sock"), podman.join("podman.sock")).unwrap();
    // A socket on which nobody listens any more.
    fs::create_dir_all(home.path().join("var/run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(home.path().join("var/run/docker.sock")).unwrap());
    let engine = DockerEngine::new(EngineSpec::default(), home.environment(&[]));
    let info = engine.check(&job()).await.unwrap();
    assert_eq!((info.version.as_str(), info.buildkit), ("20.10.24", true));
    assert!(info.endpoint.ends_with("run/podman/podman.sock"), "{}", info.endpoint);
    drop(fake);
    let failure = engine.check(&job()).await.unwrap_err();
    assert_eq!(failure.code(), "daemon-unreachable");
    let text = failure.to_string();
    for part in ["nothing listens", "the default socket", "podman.sock", "no such socket"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// An `ssh` that is a script.
fn ssh(folder: &Path, script: &str) -> Environment {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join("ssh");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\" > {}/arguments\n{script}", folder.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    Environment::with(folder, [("PATH", path)])
}

#[tokio::test]
async fn a_daemon_behind_ssh() {
    let folder = tempfile::tempdir().unwrap();
    let spec = EngineSpec { endpoints: vec!["ssh://me@box:2200".into()], ..EngineSpec::default() };
    let answer = r#"
answer() { printf 'HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: %s\r\n\r\n%s' "${#1}" "$1"; }
while read -r method path rest; do
  while read -r line; do line=$(printf %s "$line" | tr -d '\r'); [ -z "$line" ] && break; done
  case "$path" in
    /_ping) answer OK ;;
    *) answer '{"Version":"9.8.7","Os":"linux","Arch":"arm64"}' ;;
  esac
done
"#;
    let engine = DockerEngine::new(spec.clone(), ssh(folder.path(), answer));
    let info = engine.check(&job()).await.unwrap();
    assert_eq!((info.version.as_str(), info.platform.as_str()), ("9.8.7", "linux/arm64"));
    assert_eq!(info.endpoint, "ssh://me@box:2200");
    let arguments = fs::read_to_string(folder.path().join("arguments")).unwrap();
    assert!(arguments.contains("-l me -p 2200 -- box docker system dial-stdio"), "{arguments}");

    let refusing = ssh(folder.path(), "echo 'me@box: Permission denied (publickey).' >&2; exit 255\n");
    // It may have ended before the request is written, or after that.
    for _ in 0..20 {
        let failure = DockerEngine::new(spec.clone(), refusing.clone()).check(&job()).await.unwrap_err();
        assert_eq!(failure.code(), "daemon-unreachable", "{failure}");
        assert!(failure.to_string().contains("Permission denied (publickey)"), "{failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ssh_that_hangs_ends_with_the_call() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let environment = ssh(folder.path(), &format!("echo $$ > {}\nexec sleep 1000\n", pid.display()));
    let spec = EngineSpec { endpoints: vec!["ssh://box".into()], ..EngineSpec::default() };
    let engine = DockerEngine::new(spec, environment);
    let (job, cancel) = {
        let job = job();
        (job.clone(), job.cancel)
    };
    let check = tokio::spawn(async move { engine.check(&job).await });
    let process = loop {
        match fs::read_to_string(&pid).map(|text| text.trim().to_owned()) {
            Ok(text) if !text.is_empty() => break format!("/proc/{text}/cmdline"),
            _ => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    };
    cancel.cancel();
    assert_eq!(check.await.unwrap().unwrap_err().code(), "interrupted");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    // A killed process is gone, or a zombie without a command line until it is waited for.
    while fs::read(&process).is_ok_and(|line| !line.is_empty()) {
        assert!(std::time::Instant::now() < deadline, "ssh runs on");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
