//! Certificates for one registry (`certs.d`; docs.docker.com, "Verify repository client with certificates").

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;

use crate::environment::Environment;
use crate::net::tls::TlsFiles;

/// What `certs.d/HOST` holds: authorities to trust besides the system's (`*.crt`), and a certificate to show (`*.cert` with
/// its `*.key`; the first by name).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Certificates {
    authorities: Vec<PathBuf>,
    own: Option<(PathBuf, PathBuf)>,
}

impl Certificates {
    /// Those of a host: of this user (`~/.docker/certs.d`, `~/.config/docker/certs.d`) and of the system
    /// (`/etc/docker/certs.d`).
    fn of(host: &str, environment: &Environment) -> Self {
        let own = environment.docker_config_dir().map(|folder| folder.join("certs.d"));
        let rootless = environment.config_home().map(|folder| folder.join("docker/certs.d"));
        let mut found = Self::default();
        let system = environment.well_known("/etc/docker/certs.d");
        for folder in own.into_iter().chain(rootless).chain([system]) {
            found.add(&folder.join(host));
        }
        found
    }

    fn add(&mut self, folder: &Path) {
        // A host without a folder, and one that this user may not read, has nothing here.
        let Ok(entries) = fs::read_dir(folder) else { return };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files {
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.authorities.push(file),
                Some("cert") if self.own.is_none() => {
                    let key = file.with_extension("key");
                    self.own = Some((file, key));
                }
                _ => {}
            }
        }
    }

    fn files(&self, skip_verify: bool) -> TlsFiles {
        let (cert, key) = self.own.clone().map(|(cert, key)| (cert.into(), key.into())).unzip();
        TlsFiles { cert, key, skip_verify, ..TlsFiles::default() }
    }
}

/// How to speak TLS with a registry, and with those that it sends us to. Made when first needed.
pub(super) struct Tls {
    environment: Environment,
    certificates: Certificates,
    /// Whether the registry's own certificate is not checked.
    insecure: bool,
    own: OnceLock<Result<Arc<ClientConfig>, String>>,
    others: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    pub(super) fn new(host: &str, environment: &Environment, insecure: bool) -> Self {
        Self {
            environment: environment.clone(),
            certificates: Certificates::of(host, environment),
            insecure,
            own: OnceLock::new(),
            others: OnceLock::new(),
        }
    }

    pub(super) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// For the registry itself. The error is a sentence that names a file.
    pub(super) fn own(&self) -> Result<Arc<ClientConfig>, String> {
        if !self.insecure {
            return self.others();
        }
        self.own.get_or_init(|| self.certificates.files(true).client_config(&self.environment)).clone()
    }

    /// For token services and storage: their certificates are always checked. The registry's authorities are trusted here
    /// too, as Docker does, for they are usually of the same house.
    pub(super) fn others(&self) -> Result<Arc<ClientConfig>, String> {
        let make = || {
            let files = self.certificates.files(false);
            files.client_config_with(&self.environment, &self.certificates.authorities)
        };
        self.others.get_or_init(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_folders_count() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home");
        for path in [
            "etc/docker/certs.d/r:1/ca.crt",
            "home/.docker/certs.d/r:1/client.cert",
            "home/.config/docker/certs.d/r:1/x.crt",
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let environment = Environment::with(root.path(), [("HOME", &home)]);
        let found = Certificates::of("r:1", &environment);
        let folder = home.join(".docker/certs.d/r:1");
        assert_eq!(found.own, Some((folder.join("client.cert"), folder.join("client.key"))));
        assert_eq!(
            found.authorities,
            [home.join(".config/docker/certs.d/r:1/x.crt"), root.path().join("etc/docker/certs.d/r:1/ca.crt")]
        );
        assert_eq!(Certificates::of("r", &environment), Certificates::default());
    }
}
