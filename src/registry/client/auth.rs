//! Logging in at one registry: with a password, or with tokens that a service gives for it (`token`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::config::is_loopback;
use super::host::{Host, Login};
use super::scope::Scope;
use super::token::{Grant, NoToken, TokenService};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::registry::challenge::Challenge;
use crate::request::{Credential, Credentials};
use crate::secret::Secret;

/// Shorter ones would tear words apart that are none.
const MIN_REDACTED: usize = 4;
/// What a request shows. Its header is marked as sensitive.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pass {
    header: HeaderValue,
    /// Which of the credentials it is made of, counted up.
    generation: u32,
}

impl Pass {
    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    pub(super) fn new(text: &str, generation: u32) -> Option<Self> {
        let mut header = HeaderValue::from_str(text).ok()?;
        header.set_sensitive(true);
        Some(Self { header, generation })
    }
}

/// What one registry is shown.
pub(super) struct Auth {
    credentials: Arc<dyn Credentials>,
    state: Mutex<State>,
    /// All secrets so far: a registry that repeats one in an error must not get it shown.
    secrets: std::sync::Mutex<Secrets>,
}

#[derive(Default)]
struct Secrets {
    known: Vec<Secret<String>>,
    /// Whether there are credentials, as far as they have been asked for.
    credentials: bool,
}

#[derive(Default)]
pub(super) struct State {
    challenge: Option<Challenge>,
    /// Whether the credential has been asked for.
    asked: bool,
    pub(super) credential: Option<Credential>,
    pub(super) generation: u32,
    pub(super) tokens: Vec<Token>,
}

pub(super) struct Token {
    pub(super) scopes: Vec<Scope>,
    pub(super) pass: Pass,
    /// When it is not used any more, a little before it ends.
    pub(super) until: Instant,
}

impl Auth {
    pub(super) fn new(credentials: Arc<dyn Credentials>) -> Self {
        Self { credentials, state: Mutex::default(), secrets: std::sync::Mutex::default() }
    }

    /// Whether the registry has demanded a login.
    pub(super) async fn is_wanted(&self) -> bool {
        self.state.lock().await.challenge.is_some()
    }

    /// Whether it turned out that there are credentials.
    pub(super) fn has_credentials(&self) -> bool {
        self.secrets.lock().is_ok_and(|secrets| secrets.credentials)
    }

    /// A text without the secrets that this registry was shown.
    pub(super) fn redact(&self, text: &str) -> String {
        let Ok(secrets) = self.secrets.lock() else { return String::new() };
        secrets.known.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose().as_str(), "***"))
    }

    pub(super) fn remember(&self, secret: &Secret<String>) {
        if let Ok(mut secrets) = self.secrets.lock()
            && secret.expose().len() >= MIN_REDACTED
            && !secrets.known.contains(secret)
        {
            secrets.known.push(secret.clone());
        }
    }
}

impl State {
    fn token(&self, scopes: &[Scope]) -> Option<Pass> {
        let now = Instant::now();
        let fits = |token: &&Token| {
            token.until > now && scopes.iter().all(|scope| token.scopes.iter().any(|given| given.covers(scope)))
        };
        self.tokens.iter().find(fits).map(|token| token.pass.clone())
    }
}

impl Host {
    /// What to show for these scopes; `None` if nothing, as far as is known. `demanded` are scopes that the registry named.
    ///
    /// Fails with `RegistryDenied` if the token service refuses, with `RegistryUnreachable`, and as `Credentials` do.
    pub(super) async fn authorize(
        &self,
        reference: &Reference,
        scopes: &[Scope],
        demanded: &[Scope],
    ) -> Result<Option<Pass>> {
        let mut state = self.auth.state.lock().await;
        let (realm, service) = match state.challenge.clone() {
            None => return Ok(None),
            Some(Challenge::Basic) => {
                self.credential(&mut state).await?;
                let credential = state.credential.as_ref();
                let basic = credential.filter(|credential| credential.identity_token.is_none()).map(basic);
                return Ok(basic.and_then(|basic| Pass::new(basic.expose(), state.generation)));
            }
            Some(Challenge::Bearer { realm, service, .. }) => (realm, service),
        };
        // Some services give a token for the first scope only: that is the one that was missing.
        let unknown = demanded.iter().filter(|demanded| !scopes.iter().any(|scope| scope.covers(demanded)));
        let wanted: Vec<Scope> = unknown.chain(scopes).cloned().collect();
        if let Some(pass) = state.token(&wanted) {
            return Ok(Some(pass));
        }
        let realm = self.realm(&realm).map_err(|reason| self.denied_because(reference, reason))?;
        let service = TokenService { host: self, realm, service, scopes: &wanted };
        loop {
            self.credential(&mut state).await?;
            match service.token(&mut state).await {
                Ok(pass) => return Ok(Some(pass)),
                Err(NoToken::Failed(error)) => return Err(error),
                Err(NoToken::Denied(status, body)) => {
                    if !self.renew(&mut state).await? {
                        return Err(self.denied(reference, status, &body));
                    }
                }
            }
        }
    }

    /// A token for these scopes from a service that somebody else was sent to by this registry. `subject` is what it is
    /// for, in errors.
    ///
    /// Fails as [`Host::authorize`] does.
    pub(super) async fn grant(
        &self,
        realm: &str,
        service: Option<String>,
        scopes: &[Scope],
        subject: &str,
    ) -> Result<Grant> {
        let denied = |message| Error::RegistryDenied {
            registry: self.name.clone(),
            reference: subject.to_owned(),
            message,
            had_credentials: self.auth.has_credentials(),
        };
        // Whether this registry has TLS at all decides whether its token service must.
        self.url("").await?;
        let realm = self.realm(realm).map_err(denied)?;
        let service = TokenService { host: self, realm, service, scopes };
        let mut state = self.auth.state.lock().await;
        loop {
            self.credential(&mut state).await?;
            match service.grant(&mut state).await {
                Ok(grant) => return Ok(grant),
                Err(NoToken::Failed(error)) => return Err(error),
                Err(NoToken::Denied(status, body)) => {
                    if !self.renew(&mut state).await? {
                        return Err(denied(self.words(status, &body)));
                    }
                }
            }
        }
    }

    /// Takes note of a 401. Whether to send the request again.
    pub(super) async fn refused(&self, pass: Option<&Pass>, headers: &HeaderMap, login: &mut Login) -> Result<bool> {
        login.refusals += 1;
        let challenges = headers.get_all(header::WWW_AUTHENTICATE).iter();
        let mut state = self.auth.state.lock().await;
        match challenges.filter_map(|value| value.to_str().ok()).find_map(Challenge::parse) {
            Some(challenge) => {
                if let Challenge::Bearer { scope: Some(scope), .. } = &challenge {
                    login.scopes = Scope::all(scope).collect();
                }
                state.challenge = Some(challenge);
            }
            None => return Ok(false),
        }
        let Some(pass) = pass else { return Ok(login.refusals == 1) };
        login.shown += 1;
        if pass.generation < state.generation {
            // Somebody else has fetched other credentials since.
            return Ok(login.shown <= 3);
        }
        let tokens = state.tokens.len();
        state.tokens.retain(|token| token.pass != *pass);
        if matches!(state.challenge, Some(Challenge::Bearer { .. })) && login.shown == 1 {
            // It has run out, or allows too little.
            return Ok(true);
        }
        // A token that others have replaced was an old one.
        if tokens == state.tokens.len() && matches!(state.challenge, Some(Challenge::Bearer { .. })) && login.shown <= 2
        {
            return Ok(true);
        }
        self.renew(&mut state).await
    }

    /// Asks for the credential, if nobody has yet.
    async fn credential(&self, state: &mut State) -> Result<()> {
        if !state.asked {
            let found = self.auth.credentials.get(&self.name, false).await?;
            self.take(state, found);
        }
        Ok(())
    }

    /// Asks for a credential other than the one that was refused. Whether there is one.
    async fn renew(&self, state: &mut State) -> Result<bool> {
        let found = self.auth.credentials.get(&self.name, true).await?;
        if found.is_none() || state.credential == found {
            return Ok(false);
        }
        self.take(state, found);
        state.tokens.clear();
        Ok(true)
    }

    fn take(&self, state: &mut State, found: Option<Credential>) {
        if let Some(credential) = &found {
            self.auth.remember(&credential.password);
            credential.identity_token.iter().for_each(|token| self.auth.remember(token));
            self.auth.remember(&Secret::new(encoded(credential)));
        }
        if let Ok(mut secrets) = self.auth.secrets.lock() {
            secrets.credentials = found.is_some();
        }
        state.asked = true;
        state.credential = found;
        state.generation += 1;
    }

    /// The URL of the token service. The error is a reason.
    fn realm(&self, realm: &str) -> Result<Url, String> {
        let url: Url = realm.parse().map_err(|_| "the address of its token service cannot be read".to_owned())?;
        let authority = url.authority().to_owned();
        // A registry with TLS must not make us send a password without.
        let near = is_loopback(&authority) && is_loopback(&self.authority());
        match url.scheme() {
            "https" => Ok(url),
            "http" if self.is_plain() || near => Ok(url),
            _ => Err("its token service has no TLS".into()),
        }
    }

    fn denied_because(&self, reference: &Reference, message: String) -> Error {
        Error::RegistryDenied {
            registry: self.name.clone(),
            reference: reference.to_string(),
            message,
            had_credentials: self.auth.has_credentials(),
        }
    }
}

fn encoded(credential: &Credential) -> String {
    STANDARD.encode(format!("{}:{}", credential.username, credential.password.expose()))
}

pub(super) fn basic(credential: &Credential) -> Secret<String> {
    Secret::new(format!("Basic {}", encoded(credential)))
}
