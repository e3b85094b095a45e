//! Reading from one registry: manifests, and blobs that are verified while they are read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use super::body::{Collected, collect, piece};
use super::host::{Ask, Broken, Host, Read};
use super::refusal::{MAX_BODY, shown};
use super::retry::Retry;
use super::scope::Scope;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::oci::media;
use crate::reference::Reference;

/// Registries take manifests of at most 4 MiB (distribution spec, "Pushing Manifests").
const MAX_MANIFEST: usize = 4 << 20;
/// What a registry calls a manifest's or blob's digest.
pub(super) const CONTENT_DIGEST: &str = "docker-content-digest";

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What it was announced as, its digest and its size.
    pub descriptor: Descriptor,
    /// The bytes that have this digest.
    pub bytes: Bytes,
}

impl Host {
    /// What a registry says against something other than a push.
    pub(super) fn refusal(&self, reference: &Reference, action: &str, answer: &Read) -> Error {
        let denied = answer.status == StatusCode::UNAUTHORIZED || answer.status == StatusCode::FORBIDDEN;
        if denied && !answer.foreign {
            return self.denied(reference, answer.status, &answer.body);
        }
        Error::RegistryRefused {
            registry: self.name.clone(),
            action: action.to_owned(),
            status: answer.status.as_u16(),
            message: self.words(answer.status, &answer.body),
        }
    }

    /// The manifest or index of a tag or digest; `None` if there is none.
    pub(super) async fn manifest(&self, reference: &Reference) -> Result<Option<Fetched>> {
        let answer = self.read(&self.ask_manifest(Method::GET, reference).await?, MAX_MANIFEST).await?;
        match answer.status {
            StatusCode::OK if answer.cut => {
                Err(mismatch(reference, "a manifest of at most 4 MiB", "more than that".to_owned()))
            }
            StatusCode::OK => verified(reference, &answer.headers, answer.body).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refusal(reference, "to give a manifest", &answer)),
        }
    }

    /// The descriptor of a manifest, without its bytes where the registry tells; `None` if there is none.
    pub(super) async fn manifest_digest(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let answer = self.read(&self.ask_manifest(Method::HEAD, reference).await?, MAX_BODY).await?;
        match answer.status {
            StatusCode::OK => {
                let size = content_length(&answer.headers);
                if let (Some(digest), Some(size)) = (content_digest(&answer.headers), size) {
                    return match reference.digest() {
                        Some(asked) if *asked != digest => {
                            Err(mismatch(reference, &asked.to_string(), digest.to_string()))
                        }
                        _ => Ok(Some(Descriptor::new(content_type(&answer.headers), digest, size))),
                    };
                }
            }
            StatusCode::NOT_FOUND => return Ok(None),
            // 403 may mean that there is no such thing, and some know no HEAD: GET is always answered.
            _ => {}
        }
        Ok(self.manifest(reference).await?.map(|fetched| fetched.descriptor))
    }

    async fn ask_manifest<'a>(&self, method: Method, reference: &'a Reference) -> Result<Ask<'a>> {
        let url = self.url(&format!("{}/manifests/{}", reference.repository(), name(reference))).await?;
        let scopes = vec![Scope::pull(reference.repository())];
        Ok(Ask::new(method, url, scopes, reference).header(header::ACCEPT, &media::ACCEPT.join(", ")))
    }

    /// What a registry says of a blob without giving it.
    pub(super) async fn head_blob(&self, reference: &Reference, digest: &Digest, scope: Scope) -> Result<Found> {
        let url = self.url(&format!("{}/blobs/{digest}", reference.repository())).await?;
        let answer = self.read(&Ask::new(Method::HEAD, url, vec![scope], reference), MAX_BODY).await?;
        Ok(match answer.status {
            StatusCode::OK => Found::There(content_length(&answer.headers)),
            StatusCode::NOT_FOUND => Found::Absent,
            _ => Found::Refused(answer),
        })
    }

    /// Whether there is a blob.
    pub(super) async fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        match self.head_blob(reference, digest, Scope::pull(reference.repository())).await? {
            Found::There(_) => Ok(true),
            Found::Absent => Ok(false),
            Found::Refused(answer) => Err(self.refusal(reference, "to look for a blob", &answer)),
        }
    }
}

/// Whether a blob is there.
pub(super) enum Found {
    /// It is, with this many bytes, if the registry says.
    There(Option<u64>),
    Absent,
    /// The registry does not say.
    Refused(Read),
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The last part of a manifest's URL. A digest says more than a tag.
pub(super) fn name(reference: &Reference) -> String {
    match (reference.digest(), reference.tag_or_latest()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or_default().to_owned(),
    }
}

pub(super) fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

/// The media type without parameters.
fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

pub(super) fn mismatch(reference: &Reference, expected: &str, found: String) -> Error {
    Error::DigestMismatch { reference: reference.to_string(), expected: expected.to_owned(), found }
}

/// A manifest whose digest is the one that was asked for and announced.
fn verified(reference: &Reference, headers: &HeaderMap, bytes: Bytes) -> Result<Fetched> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        media_type: Option<String>,
    }
    let digest = Digest::of(&bytes);
    let announced = content_digest(headers);
    for expected in reference.digest().into_iter().chain(&announced) {
        if *expected != digest {
            return Err(mismatch(reference, &expected.to_string(), digest.to_string()));
        }
    }
    let announced = content_type(headers);
    let own = || serde_json::from_slice::<Own>(&bytes).ok()?.media_type;
    let media_type = match announced {
        // Static file servers and some proxies know only that it is JSON.
        other if !media::ACCEPT.contains(&other) => own().unwrap_or_else(|| other.to_owned()),
        known => known.to_owned(),
    };
    Ok(Fetched { descriptor: Descriptor::new(&shown(&media_type), digest, bytes.len() as u64), bytes })
}

/// A blob on its way.
pub(super) struct Reading {
    host: Arc<Host>,
    reference: Reference,
    descriptor: Descriptor,
    cancel: Cancel,
    body: Option<Incoming>,
    /// How many bytes have been handed on.
    offset: u64,
    /// How many bytes come that were there already.
    skip: u64,
    hasher: Sha256,
    retry: Retry,
}

impl Reading {
    /// Asks for a blob; `None` if it is not there.
    pub(super) async fn open(
        host: Arc<Host>,
        reference: &Reference,
        descriptor: &Descriptor,
        cancel: Cancel,
    ) -> Result<Option<Self>> {
        let retry = Retry::new(host.limits);
        let mut reading = Self {
            host,
            reference: reference.clone(),
            descriptor: descriptor.clone(),
            cancel,
            body: None,
            offset: 0,
            skip: 0,
            hasher: Sha256::new(),
            retry,
        };
        Ok(reading.ask().await?.then_some(reading))
    }

    /// Asks for what is missing. Whether the blob is there.
    async fn ask(&mut self) -> Result<bool> {
        let repository = self.reference.repository();
        let url = self.host.url(&format!("{repository}/blobs/{}", self.descriptor.digest)).await?;
        let mut ask = Ask::new(Method::GET, url, vec![Scope::pull(repository)], &self.reference);
        if self.offset > 0 {
            ask = ask.header(header::RANGE, &format!("bytes={}-", self.offset));
        }
        let answer = self.host.ask(&ask).await?;
        let (parts, body) = answer.response.into_parts();
        let begins = match parts.status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if range_start(&parts.headers) == Some(self.offset) => self.offset,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(self.wrong(format!("a blob that has no more than {} bytes", self.offset)));
            }
            StatusCode::NOT_FOUND => return Ok(false),
            status => {
                let body = match collect(body, MAX_BODY, self.host.limits.idle).await {
                    Ok(Collected::Whole(body) | Collected::TooLong(body)) => body,
                    Err(_) => Bytes::new(),
                };
                let answer = Read { status, headers: parts.headers, body, cut: false, foreign: answer.foreign };
                return Err(self.host.refusal(&self.reference, "to give a blob", &answer));
            }
        };
        if let Some(length) = body.size_hint().exact()
            && length != self.descriptor.size.saturating_sub(begins)
        {
            return Err(self.wrong(format!("a blob of {} bytes", begins.saturating_add(length))));
        }
        self.skip = self.offset - begins;
        self.body = Some(body);
        Ok(true)
    }

    /// The next piece; `None` at the end. The last piece is handed on only if all of them have the right digest.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.body.is_none() && !self.ask().await? {
                return Err(self.wrong("no such blob any more".into()));
            }
            let Some(body) = &mut self.body else { continue };
            let complete = self.offset == self.descriptor.size;
            match piece(body, self.host.limits.idle).await {
                Ok(Some(data)) => {
                    if let Some(data) = self.take(data)? {
                        return Ok(Some(data));
                    }
                }
                // An empty blob has no last piece that could have been verified.
                Ok(None) if complete && self.offset == 0 => return self.verify().map(|()| None),
                Ok(None) | Err(_) if complete => return Ok(None),
                Ok(None) => return Err(self.wrong(format!("a blob of {} bytes", self.offset))),
                Err(reason) => {
                    self.body = None;
                    self.host.wait(&mut self.retry, Broken::lost(reason)).await?;
                }
            }
        }
    }

    fn take(&mut self, mut data: Bytes) -> Result<Option<Bytes>> {
        let again = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
        data.advance(again);
        self.skip -= again as u64;
        if data.is_empty() {
            return Ok(None);
        }
        self.offset += data.len() as u64;
        if self.offset > self.descriptor.size {
            return Err(self.wrong(format!("a blob of more than {} bytes", self.descriptor.size)));
        }
        self.hasher.update(&data);
        self.retry.got_further();
        if self.offset == self.descriptor.size {
            self.verify()?;
        }
        Ok(Some(data))
    }

    fn verify(&self) -> Result<()> {
        let found = Digest::from_bytes(self.hasher.clone().finalize().into());
        if found == self.descriptor.digest {
            Ok(())
        } else {
            Err(self.wrong(format!("a blob with the digest {found}")))
        }
    }

    fn wrong(&self, found: String) -> Error {
        let reference = self.reference.with_digest(self.descriptor.digest);
        mismatch(&reference, &format!("a blob of {} bytes with this digest", self.descriptor.size), found)
    }
}

/// Where a partial answer begins: `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.parse().ok()
}

/// The bytes of a blob. Its end is reached only if they have the right digest and number; else there is an error before.
///
/// As an [`AsyncRead`] it gives errors that hold an [`Error`]; [`own_error`] takes it out.
pub struct BlobStream {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    rest: Bytes,
    failed: bool,
}

impl BlobStream {
    pub(super) fn new(reading: Reading) -> Self {
        let pieces = try_unfold(reading, |mut reading| async move {
            let cancel = reading.cancel.clone();
            let piece = cancel.guard(reading.next()).await?;
            Ok(piece.map(|piece| (piece, reading)))
        });
        Self { pieces: Box::pin(pieces), rest: Bytes::new(), failed: false }
    }

    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        if self.failed {
            return Poll::Ready(Err(Error::internal("a blob was read on after an error")));
        }
        let piece = ready!(self.pieces.as_mut().poll_next(cx)).transpose();
        self.failed = piece.is_err();
        Poll::Ready(piece)
    }
}

impl AsyncRead for BlobStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = ready!(self.poll(cx)).map_err(io::Error::other)? {
            let count = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece.split_to(count));
            self.rest = piece;
        }
        Poll::Ready(Ok(()))
    }
}

/// The error of this crate inside one of I/O, as [`BlobStream`] gives them.
pub fn own_error(error: io::Error) -> Result<Error, io::Error> {
    error.downcast::<Error>()
}
