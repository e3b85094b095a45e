//! Credentials of the user's Docker config and its helpers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cooper::environment::Environment;
use cooper::error::Result;
use cooper::registry::credentials::{Chain, DockerConfig};
use cooper::request::{Credential, Credentials};
use cooper::secret::Secret;

fn config(folder: &Path, text: &str) -> DockerConfig {
    fs::write(folder.join("config.json"), text).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let variables = [("DOCKER_CONFIG", folder.to_str().unwrap()), ("PATH", path.as_str())];
    DockerConfig::new(Arc::new(Environment::with(folder, variables)))
}

fn helper(folder: &Path, name: &str, script: &str) {
    let path = folder.join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\nread key\necho \"$1 $key\" >> {}/asked\n{script}\n", folder.display()))
        .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn pair(credential: Option<Credential>) -> Option<(String, String)> {
    credential.map(|found| match found.identity_token {
        Some(token) => ("token".to_owned(), token.expose().clone()),
        None => (found.username, found.password.expose().clone()),
    })
}

fn known(user: &str, password: &str) -> (String, String) {
    (user.to_owned(), password.to_owned())
}

#[tokio::test]
async fn every_form_of_entry_is_read() {
    let folder = tempfile::tempdir().unwrap();
    helper(folder.path(), "store", r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"identity"}'"#);
    helper(folder.path(), "gcloud", r#"echo '{"ServerURL":"x","Username":"_json","Secret":"key"}'"#);
    helper(folder.path(), "empty", r"echo 'credentials not found in native keychain'; exit 1");
    let config = config(
        folder.path(),
        r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnBhc3M6d29yZA=="},
                "r.io:5000": {"username": "u", "password": "p"},
                "https://url.io/v2/": {"auth": "dXJsOnB3"},
                "token.io": {"auth": "eDo=", "identitytoken": "t"},
                "gcr.io": {}, "stored.io": {}
            },
            "credHelpers": {"gcr.io": "gcloud", "empty.io": "empty"},
            "credsStore": "store"
        }"#,
    );
    let get = async |registry: &str| pair(config.get(registry, false).await.unwrap());
    assert_eq!(get("docker.io").await, Some(known("hub", "pass:word")));
    assert_eq!(get("registry-1.docker.io").await, Some(known("hub", "pass:word")));
    assert_eq!(get("r.io:5000").await, Some(known("u", "p")));
    assert_eq!(get("url.io").await, Some(known("url", "pw")));
    assert_eq!(get("token.io").await, Some(known("token", "t")));
    assert_eq!(get("gcr.io").await, Some(known("_json", "key")));
    assert_eq!(get("empty.io").await, None);
    assert_eq!(get("stored.io").await, Some(known("token", "identity")));
    let asked = fs::read_to_string(folder.path().join("asked")).unwrap();
    assert_eq!(asked, "get gcr.io\nget empty.io\nget stored.io\n");
}

#[tokio::test]
async fn no_config_is_no_credential() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::with(folder.path(), [("HOME", folder.path())]);
    assert_eq!(DockerConfig::new(Arc::new(environment)).get("r.io", false).await.unwrap(), None);
}

#[tokio::test]
async fn failures_name_the_helper_and_show_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    helper(folder.path(), "broken", "echo hunter2; echo hunter2 >&2; exit 3");
    helper(folder.path(), "chatty", "echo 'Secret: hunter2'");
    helper(folder.path(), "hanging", "echo $$ > \"$(dirname \"$0\")/pid\"; exec sleep 1000");
    let config = config(
        folder.path(),
        r#"{"credHelpers": {"a.io": "broken", "b.io": "chatty", "c.io": "hanging", "d.io": "missing"}, "auths": {"e.io": {"auth": "!hunter2"}}}"#,
    )
    .with_helper_timeout(Duration::from_millis(300));
    for (registry, part) in [
        ("a.io", "docker-credential-broken"),
        ("b.io", "no credential"),
        ("c.io", "did not answer"),
        ("d.io", "not installed"),
        ("e.io", "cannot be decoded"),
    ] {
        let failure = config.get(registry, false).await.unwrap_err();
        assert_eq!(failure.code(), "credentials");
        let text = format!("{failure} {failure:?}");
        assert!(text.contains(part) && text.contains(registry), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // A helper of one registry does not matter to another.
    assert_eq!(config.get("other.io", false).await.unwrap(), None);
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < deadline, "the helper runs on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_broken_config_is_told_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let failure = config(folder.path(), "{\n\"auths\": hunter2").get("r.io", false).await.unwrap_err();
    assert!(failure.to_string().contains("line 2") && !failure.to_string().contains("hunter2"), "{failure}");
}

struct Caller;

#[async_trait]
impl Credentials for Caller {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        let password = Secret::new(if refresh { "new" } else { "old" }.to_owned());
        let known = Credential { username: "caller".into(), password, identity_token: None };
        Ok((registry == "r.io").then_some(known))
    }
}

#[tokio::test]
async fn the_caller_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), r#"{"credsStore": "missing", "auths": {"s.io": {"auth": "dTpw"}}}"#);
    let chain = Chain(vec![Arc::new(Caller), Arc::new(config)]);
    // A broken helper does not matter to a registry that the caller knows.
    assert_eq!(pair(chain.get("r.io", false).await.unwrap()), Some(known("caller", "old")));
    assert_eq!(pair(chain.get("r.io", true).await.unwrap()), Some(known("caller", "new")));
    assert_eq!(pair(chain.get("s.io", false).await.unwrap()), Some(known("u", "p")));
    assert_eq!(chain.get("t.io", false).await.unwrap_err().code(), "credentials");
}
