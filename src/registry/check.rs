//! Whether a registry answers and takes our credentials: `GET /v2/`, the challenge, a token, `GET /v2/` again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;

use super::client::{Client, Limits, RegistryConfig};
use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::request::{Credential, Credentials};

/// A registry that has not answered by then is not going to.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It answers and asks for nothing.
    Open,
    /// It answers and takes the credentials.
    Granted,
    /// It answers and gives tokens to anybody; whether one may write shows only in a push.
    Anonymous,
    /// It answers and refuses; the text is its own.
    Denied {
        /// Whether it was shown credentials.
        had_credentials: bool,
        /// Why.
        reason: String,
    },
    /// It does not answer, or not as a registry.
    Unreachable {
        /// Why.
        reason: String,
    },
}

/// The one credential that is looked at.
struct Given(Option<Credential>);

#[async_trait]
impl Credentials for Given {
    async fn get(&self, _registry: &str, _refresh: bool) -> Result<Option<Credential>> {
        Ok(self.0.clone())
    }
}

/// Looks whether `reference` could be pushed, as far as that shows without pushing. Nothing is written.
pub async fn access(reference: &Reference, credential: Option<&Credential>, environment: &Environment) -> Access {
    let config = match RegistryConfig::of(environment) {
        Ok(config) => config,
        Err(error) => return Access::Unreachable { reason: error.to_string() },
    };
    // Whoever looks wants to know how it is now.
    let limits = Limits { tries: 1, connect: TIMEOUT, idle: TIMEOUT, ..Limits::default() };
    let credentials = Arc::new(Given(credential.cloned()));
    let client = Client::with(environment, credentials, Cancel::new(), config, limits);
    match client.probe(reference).await {
        Ok(probed) if probed.status == StatusCode::OK => match (probed.login, credential) {
            (false, _) => Access::Open,
            (true, Some(_)) => Access::Granted,
            (true, None) => Access::Anonymous,
        },
        Ok(probed) => Access::Unreachable { reason: format!("what answers there is no registry ({})", probed.status) },
        Err(Error::RegistryDenied { message, had_credentials, .. }) => {
            Access::Denied { had_credentials, reason: message }
        }
        Err(Error::RegistryUnreachable { reason, .. }) => Access::Unreachable { reason },
        Err(error) => Access::Denied { had_credentials: credential.is_some(), reason: error.to_string() },
    }
}
