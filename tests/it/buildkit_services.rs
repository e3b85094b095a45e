//! Credentials, secrets and the opening handshake of a session, as a daemon sees them.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::filesync::v1::CredentialsRequest;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use cooper::buildkit::session::SessionSpec;
use cooper::buildkit::transport::Bearer;
use cooper::buildkit::upgrade::upgrade;
use cooper::buildkit::{BoxedStream, Dial, Hijack, SessionHello, Transport};
use cooper::error::{Error, Result};
use cooper::request::{Credential, Credentials, SecretSource, SecretSpec};
use cooper::secret::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tonic::Code;

use crate::buildkit_fake::{files, serve};

/// Remembers what it was asked for.
#[derive(Default)]
struct Keyring(Mutex<Vec<(String, bool)>>);

#[async_trait]
impl Credentials for Keyring {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        self.0.lock().unwrap().push((registry.to_owned(), refresh));
        match registry {
            "docker.io" => {
                Ok(Some(Credential { username: "u".into(), password: Secret::new("p".into()), identity_token: None }))
            }
            "broken" => Err(Error::Credentials { registry: registry.into(), reason: "the helper failed".into() }),
            _ => Ok(None),
        }
    }
}

#[tokio::test]
async fn credentials_are_asked_for_when_the_daemon_wants_them() {
    let keyring = Arc::new(Keyring::default());
    let served = serve(SessionSpec { credentials: keyring.clone(), ..files([]) }).await;
    let mut client = AuthClient::new(served.channel.clone());
    let mut ask = async |host: &str| client.credentials(CredentialsRequest { host: host.into() }).await;
    let hub = ask("registry-1.docker.io").await.unwrap().into_inner();
    assert_eq!((hub.username.as_str(), hub.secret.as_str()), ("u", "p"));
    let nobody = ask("localhost:5000").await.unwrap().into_inner();
    assert_eq!((nobody.username.as_str(), nobody.secret.as_str()), ("", ""));
    assert_eq!(
        (served.session.gave_credentials("docker.io"), served.session.gave_credentials("localhost:5000")),
        (true, false)
    );
    let status = ask("broken").await.unwrap_err();
    assert!(status.message().contains("the helper failed"), "{status}");
    assert!(matches!(served.session.trouble().take(), Some(Error::Credentials { .. })));
    let asked = [("docker.io", false), ("localhost:5000", false), ("broken", false)];
    assert_eq!(*keyring.0.lock().unwrap(), asked.map(|(registry, refresh)| (registry.to_owned(), refresh)));
}

#[tokio::test]
async fn secrets_are_read_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("late");
    let secrets = [SecretSpec { id: "late".into(), source: SecretSource::File(path.clone()) }];
    let served = serve(SessionSpec { secrets: &secrets, ..files([]) }).await;
    let mut client = SecretsClient::new(served.channel.clone());
    let mut ask = async |id: &str| client.get_secret(GetSecretRequest { id: id.into(), ..Default::default() }).await;
    assert_eq!(ask("late").await.unwrap_err().code(), Code::NotFound);
    assert!(matches!(served.session.trouble().take(), Some(Error::SecretUnavailable { .. })));
    std::fs::write(&path, b"\x00\xff").unwrap();
    assert_eq!(ask("late").await.unwrap().into_inner().data, b"\x00\xff");
    assert_eq!(ask("other").await.unwrap_err().code(), Code::NotFound);
    assert!(served.session.trouble().take().is_none());
}

#[tokio::test]
async fn a_session_tells_what_it_serves_and_no_more() {
    let methods = |hello: &SessionHello| hello.methods.join(" ");
    let plain = serve(files([])).await;
    let plain_methods = methods(plain.session.hello());
    assert!(plain_methods.contains("/moby.filesync.v1.FileSync/DiffCopy"), "{plain_methods}");
    assert!(plain_methods.contains("/grpc.health.v1.Health/Check"));
    assert!(
        !plain_methods.contains("Secrets") && !plain_methods.contains("SSH") && !plain_methods.contains("TarStream")
    );
    let mut client = SecretsClient::new(plain.channel.clone());
    assert_eq!(client.get_secret(GetSecretRequest::default()).await.unwrap_err().code(), Code::Unimplemented);
    let other = serve(files([])).await;
    assert_ne!(plain.session.hello().id, other.session.hello().id);
}

/// A daemon that reads one request and gives one answer.
async fn answer(mut stream: DuplexStream, answer: &str) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap().to_lowercase()
}

#[tokio::test]
async fn a_refused_upgrade_says_what_the_daemon_said() {
    let answers = [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 28\r\n\r\n{\"message\":\"page not found\"}", 404, "page not found"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you", 403, "not you"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""),
    ];
    for (text, expected, words) in answers {
        let (ours, theirs) = tokio::io::duplex(4096);
        let (result, _) = tokio::join!(upgrade(Box::new(ours), "/grpc", Vec::new()), answer(theirs, text));
        let Err(Error::DaemonRefused { status, message, .. }) = result else { panic!("{text}") };
        assert_eq!((status, message.as_str()), (expected, words));
    }
    let (ours, theirs) = tokio::io::duplex(4096);
    drop(theirs);
    let result = upgrade(Box::new(ours), "/grpc", Vec::new()).await;
    assert_eq!(result.err().unwrap().code(), "daemon-protocol");
}

/// Hands out one stream.
struct Once(Mutex<Option<DuplexStream>>);

#[async_trait]
impl Dial for Once {
    async fn dial(&self) -> Result<BoxedStream> {
        Ok(Box::new(self.0.lock().unwrap().take().unwrap()))
    }
}

#[tokio::test]
async fn the_session_is_announced_in_headers() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let transport = Hijack::new(Arc::new(Once(Mutex::new(Some(ours)))));
    let hello =
        SessionHello { id: "id1".into(), shared_key: "key1".into(), methods: vec!["/a.B/C".into(), "/d.E/F".into()] };
    // The client is not used to attach to a Docker daemon.
    let unused = tonic::transport::Endpoint::from_static("http://unused").connect_lazy();
    let unused = ControlClient::with_interceptor(unused, Bearer::default());
    let switch = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nhello";
    let (stream, request) = tokio::join!(transport.attach(unused, &hello), answer(theirs, switch));
    let expected = [
        "post /session http/1.1\r\n",
        "upgrade: h2c\r\n",
        "x-docker-expose-session-uuid: id1\r\n",
        "x-docker-expose-session-sharedkey: key1\r\n",
        "x-docker-expose-session-grpc-method: /a.b/c\r\n",
        "x-docker-expose-session-grpc-method: /d.e/f\r\n",
    ];
    for line in expected {
        assert!(request.contains(line), "{line} in {request}");
    }
    // What came in the same packet as the answer belongs to the stream.
    let mut first = [0; 5];
    stream.unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"hello");
}
