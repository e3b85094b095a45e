//! What the tests against real registries share: clients, blobs, and a registry that takes tokens of ours.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::environment::Environment;
use cooper::error::Result;
use cooper::oci::Descriptor;
use cooper::oci::media::OCI_LAYER_GZIP;
use cooper::registry::client::{BlobSource, Client, Limits, RegistryConfig};
use cooper::request::{Credential, Credentials};
use cooper::secret::Secret;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::AsyncRead;
use tokio::net::TcpListener;

use crate::docker_bed::setting;

/// Credentials that do not change.
pub(crate) struct Known(pub(crate) Option<Credential>);

#[async_trait]
impl Credentials for Known {
    async fn get(&self, _registry: &str, _refresh: bool) -> Result<Option<Credential>> {
        Ok(self.0.clone())
    }
}

pub(crate) fn password(username: &str, password: &str) -> Credential {
    Credential { username: username.into(), password: Secret::new(password.into()), identity_token: None }
}

/// A client whose settings are below `root`.
pub(crate) fn client(root: &Path, credential: Option<Credential>) -> Client {
    let environment = Environment::with(root, [("HOME", root)]);
    let limits = Limits { first_wait: Duration::from_millis(10), ..Limits::default() };
    Client::with(&environment, Arc::new(Known(credential)), Cancel::new(), RegistryConfig::default(), limits)
}

/// A blob in memory.
pub(crate) struct Memory {
    descriptor: Descriptor,
    pub(crate) content: Bytes,
}

impl Memory {
    pub(crate) fn new(content: Bytes) -> Self {
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
        Ok(Box::new(io::Cursor::new(self.content.slice(usize::try_from(offset).unwrap()..))))
    }
}

/// Bytes that no other run and no other call has.
pub(crate) fn fresh_bytes(length: usize) -> Bytes {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let mut bytes = Vec::with_capacity(length + 32);
    let mut number = 0_u64;
    while bytes.len() < length {
        bytes.extend_from_slice(Digest::of(format!("{seed} {number}").as_bytes()).as_bytes());
        number += 1;
    }
    bytes.truncate(length);
    bytes.into()
}

/// A `docker-registry` that takes tokens which a service in this process signs.
pub(crate) struct TokenRegistry {
    pub(crate) address: String,
    /// The scopes of each token so far.
    pub(crate) given: Arc<Mutex<Vec<Vec<String>>>>,
    /// Who asked for tokens: what they call themselves.
    pub(crate) callers: Arc<Mutex<Vec<String>>>,
    server: Child,
    service: tokio::task::JoinHandle<()>,
    _home: tempfile::TempDir,
}

impl Drop for TokenRegistry {
    fn drop(&mut self) {
        self.service.abort();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl TokenRegistry {
    /// Tokens live for `lifetime` seconds, and for a minute longer by what the service says: so they are refused in the middle
    /// of a push.
    pub(crate) async fn start(lifetime: u64) -> Self {
        let home = tempfile::tempdir().unwrap();
        let subject = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens -keyout key.pem -out cert.pem";
        let made = Command::new("openssl")
            .args(subject.split(' '))
            .current_dir(home.path())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let given = Arc::new(Mutex::new(Vec::new()));
        let signer = Signer::new(home.path(), lifetime, Arc::clone(&given));
        let callers = Arc::clone(&signer.callers);
        let signer = Arc::new(signer);
        let service = tokio::spawn(serve(listener, signer));
        // Another process may take the port in between; nobody else on this machine looks for one just now.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = json!({
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": home.path().join("data")}},
            "http": {"addr": address, "secret": "test"},
            "auth": {"token": {
                "realm": realm, "service": "test", "issuer": "tests", "rootcertbundle": home.path().join("cert.pem"),
            }},
        });
        let file = home.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let server = Command::new(setting("COOPER_TEST_REGISTRY_PROGRAM"))
            .args(["serve".as_ref(), file.as_os_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self { address, given, callers, server, service, _home: home };
        for _ in 0..500 {
            if TcpStream::connect(&registry.address).is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the registry does not answer")
    }
}

struct Signer {
    certificate: String,
    key: Arc<dyn rustls::sign::SigningKey>,
    lifetime: u64,
    given: Arc<Mutex<Vec<Vec<String>>>>,
    callers: Arc<Mutex<Vec<String>>>,
}

impl Signer {
    fn new(home: &Path, lifetime: u64, given: Arc<Mutex<Vec<Vec<String>>>>) -> Self {
        let certificate = CertificateDer::from_pem_file(home.join("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(home.join("key.pem")).unwrap();
        let (certificate, key) = (STANDARD.encode(&certificate), any_supported_type(&key).unwrap());
        Self { certificate, key, lifetime, given, callers: Arc::default() }
    }

    /// A token for these scopes (distribution's docs/spec/auth/jwt.md).
    fn token(&self, scopes: &[String]) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let access = scopes.iter().map(|scope| {
            let (resource, actions) = scope.rsplit_once(':').unwrap();
            let (kind, name) = resource.split_once(':').unwrap();
            json!({"type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
        });
        let claims = json!({
            "iss": "tests", "sub": "me", "aud": "test", "jti": now.to_string(),
            // The registry grants a minute for clocks that differ.
            "exp": (now + self.lifetime).saturating_sub(60), "nbf": now - 120, "iat": now - 120,
            "access": access.collect::<Vec<_>>(),
        });
        let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]});
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(&claims));
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]).unwrap();
        let signature = signer.sign(text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let caller = request.headers().get("user-agent").and_then(|value| value.to_str().ok());
        self.callers.lock().unwrap().push(caller.unwrap_or_default().to_owned());
        let good = format!("Basic {}", STANDARD.encode("me:hunter2"));
        let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        if shown != Some(good.as_str()) {
            let mut refused = Response::new(Full::default());
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            return refused;
        }
        let query = request.uri().query().unwrap_or_default();
        let scopes = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "scope");
        let scopes: Vec<String> = scopes.map(|(_, scope)| scope.into_owned()).collect();
        let token = self.token(&scopes);
        self.given.lock().unwrap().push(scopes);
        Response::new(Full::from(json!({"token": token}).to_string()))
    }
}

async fn serve(listener: TcpListener, signer: Arc<Signer>) {
    while let Ok((stream, _)) = listener.accept().await {
        let signer = Arc::clone(&signer);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let answer = signer.answer(&request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            // A client may go whenever it likes.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
