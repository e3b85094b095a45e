//! `moby.filesync.v1.Auth`: a daemon asks for a registry's credentials when it needs them, during the build.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

use super::trouble::Trouble;
use crate::request::{Credential, Credentials};

/// After this, a credential is asked for anew. Tokens of cloud registries live for an hour or longer, some helpers'
/// for less; a build may outlive them.
const FRESH: Duration = Duration::from_secs(300);

/// The registries that were answered with credentials.
#[derive(Clone, Debug, Default)]
pub struct Given(Arc<Mutex<HashSet<String>>>);

impl Given {
    /// Whether `registry` is among them.
    pub fn contains(&self, registry: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(registry)
    }

    fn add(&self, registry: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned());
    }
}

/// Answers from a [`Credentials`].
pub struct AuthService {
    credentials: Arc<dyn Credentials>,
    asked: Mutex<HashMap<String, Instant>>,
    given: Given,
    trouble: Trouble,
}

impl AuthService {
    /// Answers from `credentials`; keeps who got some in `given`, and what goes wrong in `trouble`.
    pub fn new(credentials: Arc<dyn Credentials>, given: Given, trouble: Trouble) -> Self {
        Self { credentials, asked: Mutex::default(), given, trouble }
    }

    /// Whether the last answer for this registry is old by now.
    fn is_old(&self, registry: &str) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let old = asked.get(registry).is_some_and(|last| now.duration_since(*last) > FRESH);
        if old || !asked.contains_key(registry) {
            asked.insert(registry.to_owned(), now);
        }
        old
    }
}

/// Docker Hub answers at a host of its own; credentials for it are kept under `docker.io`.
pub fn registry_of(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "index.docker.io" | "registry.docker.io" => "docker.io",
        other => other,
    }
}

fn answer(credential: Option<Credential>) -> CredentialsResponse {
    match credential {
        // Nothing at all means anonymous access.
        None => CredentialsResponse::default(),
        Some(Credential { identity_token: Some(token), .. }) => {
            CredentialsResponse { username: String::new(), secret: token.expose().clone() }
        }
        Some(Credential { username, password, .. }) => {
            CredentialsResponse { username, secret: password.expose().clone() }
        }
    }
}

#[tonic::async_trait]
impl Auth for AuthService {
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let registry = registry_of(&request.get_ref().host);
        let found = self.credentials.get(registry, self.is_old(registry)).await;
        let credential = found.map_err(|error| self.trouble.report(error))?;
        if credential.is_some() {
            self.given.add(registry);
        }
        Ok(Response::new(answer(credential)))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unavailable(NO_TOKENS))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unavailable(NO_TOKENS))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unavailable(NO_TOKENS))
    }
}

/// Daemons take `UNAVAILABLE` as "ask for credentials instead".
const NO_TOKENS: &str = "tokens are fetched by the daemon";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[test]
    fn docker_hub_has_one_name() {
        assert_eq!(registry_of("registry-1.docker.io"), "docker.io");
        assert_eq!(registry_of("localhost:5000"), "localhost:5000");
    }

    #[test]
    fn an_identity_token_comes_without_a_user() {
        let token = Credential {
            username: "00000000-0000-0000-0000-000000000000".into(),
            identity_token: Some(Secret::new("token".into())),
            ..Credential::default()
        };
        assert_eq!(answer(Some(token)), CredentialsResponse { username: String::new(), secret: "token".into() });
        assert_eq!(answer(None), CredentialsResponse::default());
    }
}
