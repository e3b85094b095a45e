//! Reading from registries that lie: manifests and blobs are what was asked for, or an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::error::Error;
use cooper::oci::Descriptor;
use cooper::oci::media::{DOCKER_MANIFEST, OCI_LAYER_GZIP, OCI_MANIFEST};
use cooper::reference::Reference;
use cooper::registry::client::{Client, Limits, RegistryConfig, own_error};
use cooper::registry::credentials::Anonymous;
use tokio::io::AsyncReadExt as _;

use crate::registry_fake::{Fake, Lie, Seen, noise, quick, refusal};

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

fn add_manifest(fake: &Fake, name: &str) {
    let kept = (OCI_MANIFEST.to_owned(), Bytes::from_static(MANIFEST));
    fake.shelf.lock().unwrap().manifests.insert(("app".into(), name.into()), kept);
}

/// Reads a blob as those do that want an `AsyncRead`.
async fn read(client: &Client, name: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut stream = client.blob(name, descriptor).await?;
    let mut all = Vec::new();
    match stream.read_to_end(&mut all).await {
        Ok(_) => Ok(all),
        Err(error) => Err(own_error(error).unwrap()),
    }
}

/// The first `count` requests for blobs get this.
fn first(count: usize, lie: Lie) -> impl Fn(&Seen, &[Seen]) -> Option<Lie> + Send + Sync + 'static {
    move |seen, before| {
        let asked = before.iter().filter(|before| before.is("GET", "/blobs/")).count();
        (seen.is("GET", "/blobs/") && asked < count).then(|| lie.clone())
    }
}

#[tokio::test]
async fn manifests_are_found_by_tag_and_by_digest() {
    let fake = Fake::honest().await;
    let digest = Digest::of(MANIFEST);
    add_manifest(&fake, "1");
    add_manifest(&fake, &digest.to_string());
    let client = fake.client();
    let found = client.manifest(&fake.name("app:1")).await.unwrap().unwrap();
    assert_eq!((found.descriptor.digest, found.descriptor.media_type.as_str()), (digest, OCI_MANIFEST));
    assert_eq!((found.descriptor.size, &found.bytes[..]), (MANIFEST.len() as u64, MANIFEST));
    let named = fake.name("app:other").with_digest(digest);
    assert_eq!(client.manifest(&named).await.unwrap().unwrap().descriptor.digest, digest);
    assert_eq!(client.manifest_digest(&fake.name("app:1")).await.unwrap(), Some(found.descriptor));
    assert_eq!(client.manifest(&fake.name("app:2")).await.unwrap(), None);
    assert_eq!(client.manifest_digest(&fake.name("app:2")).await.unwrap(), None);
    assert!(fake.seen()[0].header("accept").contains(DOCKER_MANIFEST));
}

#[tokio::test]
async fn manifests_with_another_digest_are_refused() {
    let lie = Lie::Headers(vec![("docker-content-digest", Digest::of(b"x").to_string())]);
    let fake = Fake::lying(move |seen, _| seen.is("GET", "/manifests/").then(|| lie.clone())).await;
    add_manifest(&fake, "1");
    let error = fake.client().manifest(&fake.name("app:1")).await.unwrap_err();
    assert_eq!(error.code(), "digest-mismatch");

    let fake = Fake::lying(|seen, _| seen.is("GET", "/manifests/").then(|| Lie::Body(Bytes::from_static(b"{}")))).await;
    let digest = Digest::of(MANIFEST);
    add_manifest(&fake, &digest.to_string());
    let error = fake.client().manifest(&fake.name("app").with_digest(digest)).await.unwrap_err();
    assert_eq!(error.code(), "digest-mismatch");
}

#[tokio::test]
async fn a_digest_is_had_without_help_of_head() {
    let lies: [(Lie, &str); 3] = [
        (Lie::Headers(vec![("docker-content-digest", String::new())]), "no digest"),
        (Lie::Answer(403, Vec::new(), Bytes::new()), "forbidden"),
        (Lie::Answer(405, Vec::new(), Bytes::new()), "not known"),
    ];
    for (lie, case) in lies {
        let fake = Fake::lying(move |seen, _| seen.is("HEAD", "/manifests/").then(|| lie.clone())).await;
        add_manifest(&fake, "1");
        let found = fake.client().manifest_digest(&fake.name("app:1")).await.unwrap();
        assert_eq!(found.unwrap().digest, Digest::of(MANIFEST), "{case}");
        assert_eq!(fake.client().manifest_digest(&fake.name("app:2")).await.unwrap(), None, "{case}");
    }
}

#[tokio::test]
async fn a_manifest_without_end_is_not_read_to_it() {
    let fake = Fake::lying(|seen, _| seen.is("GET", "/manifests/").then(|| Lie::Endless(noise(1 << 16)))).await;
    add_manifest(&fake, "1");
    let error = fake.client().manifest(&fake.name("app:1")).await.unwrap_err();
    assert_eq!(error.code(), "digest-mismatch");
}

#[tokio::test]
async fn blobs_are_verified() {
    let content = noise(300_000);
    let longer: Bytes = [&content[..], b"x"].concat().into();
    let other: Bytes = [&content[1..], b"x"].concat().into();
    let lies = [
        Lie::Body(other),
        Lie::Body(longer.clone()),
        Lie::Body(content.slice(1..)),
        Lie::Endless(content.slice(..1000)),
        Lie::Endless(longer),
    ];
    for lie in lies {
        let name = format!("{lie:?}").chars().take(12).collect::<String>();
        let fake = Fake::lying(first(1, lie)).await;
        let descriptor = fake.add_blob("app", &content);
        let error = read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap_err();
        assert_eq!(error.code(), "digest-mismatch", "{name}");
        assert_eq!(fake.count("GET", "/blobs/"), 1, "{name}");
    }
    let fake = Fake::honest().await;
    let descriptor = fake.add_blob("app", &content);
    assert_eq!(read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap(), content);
    let empty = fake.add_blob("app", b"");
    assert!(read(&fake.client(), &fake.name("app"), &empty).await.unwrap().is_empty());
    let wrong = Descriptor::new(OCI_LAYER_GZIP, Digest::of(b"x"), 0);
    fake.shelf.lock().unwrap().blobs.insert(("app".into(), wrong.digest), Bytes::new());
    assert_eq!(read(&fake.client(), &fake.name("app"), &wrong).await.unwrap_err().code(), "digest-mismatch");
}

#[tokio::test]
async fn a_download_that_breaks_goes_on_where_it_was() {
    let content = noise(400_000);
    let fake = Fake::lying(first(2, Lie::Cut(100_000))).await;
    let descriptor = fake.add_blob("app", &content);
    assert_eq!(read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap(), content);
    let seen = fake.seen();
    assert_eq!(seen[0].header("range"), "");
    assert!(seen[1].header("range").starts_with("bytes="), "{seen:?}");
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_registry_that_knows_no_ranges_begins_again() {
    let content = noise(400_000);
    let fake = Fake::lying(move |seen, before| match before.iter().filter(|seen| seen.is("GET", "/blobs/")).count() {
        0 if seen.is("GET", "/blobs/") => Some(Lie::Cut(150_000)),
        1 => Some(Lie::Answer(200, Vec::new(), noise(400_000))),
        _ => None,
    })
    .await;
    let descriptor = fake.add_blob("app", &content);
    assert_eq!(read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap(), content);
}

#[tokio::test]
async fn a_download_that_gets_nowhere_ends() {
    let fake = Fake::lying(first(usize::MAX, Lie::Cut(0))).await;
    let descriptor = fake.add_blob("app", &noise(1000));
    let error = read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap_err();
    assert_eq!(error.code(), "registry-unreachable");
    assert_eq!(fake.count("GET", "/blobs/"), quick().tries as usize);
}

#[tokio::test]
async fn storms_of_429_and_faults_pass() {
    for status in [408, 429, 499, 500, 502, 503, 504, 522] {
        let headers = vec![("retry-after", "1".to_owned())];
        let fake = Fake::lying(first(3, Lie::Answer(status, headers, Bytes::new()))).await;
        let descriptor = fake.add_blob("app", b"blob");
        assert_eq!(read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap(), b"blob", "{status}");
        assert_eq!(fake.count("GET", "/blobs/"), 4, "{status}");
    }
    let fake = Fake::lying(first(usize::MAX, refusal(429, "TOOMANYREQUESTS"))).await;
    let descriptor = fake.add_blob("app", b"blob");
    let error = read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap_err();
    let Error::RegistryRefused { status, message, .. } = error else { panic!("{error}") };
    assert_eq!((status, message.as_str()), (429, "TOOMANYREQUESTS: as the test says"));
}

#[tokio::test]
async fn redirects_are_followed_without_credentials() {
    use crate::registry_fake::{Door, Known, password};
    let storage = Fake::honest().await;
    let descriptor = storage.add_blob("app", b"blob");
    let to = format!("http://{}/v2/app/blobs/{}", storage.address, descriptor.digest);
    let fake = Fake::start(Door::Basic("me".into(), "hunter2".into()), move |seen, _| {
        let authorized = !seen.header("authorization").is_empty();
        (seen.is("GET", "/blobs/") && authorized)
            .then(|| Lie::Answer(307, vec![("location", to.clone())], Bytes::new()))
    })
    .await;
    let client = fake.client_with(Arc::new(Known(password("me", "hunter2"))), Cancel::new());
    assert_eq!(read(&client, &fake.name("app"), &descriptor).await.unwrap(), b"blob");
    assert!(fake.seen().iter().any(|seen| !seen.header("authorization").is_empty()));
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_demand_of_a_foreign_host_is_not_met() {
    use crate::registry_fake::{Door, Known, password};
    let thief = Fake::start(Door::Basic("me".into(), "hunter2".into()), |_, _| None).await;
    let descriptor = thief.add_blob("app", b"blob");
    let to = format!("http://{}/v2/app/blobs/{}", thief.address, descriptor.digest);
    let fake = Fake::lying(first(usize::MAX, Lie::Answer(302, vec![("location", to)], Bytes::new()))).await;
    let client = fake.client_with(Arc::new(Known(password("me", "hunter2"))), Cancel::new());
    let error = read(&client, &fake.name("app"), &descriptor).await.unwrap_err();
    assert_eq!(error.code(), "registry-refused");
    assert!(thief.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn nobody_sends_us_to_metadata_services() {
    for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"] {
        let to = format!("http://{host}/latest/meta-data/");
        let fake = Fake::lying(first(usize::MAX, Lie::Answer(307, vec![("location", to)], Bytes::new()))).await;
        let descriptor = fake.add_blob("app", b"blob");
        let error = read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap_err();
        assert_eq!(error.code(), "registry-unreachable");
        assert!(error.to_string().contains("network services"), "{error}");
    }
}

#[tokio::test]
async fn circles_and_redirects_to_nowhere_end() {
    let circle = Lie::Answer(307, vec![("location", "?again".into())], Bytes::new());
    let nowhere = Lie::Answer(307, Vec::new(), Bytes::new());
    let file = Lie::Answer(307, vec![("location", "file:///etc/passwd".into())], Bytes::new());
    for lie in [circle, nowhere, file] {
        let fake = Fake::lying(first(usize::MAX, lie)).await;
        let descriptor = fake.add_blob("app", b"blob");
        let error = read(&fake.client(), &fake.name("app"), &descriptor).await.unwrap_err();
        assert!(error.to_string().contains("it redirects"), "{error}");
    }
}

#[tokio::test]
async fn a_cancelled_build_waits_for_nobody() {
    let cancel = Cancel::new();
    let trigger = cancel.clone();
    let fake = Fake::lying(move |seen, _| {
        if seen.path == "/v2/" {
            return None;
        }
        trigger.cancel();
        Some(Lie::Silence)
    })
    .await;
    let descriptor = fake.add_blob("app", b"blob");
    let client = fake.client_with(Arc::new(Anonymous), cancel.clone());
    assert_eq!(read(&client, &fake.name("app"), &descriptor).await.unwrap_err().code(), "interrupted");

    let cancel = Cancel::new();
    let fake = Fake::lying(first(usize::MAX, Lie::Endless(noise(1 << 16)))).await;
    let client = fake.client_with(Arc::new(Anonymous), cancel.clone());
    let endless = Descriptor::new(OCI_LAYER_GZIP, fake.add_blob("app", b"blob").digest, u64::MAX);
    let mut stream = client.blob(&fake.name("app"), &endless).await.unwrap();
    stream.next().await.unwrap().unwrap();
    cancel.cancel();
    assert_eq!(stream.next().await.unwrap_err().code(), "interrupted");
    assert!(stream.next().await.is_err());
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_left() {
    let limits = Limits { idle: Duration::from_millis(30), tries: 2, ..quick() };
    let fake = Fake::lying(|seen, _| seen.is("GET", "/blobs/").then_some(Lie::Silence)).await;
    let descriptor = fake.add_blob("app", b"blob");
    let environment = fake.environment(&[]);
    let client = Client::with(&environment, Arc::new(Anonymous), Cancel::new(), RegistryConfig::default(), limits);
    let error = read(&client, &fake.name("app"), &descriptor).await.unwrap_err();
    assert!(error.to_string().contains("not a byte for"), "{error}");
    assert_eq!(fake.count("GET", "/blobs/"), 2);
}

#[tokio::test]
async fn mirrors_come_first_and_may_fail() {
    let digest = Digest::of(MANIFEST);
    let good = Fake::honest().await;
    good.shelf
        .lock()
        .unwrap()
        .manifests
        .insert(("library/app".into(), "1".into()), (OCI_MANIFEST.to_owned(), Bytes::from_static(MANIFEST)));
    let content = noise(1000);
    let descriptor = good.add_blob("library/app", &content);
    let bad = Fake::lying(|_, _| Some(refusal(500, "UNKNOWN"))).await;
    let mirrors = format!("http://{},http://{}", bad.address, good.address);
    let environment = good.environment(&[("COOPER_REGISTRY_MIRRORS", &mirrors)]);
    let config = RegistryConfig::of(&environment).unwrap();
    let client = Client::with(&environment, Arc::new(Anonymous), Cancel::new(), config, quick());
    let name: Reference = "app:1".parse().unwrap();
    assert_eq!(client.manifest(&name).await.unwrap().unwrap().descriptor.digest, digest);
    assert_eq!(client.manifest_digest(&name).await.unwrap().unwrap().digest, digest);
    assert_eq!(client.blob_bytes(&name, &descriptor, 1000).await.unwrap(), content);
    assert_eq!(client.blob_bytes(&name, &descriptor, 999).await.unwrap_err().code(), "image-invalid");
    assert!(!bad.seen().is_empty());
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let fake = Fake::honest().await;
    let name = fake.name("app:1");
    let client = fake.client();
    drop(fake);
    tokio::task::yield_now().await;
    let error = client.manifest(&name).await.unwrap_err();
    assert_eq!(error.code(), "registry-unreachable");
    assert!(error.to_string().contains("with TLS"), "{error}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_connections_with_tls() {
    let proxy =
        Fake::lying(|seen, _| (seen.method == "CONNECT").then(|| Lie::Answer(407, Vec::new(), Bytes::new()))).await;
    let address = format!("http://me:hunter2@{}", proxy.address);
    let environment = proxy.environment(&[("HTTPS_PROXY", &address), ("NO_PROXY", "inside.example")]);
    let client = Client::with(&environment, Arc::new(Anonymous), Cancel::new(), RegistryConfig::default(), quick());
    let error = client.manifest(&"r.example/app:1".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.code(), "registry-unreachable");
    assert!(error.to_string().contains("refuses with 407") && !error.to_string().contains("hunter2"), "{error}");
    let seen = proxy.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].header("host"), seen[0].header("proxy-authorization")),
        ("r.example:443", "Basic bWU6aHVudGVyMg==")
    );
    // Registries of this machine are not asked for.
    let fake = Fake::honest().await;
    assert_eq!(client.manifest(&fake.name("app:1")).await.unwrap(), None);
    assert_eq!(proxy.seen().len(), 1);
}
