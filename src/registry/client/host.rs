//! One registry: requests with its credentials, tried again where that helps, and redirects.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OnceCell;
use url::Url;

use super::auth::{Auth, Pass};
use super::body::{Body, Collected, collect, whole};
use super::certs::Tls;
use super::dial::Dialer;
use super::proxy::Proxy;
use super::redirect::{authority, redirect};
use super::refusal::{MAX_BODY, shown, words};
use super::retry::{Limits, Retry, asked, passes};
use super::scope::Scope;
use super::ways::Ways;
use crate::error::{Error, Result};
use crate::reference::Reference;

/// What we call ourselves.
const AGENT: &str = concat!("cooper/", env!("CARGO_PKG_VERSION"));
/// As Go's client, which registries are used to.
const MAX_REDIRECTS: usize = 10;
/// Servers close a connection that nobody uses after a minute or more; we do before.
const KEEP_IDLE: Duration = Duration::from_secs(30);

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schemes {
    Tls,
    Plain,
    /// TLS with any certificate, else plain: what Docker calls an insecure registry.
    Either,
}

/// One registry.
pub(super) struct Host {
    /// As image names and `Credentials` have it.
    pub(super) name: String,
    /// What stands before `v2/`; `https` where both schemes are possible.
    pub(super) root: Url,
    schemes: Schemes,
    pub(super) base: OnceCell<Url>,
    http: legacy::Client<Dialer, Body>,
    pub(super) auth: Auth,
    pub(super) limits: Limits,
    pub(super) ways: Ways,
    /// Whether it has ever answered: one that has is worth waiting for.
    answered: AtomicBool,
    /// Whether it was given up before it ever answered.
    dead: AtomicBool,
}

/// A request that can be sent again.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What its token has to allow, the most important first.
    pub(super) scopes: Vec<Scope>,
    /// What it is about, for errors.
    pub(super) reference: &'a Reference,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, url: Url, scopes: Vec<Scope>, reference: &'a Reference) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), scopes, reference }
    }

    pub(super) fn header(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = value.parse() {
            self.headers.append(name, value);
        }
        self
    }
}

/// An answer, and whether somebody else gave it to whom the registry had sent us.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) foreign: bool,
}

/// An answer that has been read.
pub(super) struct Read {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether the body went on.
    pub(super) cut: bool,
    /// Whether it is from somebody else to whom the registry had sent us.
    pub(super) foreign: bool,
}

/// What a registry answers to a request for nothing.
pub(in crate::registry) struct Probed {
    pub(in crate::registry) status: StatusCode,
    /// Whether it demanded a login first.
    pub(in crate::registry) login: bool,
}

/// No answer.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) reason: String,
    /// Whether not even a connection was made.
    pub(super) unconnected: bool,
    /// Whether trying again is of no use.
    pub(super) lasting: bool,
}

impl Host {
    /// A registry at `root`, which ends with a slash.
    pub(super) fn new(name: &str, root: Url, schemes: Schemes, tls: Tls, auth: Auth, limits: Limits) -> Self {
        let proxy = Proxy::of(tls.environment());
        let dialer = Dialer::new(&authority(&root), tls, proxy, limits.connect);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP_IDLE)
            .build(dialer);
        Self {
            name: name.to_owned(),
            root,
            schemes,
            base: OnceCell::new(),
            http,
            auth,
            limits,
            ways: Ways::default(),
            answered: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        }
    }

    /// The URL of `path` below `v2/`. Finds out whether the registry has TLS where that is open.
    pub(super) async fn url(&self, path: &str) -> Result<Url> {
        let base = self.base.get_or_try_init(|| self.find_scheme()).await?;
        base.join(&format!("v2/{path}")).map_err(|error| Error::internal(format!("`{path}`: {error}")))
    }

    async fn find_scheme(&self) -> Result<Url> {
        let mut plain = self.root.clone();
        let _ = plain.set_scheme("http");
        match self.schemes {
            Schemes::Tls => return Ok(self.root.clone()),
            Schemes::Plain => return Ok(plain),
            Schemes::Either => {}
        }
        let Err(secure) = self.answers(&self.root).await else { return Ok(self.root.clone()) };
        match self.answers(&plain).await {
            Ok(()) => Ok(plain),
            Err(reason) => Err(Error::RegistryUnreachable {
                registry: self.name.clone(),
                reason: format!("{reason} (with TLS: {secure})"),
            }),
        }
    }

    async fn answers(&self, root: &Url) -> Result<(), String> {
        let url = root.join("v2/").map_err(|error| error.to_string())?;
        let request = request(&Method::GET, &url, &HeaderMap::new(), whole(Bytes::new()), None)?;
        match self.send(request).await {
            // What Go's servers say on a port with TLS.
            Ok(response) if response.status() == StatusCode::BAD_REQUEST && root.scheme() == "http" => {
                Err("it wants TLS".into())
            }
            Ok(response) => {
                // Read so that the connection can be used again.
                let _ = collect(response.into_body(), MAX_BODY, self.limits.idle).await;
                Ok(())
            }
            Err(broken) => Err(broken.reason),
        }
    }

    /// Sends a request once, and waits for the head of its answer.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        match tokio::time::timeout(self.limits.idle, self.send_unwatched(request)).await {
            Ok(result) => result,
            Err(_) => Err(Broken::stalled(self.limits.idle)),
        }
    }

    /// The same without a limit: the caller watches.
    pub(super) async fn send_unwatched(&self, request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        match self.http.request(request).await {
            Ok(response) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(response)
            }
            Err(error) => Err(Broken {
                unconnected: error.is_connect(),
                // A name that does not resolve, a port that nobody listens on, a certificate that is not trusted.
                lasting: error.is_connect() && !self.answered.load(Ordering::Relaxed),
                reason: describe(&error),
            }),
        }
    }

    /// Sends a request until there is an answer other than a demand for credentials or for patience.
    ///
    /// Fails with `RegistryUnreachable`, with `RegistryDenied` if no credentials help, and as `Credentials` do.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> Result<Answer> {
        let mut retry = Retry::new(self.limits);
        let mut login = Login::default();
        loop {
            let pass = self.authorize(ask.reference, &ask.scopes, &login.scopes).await?;
            let answer = match self.follow(ask, pass.as_ref()).await {
                Ok(answer) => answer,
                Err(broken) => {
                    self.wait(&mut retry, broken).await?;
                    continue;
                }
            };
            let status = answer.response.status();
            if status == StatusCode::UNAUTHORIZED && !answer.foreign {
                self.log_in(answer.response, pass.as_ref(), &mut login, ask.reference).await?;
                continue;
            }
            // A signed address of a storage may have run out; the registry signs another.
            let again =
                passes(status) || (answer.foreign && status == StatusCode::FORBIDDEN && ask.method != Method::HEAD);
            if again && let Some(wait) = retry.failed(asked(answer.response.headers())) {
                tokio::time::sleep(wait).await;
                continue;
            }
            return Ok(answer);
        }
    }

    /// Sends a request and reads the answer, up to `most` bytes. An answer that breaks off is asked for again.
    pub(super) async fn read(&self, ask: &Ask<'_>, most: usize) -> Result<Read> {
        let mut retry = Retry::new(self.limits);
        loop {
            let Answer { response, foreign } = self.ask(ask).await?;
            let (parts, body) = response.into_parts();
            let (body, cut) = match collect(body, most, self.limits.idle).await {
                Ok(Collected::Whole(body)) => (body, false),
                Ok(Collected::TooLong(body)) => (body, true),
                Err(reason) => {
                    self.wait(&mut retry, Broken::lost(reason)).await?;
                    continue;
                }
            };
            return Ok(Read { status: parts.status, headers: parts.headers, body, cut, foreign });
        }
    }

    /// What it answers to a request for nothing, as if to push to `reference`.
    pub(super) async fn probe(&self, reference: &Reference) -> Result<Probed> {
        let scopes = vec![Scope::push(reference.repository())];
        let answer = self.read(&Ask::new(Method::GET, self.url("").await?, scopes, reference), MAX_BODY).await?;
        Ok(Probed { status: answer.status, login: self.auth.is_wanted().await })
    }

    /// Waits before the next try; fails with `RegistryUnreachable` if there is none.
    pub(super) async fn wait(&self, retry: &mut Retry, broken: Broken) -> Result<()> {
        let wait = if broken.lasting { None } else { retry.failed(None) };
        let Some(wait) = wait else {
            self.dead.store(!self.answered.load(Ordering::Relaxed), Ordering::Relaxed);
            let reason =
                if broken.unconnected { broken.reason } else { format!("the connection broke: {}", broken.reason) };
            let reason = self.auth.redact(&shown(&reason));
            return Err(Error::RegistryUnreachable { registry: self.name.clone(), reason });
        };
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Whether asking it is a waste of time.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Answers a 401, if there is an answer. Fails with `RegistryDenied` if not.
    pub(super) async fn log_in(
        &self,
        response: Response<Incoming>,
        pass: Option<&Pass>,
        login: &mut Login,
        reference: &Reference,
    ) -> Result<()> {
        let (parts, body) = response.into_parts();
        let body = match collect(body, MAX_BODY, self.limits.idle).await {
            Ok(Collected::Whole(body) | Collected::TooLong(body)) => body,
            Err(_) => Bytes::new(),
        };
        if self.refused(pass, &parts.headers, login).await? {
            return Ok(());
        }
        Err(self.denied(reference, parts.status, &body))
    }

    /// `RegistryDenied` in the registry's words.
    pub(super) fn denied(&self, reference: &Reference, status: StatusCode, body: &[u8]) -> Error {
        Error::RegistryDenied {
            registry: self.name.clone(),
            reference: reference.to_string(),
            message: self.words(status, body),
            had_credentials: self.auth.has_credentials(),
        }
    }

    /// What a refusal says; never empty, and without our own secrets.
    pub(super) fn words(&self, status: StatusCode, body: &[u8]) -> String {
        let said = self.auth.redact(&words(body));
        if said.is_empty() { format!("it answers {status}") } else { said }
    }

    /// Sends a request and goes where it is sent, if it only reads. Credentials go to the registry alone.
    async fn follow(&self, ask: &Ask<'_>, pass: Option<&Pass>) -> Result<Answer, Broken> {
        let mut url = ask.url.clone();
        let mut hops = 0;
        loop {
            let foreign = !self.is_own(&url);
            let pass = pass.filter(|_| !foreign);
            let request =
                request(&ask.method, &url, &ask.headers, whole(ask.body.clone()), pass).map_err(Broken::lasting)?;
            let response = self.send(request).await?;
            let reads = ask.method == Method::GET || ask.method == Method::HEAD;
            if !reads || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { response, foreign });
            }
            hops += 1;
            if hops > MAX_REDIRECTS {
                return Err(Broken::lasting("it redirects in circles".into()));
            }
            url = redirect(&url, response.headers()).map_err(Broken::lasting)?;
        }
    }
}

/// How far the exchange about credentials has come for one request.
#[derive(Default)]
pub(super) struct Login {
    /// How many 401 there were.
    pub(super) refusals: u32,
    /// What the registry said that it wants, besides what we know.
    pub(super) scopes: Vec<Scope>,
    /// How many of them although we had shown something.
    pub(super) shown: u32,
}

impl Broken {
    pub(super) const fn lasting(reason: String) -> Self {
        Self { reason, unconnected: true, lasting: true }
    }

    /// A connection that broke while it was used.
    pub(super) const fn lost(reason: String) -> Self {
        Self { reason, unconnected: false, lasting: false }
    }

    pub(super) fn stalled(limit: Duration) -> Self {
        Self::lost(format!("not a byte for {} s", limit.as_secs_f32()))
    }
}

/// A request to send. The error is a reason.
pub(super) fn request(
    method: &Method,
    url: &Url,
    headers: &HeaderMap,
    body: Body,
    pass: Option<&Pass>,
) -> Result<Request<Body>, String> {
    let uri: Uri = url.as_str().parse().map_err(|_| "its address cannot be read".to_owned())?;
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers.clone();
    request.headers_mut().insert(header::USER_AGENT, header::HeaderValue::from_static(AGENT));
    // hyper gives no length to a body that has none, and registries want one.
    if let (Some(length), false) =
        (request.body().size_hint().exact(), *method == Method::GET || *method == Method::HEAD)
    {
        request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    if let Some(pass) = pass {
        request.headers_mut().insert(header::AUTHORIZATION, pass.header());
    }
    Ok(request)
}

/// The innermost cause of an error: what those around it say is that there is one.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
