//! Which proxy stands before an address. The rules are those of Go's `golang.org/x/net/http/httpproxy`, which Docker, BuildKit
//! and containerd obey: `HTTP_PROXY` for `http:`, `HTTPS_PROXY` for `https:`, `NO_PROXY` for exceptions, each in lower case
//! too.

use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use url::Url;

use crate::environment::Environment;
use crate::secret::Secret;

/// Proxies, and what is reached without them.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    direct: Vec<Direct>,
}

/// A proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Whether it is itself spoken to over TLS.
    pub tls: bool,
    /// Its name or number.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`, where its address has a user.
    pub authorization: Option<Secret<String>>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    /// `*`.
    Everything,
    /// `10.0.0.0/8`.
    Network { address: IpAddr, bits: u8 },
    /// `10.1.2.3` or `10.1.2.3:80`.
    Address { address: IpAddr, port: Option<u16> },
    /// `.example.com`, or `example.com` for the host of that name too.
    Domain { suffix: String, itself: bool, port: Option<u16> },
}

impl Proxies {
    /// Those of the environment. The error is a sentence that names the variable, without its value: it may hold a password.
    pub fn of(environment: &Environment) -> Result<Self, String> {
        let either = |upper: &'static str, lower: &'static str| match environment.var(upper) {
            Some(value) => Some((upper, value)),
            None => environment.var(lower).map(|value| (lower, value)),
        };
        let proxy = |upper, lower| either(upper, lower).map(|(name, value)| Proxy::parse(name, value)).transpose();
        // In a CGI program this variable is the header `Proxy` of whoever asks (CVE-2016-5386).
        let is_cgi = environment.var("REQUEST_METHOD").is_some();
        let http = if is_cgi { None } else { proxy("HTTP_PROXY", "http_proxy")? };
        let direct = either("NO_PROXY", "no_proxy").map_or_else(Vec::new, |(_, list)| Direct::list(list));
        Ok(Self { http, https: proxy("HTTPS_PROXY", "https_proxy")?, direct })
    }

    /// The proxy for an address, if it has one. What runs on this machine never has.
    pub fn before(&self, tls: bool, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = if tls { &self.https } else { &self.http }.as_ref()?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let is_direct = is_here || self.direct.iter().any(|direct| direct.covers(&host, address, port));
        (!is_direct).then_some(proxy)
    }
}

impl Proxy {
    fn parse(name: &str, value: &str) -> Result<Self, String> {
        // `proxy:3128` is a host and a port, though it reads like a scheme.
        let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let url = Url::parse(&with_scheme).map_err(|error| format!("{name} is no address: {error}"))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            other => {
                return Err(format!(
                    "{name} is a proxy of the kind `{other}`, which is not supported: use http or https"
                ));
            }
        };
        let host = url.host_str().ok_or_else(|| format!("{name} has no host"))?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port, authorization: basic(&url) })
    }
}

/// The value of a header for the user and the password in an address, if it has them.
pub fn basic(url: &Url) -> Option<Secret<String>> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let pair = [&*decode(url.username()), b":", &*decode(url.password().unwrap_or_default())].concat();
    Some(Secret::new(format!("Basic {}", BASE64_STANDARD.encode(pair))))
}

/// `%20` is a space.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let mut byte = [0];
        let is_escape =
            *first == b'%' && after.get(..2).is_some_and(|two| hex::decode_to_slice(two, &mut byte).is_ok());
        bytes.push(if is_escape { byte[0] } else { *first });
        rest = if is_escape { &after[2..] } else { after };
    }
    bytes
}

impl Direct {
    fn list(text: &str) -> Vec<Self> {
        text.split(',').filter_map(|entry| Self::parse(&entry.trim().to_ascii_lowercase())).collect()
    }

    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, bits)) = entry.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>())
            && bits <= if address.is_ipv4() { 32 } else { 128 }
        {
            return Some(Self::Network { address, bits });
        }
        let (host, port) = split_port(entry);
        if let Ok(address) = host.parse() {
            return Some(Self::Address { address, port });
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let name = host.strip_prefix('.');
        match name.unwrap_or(host) {
            "" => None,
            bare => Some(Self::Domain { suffix: format!(".{bare}"), itself: name.is_none(), port }),
        }
    }

    fn covers(&self, host: &str, found: Option<IpAddr>, port: u16) -> bool {
        let right_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::Everything => true,
            Self::Network { address, bits } => found.is_some_and(|found| same_network(*address, found, *bits)),
            Self::Address { address, port } => found == Some(*address) && right_port(port),
            Self::Domain { suffix, itself, port } => {
                (host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..])) && right_port(port)
            }
        }
    }
}

/// `host:port`, `[::1]:port`, or a host alone.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let is_host = |host: &str| !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
    let split = entry.rsplit_once(':').filter(|(host, _)| is_host(host));
    let (host, port) = match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host, Some(port)),
        None => (entry, None),
    };
    (host.trim_matches(['[', ']']), port)
}

fn same_network(left: IpAddr, right: IpAddr, bits: u8) -> bool {
    let (left, right, width) = match (left, right) {
        (IpAddr::V4(left), IpAddr::V4(right)) => (u128::from(left.to_bits()), u128::from(right.to_bits()), 32),
        (IpAddr::V6(left), IpAddr::V6(right)) => (left.to_bits(), right.to_bits(), 128),
        _ => return false,
    };
    (left ^ right).checked_shr(width - u32::from(bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::of(&Environment::with("/", variables.iter().copied())).unwrap()
    }

    #[test]
    fn exceptions_are_those_of_go() {
        let list = "10.0.0.0/8, 192.168.1.1:8080,example.com,.only.net,*.star.org,[fd00::1]:99,fe80::/10,a.b:81";
        let proxies = proxies(&[("HTTP_PROXY", "proxy:3128"), ("NO_PROXY", list)]);
        let direct = [
            ("10.2.3.4", 80),
            ("192.168.1.1", 8080),
            ("example.com", 80),
            ("EXAMPLE.com", 80),
            ("a.example.com", 80),
            ("a.only.net", 80),
            ("a.star.org", 80),
            ("[fd00::1]", 99),
            ("fe80::2", 80),
            ("a.b", 81),
            ("localhost", 80),
            ("127.8.9.10", 80),
            ("::1", 80),
        ];
        for (host, port) in direct {
            assert_eq!(proxies.before(false, host, port), None, "{host}");
        }
        let behind = [
            ("11.2.3.4", 80),
            ("192.168.1.1", 80),
            ("notexample.com", 80),
            ("only.net", 80),
            ("star.org", 80),
            ("fd00::1", 80),
            ("a.b", 80),
        ];
        for (host, port) in behind {
            let proxy = proxies.before(false, host, port).unwrap_or_else(|| panic!("{host}"));
            assert_eq!((proxy.host.as_str(), proxy.port, proxy.tls), ("proxy", 3128, false));
            assert_eq!(proxies.before(true, host, port), None);
        }
        assert_eq!(self::proxies(&[("http_proxy", "p"), ("no_proxy", "*")]).before(false, "x", 80), None);
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = proxies(&[("HTTPS_PROXY", "https://me:hunter2%21@p.test"), ("http_proxy", "http://[fd00::9]:1")]);
        let proxy = proxies.before(true, "x", 443).unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.tls), ("p.test", 443, true));
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), "Basic bWU6aHVudGVyMiE=");
        assert_eq!(proxies.before(false, "x", 80).unwrap().host, "fd00::9");
        assert!(!format!("{proxies:?}").contains("bWU6"));
    }

    #[test]
    fn a_program_of_a_web_server_does_not_take_its_proxy_from_a_header() {
        let proxies = proxies(&[("HTTP_PROXY", "p"), ("HTTPS_PROXY", "p"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(proxies.before(false, "x", 80), None);
        assert!(proxies.before(true, "x", 443).is_some());
    }

    #[test]
    fn what_is_no_proxy_is_named_without_its_password() {
        for value in ["socks5://me:hunter2@p", "http://me:hunter2@:x"] {
            let environment = Environment::with("/", [("HTTPS_PROXY", value)]);
            let error = Proxies::of(&environment).unwrap_err();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("hunter2"), "{error}");
        }
    }
}
