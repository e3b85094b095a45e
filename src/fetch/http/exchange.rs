//! One request and its answer, by way of redirects.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use url::Url;

use super::super::{failed, redacted};
use super::{Patience, Trouble, Validator};
use crate::net::{Connector, Driver, exchange};
use crate::secret::Secret;

/// As many as browsers and Go follow.
const MAX_REDIRECTS: usize = 10;
/// What servers see of us.
const AGENT: &str = concat!("zenml-cooper/", env!("CARGO_PKG_VERSION"));

/// What a request says besides its address.
pub(super) struct Question<'a> {
    pub(super) authorization: Option<&'a Secret<String>>,
    pub(super) previous: Option<&'a Validator>,
    /// From which byte on, if the file is still the one with this tag or date.
    pub(super) resume: Option<(u64, String)>,
}

/// An answer whose body still comes. The connection closes when this is dropped.
pub(super) struct Exchange {
    response: Response<Incoming>,
    _connection: Driver,
}

impl Exchange {
    /// Asks, and follows redirects: at most ten, never from TLS to none, and with credentials only to the host that they are
    /// for. `shown` is the address for errors.
    pub(super) async fn begin(
        connector: &Connector,
        patience: &Patience,
        url: &Url,
        shown: &str,
        question: &Question<'_>,
    ) -> Result<Self, Trouble> {
        let mut target = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let credentials = question.authorization.filter(|_| same_origin(url, &target));
            let exchange = Self::once(connector, patience, &target, question, credentials).await?;
            let Some(location) = exchange.redirect() else { return Ok(exchange) };
            let next = target.join(&location).map_err(|_| failed(shown, "it redirects to what is no address"))?;
            may_follow(&target, &next).map_err(|reason| failed(shown, reason))?;
            target = next;
        }
        Err(Trouble::Lasting(failed(shown, format!("it redirects more than {MAX_REDIRECTS} times"))))
    }

    async fn once(
        connector: &Connector,
        patience: &Patience,
        target: &Url,
        question: &Question<'_>,
        credentials: Option<&Secret<String>>,
    ) -> Result<Self, Trouble> {
        let lasting = |reason: String| Trouble::Lasting(failed(target.as_str(), reason));
        let mut request = question.request(target, credentials).map_err(lasting)?;
        let connect = connector.connect(request.uri());
        let hop = within(patience.connect, connect).await.map_err(Trouble::passing)?;
        hop.address(&mut request).map_err(lasting)?;
        let answer = async {
            let (response, connection) = exchange(hop.stream, request).await.map_err(|e| describe(&e))?;
            Ok(Self { response, _connection: connection })
        };
        within(patience.silence, answer).await.map_err(Trouble::passing)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    fn redirect(&self) -> Option<String> {
        let is_redirect = matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = self.headers().get(LOCATION).filter(|_| is_redirect)?;
        Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
    }

    /// The next bytes of the body; `None` at its end.
    pub(super) async fn next(&mut self, silence: Duration) -> Result<Option<Bytes>, Trouble> {
        loop {
            let frame = async { self.response.body_mut().frame().await.transpose().map_err(|error| describe(&error)) };
            match within(silence, frame).await.map_err(Trouble::passing)?.map(hyper::body::Frame::into_data) {
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => return Ok(Some(bytes)),
                // Trailers.
                Some(Err(_)) => {}
                None => return Ok(None),
            }
        }
    }
}

impl Question<'_> {
    fn request(&self, target: &Url, credentials: Option<&Secret<String>>) -> Result<Request<Empty<Bytes>>, String> {
        let mut request = Request::new(Empty::new());
        let mut address = target.clone();
        address.set_fragment(None);
        *request.uri_mut() = address.as_str().parse().map_err(|_| "the address is malformed")?;
        let mut headers = HeaderMap::new();
        let mut insert = |name: HeaderName, value: &str| -> Result<(), String> {
            let value = HeaderValue::from_str(value).map_err(|_| format!("the value of {name} is malformed"))?;
            headers.insert(name, value);
            Ok(())
        };
        insert(USER_AGENT, AGENT)?;
        insert(ACCEPT, "*/*")?;
        // The file as it is, not as it might travel faster: its digest and its resumption count bytes.
        insert(ACCEPT_ENCODING, "identity")?;
        if let Some((offset, tag)) = &self.resume {
            insert(RANGE, &format!("bytes={offset}-"))?;
            insert(IF_RANGE, tag)?;
        } else if let Some(previous) = self.previous {
            match (&previous.etag, &previous.last_modified) {
                (Some(etag), _) => insert(IF_NONE_MATCH, etag)?,
                (None, Some(date)) => insert(IF_MODIFIED_SINCE, date)?,
                (None, None) => {}
            }
        }
        if let Some(credentials) = credentials {
            insert(AUTHORIZATION, credentials.expose())?;
        }
        if let Some(value) = headers.get_mut(AUTHORIZATION) {
            value.set_sensitive(true);
        }
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Whether a redirect may be followed; the error is a reason.
fn may_follow(from: &Url, to: &Url) -> Result<(), String> {
    match (from.scheme(), to.scheme()) {
        ("http", "http" | "https") | ("https", "https") => Ok(()),
        ("https", "http") => Err(format!("it redirects from https to `{}`", redacted(to.as_str()))),
        (_, other) => Err(format!("it redirects to `{other}:`")),
    }
}

/// Whether credentials for one address are for another too: the same host and port, and TLS if there was.
fn same_origin(left: &Url, right: &Url) -> bool {
    let upgraded = left.scheme() == "http" && right.scheme() == "https" && left.port() == right.port();
    left.host_str() == right.host_str()
        && (upgraded
            || (left.scheme() == right.scheme() && left.port_or_known_default() == right.port_or_known_default()))
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

fn describe(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_with_their_host() {
        let same = |left, right| same_origin(&Url::parse(left).unwrap(), &Url::parse(right).unwrap());
        assert!(same("http://x/a", "http://x:80/b"));
        assert!(same("http://x/a", "https://x/b"));
        for other in ["http://y/", "http://x:81/", "http://x.y/", "https://x:444/"] {
            assert!(!same("http://x/", other), "{other}");
        }
        assert!(!same("https://x/", "http://x/"));
    }

    #[test]
    fn redirects_do_not_leave_tls_or_the_web() {
        let follow = |left, right| may_follow(&Url::parse(left).unwrap(), &Url::parse(right).unwrap());
        assert_eq!(follow("http://x/", "https://y/"), Ok(()));
        assert_eq!(follow("https://x/", "https://y/"), Ok(()));
        assert_eq!(follow("https://x/", "http://a:hunter2@y/"), Err("it redirects from https to `http://y/`".into()));
        assert!(follow("http://x/", "file:///etc/passwd").is_err());
    }
}
