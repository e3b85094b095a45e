//! Logging in at registries: passwords, tokens that end, and what they must never show.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::error::{Error, Result};
use cooper::oci::media::OCI_MANIFEST;
use cooper::registry::check::{Access, access};
use cooper::registry::client::PushedBlob;
use cooper::registry::credentials::Anonymous;
use cooper::request::{Credential, Credentials};
use cooper::secret::Secret;
use http::Method;

use crate::registry_fake::{Door, Fake, Known, Lie, Memory, noise, password};

const BIG: usize = (1 << 20) + 300_000;

fn nothing(_: u64, _: u64) {}

fn tokens(uses: usize) -> Door {
    Door::Token {
        user: ("me".into(), "hunter2".into()),
        identity: Some("identity-1".into()),
        uses,
        post: true,
        closed: vec!["secret".into()],
    }
}

fn knowing() -> Arc<dyn Credentials> {
    Arc::new(Known(password("me", "hunter2")))
}

fn identity() -> Credential {
    Credential { identity_token: Some(Secret::new("identity-1".into())), ..Credential::default() }
}

/// An answer for the first question, another for all that say that it was refused.
struct Two {
    first: Credential,
    refreshed: Credential,
    asked: Mutex<Vec<bool>>,
}

#[async_trait]
impl Credentials for Two {
    async fn get(&self, _registry: &str, refresh: bool) -> Result<Option<Credential>> {
        self.asked.lock().unwrap().push(refresh);
        Ok(Some(if refresh { self.refreshed.clone() } else { self.first.clone() }))
    }
}

#[tokio::test]
async fn tokens_may_end_at_any_time() {
    // With one use each, every request needs another.
    for uses in [1, 2, 3, 100] {
        let fake = Fake::start(tokens(uses), |_, _| None).await;
        let client = fake.client_with(knowing(), Cancel::new());
        let source = Memory::new(noise(BIG));
        let name = fake.name("app:1");
        assert_eq!(client.push_blob(&name, &source, &[], &nothing).await.unwrap(), PushedBlob::Uploaded, "{uses}");
        client.push_manifest(&name, OCI_MANIFEST, Bytes::from_static(b"{}")).await.unwrap();
        assert!(client.manifest(&name).await.unwrap().is_some());
        assert_eq!(fake.blob("app", source.digest()).unwrap(), noise(BIG));
    }
}

#[tokio::test]
async fn one_token_serves_a_whole_push() {
    let fake = Fake::start(tokens(1000), |_, _| None).await;
    let client = fake.client_with(knowing(), Cancel::new());
    for length in [10, 20, BIG] {
        let source = Memory::new(noise(length));
        client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
    }
    client.push_manifest(&fake.name("app:1"), OCI_MANIFEST, Bytes::from_static(b"{}")).await.unwrap();
    let shelf = fake.shelf.lock().unwrap();
    let asked: Vec<&str> = shelf.token_requests.iter().map(|(_, query, _)| query.as_str()).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(
        asked[0].contains("service=fake") && asked[0].contains("scope=repository%3Aapp%3Apull%2Cpush"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let fake = Fake::start(tokens(1000), |_, _| None).await;
    let client = fake.client_with(knowing(), Cancel::new());
    let source = Memory::new(noise(10));
    fake.add_blob("base", &noise(10));
    let pushed = client.push_blob(&fake.name("app"), &source, &[fake.name("base")], &nothing).await.unwrap();
    assert_eq!(pushed, PushedBlob::Mounted);
    let last = fake.shelf.lock().unwrap().token_requests.last().unwrap().1.clone();
    let (app, base) = (last.find("repository%3Aapp%3A").unwrap(), last.find("repository%3Abase%3Apull").unwrap());
    assert!(app < base, "the repository that is written comes first: {last}");

    // Who may not read the other repository can still push.
    let source = Memory::new(noise(20));
    fake.add_blob("secret", &noise(20));
    let pushed = client.push_blob(&fake.name("app"), &source, &[fake.name("secret")], &nothing).await.unwrap();
    assert_eq!(pushed, PushedBlob::Uploaded);
}

#[tokio::test]
async fn identity_tokens_are_posted_or_shown() {
    for post in [true, false] {
        let user = if post { ("me".into(), "hunter2".into()) } else { ("<token>".into(), "identity-1".into()) };
        let identity_token = Some("identity-1".into());
        let door = Door::Token { user, identity: identity_token, uses: 2, post, closed: Vec::new() };
        let fake = Fake::start(door, |_, _| None).await;
        let client = fake.client_with(Arc::new(Known(identity())), Cancel::new());
        let source = Memory::new(noise(10));
        client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
        let requests = fake.shelf.lock().unwrap().token_requests.clone();
        let last = requests.last().unwrap();
        assert_eq!(last.0, if post { Method::POST } else { Method::GET });
        assert!(!post || last.1.contains("grant_type=refresh_token"), "{last:?}");
        assert!(requests.iter().all(|(method, query, _)| *method == Method::POST || !query.contains("identity")));
    }
}

#[tokio::test]
async fn refused_credentials_are_asked_for_once_more() {
    for door in [Door::Basic("me".into(), "hunter2".into()), tokens(1000)] {
        let fake = Fake::start(door, |_, _| None).await;
        let two = Arc::new(Two {
            first: password("me", "outdated"),
            refreshed: password("me", "hunter2"),
            asked: Mutex::default(),
        });
        let client = fake.client_with(two.clone(), Cancel::new());
        let source = Memory::new(noise(10));
        client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
        assert_eq!(*two.asked.lock().unwrap(), [false, true]);
    }
}

#[tokio::test]
async fn nothing_helps_without_credentials_or_with_wrong_ones() {
    for door in [Door::Basic("me".into(), "hunter2".into()), tokens(1000)] {
        let fake = Fake::start(door, |_, _| None).await;
        let wrong = Arc::new(Known(password("me", "correct horse")));
        for (credentials, had) in [(Arc::new(Anonymous) as Arc<dyn Credentials>, false), (wrong, true)] {
            let client = fake.client_with(credentials, Cancel::new());
            let error = client.manifest(&fake.name("app:1")).await.unwrap_err();
            let Error::RegistryDenied { had_credentials, message, .. } = &error else { panic!("{error}") };
            assert_eq!(*had_credentials, had);
            // The registry repeats what it was shown.
            let encoded = "bWU6Y29ycmVjdCBob3JzZQ==";
            assert!(!message.contains("correct horse") && !message.contains(encoded), "{message}");
            assert!(!had || message.contains("***"), "{message}");
            assert!(!format!("{error:?}").contains(encoded));
        }
    }
}

#[tokio::test]
async fn a_token_that_allows_too_little_ends_in_a_refusal() {
    let fake = Fake::start(tokens(1000), |_, _| None).await;
    let client = fake.client_with(knowing(), Cancel::new());
    let error = client.manifest(&fake.name("secret:1")).await.unwrap_err();
    assert!(matches!(error, Error::RegistryDenied { had_credentials: true, .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("token-"), "{error}");
}

#[tokio::test]
async fn a_look_tells_how_it_stands() {
    let right = password("me", "hunter2");
    let wrong = password("me", "correct horse");
    let open = Fake::honest().await;
    let basic = Fake::start(Door::Basic("me".into(), "hunter2".into()), |_, _| None).await;
    let closed = Fake::start(tokens(10), |_, _| None).await;
    let other = Fake::lying(|_, _| Some(Lie::Answer(404, Vec::new(), Bytes::new()))).await;
    let look = async |fake: &Fake, credential: Option<&Credential>| {
        access(&fake.name("app:1"), credential, &fake.environment(&[])).await
    };
    assert_eq!(look(&open, None).await, Access::Open);
    assert_eq!(look(&basic, Some(&right)).await, Access::Granted);
    assert!(matches!(look(&basic, None).await, Access::Denied { had_credentials: false, .. }));
    assert!(matches!(look(&basic, Some(&wrong)).await, Access::Denied { had_credentials: true, .. }));
    assert_eq!(look(&closed, Some(&right)).await, Access::Granted);
    assert!(matches!(look(&closed, Some(&wrong)).await, Access::Denied { had_credentials: true, .. }));
    let Access::Unreachable { reason } = look(&other, None).await else { panic!("no registry") };
    assert!(reason.contains("no registry (404"), "{reason}");
}
