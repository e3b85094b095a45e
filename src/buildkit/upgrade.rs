//! Docker's way to BuildKit: `POST /grpc` and `POST /session`, upgraded from HTTP/1.1 to HTTP/2.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;

use super::transport::{self, BoxedStream, Control, Link, SessionHello, Transport};
use crate::error::{Error, Result};
use crate::net::exchange;

/// A daemon's refusal is a line or two; more of it helps nobody.
const MAX_ERROR_BODY: usize = 16 << 10;

/// Makes connected byte streams to one daemon, TLS and tunnels included.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A new connection.
    async fn dial(&self) -> Result<BoxedStream>;
}

/// The transport through a Docker daemon.
pub struct Hijack {
    dial: Arc<dyn Dial>,
}

impl Hijack {
    /// A transport whose connections `dial` makes.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial }
    }
}

#[async_trait]
impl Transport for Hijack {
    async fn control(&self) -> Result<Link> {
        transport::channel(upgrade(self.dial.dial().await?, "/grpc", Vec::new()).await?).await
    }

    async fn attach(&self, _: Control, hello: &SessionHello) -> Result<BoxedStream> {
        let mut headers = vec![
            header_pair("x-docker-expose-session-uuid", &hello.id)?,
            // Daemons before 23 want a name; it shows up in their logs only.
            header_pair("x-docker-expose-session-name", "cooper")?,
            header_pair("x-docker-expose-session-sharedkey", &hello.shared_key)?,
        ];
        for method in &hello.methods {
            headers.push(header_pair("x-docker-expose-session-grpc-method", method)?);
        }
        upgrade(self.dial.dial().await?, "/session", headers).await
    }
}

fn header_pair(name: &'static str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(value).map_err(|_| Error::internal(format!("`{value}` is no header value")))?;
    Ok((HeaderName::from_static(name), value))
}

/// Asks for an upgrade to HTTP/2 on a fresh connection and gives the raw stream behind it. Fails with `DaemonRefused`
/// when the daemon answers anything but 101.
pub async fn upgrade(
    stream: BoxedStream,
    path: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Result<BoxedStream> {
    let failed = |error: hyper::Error| Error::DaemonProtocol {
        action: format!("the request POST {path}"),
        reason: transport::chain(&error),
    };
    let mut request = Request::post(path)
        .header(header::HOST, "docker")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "h2c")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Error::internal(error.to_string()))?;
    // This `extend` appends: the methods are many values of one name.
    request.headers_mut().extend(headers);
    let (response, driver) = exchange(stream, request).await.map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(path, response).await);
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    drop(driver);
    Ok(Box::new(TokioIo::new(upgraded)))
}

async fn refusal(path: &str, response: http::Response<hyper::body::Incoming>) -> Error {
    let status = response.status().as_u16();
    let body = match Limited::new(response.into_body(), MAX_ERROR_BODY).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    let message = serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|json| json["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| body.trim().to_owned());
    Error::DaemonRefused { action: format!("POST {path}"), status, message }
}
