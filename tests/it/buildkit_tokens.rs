//! Tokens that are fetched for a daemon, as the daemon and as the registry's token service see it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{
    FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use cooper::buildkit::session::SessionSpec;
use cooper::environment::Environment;
use cooper::error::{Error, Result};
use cooper::registry::credentials::Anonymous;
use cooper::request::{Credential, Credentials};
use cooper::secret::Secret;
use http::Method;
use ring::signature::{ED25519, UnparsedPublicKey};
use tonic::Status;

use crate::buildkit_fake::{Served, files, serve};
use crate::registry_fake::{Door, Fake, Known, Lie, password};

const SALT: &[u8] = b"a salt of the daemon's";

/// A registry with tokens for `me`, and one that also takes an identity token if `post`.
async fn registry(post: bool) -> Fake {
    let (user, identity) = (("me".into(), "hunter2".into()), Some("identity-1".into()));
    Fake::start(Door::Token { user, identity, uses: 100, post, closed: Vec::new() }, |_, _| None).await
}

fn cache(folder: &Path) -> Environment {
    Environment::with(folder, [("COOPER_CACHE_DIR", folder)])
}

async fn session(environment: &Environment, credentials: Arc<dyn Credentials>) -> Served {
    serve(SessionSpec { credentials, environment, ..files([]) }).await
}

fn known(password_of_me: &str) -> Arc<dyn Credentials> {
    Arc::new(Known(password("me", password_of_me)))
}

/// Asks as a daemon that `registry` sent to its token service.
async fn fetch(served: &Served, host: &str, realm: &str) -> Result<FetchTokenResponse, Status> {
    let request = FetchTokenRequest {
        client_id: "buildkit-client".into(),
        host: host.into(),
        realm: realm.into(),
        service: "fake".into(),
        scopes: vec!["repository:team/app:pull".into(), "repository:base:pull".into()],
    };
    AuthClient::new(served.channel.clone()).fetch_token(request).await.map(tonic::Response::into_inner)
}

async fn public_key(served: &Served, host: &str, salt: &[u8]) -> Vec<u8> {
    let request = GetTokenAuthorityRequest { host: host.into(), salt: salt.to_vec() };
    AuthClient::new(served.channel.clone()).get_token_authority(request).await.unwrap().into_inner().public_key
}

#[tokio::test]
async fn a_daemon_gets_tokens_and_the_service_the_password() {
    let (registry, home) = (registry(true).await, tempfile::tempdir().unwrap());
    let served = session(&cache(home.path()), known("hunter2")).await;
    let realm = format!("http://{}/token", registry.address);
    let given = fetch(&served, &registry.address.to_string(), &realm).await.unwrap();
    assert_eq!((given.token.as_str(), given.expires_in, given.issued_at), ("token-1", 60, 0));
    let requests = registry.shelf.lock().unwrap().token_requests.clone();
    assert_eq!(requests.len(), 1, "{requests:?}");
    let (method, query, shown) = &requests[0];
    assert_eq!((method, shown.starts_with("Basic ")), (&Method::GET, true));
    for part in ["service=fake", "scope=repository%3Ateam%2Fapp%3Apull", "scope=repository%3Abase%3Apull"] {
        assert!(query.contains(part), "{query}");
    }
    assert!(served.session.gave_credentials(&registry.address.to_string()));
    // Each is a new one: the daemon keeps those that are good.
    assert_eq!(fetch(&served, &registry.address.to_string(), &realm).await.unwrap().token, "token-2");
}

#[tokio::test]
async fn identity_tokens_are_posted() {
    let (registry, home) = (registry(true).await, tempfile::tempdir().unwrap());
    let identity = Credential { identity_token: Some(Secret::new("identity-1".into())), ..Credential::default() };
    let served = session(&cache(home.path()), Arc::new(Known(identity))).await;
    let realm = format!("http://{}/token", registry.address);
    assert_eq!(fetch(&served, &registry.address.to_string(), &realm).await.unwrap().token, "token-1");
    let requests = registry.shelf.lock().unwrap().token_requests.clone();
    assert!(requests[0].0 == Method::POST && requests[0].1.contains("grant_type=refresh_token"), "{requests:?}");
}

#[tokio::test]
async fn who_has_no_credentials_asks_without() {
    let home = tempfile::tempdir().unwrap();
    let answer = r#"{"token":"for all","expires_in":300}"#;
    let script = move |seen: &crate::registry_fake::Seen, _: &[crate::registry_fake::Seen]| {
        (seen.path == "/token").then(|| Lie::Answer(200, Vec::new(), answer.into()))
    };
    let registry = Fake::start(Door::Open, script).await;
    let served = session(&cache(home.path()), Arc::new(Anonymous)).await;
    let given =
        fetch(&served, &registry.address.to_string(), &format!("http://{}/token", registry.address)).await.unwrap();
    assert_eq!((given.token.as_str(), given.expires_in), ("for all", 300));
    let asked: Vec<_> = registry.seen().into_iter().filter(|seen| seen.path == "/token").collect();
    assert_eq!((asked.len(), asked[0].header("authorization")), (1, ""));
    assert!(!served.session.gave_credentials(&registry.address.to_string()));
}

/// A wrong password first, the right one when that was refused.
#[derive(Default)]
struct Renewed(Mutex<Vec<bool>>);

#[async_trait]
impl Credentials for Renewed {
    async fn get(&self, _: &str, refresh: bool) -> Result<Option<Credential>> {
        self.0.lock().unwrap().push(refresh);
        Ok(Some(password("me", if refresh { "hunter2" } else { "outdated" })))
    }
}

#[tokio::test]
async fn refused_credentials_are_asked_for_once_more() {
    let (registry, home) = (registry(true).await, tempfile::tempdir().unwrap());
    let renewed = Arc::new(Renewed::default());
    let served = session(&cache(home.path()), renewed.clone()).await;
    public_key(&served, &registry.address.to_string(), SALT).await;
    let given =
        fetch(&served, &registry.address.to_string(), &format!("http://{}/token", registry.address)).await.unwrap();
    assert_eq!(given.token, "token-1");
    assert_eq!(*renewed.0.lock().unwrap(), [false, true], "the key and the token are made of one answer");
}

#[tokio::test]
async fn a_refusal_names_the_registry_and_shows_no_secret() {
    let (registry, home) = (registry(true).await, tempfile::tempdir().unwrap());
    let served = session(&cache(home.path()), known("hunter2-wrong")).await;
    let status =
        fetch(&served, &registry.address.to_string(), &format!("http://{}/token", registry.address)).await.unwrap_err();
    let trouble = served.session.trouble().take().unwrap();
    let host = registry.address.to_string();
    let Error::RegistryDenied { registry, reference, had_credentials, .. } = &trouble else { panic!("{trouble}") };
    assert_eq!((registry, reference, *had_credentials), (&host, &format!("{host}/team/app"), true));
    for text in [status.message().to_owned(), trouble.to_string(), format!("{trouble:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("bWU6aHVudGVyMi13cm9uZw"), "{text}");
    }
}

#[tokio::test]
async fn a_password_goes_nowhere_without_tls() {
    let (registry, home) = (registry(true).await, tempfile::tempdir().unwrap());
    let near = format!("http://{}/token", registry.address);
    // A registry with TLS, which is not even asked.
    for realm in [near.as_str(), "ftp://r.example/token", "no address"] {
        let served = session(&cache(home.path()), known("hunter2")).await;
        fetch(&served, "r.example", realm).await.unwrap_err();
        let trouble = served.session.trouble().take();
        assert!(matches!(trouble, Some(Error::RegistryDenied { .. })), "{realm}: {trouble:?}");
    }
    assert!(registry.shelf.lock().unwrap().token_requests.is_empty());
}

#[tokio::test]
async fn a_daemon_knows_a_client_again_by_its_key() {
    let home = tempfile::tempdir().unwrap();
    let environment = cache(home.path());
    let first = session(&environment, known("hunter2")).await;
    let key = public_key(&first, "r.example", SALT).await;
    assert_eq!(key.len(), 32);
    let again = session(&environment, known("hunter2")).await;
    let request = VerifyTokenAuthorityRequest {
        host: "r.example".into(),
        payload: b"thirty-two bytes of the daemon's".to_vec(),
        salt: SALT.to_vec(),
    };
    let mut client = AuthClient::new(again.channel.clone());
    let signed = client.verify_token_authority(request.clone()).await.unwrap().into_inner().signed;
    let (signature, message) = signed.split_at(64);
    assert_eq!(message, request.payload);
    UnparsedPublicKey::new(&ED25519, &key).verify(message, signature).unwrap();

    // Another registry, daemon, password or user is another client.
    let (stranger, elsewhere) = (session(&environment, known("other")).await, tempfile::tempdir().unwrap());
    let other_user = session(&cache(elsewhere.path()), known("hunter2")).await;
    assert_ne!(public_key(&again, "s.example", SALT).await, key);
    assert_ne!(public_key(&again, "r.example", b"another salt").await, key);
    assert_ne!(public_key(&stranger, "r.example", SALT).await, key);
    assert_ne!(public_key(&other_user, "r.example", SALT).await, key);
    // Docker Hub has several names.
    assert_eq!(public_key(&again, "registry-1.docker.io", SALT).await, public_key(&again, "docker.io", SALT).await);
}
