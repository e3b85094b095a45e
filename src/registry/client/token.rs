//! Tokens of a registry's token service (distribution's docs/spec/auth/token.md and oauth.md).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;

use super::auth::{Pass, State, Token, basic};
use super::body::{Body, Collected, collect, whole};
use super::host::{Broken, Host, Read, request};
use super::refusal::MAX_BODY;
use super::retry::{Retry, asked, passes};
use super::scope::Scope;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// How long a token lives that does not say (token.md, `expires_in`).
const LIFETIME: Duration = Duration::from_secs(60);
/// No service gives tokens for longer than a day.
const LONGEST_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Tokens are a few kilobytes.
const MAX_TOKEN: usize = 1 << 20;
/// How we are called by token services.
const CLIENT: &str = "cooper";
/// The user of those who have nothing but an identity token, as credential helpers call it.
const TOKEN_USER: &str = "<token>";

/// The token service's answer: two names for the same thing.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret<String>>,
    access_token: Option<Secret<String>>,
    expires_in: Option<f64>,
    refresh_token: Option<Secret<String>>,
}

/// Why there is no token.
pub(super) enum NoToken {
    /// The credentials are not good enough.
    Denied(StatusCode, Bytes),
    Failed(Error),
}

/// A token service, and what it is asked for.
pub(super) struct TokenService<'a> {
    pub(super) host: &'a Host,
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    pub(super) scopes: &'a [Scope],
}

/// A token, just given.
pub struct Grant {
    /// What to show the registry.
    pub token: Secret<String>,
    /// How long it is good for; a minute unless the service says something else.
    pub lifetime: Duration,
    /// Whether it was given for credentials.
    pub had_credentials: bool,
}

impl TokenService<'_> {
    /// A new token, which is remembered.
    pub(super) async fn token(&self, state: &mut State) -> Result<Pass, NoToken> {
        let grant = self.grant(state).await?;
        let pass = Pass::new(&format!("Bearer {}", grant.token.expose()), state.generation);
        let pass = pass.ok_or_else(|| self.useless(StatusCode::OK))?;
        let until = Instant::now() + grant.lifetime.mul_f64(0.9);
        state.tokens.retain(|token| token.until > Instant::now());
        state.tokens.push(Token { scopes: self.scopes.to_vec(), pass: pass.clone(), until });
        Ok(pass)
    }

    /// A new token.
    pub(super) async fn grant(&self, state: &mut State) -> Result<Grant, NoToken> {
        let credential = state.credential.clone();
        let identity = credential.as_ref().and_then(|credential| credential.identity_token.as_ref());
        let mut answer = match identity {
            Some(identity) => self.post(identity).await?,
            None => self.get(credential.as_ref().map(basic)).await?,
        };
        // Some services know only one of the two ways.
        if let (Some(identity), 404 | 405 | 501) = (identity, answer.status.as_u16()) {
            let user =
                credential.as_ref().map(|credential| credential.username.as_str()).filter(|user| !user.is_empty());
            let pair = format!("{}:{}", user.unwrap_or(TOKEN_USER), identity.expose());
            answer = self.get(Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))))).await?;
        }
        if !answer.status.is_success() {
            return Err(self.refusal(&answer));
        }
        let given: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| self.useless(answer.status))?;
        let token = given.token.or(given.access_token).filter(|token| !token.expose().is_empty());
        let token = token.ok_or_else(|| self.useless(answer.status))?;
        self.host.auth.remember(&token);
        if let (Some(fresh), Some(credential)) = (given.refresh_token, state.credential.as_mut())
            && credential.identity_token.is_some()
            && !fresh.expose().is_empty()
        {
            // The service may take each identity token only once.
            self.host.auth.remember(&fresh);
            credential.identity_token = Some(fresh);
        }
        let lifetime = given.expires_in.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        let lifetime = lifetime.map_or(LIFETIME, |seconds| {
            Duration::try_from_secs_f64(seconds).map_or(LONGEST_LIFETIME, |lifetime| lifetime.min(LONGEST_LIFETIME))
        });
        Ok(Grant { token, lifetime, had_credentials: credential.is_some() })
    }

    async fn get(&self, authorization: Option<Secret<String>>) -> Result<Read, NoToken> {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.iter().map(|service| ("service", service)));
            query.extend_pairs(self.scopes.iter().map(|scope| ("scope", scope.to_string())));
        }
        let mut headers = HeaderMap::new();
        if let Some(mut value) = authorization.and_then(|text| HeaderValue::from_str(text.expose()).ok()) {
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        self.send(&Method::GET, &url, &headers, &Bytes::new()).await
    }

    async fn post(&self, identity: &Secret<String>) -> Result<Read, NoToken> {
        let form = self.form(identity);
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, kind);
        self.send(&Method::POST, &self.realm, &headers, &form).await
    }

    fn form(&self, identity: &Secret<String>) -> Bytes {
        let scopes: Vec<String> = self.scopes.iter().map(Scope::to_string).collect();
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token");
        form.append_pair("refresh_token", identity.expose());
        form.append_pair("client_id", CLIENT);
        form.append_pair("scope", &scopes.join(" "));
        form.extend_pairs(self.service.iter().map(|service| ("service", service)));
        form.finish().into()
    }

    /// Sends until there is an answer. Redirects are not followed: credentials must not go along.
    async fn send(&self, method: &Method, url: &Url, headers: &HeaderMap, body: &Bytes) -> Result<Read, NoToken> {
        let mut retry = Retry::new(self.host.limits);
        loop {
            let wait = match self.send_once(method, url, headers, whole(body.clone())).await {
                Ok(read) if passes(read.status) => match retry.failed(asked(&read.headers)) {
                    Some(wait) => wait,
                    None => return Ok(read),
                },
                Ok(read) => return Ok(read),
                Err(broken) => {
                    let reason = format!("its token service: {}", broken.reason);
                    let broken = Broken { reason, ..broken };
                    self.host.wait(&mut retry, broken).await.map_err(NoToken::Failed)?;
                    continue;
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn send_once(&self, method: &Method, url: &Url, headers: &HeaderMap, body: Body) -> Result<Read, Broken> {
        let request = request(method, url, headers, body, None).map_err(Broken::lasting)?;
        let (parts, body) = self.host.send(request).await?.into_parts();
        let collected = collect(body, MAX_TOKEN, self.host.limits.idle).await.map_err(Broken::lost)?;
        let (Collected::Whole(body) | Collected::TooLong(body)) = collected;
        Ok(Read { status: parts.status, headers: parts.headers, body, cut: false, foreign: false })
    }

    fn refusal(&self, answer: &Read) -> NoToken {
        let status = answer.status;
        if status.is_client_error() && !passes(status) {
            return NoToken::Denied(status, answer.body.slice(..answer.body.len().min(MAX_BODY)));
        }
        self.failed(status, self.host.words(status, &answer.body))
    }

    fn useless(&self, status: StatusCode) -> NoToken {
        self.failed(status, "it gives no token".into())
    }

    fn failed(&self, status: StatusCode, message: String) -> NoToken {
        NoToken::Failed(Error::RegistryRefused {
            registry: self.host.name.clone(),
            action: "a token of its token service".into(),
            status: status.as_u16(),
            message,
        })
    }
}
