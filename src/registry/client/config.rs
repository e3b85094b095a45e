//! What a machine's administrator says of registries: mirrors, and those without proper TLS.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::uri::Authority;
use serde::Deserialize;
use url::Url;

use crate::environment::Environment;
use crate::error::{Error, Result};

/// A list of URLs, with commas between.
const MIRRORS: &str = "COOPER_REGISTRY_MIRRORS";
/// A list of hosts and networks, with commas between.
const INSECURE: &str = "COOPER_INSECURE_REGISTRIES";

/// Mirrors and insecure registries, with the meaning that they have in a Docker daemon's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Where images of Docker Hub are looked for first.
    pub(super) mirrors: Vec<Url>,
    insecure: Vec<Insecure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Insecure {
    /// A host, with its port if it has one.
    Host(String),
    /// Addresses that share their first bits.
    Network(IpAddr, u32),
}

/// The part of `daemon.json` that is read here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

impl RegistryConfig {
    /// `COOPER_REGISTRY_MIRRORS` and `COOPER_INSECURE_REGISTRIES`; what is not set there is taken from the Docker daemon's
    /// `daemon.json`, so that a build without the daemon reaches what one with it does.
    ///
    /// Fails with `DaemonConfig` if one of them cannot be understood.
    pub fn of(environment: &Environment) -> Result<Self> {
        let listed = |name: &str| {
            environment.var(name).map(|text| text.split(',').map(|item| item.trim().to_owned()).collect::<Vec<_>>())
        };
        let (daemon, path) = daemon(environment)?;
        let of_daemon = path.display().to_string();
        let (mirrors, named) = match listed(MIRRORS) {
            Some(mirrors) => (mirrors, MIRRORS.to_owned()),
            None => (daemon.registry_mirrors, of_daemon.clone()),
        };
        let mirrors = mirrors.iter().filter(|item| !item.is_empty()).map(|item| mirror(item, &named));
        let mirrors = mirrors.collect::<Result<_>>()?;
        let (insecure, named) = match listed(INSECURE) {
            Some(insecure) => (insecure, INSECURE.to_owned()),
            None => (daemon.insecure_registries, of_daemon),
        };
        let insecure = insecure.iter().filter(|item| !item.is_empty()).map(|item| Insecure::parse(item, &named));
        Ok(Self { mirrors, insecure: insecure.collect::<Result<_>>()? })
    }

    /// Whether a registry may have any certificate, or no TLS: those on a loopback address, and those that are listed.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        is_loopback(authority) || self.is_listed_insecure(authority)
    }

    /// Whether a registry is one of those that are listed: whoever pushes elsewhere has rules of his own for the loopback.
    pub fn is_listed_insecure(&self, authority: &str) -> bool {
        self.insecure.iter().any(|entry| entry.matches(authority))
    }
}

impl Insecure {
    fn parse(text: &str, setting: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::DaemonConfig {
            setting: setting.to_owned(),
            reason: format!("the insecure registry `{text}` {reason}"),
        };
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong("is neither a host nor a network"))?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| wrong("is no network"))?;
            return Ok(Self::Network(address, bits));
        }
        let authority: Authority = text.parse().map_err(|_| wrong("is no host"))?;
        Ok(Self::Host(authority.as_str().to_ascii_lowercase()))
    }

    fn matches(&self, authority: &str) -> bool {
        match self {
            Self::Host(host) => host.eq_ignore_ascii_case(authority),
            Self::Network(network, bits) => {
                address(authority).is_some_and(|address| in_network(*network, *bits, address))
            }
        }
    }
}

/// Whether an address shares its first `bits` with a network.
pub(super) fn in_network(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let first = |address: u32| address.checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0);
            first(network.to_bits()) == first(address.to_bits())
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let first = |address: u128| address.checked_shr(128_u32.saturating_sub(bits)).unwrap_or(0);
            first(network.to_bits()) == first(address.to_bits())
        }
        _ => false,
    }
}

/// The daemon's configuration, the user's own before the system's, and where it stands. One that this user may not read says
/// nothing.
fn daemon(environment: &Environment) -> Result<(Daemon, PathBuf)> {
    let own = environment.config_home().map(|folder| folder.join("docker/daemon.json"));
    for path in own.into_iter().chain([environment.well_known("/etc/docker/daemon.json")]) {
        let wrong = |reason: String| Error::DaemonConfig { setting: path.display().to_string(), reason };
        match fs::read(&path) {
            Ok(text) => {
                let daemon = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
                return Ok((daemon, path));
            }
            Err(error) if is_silent(&error, &path) => {}
            Err(error) => return Err(wrong(error.to_string())),
        }
    }
    Ok((Daemon::default(), PathBuf::new()))
}

fn is_silent(error: &std::io::Error, path: &Path) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
        || path.is_dir()
}

fn mirror(text: &str, setting: &str) -> Result<Url> {
    let wrong = |reason: &str| Error::DaemonConfig {
        setting: setting.to_owned(),
        reason: format!("a mirror of Docker Hub {reason}"),
    };
    let mut url: Url = text.parse().map_err(|_| wrong("is no URL, as https://mirror.example is one"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("has neither http:// nor https:// and a host"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("may have no user name and no query; `docker login` keeps passwords"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// The address of a host that is one, and not a name.
pub(super) fn address(authority: &str) -> Option<IpAddr> {
    let authority: Authority = authority.parse().ok()?;
    authority.host().trim_matches(['[', ']']).parse().ok()
}

/// Whether a host is this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let name = authority.parse::<Authority>().ok().map(|authority| authority.host().to_ascii_lowercase());
    name.as_deref() == Some("localhost") || address(authority).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insecure(list: &str, authority: &str) -> bool {
        let environment = Environment::with("/nonexistent", [(INSECURE, list)]);
        RegistryConfig::of(&environment).unwrap().is_insecure(authority)
    }

    #[test]
    fn what_is_insecure() {
        assert!(insecure("", "127.8.0.1:5000") && insecure("", "localhost") && insecure("", "[::1]:5000"));
        assert!(!insecure("", "localhost.example") && !insecure("", "10.0.0.1"));
        assert!(insecure("reg.example:5000", "REG.example:5000") && !insecure("reg.example:5000", "reg.example"));
        assert!(insecure("10.0.0.0/8, x", "10.1.2.3:443") && !insecure("10.0.0.0/8", "11.0.0.0"));
        assert!(insecure("0.0.0.0/0", "8.8.8.8") && !insecure("0.0.0.0/0", "name.example"));
        assert!(insecure("fd00::/8", "[fd12::1]:5000"));
    }

    #[test]
    fn variables_come_before_the_daemons_configuration() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/docker")).unwrap();
        let file = root.path().join("etc/docker/daemon.json");
        fs::write(&file, r#"{"registry-mirrors": ["https://m.example"], "insecure-registries": ["r:1"], "x": 1}"#)
            .unwrap();
        let config = RegistryConfig::of(&Environment::with(root.path(), [("A", "b")])).unwrap();
        assert_eq!(config.mirrors[0].as_str(), "https://m.example/");
        assert!(config.is_insecure("r:1"));
        let variables = [(MIRRORS, "http://n.example/hub, https://o.example/")];
        let config = RegistryConfig::of(&Environment::with(root.path(), variables)).unwrap();
        let mirrors: Vec<&str> = config.mirrors.iter().map(Url::as_str).collect();
        assert_eq!(mirrors, ["http://n.example/hub/", "https://o.example/"]);
        assert!(config.is_insecure("r:1"));
        fs::write(&file, "{").unwrap();
        let error = RegistryConfig::of(&Environment::with(root.path(), [("A", "b")])).unwrap_err();
        assert!(error.to_string().contains("daemon.json"), "{error}");
    }

    #[test]
    fn mistakes_are_named_without_passwords() {
        for (name, value) in
            [(MIRRORS, "https://me:hunter2@m.example"), (MIRRORS, "m.example"), (INSECURE, "10.0.0.0/40")]
        {
            let error = RegistryConfig::of(&Environment::with("/nonexistent", [(name, value)])).unwrap_err();
            assert!(error.to_string().starts_with(name) && !error.to_string().contains("hunter2"), "{error}");
        }
    }
}
