//! Whole images into a daemon and out of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cooper::cancel::Cancel;
use cooper::daemon::images::{ImageSummary, has_image, load, save};
use cooper::daemon::{Daemon, Product, find};
use cooper::environment::Environment;
use cooper::error::Error;
use cooper::reference::Reference;
use cooper::request::EngineSpec;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::docker_bed::{busybox, docker, setting};

async fn daemon(endpoint: Option<String>) -> Daemon {
    let spec = EngineSpec { endpoints: endpoint.into_iter().collect(), ..EngineSpec::default() };
    find(&spec, &Arc::new(Environment::of_process()), &mut Vec::new()).await.unwrap()
}

async fn podman() -> Daemon {
    daemon(Some(format!("unix://{}", setting("COOPER_TEST_PODMAN")))).await
}

/// A name that nothing else has, and that goes when the test ends.
struct Name(String, Option<String>);

impl Name {
    fn new(name: &str, podman: bool) -> Self {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
        let socket = podman.then(|| format!("unix://{}", setting("COOPER_TEST_PODMAN")));
        Self(format!("cooper.test/images/{name}:t{nanos}"), socket)
    }

    fn reference(&self) -> Reference {
        self.0.parse().unwrap()
    }

    fn remove(&self) {
        match &self.1 {
            Some(socket) => docker(&["--host", socket, "rmi", "-f", &self.0]),
            None => docker(&["rmi", "-f", &self.0]),
        };
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        self.remove();
    }
}

async fn archive(daemon: &Daemon, image: &str) -> Vec<u8> {
    let mut saved = save(daemon, image).await.unwrap();
    let mut content = Vec::new();
    while let Some(bytes) = saved.next(&Cancel::new()).await.unwrap() {
        content.extend_from_slice(&bytes);
    }
    content
}

async fn look(daemon: &Daemon, name: &Name) -> Option<ImageSummary> {
    has_image(daemon, &name.reference()).await.unwrap()
}

#[tokio::test]
async fn an_image_goes_from_daemon_to_daemon() {
    let (engine, podman) = (daemon(None).await, podman().await);
    assert_eq!((engine.product(), podman.product()), (Product::Docker, Product::Podman));
    let (name, there) = (Name::new("round", false), Name::new("unused", true));
    assert_eq!(look(&engine, &name).await, None);
    docker(&["tag", &busybox(), &name.0]);
    let summary = look(&engine, &name).await.unwrap();
    assert_eq!(summary.id, docker(&["image", "inspect", "--format", "{{.Id}}", &name.0]));
    assert!(summary.platform.starts_with("linux/") && summary.size > 10_000 && !summary.diff_ids.is_empty());

    let content = archive(&engine, &name.0).await;
    name.remove();
    assert_eq!(look(&engine, &name).await, None);
    let loaded = load(&engine, io::Cursor::new(content.clone()), &Cancel::new()).await.unwrap();
    assert_eq!(loaded.join(","), name.0);
    assert_eq!(look(&engine, &name).await.unwrap().id, summary.id);

    let in_podman = Name(name.0.clone(), there.1.clone());
    let loaded = load(&podman, io::Cursor::new(content), &Cancel::new()).await.unwrap();
    assert_eq!(loaded.join(","), name.0);
    let found = look(&podman, &in_podman).await.unwrap();
    assert_eq!((&found.diff_ids, &found.platform), (&summary.diff_ids, &summary.platform));
    // And back.
    let content = archive(&podman, &name.0).await;
    name.remove();
    let loaded = load(&engine, io::Cursor::new(content), &Cancel::new()).await.unwrap();
    assert_eq!(loaded.join(","), name.0);
    assert_eq!(look(&engine, &name).await.unwrap().diff_ids, summary.diff_ids);
}

#[tokio::test]
async fn an_image_without_a_name_has_an_id() {
    let engine = daemon(None).await;
    let summary = has_image(&engine, &busybox().parse().unwrap()).await.unwrap().unwrap();
    let content = archive(&engine, &summary.id).await;
    assert_eq!(load(&engine, io::Cursor::new(content), &Cancel::new()).await.unwrap(), [summary.id]);
    let missing = save(&engine, "cooper.test/no/such:image").await.err().unwrap();
    assert!(matches!(missing, Error::DaemonRefused { status: 404, .. }), "{missing}");
}

/// An archive that fails in the middle.
struct Broken(Vec<u8>, fn() -> io::Error);

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(self.1()));
        }
        let count = buffer.remaining().min(self.0.len());
        buffer.put_slice(&self.0[..count]);
        self.0.drain(..count);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn half_an_archive_is_no_image() {
    let name = Name::new("half", false);
    let engine = daemon(None).await;
    docker(&["tag", &busybox(), &name.0]);
    let content = archive(&engine, &name.0).await;
    name.remove();
    let half = || content[..content.len() / 2].to_vec();
    let ours = || io::Error::other(Error::StoreDamaged { path: "/blob".into(), reason: "it is short".into() });
    let disk = || io::Error::other("the disk is on fire");
    for endpoint in [engine, podman().await] {
        let load = async |archive| load(&endpoint, archive, &Cancel::new()).await.unwrap_err();
        assert_eq!(load(Broken(half(), ours)).await.code(), "store-damaged");
        let other = load(Broken(half(), disk)).await;
        assert!(other.code() == "daemon-protocol" && other.to_string().contains("on fire"), "{other}");
        assert_eq!(look(&endpoint, &name).await, None);
    }
    let engine = daemon(None).await;
    let refused = load(&engine, io::Cursor::new(vec![1; 4096]), &Cancel::new()).await.unwrap_err();
    assert_eq!(refused.code(), "daemon-refused", "{refused}");
}

#[tokio::test]
async fn it_can_be_interrupted() {
    let engine = daemon(None).await;
    let cancel = Cancel::new();
    // The daemon waits for the rest.
    let (reader, _writer) = tokio::io::duplex(10);
    let work = load(&engine, reader.take(1 << 20), &cancel);
    let stop = async {
        tokio::task::yield_now().await;
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(work, stop);
    assert_eq!(result.unwrap_err().code(), "interrupted");
    let mut saved = save(&engine, &busybox()).await.unwrap();
    assert_eq!(saved.next(&cancel).await.unwrap_err().code(), "interrupted");
}
