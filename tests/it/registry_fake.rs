//! A registry that lies: it does what a good one does, unless a test wants something else of a request.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::environment::Environment;
use cooper::error::Result;
use cooper::oci::Descriptor;
use cooper::oci::media::OCI_LAYER_GZIP;
use cooper::reference::Reference;
use cooper::registry::client::{BlobSource, Client, Limits, RegistryConfig};
use cooper::registry::credentials::Anonymous;
use cooper::request::{Credential, Credentials};
use cooper::secret::Secret;
use futures_util::Stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::net::TcpListener;

/// What the registry does with a request in place of what it should.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// A whole answer: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Bytes),
    /// No answer: the connection breaks before anything is read.
    Reset,
    /// It takes this many bytes of the body, and the connection breaks.
    ResetAfter(usize),
    /// It does what it should, and the answer is lost.
    Lost,
    /// The right answer, of which this many bytes come before the connection breaks.
    Cut(usize),
    /// This answer, without a length, then these bytes for ever.
    Endless(Bytes),
    /// These bytes with this `Content-Length` less, after the right headers.
    Body(Bytes),
    /// The right answer with these headers in place of its own; an empty value removes one.
    Headers(Vec<(&'static str, String)>),
    /// Nothing, for ever.
    Silence,
}

/// A refusal in the registry's form.
pub(crate) fn refusal(status: u16, code: &str) -> Lie {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"as the test says"}}]}}"#);
    Lie::Answer(status, vec![("content-type", "application/json".into())], body.into())
}

/// A request as it was seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// How many bytes of its body came.
    pub(crate) length: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `METHOD kind`, where kind is the part of the path behind the repository.
    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == *method && self.path.contains(part)
    }
}

/// Who is let in.
#[derive(Clone, Debug, Default)]
pub(crate) enum Door {
    #[default]
    Open,
    Basic(String, String),
    /// Tokens of `/token`, for this user or identity token; each is good for so many requests.
    Token {
        user: (String, String),
        identity: Option<String>,
        uses: usize,
        /// Whether the service knows POST.
        post: bool,
        /// Repositories that this user may not even read.
        closed: Vec<String>,
    },
}

/// What is kept.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) blobs: BTreeMap<(String, Digest), Bytes>,
    pub(crate) manifests: BTreeMap<(String, String), (String, Bytes)>,
    pub(crate) uploads: HashMap<String, Vec<u8>>,
    pub(crate) seen: Vec<Seen>,
    /// Token -> its scopes, and how often it may still be used.
    tokens: HashMap<String, (String, usize)>,
    /// What the token service was asked: method, query or form, and `Authorization`.
    pub(crate) token_requests: Vec<(Method, String, String)>,
    number: usize,
}

type Script = Arc<dyn Fn(&Seen, &[Seen]) -> Option<Lie> + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A registry on a port of its own.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
    server: tokio::task::JoinHandle<()>,
    root: tempfile::TempDir,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    /// An honest one.
    pub(crate) async fn honest() -> Self {
        Self::start(Door::Open, |_, _| None).await
    }

    /// One that asks `script` about each request; it gets all those before as well.
    pub(crate) async fn lying(script: impl Fn(&Seen, &[Seen]) -> Option<Lie> + Send + Sync + 'static) -> Self {
        Self::start(Door::Open, script).await
    }

    pub(crate) async fn start(
        door: Door,
        script: impl Fn(&Seen, &[Seen]) -> Option<Lie> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shelf: Arc<Mutex<Shelf>> = Arc::default();
        let keeper = Keeper { address, door, shelf: Arc::clone(&shelf), script: Arc::new(script) };
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keeper = keeper.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| keeper.clone().serve(request));
                    // A client may go whenever it likes, and the first that comes speaks TLS.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, shelf, server, root: tempfile::tempdir().unwrap() }
    }

    /// The name of something in it.
    pub(crate) fn name(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    pub(crate) fn add_blob(&self, repository: &str, content: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(OCI_LAYER_GZIP, content);
        let key = (repository.to_owned(), descriptor.digest);
        self.shelf.lock().unwrap().blobs.insert(key, Bytes::copy_from_slice(content));
        descriptor
    }

    pub(crate) fn blob(&self, repository: &str, digest: Digest) -> Option<Bytes> {
        self.shelf.lock().unwrap().blobs.get(&(repository.to_owned(), digest)).cloned()
    }

    /// All requests so far, but for those that look whether it is a registry.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shelf.lock().unwrap().seen.iter().filter(|seen| seen.path != "/v2/").cloned().collect()
    }

    /// How many requests there were of one kind.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method, part)).count()
    }

    /// A client that does not wait, and knows nobody.
    pub(crate) fn client(&self) -> Client {
        self.client_with(Arc::new(Anonymous), Cancel::new())
    }

    pub(crate) fn client_with(&self, credentials: Arc<dyn Credentials>, cancel: Cancel) -> Client {
        let environment = Environment::with(self.root.path(), [("HOME", self.root.path())]);
        Client::with(&environment, credentials, cancel, RegistryConfig::default(), quick())
    }

    pub(crate) fn environment(&self, variables: &[(&str, &str)]) -> Environment {
        Environment::with(self.root.path(), variables.iter().copied())
    }
}

/// As patient as others, in less time.
pub(crate) fn quick() -> Limits {
    Limits {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(5),
        longest_asked: Duration::from_millis(20),
        ..Limits::default()
    }
}

/// Credentials that do not change.
pub(crate) struct Known(pub(crate) Credential);

#[async_trait]
impl Credentials for Known {
    async fn get(&self, _registry: &str, _refresh: bool) -> Result<Option<Credential>> {
        Ok(Some(self.0.clone()))
    }
}

pub(crate) fn password(username: &str, password: &str) -> Credential {
    Credential { username: username.into(), password: Secret::new(password.into()), identity_token: None }
}

/// A blob in memory.
pub(crate) struct Memory {
    descriptor: Descriptor,
    content: Bytes,
}

impl Memory {
    pub(crate) fn new(content: impl Into<Bytes>) -> Self {
        let content = content.into();
        Self { descriptor: Descriptor::of(OCI_LAYER_GZIP, &content), content }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.descriptor.digest
    }
}

#[async_trait]
impl BlobSource for Memory {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn open(&self, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        let rest = self.content.slice(usize::try_from(offset).unwrap()..);
        Ok(Box::new(io::Cursor::new(rest)))
    }
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

#[derive(Clone)]
struct Keeper {
    address: SocketAddr,
    door: Door,
    shelf: Arc<Mutex<Shelf>>,
    script: Script,
}

/// An answer in memory.
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Reply {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    #[allow(clippy::needless_pass_by_value, reason = "a number or a text in place")]
    fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_string()));
        self
    }

    fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn response(self, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        for (name, value) in self.headers.iter().filter(|(_, value)| !value.is_empty()) {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        response
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    let pieces: Pin<Box<dyn Stream<Item = _> + Send>> =
        Box::pin(futures_util::StreamExt::map(pieces, |piece| piece.map(Frame::data)));
    StreamBody::new(pieces).boxed_unsync()
}

impl Keeper {
    async fn serve(self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (parts, mut body) = request.into_parts();
        let mut seen = Seen {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            length: 0,
        };
        let lie = {
            let kept = self.shelf.lock().unwrap();
            (self.script)(&seen, &kept.seen)
        };
        let most = match &lie {
            Some(Lie::Reset | Lie::Silence) => 0,
            Some(Lie::ResetAfter(most)) => *most,
            _ => usize::MAX,
        };
        let mut content = Vec::new();
        while content.len() < most {
            let Some(frame) = body.frame().await else { break };
            content.extend_from_slice(&frame.map_err(io::Error::other)?.into_data().unwrap_or_default());
        }
        content.truncate(most);
        seen.length = content.len();
        self.shelf.lock().unwrap().seen.push(seen.clone());
        let broken = || io::Error::other("as the test says");
        match lie {
            Some(Lie::Silence) => std::future::pending().await,
            Some(Lie::Reset) => return Err(broken()),
            Some(Lie::Answer(status, headers, body)) => {
                return Ok(Reply { status, headers, body: Bytes::new() }.response(full(body)));
            }
            _ => {}
        }
        let reply = self.reply(&seen, &content);
        Ok(match lie {
            Some(Lie::ResetAfter(_) | Lie::Lost) => return Err(broken()),
            Some(Lie::Cut(length)) => {
                let begin = reply.body.slice(..length.min(reply.body.len()));
                let reply = reply.with("content-length", "").body(begin);
                let length = reply.headers.iter().find(|(name, _)| *name == "x-length").map(|(_, l)| l.clone());
                let begin = futures_util::stream::iter([Ok(reply.body.clone())]);
                // Only what has gone out before the break counts.
                let end = futures_util::stream::once(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Err(broken())
                });
                let pieces = futures_util::StreamExt::chain(begin, end);
                let reply = reply.with("content-length", length.unwrap_or_default());
                reply.response(stream(pieces))
            }
            Some(Lie::Endless(piece)) => {
                let reply = reply.with("content-length", "");
                reply.response(stream(futures_util::stream::repeat_with(move || Ok(piece.clone()))))
            }
            Some(Lie::Body(body)) => reply.with("content-length", body.len()).response(full(body)),
            Some(Lie::Headers(headers)) => {
                let reply = headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value));
                let body = full(reply.body.clone());
                reply.response(body)
            }
            _ => {
                let body = full(reply.body.clone());
                reply.response(body)
            }
        })
    }

    fn reply(&self, seen: &Seen, content: &[u8]) -> Reply {
        if seen.path == "/token" {
            return self.give_token(seen, content);
        }
        if let Err(reply) = self.let_in(seen) {
            return reply;
        }
        let path = seen.path.strip_prefix("/v2/").unwrap_or_default();
        if path.is_empty() {
            return Reply::new(200);
        }
        let mut kept = self.shelf.lock().unwrap();
        if let Some((repository, id)) = path.split_once("/blobs/uploads/") {
            return kept.upload(seen, repository, id, content);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return kept.blob(seen, repository, digest);
        }
        if let Some((repository, name)) = path.split_once("/manifests/") {
            return kept.manifest(seen, repository, name, content);
        }
        Reply::new(404)
    }

    fn let_in(&self, seen: &Seen) -> std::result::Result<(), Reply> {
        let shown = seen.header("authorization");
        match &self.door {
            Door::Open => Ok(()),
            Door::Basic(user, password) => {
                use base64::Engine as _;
                let good = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                let challenge = Reply::new(401).with("www-authenticate", "Basic realm=\"fake\"");
                if shown == format!("Basic {good}") { Ok(()) } else { Err(challenge.body(shown.to_owned())) }
            }
            Door::Token { .. } => {
                let wanted = scopes(seen);
                let mut kept = self.shelf.lock().unwrap();
                if let Some(token) = shown.strip_prefix("Bearer ")
                    && let Some((given, left)) = kept.tokens.get_mut(token)
                    && *left > 0
                    && wanted.iter().all(|scope| covers(given, scope))
                {
                    *left -= 1;
                    return Ok(());
                }
                let challenge = format!(
                    "Bearer realm=\"http://{}/token\",service=\"fake\",scope=\"{}\"",
                    self.address,
                    wanted.join(" ")
                );
                Err(Reply::new(401).with("www-authenticate", challenge).body(shown.to_owned()))
            }
        }
    }

    fn give_token(&self, seen: &Seen, content: &[u8]) -> Reply {
        use base64::Engine as _;
        let Door::Token { user, identity, uses, post, closed } = &self.door else { return Reply::new(404) };
        let asked = if seen.method == Method::POST {
            String::from_utf8_lossy(content).into_owned()
        } else {
            seen.query.clone()
        };
        let shown = seen.header("authorization").to_owned();
        let mut kept = self.shelf.lock().unwrap();
        kept.token_requests.push((seen.method.clone(), asked.clone(), shown.clone()));
        let asked: Vec<(String, String)> = url::form_urlencoded::parse(asked.as_bytes()).into_owned().collect();
        if seen.method == Method::POST {
            if !post {
                return Reply::new(404);
            }
            let given = asked.iter().find(|(name, _)| name == "refresh_token").map(|(_, value)| value);
            if given != identity.as_ref() {
                return Reply::new(401).body(format!("{given:?} is no good"));
            }
        } else {
            let pair = format!("{}:{}", user.0, user.1);
            let good = base64::engine::general_purpose::STANDARD.encode(pair);
            if shown != format!("Basic {good}") {
                return Reply::new(401).body(format!("{shown} is no good"));
            }
        }
        let scopes = asked.iter().filter(|(name, _)| name == "scope").flat_map(|(_, scope)| scope.split(' '));
        let scopes: Vec<&str> =
            scopes.filter(|scope| !closed.iter().any(|closed| scope.contains(closed.as_str()))).collect();
        kept.number += 1;
        let token = format!("token-{}", kept.number);
        kept.tokens.insert(token.clone(), (scopes.join(" "), *uses));
        let name = if kept.number.is_multiple_of(2) { "token" } else { "access_token" };
        Reply::new(200).body(format!(r#"{{"{name}":"{token}"}}"#))
    }
}

/// What a token has to allow for a request.
fn scopes(seen: &Seen) -> Vec<String> {
    let path = seen.path.strip_prefix("/v2/").unwrap_or_default();
    let Some((repository, _)) = path.split_once("/blobs/").or_else(|| path.split_once("/manifests/")) else {
        return Vec::new();
    };
    let reads = seen.method == Method::GET || seen.method == Method::HEAD;
    let actions = if reads && !path.contains("/uploads/") { "pull" } else { "pull,push" };
    let mut scopes = vec![format!("repository:{repository}:{actions}")];
    let query: HashMap<String, String> = url::form_urlencoded::parse(seen.query.as_bytes()).into_owned().collect();
    scopes.extend(query.get("from").map(|from| format!("repository:{from}:pull")));
    scopes
}

fn covers(given: &str, wanted: &str) -> bool {
    let split = |scope: &str| -> (String, Vec<String>) {
        let (resource, actions) = scope.rsplit_once(':').unwrap();
        (resource.to_owned(), actions.split(',').map(str::to_owned).collect())
    };
    let (resource, actions) = split(wanted);
    given.split_whitespace().map(split).any(|(r, a)| r == resource && actions.iter().all(|action| a.contains(action)))
}

impl Shelf {
    fn upload(&mut self, seen: &Seen, repository: &str, id: &str, content: &[u8]) -> Reply {
        let query: HashMap<String, String> = url::form_urlencoded::parse(seen.query.as_bytes()).into_owned().collect();
        let place = |id: &str| format!("/v2/{repository}/blobs/uploads/{id}?state=s%2Fx");
        if seen.method == Method::POST {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from")) {
                let digest: Digest = digest.parse().unwrap();
                if let Some(blob) = self.blobs.get(&(from.clone(), digest)).cloned() {
                    self.blobs.insert((repository.to_owned(), digest), blob);
                    return Reply::new(201).with("location", format!("/v2/{repository}/blobs/{digest}"));
                }
            }
            self.number += 1;
            let id = format!("u{}", self.number);
            self.uploads.insert(id.clone(), Vec::new());
            return Reply::new(202).with("location", place(&id)).with("docker-upload-uuid", &id);
        }
        assert_eq!(query.get("state").map(String::as_str), Some("s/x"), "the query of a Location is kept");
        let Some(upload) = self.uploads.get_mut(id) else {
            return Reply::new(404).body(r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"no such upload"}]}"#);
        };
        if seen.method == Method::PATCH {
            let range = seen.header("content-range");
            if !range.is_empty() && range.split('-').next() != Some(&upload.len().to_string()) {
                return Reply::new(416);
            }
            if range.is_empty() && !upload.is_empty() {
                return Reply::new(416);
            }
        }
        upload.extend_from_slice(content);
        let range = format!("0-{}", upload.len().saturating_sub(1));
        if seen.method == Method::PATCH {
            return Reply::new(202).with("location", place(id)).with("range", range);
        }
        if seen.method == Method::GET {
            return Reply::new(204).with("location", place(id)).with("range", range);
        }
        let whole = self.uploads.remove(id).unwrap();
        if seen.method == Method::DELETE {
            return Reply::new(204);
        }
        let digest = Digest::of(&whole);
        if query.get("digest") != Some(&digest.to_string()) {
            return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"other bytes"}]}"#);
        }
        self.blobs.insert((repository.to_owned(), digest), whole.into());
        Reply::new(201).with("docker-content-digest", digest)
    }

    fn blob(&self, seen: &Seen, repository: &str, digest: &str) -> Reply {
        let Some(blob) = self.blobs.get(&(repository.to_owned(), digest.parse().unwrap())) else {
            return Reply::new(404).body(r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"no such blob"}]}"#);
        };
        let start = seen.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let Some(start) = start.map(|start| start.parse::<usize>().unwrap()) else {
            let head = Reply::new(200).with("content-length", blob.len()).with("x-length", blob.len());
            return if seen.method == Method::HEAD { head } else { head.body(blob.clone()) };
        };
        if start >= blob.len() {
            return Reply::new(416);
        }
        let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
        let rest = blob.slice(start..);
        Reply::new(206).with("content-range", range).with("x-length", rest.len()).body(rest)
    }

    fn manifest(&mut self, seen: &Seen, repository: &str, name: &str, content: &[u8]) -> Reply {
        let key = |name: &str| (repository.to_owned(), name.to_owned());
        if seen.method == Method::PUT {
            let digest = Digest::of(content);
            let kept = (seen.header("content-type").to_owned(), Bytes::copy_from_slice(content));
            self.manifests.insert(key(&digest.to_string()), kept.clone());
            self.manifests.insert(key(name), kept);
            return Reply::new(201).with("docker-content-digest", digest);
        }
        let Some((media_type, bytes)) = self.manifests.get(&key(name)) else {
            return Reply::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#);
        };
        let head = Reply::new(200).with("content-type", media_type).with("docker-content-digest", Digest::of(bytes));
        let head = head.with("content-length", bytes.len());
        if seen.method == Method::HEAD { head } else { head.body(bytes.clone()) }
    }
}
