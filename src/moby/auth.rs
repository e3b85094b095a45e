//! Credentials in the forms that a daemon takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::json;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::registry::credentials::config_key;
use crate::request::{Credential, Credentials};

/// `X-Registry-Auth` for one registry; an empty object for anonymous access.
pub(crate) fn registry_auth(registry: &str, credential: Option<&Credential>) -> String {
    let body = credential.map_or_else(|| json!({}), |credential| auth_config(registry, credential));
    URL_SAFE.encode(body.to_string())
}

/// `X-Registry-Config` for several registries.
pub(crate) fn registry_config(credentials: &BTreeMap<String, Credential>) -> String {
    let entries: serde_json::Map<String, serde_json::Value> = credentials
        .iter()
        .map(|(registry, credential)| (config_key(registry).to_owned(), auth_config(registry, credential)))
        .collect();
    URL_SAFE.encode(serde_json::Value::Object(entries).to_string())
}

fn auth_config(registry: &str, credential: &Credential) -> serde_json::Value {
    let server = config_key(registry);
    match &credential.identity_token {
        Some(token) => json!({ "identitytoken": token.expose(), "serveraddress": server }),
        None => json!({
            "username": credential.username,
            "password": credential.password.expose(),
            "serveraddress": server,
        }),
    }
}

/// Remembers for whom credentials were found and whose search failed, so that a later refusal can say so. A failed search
/// is not an error yet: a public image needs no credentials.
pub(crate) struct Lenient {
    inner: Arc<dyn Credentials>,
    known: Mutex<BTreeSet<String>>,
    failed: Mutex<Option<Error>>,
}

impl Lenient {
    pub(crate) fn new(inner: Arc<dyn Credentials>) -> Self {
        Self { inner, known: Mutex::default(), failed: Mutex::default() }
    }

    /// The error of a search that failed, if the refusal of `error` may come from that.
    pub(crate) async fn blame(&self, error: Error) -> Error {
        match error {
            Error::RegistryDenied { had_credentials: false, .. } | Error::BaseMissing { .. } => {
                self.failed.lock().await.take().unwrap_or(error)
            }
            other => other,
        }
    }

    /// The registries for which there was a credential.
    pub(crate) async fn known(&self) -> BTreeSet<String> {
        self.known.lock().await.clone()
    }
}

#[async_trait]
impl Credentials for Lenient {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        match self.inner.get(registry, refresh).await {
            Ok(found) => {
                if found.is_some() {
                    self.known.lock().await.insert(registry.to_owned());
                }
                Ok(found)
            }
            Err(error @ Error::Credentials { .. }) => {
                self.failed.lock().await.get_or_insert(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn headers_have_the_daemons_form() {
        let decode = |text: String| String::from_utf8(URL_SAFE.decode(text).unwrap()).unwrap();
        assert_eq!(registry_auth("r.io", None), "e30=");
        let credential =
            Credential { username: "me".into(), password: Secret::new("pass".into()), identity_token: None };
        assert_eq!(
            decode(registry_auth("docker.io", Some(&credential))),
            r#"{"username":"me","password":"pass","serveraddress":"https://index.docker.io/v1/"}"#
        );
        let token = Credential { identity_token: Some(Secret::new("t".into())), ..Credential::default() };
        assert_eq!(
            decode(registry_config(&BTreeMap::from([("r.io:1".to_owned(), token)]))),
            r#"{"r.io:1":{"identitytoken":"t","serveraddress":"r.io:1"}}"#
        );
    }
}
