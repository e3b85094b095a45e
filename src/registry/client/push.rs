//! Writing to one registry: what is there already, mounts, manifests.

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode, header};
use tokio::io::AsyncRead;

use super::host::{Ask, Host, Read};
use super::pull::{Found, content_digest, mismatch, name};
use super::refusal::{MAX_BODY, lacks_blob};
use super::retry::{Retry, asked};
use super::scope::Scope;
use super::upload::{Session, Uploading};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use crate::reference::Reference;

/// A blob that can be read from any place, again and again.
#[async_trait]
pub trait BlobSource: Send + Sync {
    /// What it is, its digest and its size.
    fn descriptor(&self) -> &Descriptor;

    /// Its bytes from `offset` on.
    async fn open(&self, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>>;
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushedBlob {
    /// It was there.
    Existed,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Host {
    /// What a registry says against a push.
    pub(super) fn push_refusal(&self, reference: &Reference, status: StatusCode, body: &[u8]) -> Error {
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return self.denied(reference, status, body);
        }
        let words = self.words(status, body);
        let status = status.as_u16();
        Error::PushFailed { reference: reference.to_string(), message: format!("{words} ({status})") }
    }

    /// Puts a blob into a repository, with as little as the registry needs.
    pub(super) async fn push_blob(
        &self,
        reference: &Reference,
        source: &dyn BlobSource,
        mounts: &[Reference],
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<PushedBlob> {
        let descriptor = source.descriptor();
        let size = descriptor.size;
        progress(0, size);
        if self.is_there(reference, descriptor).await? {
            progress(size, size);
            return Ok(PushedBlob::Existed);
        }
        let session = match self.mount(reference, &descriptor.digest, mounts).await? {
            Mount::Done => {
                progress(size, size);
                return Ok(PushedBlob::Mounted);
            }
            Mount::Session(session) => Some(session),
            Mount::Refused => None,
        };
        Uploading { host: self, reference, source, progress }.run(session).await?;
        Ok(PushedBlob::Uploaded)
    }

    /// Whether a blob is there, in its full length. What the registry does not tell is told by the upload.
    pub(super) async fn is_there(&self, reference: &Reference, descriptor: &Descriptor) -> Result<bool> {
        match self.head_blob(reference, &descriptor.digest, Scope::push(reference.repository())).await? {
            Found::There(size) => Ok(size.is_none_or(|size| size == descriptor.size)),
            // Some say 403 of what is not there.
            Found::Absent | Found::Refused(_) => Ok(false),
        }
    }

    /// Asks for the blob from each repository in turn. Whoever refuses the last one has begun an upload in its place.
    async fn mount(&self, reference: &Reference, digest: &Digest, mounts: &[Reference]) -> Result<Mount> {
        let mut session: Option<Session> = None;
        let other =
            |from: &&Reference| from.registry() == reference.registry() && from.repository() != reference.repository();
        for from in mounts.iter().filter(other) {
            if !self.ways.mounts() {
                break;
            }
            let url = self.mount_url(reference, digest, from).await?;
            // Without leave to read there, a registry refuses.
            let scopes = vec![Scope::push(reference.repository()), Scope::pull(from.repository())];
            let answer = match self.read(&Ask::new(Method::POST, url.clone(), scopes, reference), MAX_BODY).await {
                Ok(answer) => answer,
                // Whoever may not read there may still write here.
                Err(Error::RegistryDenied { .. } | Error::RegistryRefused { .. }) => continue,
                Err(error) => return Err(error),
            };
            match answer.status {
                StatusCode::CREATED => {
                    if let Some(session) = session {
                        self.abandon(reference, &session).await;
                    }
                    return Ok(Mount::Done);
                }
                StatusCode::ACCEPTED => {
                    let begun = Session::of_answer(self, &url, &answer.headers).ok();
                    if let Some(old) = begun.and_then(|begun| session.replace(begun)) {
                        self.abandon(reference, &old).await;
                    }
                }
                StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                    self.ways.refuse_mounts();
                }
                _ => {}
            }
        }
        Ok(session.map_or(Mount::Refused, Mount::Session))
    }

    async fn mount_url(&self, reference: &Reference, digest: &Digest, from: &Reference) -> Result<url::Url> {
        let mut url = self.url(&format!("{}/blobs/uploads/", reference.repository())).await?;
        let digest = digest.to_string();
        url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", from.repository());
        Ok(url)
    }

    /// Puts a manifest, and makes sure that the registry has these very bytes.
    pub(super) async fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: Bytes) -> Result<Digest> {
        let digest = Digest::of(&bytes);
        if let Some(asked) = reference.digest().filter(|asked| **asked != digest) {
            return Err(mismatch(reference, &asked.to_string(), digest.to_string()));
        }
        let place = reference.tag().map_or_else(|| name(reference), str::to_owned);
        let url = self.url(&format!("{}/manifests/{place}", reference.repository())).await?;
        let scopes = vec![Scope::push(reference.repository())];
        let mut ask = Ask::new(Method::PUT, url, scopes, reference).header(header::CONTENT_TYPE, media_type);
        ask.body = bytes;
        let answer = self.put_manifest(&ask).await?;
        let found = match content_digest(&answer.headers) {
            Some(found) => found,
            None => self.digest_of_pushed(reference).await?,
        };
        if found == digest { Ok(digest) } else { Err(mismatch(reference, &digest.to_string(), found.to_string())) }
    }

    /// Puts a manifest, again where the registry says that it lacks a blob of it: all are there by now, but some registries
    /// do not see one while another client sends the same (docker-registry writes the link of a blob in place), or see it
    /// later.
    async fn put_manifest(&self, ask: &Ask<'_>) -> Result<Read> {
        let mut retry = Retry::new(self.limits);
        loop {
            let answer = self.read(ask, MAX_BODY).await?;
            if answer.status.is_success() {
                return Ok(answer);
            }
            let wait = if lacks_blob(&answer.body) { retry.failed(asked(&answer.headers)) } else { None };
            let Some(wait) = wait else {
                return Err(self.push_refusal(ask.reference, answer.status, &answer.body));
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn digest_of_pushed(&self, reference: &Reference) -> Result<Digest> {
        let missing = || Error::PushFailed {
            reference: reference.to_string(),
            message: "the registry took the manifest, and has none".into(),
        };
        Ok(self.manifest_digest(reference).await?.ok_or_else(missing)?.digest)
    }

    /// Ends an upload that nobody will finish. Registries do so themselves after some days.
    pub(super) async fn abandon(&self, reference: &Reference, session: &Session) {
        if !self.is_own(&session.url) {
            return;
        }
        let scopes = vec![Scope::push(reference.repository())];
        let _: Result<Read> =
            self.read(&Ask::new(Method::DELETE, session.url.clone(), scopes, reference), MAX_BODY).await;
    }
}

enum Mount {
    Done,
    /// The registry does not have the blob there, and awaits it here.
    Session(Session),
    Refused,
}
