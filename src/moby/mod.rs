//! A Docker daemon as a builder: the BuildKit inside it, the names of its images, and its pushes. For every engine that
//! builds with one.

pub(crate) mod auth;
pub(crate) mod build;
pub(crate) mod push;
mod sizes;
pub(crate) mod tags;
pub(crate) mod trouble;

use std::net::IpAddr;

/// Whether a host, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_hosts() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.8.8.8", "[::1]:5000", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com:5000", "10.0.0.1", "[2001:db8::1]:80", "localhost.evil.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
