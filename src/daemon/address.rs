//! Where a daemon is: the text forms that the Docker CLI takes, parsed.

use std::fmt;
use std::path::PathBuf;

use crate::error::Error;
use crate::net::ssh::SshTarget;

/// Ports of the Docker CLI for an address that names none.
const PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket on this machine.
    Unix(PathBuf),
    /// A port; `secure` says that the text itself asked for TLS (`https://`).
    Tcp {
        /// Name or IP address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// Whether to speak TLS.
        secure: bool,
    },
    /// The `ssh` program.
    Ssh(SshTarget),
}

impl Address {
    /// Parses `unix://`, `tcp://`, `http(s)://`, `ssh://`, a bare `host:port` and a bare absolute path.
    ///
    /// `secure` says that TLS variables or files are given: it chooses the default port and turns TLS on.
    /// `setting` is named in the error (`DaemonConfig`), which never quotes credentials of a URL.
    pub fn parse(text: &str, secure: bool, setting: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::DaemonConfig { setting: setting.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = match text.trim().split_once("://") {
            Some(parts) => parts,
            None if text.starts_with('/') => ("unix", text),
            None => ("tcp", text.trim()),
        };
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" if rest.is_empty() => Ok(Self::Unix("/var/run/docker.sock".into())),
            "unix" => Err(invalid("a socket needs an absolute path, as in unix:///var/run/docker.sock")),
            "tcp" | "http" | "https" => {
                let secure = secure || scheme == "https";
                let (host, port) = host_and_port(rest.trim_end_matches('/')).map_err(invalid)?;
                let host = if host.is_empty() { "localhost".to_owned() } else { host };
                Ok(Self::Tcp { host, port: port.unwrap_or(if secure { TLS_PORT } else { PORT }), secure })
            }
            "ssh" => ssh(rest).map_err(invalid).map(Self::Ssh),
            "npipe" | "fd" => Err(invalid("named pipes and inherited descriptors are not for clients on Unix")),
            _ => Err(invalid("a daemon's address starts with unix://, tcp://, https:// or ssh://")),
        }
    }

    /// Whether the daemon runs on this machine for certain, so that bytes cost next to nothing.
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), &'static str> {
    if text.contains(['/', '?', '#']) {
        return Err("an address has no path; expected tcp://host:port");
    }
    if text.contains('@') {
        return Err("credentials in a daemon's address are not supported; use TLS files or ssh://");
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the `]` of an IPv6 address is missing")?;
            (host, port)
        }
        None => match text.rfind(':') {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        },
    };
    if host.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("a host name has no spaces");
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        None => return Err("after an IPv6 address comes `:` and a port"),
        Some("") => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err("a port is a number from 1 to 65535"),
        },
    };
    Ok((host.to_owned(), port))
}

fn ssh(rest: &str) -> Result<SshTarget, &'static str> {
    let (authority, socket) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, ""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err("a password in an ssh:// address is not supported; use keys or an agent");
    }
    let (host, port) = host_and_port(host)?;
    // `ssh` gets the host behind `--`, but the user by an option.
    if host.is_empty() || host.starts_with('-') || user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
        return Err("an ssh:// address is ssh://[user@]host[:port][/path/of/docker.sock]");
    }
    let socket = Some(socket.trim_end_matches('/')).filter(|path| !path.is_empty());
    Ok(SshTarget { user: user.map(str::to_owned), host, port, socket: socket.map(str::to_owned) })
}

impl fmt::Display for Address {
    /// The form that `DOCKER_HOST` takes. There are no credentials in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(target) => {
                let user = target.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                let port = target.port.map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "ssh://{user}{}{port}{}", target.host, target.socket.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_the_docker_cli_are_read_and_printed() {
        let cases = [
            ("unix:///var/run/docker.sock", false, "unix:///var/run/docker.sock"),
            ("unix://", false, "unix:///var/run/docker.sock"),
            ("/run/podman/podman.sock", false, "unix:///run/podman/podman.sock"),
            ("tcp://1.2.3.4:99", false, "tcp://1.2.3.4:99"),
            ("tcp://box", false, "tcp://box:2375"),
            ("tcp://box", true, "tcp://box:2376"),
            ("https://box", false, "tcp://box:2376"),
            ("box:1234", false, "tcp://box:1234"),
            ("tcp://:99", false, "tcp://localhost:99"),
            ("tcp://[::1]:99/", false, "tcp://[::1]:99"),
            ("ssh://me@box:22", false, "ssh://me@box:22"),
            ("ssh://box/run/user/1/docker.sock", false, "ssh://box/run/user/1/docker.sock"),
        ];
        for (text, secure, expected) in cases {
            assert_eq!(Address::parse(text, secure, "DOCKER_HOST").unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused_without_quoting_them() {
        for text in [
            "unix://relative",
            "tcp://user:hunter2@box:1",
            "ssh://me:hunter2@box",
            "ssh://-oProxyCommand=x",
            "ssh://-l@box",
            "tcp://box:0",
            "tcp://box:x",
            "tcp://box:1/path",
            "ftp://box",
            "npipe:////./pipe/docker_engine",
            "tcp://[::1",
        ] {
            let error = Address::parse(text, false, "DOCKER_HOST").unwrap_err();
            assert_eq!(error.code(), "daemon-config", "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
