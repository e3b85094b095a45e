//! Whole images: what a daemon has, and archives into it and out of it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncRead;
use tokio_stream::StreamExt as _;
use tokio_util::io::ReaderStream;

use super::Daemon;
use super::client::{Body, Exchange, boxed, empty};
use super::messages::Messages;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::reference::Reference;

/// How much of an archive is read at a time.
const CHUNK: usize = 256 << 10;
/// What a daemon says before the names or the id of what it has loaded. Podman names them all in one message.
const LOADED: [&str; 2] = ["Loaded image ID:", "Loaded image:"];

const LOAD: &str = "to load an image";
const SAVE: &str = "to save an image";

/// What a daemon knows of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSummary {
    /// The daemon's name for it: the digest of its configuration, or of its manifest where containerd keeps the images.
    pub id: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// In bytes, unpacked.
    pub size: u64,
    /// The digests of its layers before compression, lowest first.
    pub diff_ids: Vec<Digest>,
    /// `name@sha256:...` for each registry that it was pushed to or pulled from.
    pub repo_digests: Vec<String>,
}

/// Gives the daemon a Docker archive; an OCI layout as a tar only where it takes that (Docker 25, Podman). The result is
/// what the daemon reports: names, or an id where the archive has no name.
///
/// Fails with `DaemonRefused` or `NoSpace` for the daemon's reasons. An [`Error`] of ours in the archive's
/// [`io::Error`] comes out as it is.
pub async fn load(daemon: &Daemon, archive: impl AsyncRead + Send + 'static, cancel: &Cancel) -> Result<Vec<String>> {
    let (body, failure) = watched(archive);
    let result = cancel.guard(send(daemon, body)).await;
    let reading = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    match reading {
        Some(source) if !matches!(result, Err(Error::Interrupted)) => Err(source
            .downcast::<Error>()
            .unwrap_or_else(|source| protocol(LOAD, format!("the archive cannot be read: {source}")))),
        _ => result,
    }
}

async fn send(daemon: &Daemon, body: Body) -> Result<Vec<String>> {
    let api = &daemon.api;
    let request = api.request(Method::POST, "/images/load?quiet=1").header("content-type", "application/x-tar");
    let request = request.body(body).map_err(|error| Error::internal(error.to_string()))?;
    let exchange = api.open(request, LOAD).await.map_err(full)?;
    let mut messages = Messages::new(api, exchange, LOAD, None);
    let mut loaded = Vec::new();
    while let Some(message) = messages.next().await? {
        if let Some((message, _)) = message.failure() {
            // The status came before the failure.
            return Err(full(Error::DaemonRefused { action: LOAD.into(), status: 500, message }));
        }
        loaded.extend(message.stream.as_deref().into_iter().flat_map(names));
    }
    if loaded.is_empty() {
        return Err(protocol(LOAD, "it did not say what it loaded".into()));
    }
    Ok(loaded)
}

/// What a message says was loaded.
fn names(text: &str) -> Vec<String> {
    let of = |line: &str| LOADED.iter().find_map(|sign| line.trim().strip_prefix(sign).map(str::to_owned));
    let split = |names: String| names.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    text.lines().filter_map(of).flat_map(split).filter(|name| !name.is_empty()).collect()
}

/// The archive as a body, and the error that ended it early.
fn watched(archive: impl AsyncRead + Send + 'static) -> (Body, Arc<Mutex<Option<io::Error>>>) {
    let failure = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&failure);
    let frames = ReaderStream::with_capacity(archive, CHUNK).map(move |piece| {
        piece.map(Frame::data).map_err(|error| {
            let told = io::Error::from(error.kind());
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            // Ends the request in the middle: half an archive must not pass for a whole one.
            told
        })
    });
    (boxed(StreamBody::new(frames)), failure)
}

/// The image with a name, if the daemon has it.
pub async fn has_image(daemon: &Daemon, reference: &Reference) -> Result<Option<ImageSummary>> {
    let image = match daemon.api.docker.inspect_image(&name(reference)).await {
        Ok(image) => image,
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => return Ok(None),
        Err(error) => return Err(daemon.api.refused(error, "to look for an image")),
    };
    let part = |part: &Option<String>| part.clone().filter(|part| !part.is_empty());
    let parts = [part(&image.os), part(&image.architecture), part(&image.variant)];
    let layers = image.root_fs.and_then(|root| root.layers).unwrap_or_default();
    Ok(Some(ImageSummary {
        id: image.id.unwrap_or_default(),
        platform: parts.into_iter().flatten().collect::<Vec<_>>().join("/"),
        size: image.size.and_then(|size| size.try_into().ok()).unwrap_or_default(),
        diff_ids: layers.iter().map(|layer| layer.parse()).collect::<Result<_>>()?,
        repo_digests: image.repo_digests.unwrap_or_default(),
    }))
}

/// The name as a daemon has it: with the digest, else with a tag.
fn name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => format!("{}:{}", reference.name(), reference.tag_or_latest().unwrap_or("latest")),
    }
}

/// Begins to take an image out of the daemon as a Docker archive. `image` is a name, or [`ImageSummary::id`], which cannot
/// move meanwhile.
pub async fn save(daemon: &Daemon, image: &str) -> Result<Saved> {
    let api = &daemon.api;
    let request = api.request(Method::GET, &format!("/images/{image}/get")).body(empty());
    let request = request.map_err(|error| Error::internal(error.to_string()))?;
    Ok(Saved { exchange: api.open(request, SAVE).await?, daemon: daemon.clone() })
}

/// An archive that comes. To drop it is to stop it.
pub struct Saved {
    exchange: Exchange,
    daemon: Daemon,
}

impl Saved {
    /// The next bytes; `None` at the end of a whole archive. Fails with `DaemonProtocol` where it is cut off.
    pub async fn next(&mut self, cancel: &Cancel) -> Result<Option<Bytes>> {
        loop {
            let frame = cancel.guard(async { Ok(self.exchange.response.body_mut().frame().await) }).await?;
            match frame {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Some(Err(error)) => return Err(self.daemon.api.broken(&error, SAVE)),
                None => return Ok(None),
            }
        }
    }
}

/// A refusal for want of space has an error of its own.
fn full(error: Error) -> Error {
    match error {
        Error::DaemonRefused { message, .. } if message.contains("no space left on device") => {
            Error::NoSpace { message }
        }
        other => other,
    }
}

fn protocol(action: &str, reason: String) -> Error {
    Error::DaemonProtocol { action: action.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_loaded_is_read_from_messages() {
        assert_eq!(names("Loaded image: a/b:c\n"), ["a/b:c"]);
        assert_eq!(names("Loaded image ID: sha256:01\n"), ["sha256:01"]);
        assert_eq!(names("Loaded image: localhost/a:b,localhost/a:c\n"), ["localhost/a:b", "localhost/a:c"]);
        assert!(names("The image a:b already exists, renaming the old one").is_empty());
    }

    #[test]
    fn names_are_what_a_daemon_calls_them() {
        let named = |text: &str| name(&text.parse().unwrap());
        assert_eq!(named("busybox"), "busybox:latest");
        assert_eq!(named("localhost:5000/a/b:c"), "localhost:5000/a/b:c");
        let digest = Digest::of(b"");
        assert_eq!(named(&format!("r.io/a:b@{digest}")), format!("r.io/a@{digest}"));
    }

    #[test]
    fn a_full_daemon_is_told_apart() {
        let refused =
            |message: &str| Error::DaemonRefused { action: LOAD.into(), status: 500, message: message.into() };
        assert_eq!(full(refused("write /var/lib/docker/tmp/x: no space left on device")).code(), "no-space");
        assert_eq!(full(refused("invalid tar header")).code(), "daemon-refused");
    }
}
