//! Whether a registry answers and takes our credentials: `GET /v2/`, the challenge, a token, `GET /v2/` again.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::Full;
use rustls::ClientConfig;
use serde::Deserialize;

use super::challenge::Challenge;
use super::http::{Answer, send};
use crate::environment::Environment;
use crate::net::tls::TlsFiles;
use crate::reference::{DEFAULT_REGISTRY, Reference};
use crate::request::Credential;
use crate::secret::Secret;

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

/// Looks whether `reference` could be pushed, as far as that shows without pushing. Nothing is written.
///
/// Follows Docker's rules: a registry on a loopback address may have any certificate, or none; the authority in
/// `/etc/docker/certs.d/HOST/ca.crt` is trusted.
pub async fn access(reference: &Reference, credential: Option<&Credential>, environment: &Environment) -> Access {
    let host = match reference.registry() {
        DEFAULT_REGISTRY => "registry-1.docker.io",
        other => other,
    };
    let tls = match files(host, environment).client_config(environment) {
        Ok(tls) => tls,
        Err(reason) => return Access::Unreachable { reason },
    };
    let probe = Probe { reference, credential, tls };
    match probe.run(&format!("https://{host}"), true).await {
        Access::Unreachable { reason } if is_loopback(host) => {
            match probe.run(&format!("http://{host}"), false).await {
                Access::Unreachable { reason: plain } => {
                    Access::Unreachable { reason: format!("{plain} (with TLS: {reason})") }
                }
                found => found,
            }
        }
        found => found,
    }
}

fn files(host: &str, environment: &Environment) -> TlsFiles {
    let ca = environment.well_known(&format!("/etc/docker/certs.d/{host}/ca.crt"));
    TlsFiles { ca: ca.is_file().then_some(ca), skip_verify: is_loopback(host), ..TlsFiles::default() }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The token service's answer: two names for the same thing.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret<String>>,
    access_token: Option<Secret<String>>,
}

struct Probe<'a> {
    reference: &'a Reference,
    credential: Option<&'a Credential>,
    tls: Arc<ClientConfig>,
}

impl Probe<'_> {
    async fn run(&self, base: &str, secure: bool) -> Access {
        let url = format!("{base}/v2/");
        let first = match self.get(&url, None, secure).await {
            Ok(answer) => answer,
            Err(reason) => return Access::Unreachable { reason },
        };
        match first.status {
            StatusCode::OK => Access::Open,
            StatusCode::UNAUTHORIZED => {
                let authorization = match self.authorization(&first.headers, secure).await {
                    Ok(Some(authorization)) => authorization,
                    Ok(None) => return self.denied("it wants a user name and a password".into()),
                    Err(reason) => return self.denied(reason),
                };
                match self.get(&url, Some(&authorization), secure).await {
                    Ok(answer) if answer.status.is_success() && self.credential.is_some() => Access::Granted,
                    Ok(answer) if answer.status.is_success() => Access::Anonymous,
                    Ok(answer) => self.denied(format!("it answers {}", answer.status)),
                    Err(reason) => Access::Unreachable { reason },
                }
            }
            other => Access::Unreachable { reason: format!("what answers there is no registry ({other})") },
        }
    }

    fn denied(&self, reason: String) -> Access {
        Access::Denied { had_credentials: self.credential.is_some(), reason }
    }

    /// The header that answers a challenge; `None` if there are no credentials for it.
    async fn authorization(&self, headers: &HeaderMap, secure: bool) -> Result<Option<Secret<String>>, String> {
        let challenges = headers.get_all(header::WWW_AUTHENTICATE);
        let challenge = challenges.iter().filter_map(|value| value.to_str().ok()).find_map(Challenge::parse);
        match challenge {
            None => Err("it wants a kind of login that we do not know".into()),
            Some(Challenge::Basic) => Ok(self.credential.and_then(basic)),
            Some(Challenge::Bearer { realm, service }) => {
                // A registry with TLS must not make us send a password without.
                if secure && !realm.starts_with("https://") {
                    return Err("its token service has no TLS".into());
                }
                self.token(&realm, service.as_deref()).await.map(Some)
            }
        }
    }

    async fn token(&self, realm: &str, service: Option<&str>) -> Result<Secret<String>, String> {
        let scope = format!("repository:{}:pull,push", self.reference.repository());
        let mut form = vec![("scope", scope.as_str())];
        form.extend(service.map(|service| ("service", service)));
        let secure = realm.starts_with("https://");
        let identity = self.credential.and_then(|credential| credential.identity_token.as_ref());
        let request = if let Some(token) = identity {
            form.extend([("grant_type", "refresh_token"), ("refresh_token", token.expose()), ("client_id", "cooper")]);
            Request::post(realm)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(encode(&form)))
        } else {
            let separator = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{separator}{}", encode(&form)));
            if let Some(basic) = self.credential.and_then(basic) {
                request = request.header(header::AUTHORIZATION, basic.expose());
            }
            request.body(Full::default())
        };
        let request = request.map_err(|_| "the address of its token service cannot be read".to_owned())?;
        let tls = secure.then(|| Arc::clone(&self.tls));
        let answer = send(request, tls).await.map_err(|reason| format!("its token service: {reason}"))?;
        if !answer.status.is_success() {
            return Err(format!("its token service answers {}", answer.status));
        }
        let token: TokenAnswer =
            serde_json::from_slice(&answer.body).map_err(|_| "its token service gives no token".to_owned())?;
        let token = token.token.or(token.access_token).ok_or("its token service gives no token")?;
        Ok(Secret::new(format!("Bearer {}", token.expose())))
    }

    async fn get(&self, url: &str, authorization: Option<&Secret<String>>, secure: bool) -> Result<Answer, String> {
        let mut request = Request::get(url);
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        let request = request.body(Full::<Bytes>::default()).map_err(|_| "its address cannot be read".to_owned())?;
        send(request, secure.then(|| Arc::clone(&self.tls))).await
    }
}

fn basic(credential: &Credential) -> Option<Secret<String>> {
    if credential.identity_token.is_some() {
        return None;
    }
    let pair = format!("{}:{}", credential.username, credential.password.expose());
    Some(Secret::new(format!("Basic {}", STANDARD.encode(pair))))
}

/// `application/x-www-form-urlencoded`.
fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    pairs.join("&")
}
