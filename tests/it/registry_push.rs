//! Writing to registries that lie: what is there afterwards is what was sent, or there is an error.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::error::{Error, Result};
use cooper::oci::Descriptor;
use cooper::oci::media::OCI_MANIFEST;
use cooper::registry::client::{BlobSource, Client, Limits, PushedBlob, RegistryConfig};
use cooper::registry::credentials::Anonymous;
use tokio::io::AsyncRead;

use crate::registry_fake::{Fake, Lie, Memory, Seen, noise, quick, refusal};

/// More than is sent in one PUT.
const BIG: usize = (1 << 20) + 300_000;

fn nothing(_: u64, _: u64) {}

async fn push(fake: &Fake, source: &Memory) -> Result<PushedBlob> {
    fake.client().push_blob(&fake.name("app"), source, &[], &nothing).await
}

/// The first `count` requests of this kind get this.
fn first(
    count: usize,
    method: &'static str,
    lie: Lie,
) -> impl Fn(&Seen, &[Seen]) -> Option<Lie> + Send + Sync + 'static {
    let is = move |seen: &Seen| seen.is(method, "/blobs/uploads/");
    move |seen, before| (is(seen) && before.iter().filter(|seen| is(seen)).count() < count).then(|| lie.clone())
}

fn methods(fake: &Fake) -> Vec<String> {
    fake.seen().iter().map(|seen| seen.method.to_string()).collect()
}

#[tokio::test]
async fn blobs_are_sent_once_with_few_requests() {
    let fake = Fake::honest().await;
    let client = fake.client();
    for (content, expected) in [
        (noise(1000), ["HEAD", "POST", "PUT"].as_slice()),
        (Bytes::new(), &["HEAD", "POST", "PUT"]),
        (noise(BIG), &["HEAD", "POST", "PATCH", "PUT"]),
    ] {
        let source = Memory::new(content.clone());
        let told = Mutex::new(Vec::new());
        let progress = |sent, all| told.lock().unwrap().push((sent, all));
        let before = fake.seen().len();
        let name = fake.name("app");
        assert_eq!(client.push_blob(&name, &source, &[], &progress).await.unwrap(), PushedBlob::Uploaded);
        assert_eq!(fake.blob("app", source.digest()).unwrap(), content);
        assert_eq!(methods(&fake)[before..], *expected);
        assert!(fake.seen()[before..].iter().all(|seen| seen.header("content-range").is_empty()));
        assert!(fake.seen()[before + 1..].iter().all(|seen| seen.header("content-length") == seen.length.to_string()));
        let size = content.len() as u64;
        assert_eq!(*told.lock().unwrap().last().unwrap(), (size, size));
        assert_eq!(client.push_blob(&name, &source, &[], &progress).await.unwrap(), PushedBlob::Existed);
        assert!(client.has_blob(&name, &source.digest()).await.unwrap());
    }
    assert!(!client.has_blob(&fake.name("app"), &Digest::of(b"other")).await.unwrap());
}

#[tokio::test]
async fn uploads_run_at_once_and_in_other_tasks() {
    let fake = Fake::honest().await;
    let client = fake.client();
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let (client, name) = (client.clone(), fake.name("app"));
            tokio::spawn(async move {
                let source = Memory::new(noise(BIG + number));
                client.push_blob(&name, &source, &[], &nothing).await.unwrap();
                source.digest()
            })
        })
        .collect();
    for task in tasks {
        let digest = task.await.unwrap();
        assert!(fake.blob("app", digest).is_some());
    }
}

#[tokio::test]
async fn blobs_are_mounted_or_sent() {
    let fake = Fake::honest().await;
    let source = Memory::new(noise(1000));
    fake.add_blob("base", &noise(1000));
    let elsewhere = "localhost:1/base".parse().unwrap();
    let mounts = [fake.name("app"), elsewhere, fake.name("none"), fake.name("base"), fake.name("never")];
    let client = fake.client();
    let pushed = client.push_blob(&fake.name("app"), &source, &mounts, &nothing).await.unwrap();
    assert_eq!(pushed, PushedBlob::Mounted);
    assert!(fake.blob("app", source.digest()).is_some());
    let queries: Vec<String> =
        fake.seen().iter().filter(|seen| seen.is("POST", "uploads")).map(|seen| seen.query.clone()).collect();
    assert_eq!(queries.len(), 2, "{queries:?}");
    assert!(queries.iter().all(|query| query.contains("mount=") && query.contains("from=")), "{queries:?}");
    assert!(fake.shelf.lock().unwrap().uploads.is_empty(), "the upload that a refusal began is ended");

    let other = Memory::new(noise(2000));
    let mounts = [fake.name("none"), fake.name("base")];
    let pushed = client.push_blob(&fake.name("app"), &other, &mounts, &nothing).await.unwrap();
    assert_eq!(pushed, PushedBlob::Uploaded);
    assert!(fake.shelf.lock().unwrap().uploads.is_empty());
}

#[tokio::test]
async fn a_refused_mount_is_no_failure() {
    for (status, requests) in [(400, 1), (405, 1), (404, 2), (403, 2)] {
        let fake =
            Fake::lying(move |seen, _| seen.query.contains("mount=").then(|| refusal(status, "UNSUPPORTED"))).await;
        let client = fake.client();
        for content in [noise(10), noise(20)] {
            let source = Memory::new(content);
            let pushed = client.push_blob(&fake.name("app"), &source, &[fake.name("base")], &nothing).await.unwrap();
            assert_eq!(pushed, PushedBlob::Uploaded, "{status}");
            assert!(fake.blob("app", source.digest()).is_some());
        }
        let mounts = fake.seen().iter().filter(|seen| seen.query.contains("mount=")).count();
        assert_eq!(mounts, requests, "{status}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_goes_on_where_it_was() {
    let content = noise(BIG);
    let fake = Fake::lying(first(1, "PATCH", Lie::ResetAfter(700_000))).await;
    let source = Memory::new(content.clone());
    push(&fake, &source).await.unwrap();
    assert_eq!(fake.blob("app", source.digest()).unwrap(), content);
    let ranges: Vec<String> = fake
        .seen()
        .iter()
        .filter(|seen| seen.is("PATCH", ""))
        .map(|seen| seen.header("content-range").into())
        .collect();
    assert_eq!(ranges, [String::new(), format!("700000-{}", BIG - 1)]);
}

#[tokio::test]
async fn an_upload_that_cannot_be_resumed_begins_again() {
    let fake = Fake::lying(|seen, before| {
        let patches = before.iter().filter(|seen| seen.is("PATCH", "uploads")).count();
        match patches {
            0 if seen.is("PATCH", "uploads") => Some(Lie::ResetAfter(700_000)),
            _ if seen.is("GET", "uploads") => Some(refusal(404, "BLOB_UPLOAD_UNKNOWN")),
            _ => None,
        }
    })
    .await;
    let source = Memory::new(noise(BIG));
    push(&fake, &source).await.unwrap();
    assert_eq!(fake.blob("app", source.digest()).unwrap(), noise(BIG));
    assert_eq!(fake.count("POST", "uploads"), 2);
}

#[tokio::test]
async fn a_storm_in_every_place_passes() {
    let storm = |status: u16| Lie::Answer(status, vec![("retry-after", "0".into())], Bytes::new());
    for method in ["HEAD", "POST", "PATCH", "PUT"] {
        for lie in [storm(429), storm(503), storm(500), Lie::Reset, Lie::Lost] {
            let case = format!("{method} {lie:?}");
            let fake = Fake::lying(move |seen, before| {
                let is = |seen: &Seen| seen.is(method, "/blobs/");
                (is(seen) && before.iter().filter(|seen| is(seen)).count() < 2).then(|| lie.clone())
            })
            .await;
            let source = Memory::new(noise(BIG));
            let pushed = push(&fake, &source).await;
            assert_eq!(pushed.unwrap_or_else(|error| panic!("{case}: {error}")), PushedBlob::Uploaded, "{case}");
            assert_eq!(fake.blob("app", source.digest()).unwrap(), noise(BIG), "{case}");
        }
    }
}

#[tokio::test]
async fn a_push_that_gets_nowhere_ends() {
    let fake = Fake::lying(first(usize::MAX, "PATCH", refusal(429, "TOOMANYREQUESTS"))).await;
    let error = push(&fake, &Memory::new(noise(BIG))).await.unwrap_err();
    let Error::PushFailed { message, .. } = &error else { panic!("{error}") };
    assert_eq!(message, "TOOMANYREQUESTS: as the test says (429)");
    assert_eq!(fake.count("PATCH", "uploads"), quick().tries as usize);

    let fake = Fake::lying(first(usize::MAX, "PATCH", Lie::Reset)).await;
    let error = push(&fake, &Memory::new(noise(BIG))).await.unwrap_err();
    assert_eq!(error.code(), "registry-unreachable");

    let fake = Fake::lying(|seen, _| seen.is("POST", "uploads").then(|| refusal(403, "DENIED"))).await;
    let error = push(&fake, &Memory::new(noise(10))).await.unwrap_err();
    assert!(matches!(error, Error::RegistryDenied { had_credentials: false, .. }), "{error}");
}

#[tokio::test]
async fn registries_without_patch_get_one_put() {
    for status in [400, 404, 405, 411, 415, 416, 500, 501] {
        let fake = Fake::lying(first(usize::MAX, "PATCH", refusal(status, "UNSUPPORTED"))).await;
        let client = fake.client();
        let mut patches = 0;
        for length in [BIG, BIG + 1] {
            let source = Memory::new(noise(length));
            client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
            assert_eq!(fake.blob("app", source.digest()).unwrap(), noise(length), "{status}");
            // The second one knows better.
            let all = fake.count("PATCH", "uploads");
            assert!(patches == 0 || patches == all, "{status}");
            patches = all;
        }
    }
}

#[tokio::test]
async fn registries_that_want_chunks_get_them() {
    // Nothing longer than 4 MiB, and nothing without a range, in a PATCH; nothing at all in a PUT.
    let fake = Fake::lying(|seen, _| {
        let length: u64 = seen.header("content-length").parse().unwrap_or_default();
        let refused = seen.is("PATCH", "uploads") && (length > 4 << 20 || seen.header("content-range").is_empty());
        let refused = refused || (seen.is("PUT", "uploads") && length > 0);
        refused.then(|| refusal(413, "SIZE_INVALID"))
    })
    .await;
    let client = fake.client();
    let length = (9 << 20) + 5;
    let source = Memory::new(noise(length));
    client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
    assert_eq!(fake.blob("app", source.digest()).unwrap(), noise(length));
    let before = fake.seen().len();
    let source = Memory::new(noise(length - 1));
    client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
    assert_eq!(methods(&fake)[before..], ["HEAD", "POST", "PATCH", "PATCH", "PATCH", "PUT"]);
}

#[tokio::test]
async fn a_missing_location_is_made_up_for() {
    let fake = Fake::lying(|seen, _| {
        let here = seen.is("PATCH", "uploads");
        here.then(|| Lie::Headers(vec![("location", String::new())]))
    })
    .await;
    let source = Memory::new(noise(BIG));
    push(&fake, &source).await.unwrap();
    assert!(fake.blob("app", source.digest()).is_some());

    let gone = vec![("location", String::new()), ("docker-upload-uuid", String::new())];
    let fake = Fake::lying(first(usize::MAX, "POST", Lie::Headers(gone))).await;
    let error = push(&fake, &Memory::new(noise(10))).await.unwrap_err();
    assert_eq!(error.code(), "push-failed");
    assert!(error.to_string().contains("no Location"), "{error}");
}

#[tokio::test]
async fn a_location_elsewhere_gets_the_blob_and_no_credentials() {
    use crate::registry_fake::{Door, Known, password};
    let storage = Fake::honest().await;
    storage.shelf.lock().unwrap().uploads.insert("u0".into(), Vec::new());
    let to = format!("http://{}/v2/app/blobs/uploads/u0?state=s%2Fx", storage.address);
    let fake = Fake::start(Door::Basic("me".into(), "hunter2".into()), move |seen, _| {
        let authorized = !seen.header("authorization").is_empty();
        (seen.is("POST", "uploads") && authorized)
            .then(|| Lie::Answer(202, vec![("location", to.clone())], Bytes::new()))
    })
    .await;
    let client = fake.client_with(Arc::new(Known(password("me", "hunter2"))), Cancel::new());
    let source = Memory::new(noise(BIG));
    client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap();
    assert!(storage.blob("app", source.digest()).is_some());
    assert!(storage.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn a_registry_that_kept_other_bytes_is_found_out() {
    let lie = Lie::Headers(vec![("docker-content-digest", Digest::of(b"x").to_string())]);
    let fake = Fake::lying(move |seen, _| seen.is("PUT", "").then(|| lie.clone())).await;
    assert_eq!(push(&fake, &Memory::new(noise(10))).await.unwrap_err().code(), "digest-mismatch");
    let name = fake.name("app:1");
    let error = fake.client().push_manifest(&name, OCI_MANIFEST, Bytes::from_static(b"{}")).await.unwrap_err();
    assert_eq!(error.code(), "digest-mismatch");
}

#[tokio::test]
async fn manifests_are_pushed_and_looked_at() {
    let bytes = Bytes::from_static(b"{\"schemaVersion\":2}");
    let silent = || Lie::Headers(vec![("docker-content-digest", String::new())]);
    let fake = Fake::lying(move |seen, before| match before.len() {
        // The answer to the first push names no digest; HEAD does.
        _ if seen.is("PUT", "/manifests/1") => Some(silent()),
        _ => None,
    })
    .await;
    let client = fake.client();
    let pushed = client.push_manifest(&fake.name("app:1"), OCI_MANIFEST, bytes.clone()).await.unwrap();
    assert_eq!(pushed, Digest::of(&bytes));
    assert_eq!(methods(&fake), ["PUT", "HEAD"]);
    assert_eq!(fake.seen()[0].header("content-type"), OCI_MANIFEST);
    let untagged = fake.name("app").with_digest(pushed);
    client.push_manifest(&untagged, OCI_MANIFEST, bytes.clone()).await.unwrap();
    assert_eq!(client.manifest(&untagged).await.unwrap().unwrap().bytes, bytes);
    let other = fake.name("app").with_digest(Digest::of(b"x"));
    assert_eq!(client.push_manifest(&other, OCI_MANIFEST, bytes).await.unwrap_err().code(), "digest-mismatch");
}

#[tokio::test]
async fn a_blob_that_is_seen_late_is_waited_for() {
    for (refused, works) in [(3, true), (usize::MAX, false)] {
        let is = |seen: &Seen| seen.is("PUT", "/manifests/");
        let fake = Fake::lying(move |seen, before| {
            let count = before.iter().filter(|seen| is(seen)).count();
            (is(seen) && count < refused).then(|| refusal(400, "MANIFEST_BLOB_UNKNOWN"))
        })
        .await;
        let bytes = Bytes::from_static(b"{}");
        let pushed = fake.client().push_manifest(&fake.name("app:1"), OCI_MANIFEST, bytes.clone()).await;
        if works {
            assert_eq!((pushed.unwrap(), fake.seen().len()), (Digest::of(&bytes), 4));
        } else {
            let error = pushed.unwrap_err();
            assert!(error.to_string().contains("MANIFEST_BLOB_UNKNOWN"), "{error}");
            assert_eq!(fake.seen().len(), quick().tries as usize);
        }
    }
}

#[tokio::test]
async fn what_a_registry_says_is_cleaned() {
    let body = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"\u001b[2Jgone\nand so on"}]}"#;
    let lie = Lie::Answer(400, Vec::new(), body.into());
    let fake = Fake::lying(move |seen, _| seen.is("PUT", "/manifests/").then(|| lie.clone())).await;
    let bytes = Bytes::from_static(b"{}");
    let error = fake.client().push_manifest(&fake.name("app:1"), OCI_MANIFEST, bytes).await.unwrap_err();
    assert_eq!(error.code(), "push-failed");
    assert!(error.to_string().ends_with("MANIFEST_INVALID: [2Jgone and so on (400)"), "{error}");
}

/// A blob that is not what it says, or cannot be read.
struct Bad {
    descriptor: Descriptor,
    content: io::Result<Bytes>,
}

#[async_trait]
impl BlobSource for Bad {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    async fn open(&self, _offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>> {
        match &self.content {
            Ok(content) => Ok(Box::new(io::Cursor::new(content.clone()))),
            Err(error) => Err(Error::internal(error.to_string())),
        }
    }
}

#[tokio::test]
async fn a_source_that_fails_says_so() {
    let fake = Fake::honest().await;
    let descriptor = Descriptor::of("x", &noise(BIG));
    let name = fake.name("app");
    let client: Client = fake.client();
    let short = Bad { descriptor: descriptor.clone(), content: Ok(noise(BIG - 1)) };
    let error = client.push_blob(&name, &short, &[], &nothing).await.unwrap_err();
    assert!(error.to_string().contains("it is shorter than it was"), "{error}");
    let closed = Bad { descriptor: descriptor.clone(), content: Err(io::Error::other("closed")) };
    let error = client.push_blob(&name, &closed, &[], &nothing).await.unwrap_err();
    assert_eq!(error.code(), "internal");
    let other = Bad { descriptor, content: Ok(noise(BIG + 8).slice(8..)) };
    let error = client.push_blob(&name, &other, &[], &nothing).await.unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert!(fake.shelf.lock().unwrap().blobs.is_empty());
}

#[tokio::test]
async fn a_cancelled_push_ends_at_once() {
    let cancel = Cancel::new();
    let trigger = cancel.clone();
    let fake = Fake::lying(move |seen, _| {
        seen.is("PATCH", "uploads").then(|| {
            trigger.cancel();
            Lie::Silence
        })
    })
    .await;
    let client = fake.client_with(Arc::new(Anonymous), cancel);
    let source = Memory::new(noise(BIG));
    let error = client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap_err();
    assert_eq!(error.code(), "interrupted");
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_left() {
    let fake = Fake::lying(first(usize::MAX, "PATCH", Lie::Silence)).await;
    let wait = Duration::from_millis(30);
    let limits = Limits { idle: wait, commit: wait, tries: 2, ..quick() };
    let environment = fake.environment(&[]);
    let client = Client::with(&environment, Arc::new(Anonymous), Cancel::new(), RegistryConfig::default(), limits);
    // More than the buffers of a connection hold.
    let source = Memory::new(noise(12 << 20));
    let error = client.push_blob(&fake.name("app"), &source, &[], &nothing).await.unwrap_err();
    assert!(error.to_string().contains("not a byte for"), "{error}");
    assert_eq!(fake.count("PATCH", "uploads"), 2);
}
