//! `moby.filesync.v1.Auth`: a daemon asks for what a registry demands when it needs it, during the build: for tokens, which
//! are fetched here ([`super::tokens`]), and for the credentials themselves where a registry has no token service.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

use super::tokens::Tokens;
use super::trouble::Trouble;
use crate::environment::Environment;
use crate::request::{Credential, Credentials};

/// After this, a credential is asked for anew. Tokens of cloud registries live for an hour or longer, some helpers'
/// for less; a build may outlive them.
const FRESH: Duration = Duration::from_secs(300);

/// The registries that there are credentials for: the daemon got them, or tokens for them.
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
    tokens: Tokens,
    asked: Mutex<HashMap<String, Instant>>,
    given: Given,
    trouble: Trouble,
}

impl AuthService {
    /// Answers from `credentials`, and fetches tokens as `environment` says; keeps for whom there were some in `given`, and
    /// what goes wrong in `trouble`.
    pub fn new(credentials: Arc<dyn Credentials>, environment: &Environment, given: Given, trouble: Trouble) -> Self {
        let tokens = Tokens::new(environment, Arc::clone(&credentials));
        Self { credentials, tokens, asked: Mutex::default(), given, trouble }
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

    async fn fetch_token(&self, request: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        let FetchTokenRequest { host, realm, service, scopes, .. } = request.into_inner();
        let registry = registry_of(&host);
        let grant = self.tokens.fetch(registry, &realm, &service, &scopes).await;
        let grant = grant.map_err(|error| self.trouble.report(error))?;
        if grant.had_credentials {
            self.given.add(registry);
        }
        Ok(Response::new(FetchTokenResponse {
            token: grant.token.expose().clone(),
            // A zero would be a minute to the daemon.
            expires_in: i64::try_from(grant.lifetime.as_secs().max(1)).unwrap_or(i64::MAX),
            // Just now: a daemon takes its own clock, which need not agree with this one or the token service's.
            issued_at: 0,
        }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let GetTokenAuthorityRequest { host, salt } = request.into_inner();
        let public_key = self.tokens.public_key(registry_of(&host), &salt).await;
        let public_key = public_key.map_err(|error| self.trouble.report(error))?;
        Ok(Response::new(GetTokenAuthorityResponse { public_key }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let VerifyTokenAuthorityRequest { host, payload, salt } = request.into_inner();
        let signed = self.tokens.sign(registry_of(&host), &salt, &payload).await;
        let signed = signed.map_err(|error| self.trouble.report(error))?;
        Ok(Response::new(VerifyTokenAuthorityResponse { signed }))
    }
}

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
