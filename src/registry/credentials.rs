//! Credentials of the user's Docker config and its credential helpers.
//!
//! `docker_credential` reads the config's own entries. Helpers are programs that may hang (a locked keychain, a login
//! that expired), so they are run here, where they can be stopped.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::reference::DEFAULT_REGISTRY;
use crate::request::{Credential, Credentials};
use crate::secret::Secret;

/// Cloud helpers log in over the network, in seconds.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The key of Docker Hub in every config and helper.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";
/// How a helper says that it holds an identity token.
const TOKEN_USER: &str = "<token>";
/// How a helper says that it knows nothing of a registry (docker-credential-helpers, `credentials/error.go`).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Nobody knows any credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn get(&self, _registry: &str, _refresh: bool) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// Asks several in turn; the first that knows a credential answers. An error ends the search.
#[derive(Clone)]
pub struct Chain(pub Vec<Arc<dyn Credentials>>);

#[async_trait]
impl Credentials for Chain {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        for link in &self.0 {
            if let Some(credential) = link.get(registry, refresh).await? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }
}

/// The Docker config of the user. Read anew each time, so a login in the middle of a build counts.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    environment: Arc<Environment>,
    helper_timeout: Duration,
}

/// What `docker-credential-* get` prints.
#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: Secret<String>,
}

impl DockerConfig {
    /// The config in `DOCKER_CONFIG` or `~/.docker` of this environment.
    pub const fn new(environment: Arc<Environment>) -> Self {
        Self { environment, helper_timeout: HELPER_TIMEOUT }
    }

    /// The same with another limit for helpers.
    #[must_use]
    pub fn with_helper_timeout(self, helper_timeout: Duration) -> Self {
        Self { helper_timeout, ..self }
    }

    fn path(&self) -> Option<PathBuf> {
        self.environment.docker_config_dir().map(|folder| folder.join("config.json"))
    }

    /// The config as JSON; `None` where there is no file that this user may read.
    async fn read(&self, registry: &str) -> Result<Option<Value>> {
        let Some(path) = self.path() else { return Ok(None) };
        let unusable = |reason: String| Error::Credentials { registry: registry.to_owned(), reason };
        match tokio::fs::read(&path).await {
            // The parser's words are left out: they could quote a credential.
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| {
                unusable(format!("{}, line {}, is no valid JSON of a Docker config", path.display(), error.line()))
            }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(None),
            Err(error) => Err(unusable(format!("{}: {error}", path.display()))),
        }
    }

    async fn ask_helper(&self, helper: &str, key: &str, registry: &str) -> Result<Option<Credential>> {
        let program = format!("docker-credential-{helper}");
        let failed = |reason: String| Error::Credentials {
            registry: registry.to_owned(),
            reason: format!("`{program}` {reason}"),
        };
        let run = async {
            let mut child = Command::new(&program)
                .arg("get")
                .env_clear()
                .envs(self.environment.variables())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                // A helper that does not read its input still answers.
                let _ = stdin.write_all(key.as_bytes()).await;
            }
            child.wait_with_output().await
        };
        let output = match tokio::time::timeout(self.helper_timeout, run).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                return Err(failed("is configured, but not installed".into()));
            }
            Ok(Err(error)) => return Err(failed(format!("cannot be run: {error}"))),
            Err(_) => return Err(failed(format!("did not answer within {} s", self.helper_timeout.as_secs_f32()))),
        };
        if !output.status.success() {
            // By the protocol this is where a helper says what is wrong.
            let said = String::from_utf8_lossy(&output.stdout);
            if said.contains(NOT_FOUND) {
                return Ok(None);
            }
            return Err(failed(format!("failed ({})", output.status)));
        }
        // The parser's words are left out: they could quote the secret.
        let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
            .map_err(|_| failed("answered something that is no credential".into()))?;
        Ok(credential(answer.username, answer.secret))
    }
}

/// A helper's pair; both empty means that it knows nothing.
fn credential(username: String, secret: Secret<String>) -> Option<Credential> {
    if username.is_empty() && secret.expose().is_empty() {
        return None;
    }
    Some(if username == TOKEN_USER {
        Credential { identity_token: Some(secret), ..Credential::default() }
    } else {
        Credential { username, password: secret, identity_token: None }
    })
}

/// The key of a registry in a Docker config.
pub fn config_key(registry: &str) -> &str {
    match registry {
        DEFAULT_REGISTRY | "index.docker.io" | "registry-1.docker.io" => HUB_KEY,
        other => other,
    }
}

/// What the config itself holds for a registry.
fn stored(config: &Value, key: &str, registry: &str) -> Result<Option<Credential>> {
    let unusable = |reason: &str| Error::Credentials {
        registry: registry.to_owned(),
        reason: format!("the entry of the Docker config {reason}"),
    };
    let mut own = config.clone();
    if let Some(fields) = own.as_object_mut() {
        fields.retain(|name, _| name == "auths");
        // `docker login` with a helper leaves empty entries behind.
        if let Some(auths) = fields.get_mut("auths").and_then(Value::as_object_mut) {
            auths.retain(|_, entry| has_content(entry));
        }
    }
    let text = serde_json::to_vec(&own).map_err(|error| Error::internal(error.to_string()))?;
    match docker_credential::get_credential_from_reader(text.as_slice(), key) {
        Ok(DockerCredential::IdentityToken(token)) => {
            Ok(Some(Credential { identity_token: Some(Secret::new(token)), ..Credential::default() }))
        }
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(credential(username, Secret::new(password))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::CredentialMismatchError) => {
            Err(unusable("has an `auth` that disagrees with its user name and password"))
        }
        Err(_) => Err(unusable("cannot be decoded")),
    }
}

fn has_content(entry: &Value) -> bool {
    ["auth", "username", "identitytoken"]
        .iter()
        .any(|field| entry.get(field).and_then(Value::as_str).is_some_and(|text| !text.is_empty()))
}

#[async_trait]
impl Credentials for DockerConfig {
    /// Order: `credHelpers` for this registry, the config's own entry, `credsStore`. Fails with `Credentials` if what is
    /// configured for this registry does not work; a helper of another registry is not touched.
    async fn get(&self, registry: &str, _refresh: bool) -> Result<Option<Credential>> {
        let Some(config) = self.read(registry).await? else { return Ok(None) };
        let key = config_key(registry);
        let helpers = config.get("credHelpers");
        let helper = [key, registry].iter().find_map(|key| {
            helpers.and_then(|helpers| helpers.get(key)).and_then(Value::as_str).filter(|name| !name.is_empty())
        });
        if let Some(helper) = helper {
            return self.ask_helper(helper, key, registry).await;
        }
        if let Some(credential) = stored(&config, key, registry)? {
            return Ok(Some(credential));
        }
        match config.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(store) => self.ask_helper(store, key, registry).await,
            None => Ok(None),
        }
    }
}
