//! Connections for HTTP: straight or through a proxy, plain or over TLS.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::{Method, Request, Uri};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::BoxedStream;
use super::exchange::exchange;
use super::proxy::{Proxies, Proxy};
use super::tls::TlsFiles;
use crate::environment::Environment;
use crate::secret::Secret;

/// Makes connections. Certificates are read when TLS is first needed: a machine without any can still speak plainly.
#[derive(Debug)]
pub struct Connector {
    proxies: Proxies,
    files: TlsFiles,
    environment: Environment,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
}

/// A connection to whoever takes a request.
pub struct Hop {
    /// The connection.
    pub stream: BoxedStream,
    form: Form,
}

/// How a request names its address (RFC 9112, 3.2).
enum Form {
    /// By its path.
    Origin,
    /// In full, for a proxy, which may want to know who we are.
    Absolute(Option<Secret<String>>),
}

impl Connector {
    /// The environment tells the proxies and the system's certificates. The error is a sentence.
    pub fn new(environment: &Environment, files: TlsFiles) -> Result<Self, String> {
        let (proxies, environment) = (Proxies::of(environment)?, environment.clone());
        Ok(Self { proxies, files, environment, tls: OnceLock::new() })
    }

    /// Connects for a request to this address. The error is a reason.
    pub async fn connect(&self, uri: &Uri) -> Result<Hop, String> {
        let tls = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or("the address has no host")?.trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let Some(proxy) = self.proxies.before(tls, host, port) else {
            let stream = dial(host, port).await?;
            let stream = if tls { self.secure(stream, host).await? } else { stream };
            return Ok(Hop { stream, form: Form::Origin });
        };
        let name = |reason| format!("proxy {}:{}: {reason}", proxy.host, proxy.port);
        let mut stream = dial(&proxy.host, proxy.port).await.map_err(name)?;
        if proxy.tls {
            stream = self.secure(stream, &proxy.host).await.map_err(name)?;
        }
        if !tls {
            return Ok(Hop { stream, form: Form::Absolute(proxy.authorization.clone()) });
        }
        let tunnel = dig(stream, proxy, host, port).await.map_err(name)?;
        Ok(Hop { stream: self.secure(tunnel, host).await?, form: Form::Origin })
    }

    async fn secure(&self, stream: BoxedStream, host: &str) -> Result<BoxedStream, String> {
        let config = self.tls.get_or_init(|| self.files.client_config(&self.environment)).clone()?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        Ok(Box::new(stream))
    }
}

impl Hop {
    /// Gives a request with a full address the form that this connection wants.
    pub fn address<B>(&self, request: &mut Request<B>) -> Result<(), String> {
        let authority = request.uri().authority().ok_or("the address has no host")?.as_str();
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let host = HeaderValue::from_str(host).map_err(|_| "the address has no usable host")?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        match &self.form {
            Form::Origin => *request.uri_mut() = path.parse().map_err(|_| "the address has no usable path")?,
            Form::Absolute(authorization) => insert(request, PROXY_AUTHORIZATION, authorization.as_ref())?,
        }
        request.headers_mut().insert(HOST, host);
        Ok(())
    }
}

fn insert<B>(request: &mut Request<B>, name: HeaderName, value: Option<&Secret<String>>) -> Result<(), String> {
    let Some(value) = value else { return Ok(()) };
    let mut value = HeaderValue::from_str(value.expose()).map_err(|_| format!("the value of {name} is malformed"))?;
    value.set_sensitive(true);
    request.headers_mut().insert(name, value);
    Ok(())
}

async fn dial(host: &str, port: u16) -> Result<BoxedStream, String> {
    let tcp = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    // Without this, the small writes of a handshake wait for one another.
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(Box::new(tcp))
}

/// A tunnel through a proxy (RFC 9110, 9.3.6).
async fn dig(stream: BoxedStream, proxy: &Proxy, host: &str, port: u16) -> Result<BoxedStream, String> {
    let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = host.parse().map_err(|_| format!("`{host}` is no host"))?;
    request.headers_mut().insert(HOST, HeaderValue::from_str(&host).map_err(|_| format!("`{host}` is no host"))?);
    insert(&mut request, PROXY_AUTHORIZATION, proxy.authorization.as_ref())?;
    let (response, driver) = exchange(stream, request).await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("it answered {} to CONNECT", response.status()));
    }
    let tunnel = hyper::upgrade::on(response).await.map_err(|error| error.to_string())?;
    drop(driver);
    Ok(Box::new(TokioIo::new(tunnel)))
}
