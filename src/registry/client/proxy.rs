//! A proxy for connections with TLS: `HTTPS_PROXY` and `NO_PROXY`, as Go's programs read them (golang.org/x/net/http/httpproxy).

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use url::Url;

use super::config::in_network;
use crate::environment::Environment;
use crate::secret::Secret;

/// A proxy's answer has a few lines.
const MAX_HEAD: usize = 16 << 10;

/// The proxy of this environment.
#[derive(Clone)]
pub(super) struct Proxy {
    /// Host and port.
    pub(super) authority: String,
    login: Option<Secret<String>>,
    exceptions: Vec<String>,
}

impl Proxy {
    /// `None` where no proxy is named. The error is a reason, and does not quote: proxies' addresses hold passwords.
    pub(super) fn of(environment: &Environment) -> Result<Option<Self>, String> {
        let either = |upper: &str, lower: &str| environment.var(upper).or_else(|| environment.var(lower));
        let Some(text) = either("HTTPS_PROXY", "https_proxy") else { return Ok(None) };
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url: Url = text.parse().map_err(|_| "HTTPS_PROXY is no address")?;
        let host = url.host_str().ok_or("HTTPS_PROXY has no host")?;
        if url.scheme() != "http" {
            return Err(format!("HTTPS_PROXY is one of {}, and only those of http are known", url.scheme()));
        }
        let decoded = |text: &str| {
            url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes()).next().map(|p| p.0.into_owned())
        };
        let login = (!url.username().is_empty()).then(|| {
            let user = decoded(url.username()).unwrap_or_default();
            let password = url.password().and_then(decoded).unwrap_or_default();
            Secret::new(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
        });
        let exceptions = either("NO_PROXY", "no_proxy").unwrap_or_default();
        let exceptions = exceptions.split(',').map(|name| name.trim().to_ascii_lowercase());
        Ok(Some(Self {
            authority: format!("{host}:{}", url.port_or_known_default().unwrap_or(80)),
            login,
            exceptions: exceptions.filter(|name| !name.is_empty()).collect(),
        }))
    }

    /// Whether a host, with its port, is reached through the proxy. This machine never is.
    pub(super) fn serves(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        host != "localhost"
            && ip(&host).is_none_or(|address| !address.is_loopback())
            && !self.exceptions.iter().any(|exception| excepts(exception, &host, port))
    }

    /// Makes a connection to the proxy one to `target`, a host with its port.
    pub(super) async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &str,
    ) -> io::Result<()> {
        let login = self.login.as_ref();
        let login = login.map(|login| format!("Proxy-Authorization: {}\r\n", login.expose())).unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let failed = |reason: String| io::Error::other(format!("the proxy of HTTPS_PROXY {reason}"));
        let mut head = Vec::new();
        // Byte by byte: what follows is not ours.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_HEAD {
                return Err(failed("does not speak HTTP".into()));
            }
            head.push(stream.read_u8().await.map_err(|_| failed("hung up".into()))?);
        }
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        match line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)) {
            Some(status) if status.starts_with('2') && status.len() == 3 => Ok(()),
            Some(status) => Err(failed(format!("refuses with {status}"))),
            None => Err(failed("does not speak HTTP".into())),
        }
    }
}

fn ip(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// `*`, `name` (and what is below it), `.name` (only what is below it), `name:port`, an address, a network.
fn excepts(exception: &str, host: &str, port: u16) -> bool {
    if exception == "*" {
        return true;
    }
    if let Some((network, bits)) = exception.split_once('/') {
        let (Ok(network), Ok(bits), Some(address)) = (network.parse(), bits.parse(), ip(host)) else { return false };
        return in_network(network, bits, address);
    }
    let (name, only) = match exception.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((name, only)) if !name.contains(':') || name.ends_with(']') => (name, only.parse().ok()),
        _ => (exception, None),
    };
    if only.is_some_and(|only: u16| only != port) {
        return false;
    }
    let bare = |text: &str| text.trim_matches(['[', ']']).to_owned();
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        Some(below) => host.strip_suffix(below).is_some_and(|rest| rest.ends_with('.')),
        None => bare(host) == bare(name) || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(no_proxy: &str) -> Proxy {
        let variables = [("HTTPS_PROXY", "http://me:hunt%2Ber2@p.example:3128"), ("NO_PROXY", no_proxy)];
        Proxy::of(&Environment::with("/", variables)).unwrap().unwrap()
    }

    #[test]
    fn who_is_reached_through_it() {
        assert!(proxy("").serves("r.example", 443) && proxy("").serves("10.0.0.1", 443));
        for here in ["localhost", "127.0.0.2", "::1", "[::1]"] {
            assert!(!proxy("").serves(here, 443), "{here}");
        }
        for (exceptions, host, port) in [
            ("*", "r.example", 443),
            ("x, example", "r.example", 443),
            (".example", "r.example", 443),
            ("*.example", "r.example", 443),
            ("R.example:5000", "r.example", 5000),
            ("10.0.0.0/8", "10.1.2.3", 443),
            ("10.1.2.3", "10.1.2.3", 443),
            ("fd00::1", "[fd00::1]", 443),
        ] {
            assert!(!proxy(exceptions).serves(host, port), "{exceptions} {host}");
        }
        for (exceptions, host) in [
            (".r.example", "r.example"),
            ("ample", "r.example"),
            ("r.example:1", "r.example"),
            ("10.0.0.0/8", "r.example"),
        ] {
            assert!(proxy(exceptions).serves(host, 443), "{exceptions} {host}");
        }
    }

    #[test]
    fn addresses_of_proxies() {
        let of = |text: &str| Proxy::of(&Environment::with("/", [("https_proxy", text)]));
        assert_eq!(of("p:1").unwrap().unwrap().authority, "p:1");
        assert_eq!(of("http://p").unwrap().unwrap().authority, "p:80");
        assert!(Proxy::of(&Environment::with("/", [("A", "b")])).unwrap().is_none());
        for wrong in ["socks5://me:hunter2@p", "https://p", "http://"] {
            assert!(!of(wrong).err().unwrap().contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_may_be_refused() {
        for (answer, expected) in [
            ("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nTLS", Ok(())),
            ("HTTP/1.0 407 Login\r\n\r\n", Err("refuses with 407")),
            ("SSH-2.0\r\n\r\n", Err("does not speak HTTP")),
            ("HTTP/1.1 200", Err("hung up")),
        ] {
            let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let result = proxy("").tunnel(&mut ours, "r.example:443").await.map_err(|error| error.to_string());
            match expected {
                Ok(()) => result.unwrap(),
                Err(reason) => assert!(result.unwrap_err().ends_with(reason)),
            }
            let mut request = vec![0; 4096];
            let length = theirs.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            assert!(request.starts_with("CONNECT r.example:443 HTTP/1.1\r\n"), "{request}");
            assert!(request.contains(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode("me:hunt+er2"))));
        }
    }
}
