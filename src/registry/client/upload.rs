//! The upload of one blob: a session, the bytes in one of three ways, and what to do when it breaks.

use http::{HeaderMap, Method, Response, StatusCode, header};
use hyper::body::Incoming;
use url::Url;

use super::auth::Pass;
use super::body::{Collected, Meter, Upload, collect, whole};
use super::host::{Ask, Broken, Host, Login, request};
use super::pull::{content_digest, mismatch, own_error};
use super::push::BlobSource;
use super::redirect::redirect;
use super::refusal::MAX_BODY;
use super::retry::{Retry, asked, passes};
use super::scope::Scope;
use super::ways::Way;
use crate::error::{Error, Result};
use crate::reference::Reference;

/// GHCR takes no longer chunks; those that want longer ones say so.
const CHUNK: u64 = 4 << 20;
/// The shortest chunk that a registry takes (distribution spec, "Pushing a blob in chunks").
const CHUNK_MIN: &str = "oci-chunk-min-length";
/// The name of an upload, for registries that give no `Location`.
const UPLOAD_ID: &str = "docker-upload-uuid";

/// An upload that a registry has begun.
pub(super) struct Session {
    pub(super) url: Url,
    /// How many bytes it has.
    offset: u64,
    chunk: u64,
}

impl Session {
    /// The session that an answer to `from` begins. The error is a reason.
    pub(super) fn of_answer(host: &Host, from: &Url, headers: &HeaderMap) -> Result<Self, String> {
        let url = if headers.contains_key(header::LOCATION) {
            redirect(from, headers)?
        } else {
            let id = headers.get(UPLOAD_ID).and_then(|id| id.to_str().ok());
            let id = id.ok_or("it began an upload without saying where (no Location)")?;
            let mut url = from.join(id).map_err(|_| "the name of its upload is no part of a URL")?;
            url.set_query(None);
            if !host.is_own(&url) {
                return Err("the name of its upload is no part of a URL".into());
            }
            url
        };
        let least = headers.get(CHUNK_MIN).and_then(|least| least.to_str().ok()).and_then(|least| least.parse().ok());
        Ok(Self { url, offset: 0, chunk: least.unwrap_or(0).max(CHUNK) })
    }
}

/// One blob on its way.
pub(super) struct Uploading<'a> {
    pub(super) host: &'a Host,
    pub(super) reference: &'a Reference,
    pub(super) source: &'a dyn BlobSource,
    pub(super) progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// How one way ended.
enum Sent {
    Done,
    /// The registry does not like this way.
    Refused(Error),
}

/// One request of an upload.
struct Part {
    /// Whether this is the last one, which names the digest.
    commit: bool,
    length: u64,
    /// Whether it says where its bytes belong.
    ranged: bool,
}

/// What came of one request.
enum Outcome {
    Answer(Response<Incoming>, Option<Pass>),
    Broken(Broken),
}

impl Uploading<'_> {
    /// Sends the blob, in a session that is there already or in a new one.
    pub(super) async fn run(&self, mut session: Option<Session>) -> Result<()> {
        let mut refused = Vec::new();
        let mut last = None;
        for way in self.host.ways.of(self.size()) {
            match self.send(way, session.take()).await? {
                Sent::Done => {
                    for way in refused {
                        self.host.ways.refuse(way);
                    }
                    return Ok(());
                }
                Sent::Refused(error) => {
                    refused.push(way);
                    last.get_or_insert(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("there is no way to upload")))
    }

    fn size(&self) -> u64 {
        self.source.descriptor().size
    }

    fn scopes(&self) -> Vec<Scope> {
        vec![Scope::push(self.reference.repository())]
    }

    fn failed(&self, message: String) -> Error {
        Error::PushFailed { reference: self.reference.to_string(), message }
    }

    async fn begin(&self) -> Result<Session> {
        let url = self.host.url(&format!("{}/blobs/uploads/", self.reference.repository())).await?;
        let ask = Ask::new(Method::POST, url.clone(), self.scopes(), self.reference);
        let answer = self.host.read(&ask, MAX_BODY).await?;
        if !answer.status.is_success() {
            return Err(self.host.push_refusal(self.reference, answer.status, &answer.body));
        }
        Session::of_answer(self.host, &url, &answer.headers).map_err(|reason| self.failed(reason))
    }

    /// Sends the blob in one way, resuming it or beginning anew as often as that is worth while.
    async fn send(&self, way: Way, session: Option<Session>) -> Result<Sent> {
        let mut session = match session {
            Some(session) => session,
            None => self.begin().await?,
        };
        let mut retry = Retry::new(self.host.limits);
        let mut login = Login::default();
        loop {
            let part = self.next_part(way, &session);
            let reached = session.offset;
            let (response, pass) = match self.transfer(&session, &part, &login).await? {
                Outcome::Answer(response, pass) => (response, pass),
                Outcome::Broken(broken) => {
                    self.host.wait(&mut retry, broken).await?;
                    match self.recover(session, part.commit).await? {
                        Some(found) => session = found,
                        None => return Ok(Sent::Done),
                    }
                    if session.offset > reached {
                        retry.got_further();
                    }
                    continue;
                }
            };
            let status = response.status();
            if status.is_success() {
                if part.commit {
                    return self.committed(response).await;
                }
                session = self.accepted(response, session, part.length).await?;
                if session.offset > reached {
                    retry.got_further();
                } else {
                    self.host.wait(&mut retry, Broken::lost("it takes nothing of an upload".into())).await?;
                }
                login = Login::default();
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && self.host.is_own(&session.url) {
                // It was not even looked at: the session is as it was.
                self.host.log_in(response, pass.as_ref(), &mut login, self.reference).await?;
                continue;
            }
            if passes(status) || matches!(status.as_u16(), 404 | 410 | 416) {
                let wait = retry.failed(asked(response.headers()));
                let error = self.refusal(response).await;
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None if matches!(status.as_u16(), 408 | 429) => return Err(error),
                    None => return Ok(Sent::Refused(error)),
                }
            } else {
                let error = self.refusal(response).await;
                self.host.abandon(self.reference, &session).await;
                return if status == StatusCode::FORBIDDEN { Err(error) } else { Ok(Sent::Refused(error)) };
            }
            match self.recover(session, part.commit).await? {
                Some(found) => session = found,
                None => return Ok(Sent::Done),
            }
            if session.offset > reached {
                retry.got_further();
            }
        }
    }

    fn next_part(&self, way: Way, session: &Session) -> Part {
        let left = self.size() - session.offset;
        match way {
            Way::Put if session.offset == 0 => Part { commit: true, length: left, ranged: false },
            _ if left == 0 => Part { commit: true, length: 0, ranged: false },
            Way::Chunks => Part { commit: false, length: left.min(session.chunk), ranged: true },
            Way::Stream | Way::Put => Part { commit: false, length: left, ranged: session.offset > 0 },
        }
    }

    /// Sends one request with its part of the blob, and tells how far it is.
    async fn transfer(&self, session: &Session, part: &Part, login: &Login) -> Result<Outcome> {
        let host = self.host;
        let own = host.is_own(&session.url);
        let pass = if own { host.authorize(self.reference, &self.scopes(), &login.scopes).await? } else { None };
        let mut url = session.url.clone();
        let mut headers = HeaderMap::new();
        if part.commit {
            url.query_pairs_mut().append_pair("digest", &self.source.descriptor().digest.to_string());
        }
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
        if part.ranged {
            let range = format!("{}-{}", session.offset, session.offset + part.length - 1);
            headers.extend(range.parse().ok().map(|range| (header::CONTENT_RANGE, range)));
        }
        let meter = Meter::new();
        let body = if part.length == 0 {
            whole(bytes::Bytes::new())
        } else {
            Upload::body(self.source.open(session.offset).await?, part.length, meter.clone())
        };
        let method = if part.commit { Method::PUT } else { Method::PATCH };
        let request = request(&method, &url, &headers, body, pass.as_ref()).map_err(|reason| self.failed(reason))?;
        let mut sent = meter.sent();
        let sending = host.send_unwatched(request);
        let stalled = meter.stalled(part.length, host.limits.idle, host.limits.commit);
        tokio::pin!(sending, stalled);
        let result = loop {
            tokio::select! {
                answer = &mut sending => break answer,
                () = &mut stalled => break Err(Broken::stalled(host.limits.idle)),
                Ok(()) = sent.changed() => {
                    (self.progress)(session.offset + *sent.borrow_and_update(), self.size());
                }
            }
        };
        meter.stop();
        if let Some(error) = meter.failure() {
            return Err(own_error(error).unwrap_or_else(|error| self.failed(format!("a blob cannot be read: {error}"))));
        }
        Ok(match result {
            Ok(response) => Outcome::Answer(response, pass),
            Err(broken) => Outcome::Broken(broken),
        })
    }

    /// A part has arrived; the registry may say that it was less.
    async fn accepted(&self, response: Response<Incoming>, session: Session, length: u64) -> Result<Session> {
        let expected = session.offset + length;
        let headers = response.headers().clone();
        self.finish(response).await;
        let url = self.next_url(&session, &headers)?;
        // Some say nothing, some `0-0` whatever they have, and some are off by one.
        let offset = match range_end(&headers) {
            Some(end) if end > 0 && end + 1 < expected => end + 1,
            _ => expected,
        };
        Ok(Session { url, offset, ..session })
    }

    /// Where to go on; a registry that does not say means the same place.
    fn next_url(&self, session: &Session, headers: &HeaderMap) -> Result<Url> {
        if !headers.contains_key(header::LOCATION) {
            return Ok(session.url.clone());
        }
        redirect(&session.url, headers).map_err(|reason| self.failed(reason))
    }

    async fn committed(&self, response: Response<Incoming>) -> Result<Sent> {
        let found = content_digest(response.headers());
        self.finish(response).await;
        let digest = self.source.descriptor().digest;
        if let Some(found) = found.filter(|found| *found != digest) {
            return Err(mismatch(&self.reference.with_digest(digest), &digest.to_string(), found.to_string()));
        }
        (self.progress)(self.size(), self.size());
        Ok(Sent::Done)
    }

    /// Where to go on after a failure: the session as the registry has it, or a new one. `None` if the blob is there: only the
    /// answer was lost.
    async fn recover(&self, session: Session, committed: bool) -> Result<Option<Session>> {
        let ask = Ask::new(Method::GET, session.url.clone(), self.scopes(), self.reference);
        let answer = self.host.read(&ask, MAX_BODY).await?;
        if answer.status.is_success() {
            let url = self.next_url(&session, &answer.headers)?;
            match range_end(&answer.headers) {
                // `0-0` is one byte, and what registries say of none.
                Some(end) if end > 0 && end < self.size() => {
                    return Ok(Some(Session { url, offset: end + 1, ..session }));
                }
                _ => self.host.abandon(self.reference, &session).await,
            }
        } else if committed && self.host.is_there(self.reference, self.source.descriptor()).await? {
            return Ok(None);
        }
        self.begin().await.map(Some)
    }

    async fn refusal(&self, response: Response<Incoming>) -> Error {
        let status = response.status();
        let body = self.finish(response).await;
        self.host.push_refusal(self.reference, status, &body)
    }

    /// Reads what is left of an answer, so that its connection can be used again.
    async fn finish(&self, response: Response<Incoming>) -> bytes::Bytes {
        match collect(response.into_body(), MAX_BODY, self.host.limits.idle).await {
            Ok(Collected::Whole(body) | Collected::TooLong(body)) => body,
            Err(_) => bytes::Bytes::new(),
        }
    }
}

/// The last byte of `Range: 0-9`, or `bytes=0-9` as some write.
fn range_end(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.trim();
    let (start, end) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    (start.trim() == "0").then(|| end.trim().parse().ok()).flatten()
}
