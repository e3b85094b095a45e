//! Connecting: one byte stream per call, whatever the address.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::endpoint::Endpoint;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::net::BoxedStream;
use crate::net::ssh::Behind;
use crate::net::tls::{TlsFiles, is_tls_error};

/// A daemon that has not accepted a connection by then is not going to.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes connections to one daemon.
#[derive(Clone)]
pub struct Dialer {
    address: Address,
    tls: Option<Arc<rustls::ClientConfig>>,
    server_name: Option<String>,
    environment: Arc<Environment>,
    timeout: Duration,
}

impl Dialer {
    /// Reads the TLS files of the endpoint; connects to nothing yet. Fails with `DaemonConfig`.
    pub fn new(endpoint: &Endpoint, environment: &Arc<Environment>) -> Result<Self> {
        let config = |files: &TlsFiles| {
            files
                .client_config(environment)
                .map_err(|reason| Error::DaemonConfig { setting: format!("TLS for {}", endpoint.address), reason })
        };
        Ok(Self {
            address: endpoint.address.clone(),
            tls: endpoint.tls.as_ref().map(config).transpose()?,
            server_name: endpoint.tls.as_ref().and_then(|files| files.server_name.clone()),
            environment: Arc::clone(environment),
            timeout: CONNECT_TIMEOUT,
        })
    }

    /// Where it connects to.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The same with another limit for connecting.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A new connection, TLS handshake done. Fails with `DaemonUnreachable`, `DaemonDenied` or `DaemonConfig` (TLS).
    pub async fn dial(&self) -> Result<BoxedStream> {
        match tokio::time::timeout(self.timeout, self.connect()).await {
            Ok(result) => result,
            Err(_) => Err(self.unreachable(format!("no connection within {} s", self.timeout.as_secs_f32()))),
        }
    }

    async fn connect(&self) -> Result<BoxedStream> {
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| self.failed(&error))?;
                Ok(Box::new(stream))
            }
            Address::Tcp { host, port, .. } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| self.failed(&error))?;
                // Small requests go out at once.
                stream.set_nodelay(true).map_err(|error| self.failed(&error))?;
                match &self.tls {
                    Some(config) => self.handshake(Arc::clone(config), host, stream).await,
                    None => Ok(Box::new(stream)),
                }
            }
            Address::Ssh(target) => {
                let stream =
                    target.program(Behind::Docker, self.timeout).dial(&self.environment).map_err(
                        |error| match error.kind() {
                            ErrorKind::NotFound => self.unreachable("the `ssh` program is not installed".into()),
                            _ => self.failed(&error),
                        },
                    )?;
                Ok(Box::new(stream))
            }
        }
    }

    async fn handshake(&self, config: Arc<rustls::ClientConfig>, host: &str, tcp: TcpStream) -> Result<BoxedStream> {
        let tls_error = |reason: String| Error::DaemonConfig { setting: format!("TLS with {}", self.address), reason };
        let name = self.server_name.clone().unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name).map_err(|error| tls_error(error.to_string()))?;
        match TlsConnector::from(config).connect(name, tcp).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if is_tls_error(&error) => Err(tls_error(error.to_string())),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn unreachable(&self, reason: String) -> Error {
        Error::DaemonUnreachable { endpoint: self.address.to_string(), reason }
    }

    /// What an I/O error at the other end means.
    pub(super) fn failed(&self, error: &io::Error) -> Error {
        let socket = matches!(self.address, Address::Unix(_));
        match error.kind() {
            ErrorKind::PermissionDenied if socket => Error::DaemonDenied { endpoint: self.address.to_string() },
            ErrorKind::NotFound if socket => self.unreachable("there is no such socket".into()),
            ErrorKind::ConnectionRefused if socket => {
                self.unreachable("the socket is there, but nothing listens on it".into())
            }
            _ => self.unreachable(error.to_string()),
        }
    }
}
