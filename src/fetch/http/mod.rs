//! Files of the web (BuildKit, source/http): whole, verified, and only if they have changed.

mod exchange;
mod part;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONTENT_LENGTH, ETAG, HeaderName, LAST_MODIFIED, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use url::Url;

use self::exchange::{Exchange, Question};
use self::part::Part;
use super::{Secrets, failed};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::mtime::Mtime;
use crate::net::Connector;
use crate::net::tls::TlsFiles;
use crate::secret::Secret;

/// A server that wants more patience than this does not want us.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Fetches files.
#[derive(Debug)]
pub struct Fetcher {
    connector: Connector,
    patience: Patience,
}

/// How long to wait, and how often to try.
#[derive(Clone, Debug)]
pub struct Patience {
    /// For a connection, TLS and proxies included.
    pub connect: Duration,
    /// For the next byte of an answer.
    pub silence: Duration,
    /// Before the second attempt. Each further pause is twice as long; a server's `Retry-After` counts instead.
    pub pause: Duration,
    /// Attempts in all.
    pub attempts: u32,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(30), silence: seconds(60), pause: seconds(1), attempts: 5 }
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its address, `http:` or `https:`.
    pub url: &'a str,
    /// The digest that it has to have: `sha256:`, `sha384:` or `sha512:`.
    pub checksum: Option<&'a str>,
    /// What an earlier fetch of this address told, if its file is still there.
    pub previous: Option<&'a Validator>,
    /// The value of `Authorization`; see [`authorization`]. It goes to the host of the address only.
    pub authorization: Option<&'a Secret<String>>,
    /// Where the file is put, without a name.
    pub directory: &'a Path,
}

/// How a server names a state of a file (RFC 9110, 8.8), and what the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// `ETag` as it was sent.
    pub etag: Option<String>,
    /// `Last-Modified` as it was sent.
    pub last_modified: Option<String>,
    /// Of the file.
    pub digest: Digest,
}

/// A file of the web. BuildKit puts it down with mode 0600, owned by root.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its content, in a file that has no name.
    pub file: Arc<File>,
    /// In bytes.
    pub size: u64,
    /// Of the content.
    pub digest: Digest,
    /// `Last-Modified`. BuildKit takes the beginning of 1970 where there is none.
    pub mtime: Option<Mtime>,
    /// For the next time.
    pub validator: Validator,
}

/// What a fetch brought.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The file.
    File(Fetched),
    /// The file of [`Wanted::previous`] is still the right one.
    NotModified,
}

/// Why an attempt failed.
enum Trouble {
    /// Another one will fail too.
    Lasting(Error),
    /// Another one may not.
    Passing { reason: String, after: Option<Duration> },
}

impl Trouble {
    fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: reason.into(), after: None }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

impl Fetcher {
    /// The environment tells the proxies and the system's certificates.
    pub fn new(environment: &Environment) -> Result<Self> {
        let connector = Connector::new(environment, TlsFiles::default()).map_err(|reason| Error::FetchFailed {
            location: None,
            url: "http".into(),
            reason,
        })?;
        Ok(Self { connector, patience: Patience::default() })
    }

    /// Another patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Fetches a file. `progress` is told the bytes so far and, if that is known, those in all.
    ///
    /// Resets, silence, 408, 429 and 5xx are tried again, from where the file broke off if the server can. Fails with
    /// `FetchFailed`, `NoSpace` or `Interrupted`; nothing of a file stays behind then.
    pub async fn fetch(
        &self,
        wanted: &Wanted<'_>,
        cancel: &Cancel,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Answer> {
        cancel.guard(self.fetch_patiently(wanted, cancel, progress)).await
    }

    async fn fetch_patiently(
        &self,
        wanted: &Wanted<'_>,
        cancel: &Cancel,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Answer> {
        let url = Url::parse(wanted.url).map_err(|error| failed(wanted.url, error.to_string()))?;
        let mut part = Part::new(wanted)?;
        let mut pause = self.patience.pause;
        for attempt in 1.. {
            match self.attempt(&url, wanted, &mut part, progress).await {
                Ok(None) => return Ok(Answer::NotModified),
                Ok(Some(headers)) => return part.finish(wanted, &headers, cancel).await.map(Answer::File),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing { reason, .. }) if attempt >= self.patience.attempts => {
                    return Err(failed(wanted.url, format!("{reason} ({attempt} attempts)")));
                }
                Err(Trouble::Passing { after, .. }) => {
                    tokio::time::sleep(after.unwrap_or(pause).min(LONGEST_PAUSE)).await;
                    pause *= 2;
                }
            }
        }
        Err(Error::internal("attempts without end"))
    }

    /// One request, redirects included. `None`: nothing has changed.
    async fn attempt(
        &self,
        url: &Url,
        wanted: &Wanted<'_>,
        part: &mut Part,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Option<HeaderMap>, Trouble> {
        let question = Question {
            authorization: wanted.authorization,
            previous: wanted.previous.filter(|_| comparable(wanted.checksum)),
            resume: part.resume(),
        };
        let mut exchange = Exchange::begin(&self.connector, &self.patience, url, wanted.url, &question).await?;
        let (status, headers) = (exchange.status(), exchange.headers().clone());
        if is_unchanged(status, &headers, question.previous) {
            return confirm(wanted).map(|()| None).map_err(Trouble::Lasting);
        }
        match status {
            StatusCode::PARTIAL_CONTENT => part.continue_with(&headers)?,
            _ if status.is_success() => part.restart(&headers).await?,
            _ => return Err(refusal(wanted.url, status, &headers, part)),
        }
        let total = number(&headers, &CONTENT_LENGTH).map(|rest| rest + part.size());
        progress(part.size(), total);
        while let Some(bytes) = exchange.next(self.patience.silence).await? {
            part.write(wanted.url, &bytes).await?;
            progress(part.size(), total);
        }
        part.check_length()?;
        Ok(Some(headers))
    }
}

/// The value of `Authorization` for an address: that of the build's secret `HTTP_AUTH_TOKEN_host` (a bearer token), else
/// of `HTTP_AUTH_HEADER_host`, else the user and password of the address. BuildKit asks in the same order.
pub fn authorization(url: &str, secrets: &Secrets<'_>) -> Option<Secret<String>> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']);
    let token = secrets(&format!("HTTP_AUTH_TOKEN_{host}"));
    let token = token.map(|token| Secret::new(format!("Bearer {}", token.expose())));
    token.or_else(|| secrets(&format!("HTTP_AUTH_HEADER_{host}"))).or_else(|| crate::net::proxy::basic(&url))
}

/// Whether a digest can be compared with what an earlier fetch noted.
fn comparable(checksum: Option<&str>) -> bool {
    checksum.is_none_or(|checksum| checksum.starts_with("sha256:"))
}

/// Whether the server says that nothing has changed. Some send the whole file again, with the tag that they were asked about
/// (moby/buildkit#905).
fn is_unchanged(status: StatusCode, headers: &HeaderMap, previous: Option<&Validator>) -> bool {
    let Some(previous) = previous else { return false };
    let strong = |tag: &str| tag.trim_start_matches("W/").to_owned();
    let same_tag = text(headers, &ETAG).is_some_and(|tag| previous.etag.as_deref().map(strong) == Some(strong(&tag)));
    status == StatusCode::NOT_MODIFIED || (status == StatusCode::OK && same_tag)
}

/// What is still the same has to be what is wanted.
fn confirm(wanted: &Wanted<'_>) -> Result<()> {
    let Some((checksum, previous)) = wanted.checksum.zip(wanted.previous) else { return Ok(()) };
    let found = previous.digest.to_string();
    if found == checksum { Ok(()) } else { Err(mismatch(wanted.url, checksum, &found)) }
}

fn mismatch(url: &str, expected: &str, found: &str) -> Error {
    failed(url, format!("its digest is {found}, and should be {expected}"))
}

fn refusal(url: &str, status: StatusCode, headers: &HeaderMap, part: &mut Part) -> Trouble {
    let reason = format!("the server answered {status}");
    match status.as_u16() {
        408 | 429 | 500 | 502..=504 => Trouble::Passing { reason, after: retry_after(headers) },
        416 => {
            // What we have is not the beginning of what is there now.
            part.forget();
            Trouble::passing(reason)
        }
        _ => Trouble::Lasting(failed(url, reason)),
    }
}

/// Seconds only: the other form of `Retry-After`, a date, depends on two clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    number(headers, &RETRY_AFTER).map(Duration::from_secs)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `Last-Modified` in whole seconds.
fn mtime(headers: &HeaderMap) -> Option<Mtime> {
    let time = httpdate::parse_http_date(&text(headers, &LAST_MODIFIED)?).ok()?;
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Mtime { seconds: i64::try_from(seconds).ok()?, nanoseconds: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_the_host_come_before_the_address() {
        let secrets = |name: &str| (name == "HTTP_AUTH_TOKEN_x.test").then(|| Secret::new("hunter2".to_owned()));
        let value = |url| authorization(url, &secrets).map(|value| value.expose().clone());
        assert_eq!(value("https://a:b@x.test:81/y").as_deref(), Some("Bearer hunter2"));
        assert_eq!(value("https://a:b@y.test/").as_deref(), Some("Basic YTpi"));
        assert_eq!(value("https://y.test/"), None);
    }

    #[test]
    fn dates_have_whole_seconds() {
        let mut headers = HeaderMap::new();
        assert_eq!(mtime(&headers), None);
        headers.insert(LAST_MODIFIED, "Tue, 15 Nov 1994 12:45:26 GMT".parse().unwrap());
        assert_eq!(mtime(&headers), Some(Mtime { seconds: 784_903_526, nanoseconds: 0 }));
        headers.insert(LAST_MODIFIED, "yesterday".parse().unwrap());
        assert_eq!(mtime(&headers), None);
    }
}
