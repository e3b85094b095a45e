//! Our client of registries against Debian's `docker-registry`: plain, with TLS and a password, with tokens.

use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use cooper::digest::Digest;
use cooper::error::Error;
use cooper::oci::media::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST};
use cooper::oci::{Descriptor, Document, Manifest};
use cooper::reference::Reference;
use cooper::registry::client::{Client, PushedBlob};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::docker_bed::{busybox, registry_digest, setting};
use crate::registry_bed::{Memory, TokenRegistry, client, fresh_bytes, password};

const BIG: usize = 3 << 20;

fn nothing(_: u64, _: u64) {}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A fresh repository of a registry.
fn fresh(registry: &str) -> Reference {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    name(&format!("{registry}/client-test/r{nanos}:1"))
}

/// Pushes an image of two blobs, reads it back, mounts its layer into another repository.
async fn there_and_back(client: &Client, name: &Reference, other: &Reference) {
    let layer = Memory::new(fresh_bytes(BIG));
    let config = Memory::new(Bytes::from(format!(r#"{{"os":"linux","architecture":"amd64","x":"{name}"}}"#)));
    for source in [&layer, &config] {
        let told = Mutex::new((0, 0));
        let progress = |sent, all| *told.lock().unwrap() = (sent, all);
        assert!(!client.has_blob(name, &source.digest()).await.unwrap());
        assert_eq!(client.push_blob(name, source, &[], &progress).await.unwrap(), PushedBlob::Uploaded);
        let size = source.content.len() as u64;
        assert_eq!(*told.lock().unwrap(), (size, size));
        assert_eq!(client.push_blob(name, source, &[], &progress).await.unwrap(), PushedBlob::Existed);
        assert!(client.has_blob(name, &source.digest()).await.unwrap());
    }
    let part = |media_type: &str, source: &Memory| Descriptor::of(media_type, &source.content);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": part(OCI_CONFIG, &config), "layers": [part(OCI_LAYER_GZIP, &layer)],
    });
    let bytes = Bytes::from(manifest.to_string());
    let digest = client.push_manifest(name, OCI_MANIFEST, bytes.clone()).await.unwrap();
    let fetched = client.manifest(name).await.unwrap().unwrap();
    assert_eq!((fetched.descriptor.digest, &fetched.bytes), (digest, &bytes));
    assert_eq!(client.manifest_digest(name).await.unwrap(), Some(fetched.descriptor));
    assert_eq!(client.manifest(&name.with_digest(digest)).await.unwrap().unwrap().bytes, bytes);
    assert_eq!(client.manifest(&name.with_digest(Digest::of(b"none"))).await.unwrap(), None);
    let read = client.blob_bytes(name, &part(OCI_LAYER_GZIP, &layer), BIG as u64).await.unwrap();
    assert_eq!(read, layer.content);
    let pushed = client.push_blob(other, &layer, &[other.clone(), name.clone()], &nothing).await.unwrap();
    assert_eq!(pushed, PushedBlob::Mounted);
    assert!(client.has_blob(other, &layer.digest()).await.unwrap());
}

#[tokio::test]
async fn a_plain_registry() {
    let root = tempfile::tempdir().unwrap();
    let registry = setting("COOPER_TEST_REGISTRY");
    let client = client(root.path(), None);
    there_and_back(&client, &fresh(&registry), &fresh(&registry)).await;
}

#[tokio::test]
async fn images_that_docker_pushed() {
    let root = tempfile::tempdir().unwrap();
    let client = client(root.path(), None);
    let image = name(&busybox());
    let found = client.manifest(&image).await.unwrap().unwrap();
    assert_eq!(found.descriptor.digest.to_string(), registry_digest(&busybox()));
    let Ok(Document::Manifest(manifest)) = Document::parse(&found.descriptor.media_type, &found.bytes) else {
        panic!("no manifest: {:?}", found.descriptor)
    };
    let Manifest { config, layers, .. } = *manifest;
    for part in layers.iter().chain([&config]) {
        let bytes = client.blob_bytes(&image, part, 64 << 20).await.unwrap();
        assert_eq!(Digest::of(&bytes), part.digest);
    }
}

fn tls_login() -> cooper::request::Credential {
    password(&setting("COOPER_TEST_REGISTRY_USER"), &setting("COOPER_TEST_REGISTRY_PASSWORD"))
}

#[tokio::test]
async fn a_registry_with_tls_and_a_password() {
    let root = tempfile::tempdir().unwrap();
    let registry = setting("COOPER_TEST_REGISTRY_TLS");
    there_and_back(&client(root.path(), Some(tls_login())), &fresh(&registry), &fresh(&registry)).await;

    let error = client(root.path(), None).manifest(&fresh(&registry)).await.unwrap_err();
    assert!(matches!(error, Error::RegistryDenied { had_credentials: false, .. }), "{error}");
    let wrong = client(root.path(), Some(password("cooper", "hunter2")));
    let error = wrong.push_blob(&fresh(&registry), &Memory::new(fresh_bytes(10)), &[], &nothing).await.unwrap_err();
    assert!(matches!(error, Error::RegistryDenied { had_credentials: true, .. }), "{error}");
}

/// A registry without TLS that sends everybody to this URL.
async fn sends_to(url: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: {url}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn certificates_count_where_the_registry_sends_us() {
    // A registry on the loopback may have any certificate; those that it sends us to may not.
    let redirecting = sends_to(format!("https://{}/v2/", setting("COOPER_TEST_REGISTRY_TLS"))).await;
    let root = tempfile::tempdir().unwrap();
    let blob = Descriptor::of(OCI_LAYER_GZIP, b"x");
    let error = client(root.path(), Some(tls_login())).blob(&fresh(&redirecting), &blob).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "registry-unreachable", "{error}");
    let folder = root.path().join("etc/docker/certs.d").join(&redirecting);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(Path::new(&setting("COOPER_TEST_REGISTRY_CA")), folder.join("ca.crt")).unwrap();
    let error = client(root.path(), Some(tls_login())).blob(&fresh(&redirecting), &blob).await.map(|_| ()).unwrap_err();
    // TLS went well, and the password stayed at home.
    assert!(matches!(error, Error::RegistryRefused { status: 401, .. }), "{error}");

    let registry = setting("COOPER_TEST_REGISTRY_TLS");
    let folder = root.path().join("etc/docker/certs.d").join(&registry);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("client.cert"), "nothing").unwrap();
    std::fs::write(folder.join("client.key"), "nothing").unwrap();
    let error = client(root.path(), Some(tls_login())).manifest(&fresh(&registry)).await.unwrap_err();
    assert!(error.to_string().contains("client.cert"), "{error}");
}

#[tokio::test]
async fn a_registry_with_tokens() {
    let root = tempfile::tempdir().unwrap();
    let registry = TokenRegistry::start(600).await;
    let login = || Some(password("me", "hunter2"));
    let (one, other) = (fresh(&registry.address), fresh(&registry.address));
    there_and_back(&client(root.path(), login()), &one, &other).await;
    let given = registry.given.lock().unwrap().clone();
    let both =
        [format!("repository:{}:pull,push", other.repository()), format!("repository:{}:pull", one.repository())];
    assert!(given.iter().any(|scopes| scopes.as_slice() == both), "{given:?}");

    let error = client(root.path(), Some(password("me", "wrong"))).manifest(&one).await.unwrap_err();
    assert!(matches!(error, Error::RegistryDenied { had_credentials: true, .. }), "{error}");
}

#[tokio::test]
async fn tokens_that_end_during_a_push() {
    let root = tempfile::tempdir().unwrap();
    // Nothing that the client is told says that they live for a second.
    let registry = TokenRegistry::start(1).await;
    let client = client(root.path(), Some(password("me", "hunter2")));
    let name = fresh(&registry.address);
    let mut pushed = 0;
    while registry.given.lock().unwrap().len() < 3 {
        client.push_blob(&name, &Memory::new(fresh_bytes(2 << 20)), &[], &nothing).await.unwrap();
        pushed += 1;
        assert!(pushed < 2000, "the registry takes tokens for ever");
    }
}
