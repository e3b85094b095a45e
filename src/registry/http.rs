//! One HTTP request on a connection of its own: all that a look at a registry needs.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::net::BoxedStream;

/// A registry that has not answered by then is not going to.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens are a few kilobytes.
const MAX_BODY: usize = 1 << 20;

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Sends a request. The error is a reason. Redirects are not followed: credentials must not go along.
pub(super) async fn send(request: Request<Full<Bytes>>, tls: Option<Arc<ClientConfig>>) -> Result<Answer, String> {
    match tokio::time::timeout(TIMEOUT, exchange(request, tls)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

async fn exchange(mut request: Request<Full<Bytes>>, tls: Option<Arc<ClientConfig>>) -> Result<Answer, String> {
    let stream = connect(request.uri(), tls).await?;
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let host = authority.parse().map_err(|_| format!("`{authority}` is no host"))?;
    request.headers_mut().insert(header::HOST, host);
    *request.uri_mut() = path.parse().map_err(|_| format!("`{path}` is no path"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| describe(&error))?;
    // What breaks on the connection shows in the response as well.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await.map_err(|error| describe(&error))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

async fn connect(uri: &Uri, tls: Option<Arc<ClientConfig>>) -> Result<BoxedStream, String> {
    let host = uri.host().ok_or("the address has no host")?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|error| error.to_string())?;
    let Some(tls) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?;
    Ok(Box::new(stream))
}

fn describe(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
