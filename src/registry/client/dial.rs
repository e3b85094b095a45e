//! Connections: TCP, TLS with what this host demands, and the addresses that nobody may send us to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use http::Uri;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::certs::Tls;
use super::config::address;
use super::proxy::Proxy;
use crate::net::BoxedStream;

/// Where clouds keep a machine's credentials, for IPv6 (AWS, "Use the Instance Metadata Service").
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

type Dialing<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// Connects to one registry and to those that it sends us to.
#[derive(Clone)]
pub(super) struct Dialer {
    /// The registry's host and port.
    own: Arc<str>,
    tls: Arc<Tls>,
    /// The error is a reason.
    proxy: Result<Option<Proxy>, String>,
    tcp: HttpConnector<Resolver>,
    timeout: Duration,
}

impl Dialer {
    pub(super) fn new(own: &str, tls: Tls, proxy: Result<Option<Proxy>, String>, timeout: Duration) -> Self {
        let host = host_of(own).to_owned().into();
        let mut tcp = HttpConnector::new_with_resolver(Resolver { own: host, system: GaiResolver::new() });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        Self { own: own.into(), tls: Arc::new(tls), proxy, tcp, timeout }
    }

    async fn dial(mut self, uri: Uri) -> io::Result<Wire> {
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let own = authority.eq_ignore_ascii_case(&self.own);
        if address(authority).is_some_and(is_link_local) && host_of(authority) != host_of(&self.own) {
            return Err(forbidden());
        }
        let host = host_of(authority).to_owned();
        let secure = uri.scheme_str() == Some("https");
        if !secure {
            return Ok(Wire(Box::new(self.connect(uri).await?)));
        }
        let port = uri.port_u16().unwrap_or(443);
        let tcp = match self.proxy.clone().map_err(io::Error::other)?.filter(|proxy| proxy.serves(&host, port)) {
            Some(proxy) => {
                let address: Uri = format!("http://{}/", proxy.authority).parse().map_err(io::Error::other)?;
                let mut tcp = self.connect(address).await?;
                proxy.tunnel(&mut tcp, &format!("{}:{port}", uri.host().unwrap_or_default())).await?;
                tcp
            }
            None => self.connect(uri).await?,
        };
        let config = if own { self.tls.own() } else { self.tls.others() }.map_err(io::Error::other)?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        Ok(Wire(Box::new(TlsConnector::from(config).connect(name, tcp).await?)))
    }
}

impl Dialer {
    async fn connect(&mut self, to: Uri) -> io::Result<TcpStream> {
        Ok(self.tcp.call(to).await.map_err(io::Error::other)?.into_inner())
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = Dialing<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        let limit = self.timeout;
        Box::pin(async move {
            let late = || {
                let reason = format!("no connection within {} s", limit.as_secs_f32());
                Err(io::Error::new(io::ErrorKind::TimedOut, reason))
            };
            tokio::time::timeout(limit, dialer.dial(uri)).await.unwrap_or_else(|_| late()).map(TokioIo::new)
        })
    }
}

/// The system's resolver, less the addresses of this machine's own services: a registry must not make us ask them.
#[derive(Clone)]
struct Resolver {
    /// The registry's host: the user named it.
    own: Arc<str>,
    system: GaiResolver,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Dialing<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let own = name.as_str().eq_ignore_ascii_case(&self.own);
        let looked_up = self.system.call(name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = looked_up.await?.collect();
            if !own && found.iter().any(|address| is_link_local(address.ip())) {
                return Err(forbidden());
            }
            Ok(found.into_iter())
        })
    }
}

fn forbidden() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "it sends us to an address of this machine's own network services")
}

/// The host without port and brackets.
fn host_of(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

/// 169.254.0.0/16, `fe80::/10` and what clouds use in their place.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local()
                || address == METADATA
                || address.to_ipv4_mapped().is_some_and(|address| address.is_link_local())
        }
    }
}

/// A connection as the pool wants it.
pub(super) struct Wire(BoxedStream);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_metadata_addresses() {
        assert_eq!(["a:1", "[::1]:2", "[::1]", "u@b"].map(host_of), ["a", "::1", "::1", "b"]);
        let local = |text: &str| is_link_local(text.parse().unwrap());
        assert!(local("169.254.169.254") && local("fe80::1") && local("fd00:ec2::254") && local("::ffff:169.254.1.1"));
        assert!(!local("127.0.0.1") && !local("10.0.0.1") && !local("fd00::1"));
    }
}
