//! Which daemon: the Docker CLI's rules, in its order.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::address::Address;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::net::tls::TlsFiles;
use crate::request::{EngineSpec, Pem, TlsSpec};

/// One address to try, and who named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: Address,
    /// TLS, for an address that speaks it.
    pub tls: Option<TlsFiles>,
    /// What named it, for people: ``DOCKER_HOST``, ``Docker context `colima` ``, `default socket`.
    pub source: String,
}

/// The part of `meta.json` of a Docker context that leads to a daemon.
#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Default, Deserialize)]
struct Endpoints {
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// The part of `config.json` that names the current context.
#[derive(Default, Deserialize)]
struct CliConfig {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

/// The endpoints to try, best first: one if anything names one, else the well-known sockets.
///
/// Order: the request's endpoint, the request's context, `DOCKER_HOST`, `DOCKER_CONTEXT`, `currentContext` of the
/// Docker config, then Docker's sockets (system, Docker Desktop, rootless), then Podman's. Fails with `DaemonConfig` for
/// settings that cannot be read: a setting of the user is never skipped in silence.
pub fn resolve(spec: &EngineSpec, environment: &Environment) -> Result<Vec<Endpoint>> {
    if let Some(text) = spec.endpoint()? {
        return named(text, "the given endpoint", spec.tls.as_ref(), environment).map(|endpoint| vec![endpoint]);
    }
    if let Some(name) = &spec.docker_context {
        return in_context(name, format!("Docker context `{name}`"), spec, environment);
    }
    if let Some(text) = environment.var("DOCKER_HOST") {
        return named(text, "DOCKER_HOST", spec.tls.as_ref(), environment).map(|endpoint| vec![endpoint]);
    }
    if let Some(name) = environment.var("DOCKER_CONTEXT") {
        return in_context(name, format!("Docker context `{name}` of DOCKER_CONTEXT"), spec, environment);
    }
    let name = current_context(environment)?;
    let source = format!("Docker context `{name}`, the current one");
    in_context(&name, source, spec, environment)
}

fn named(text: &str, setting: &str, tls: Option<&TlsSpec>, environment: &Environment) -> Result<Endpoint> {
    let files = tls.map(TlsFiles::of).or_else(|| files_of_variables(environment));
    let address = Address::parse(text, files.is_some(), setting)?;
    let tls = match &address {
        Address::Tcp { secure: true, .. } => Some(files.unwrap_or_default()),
        _ => None,
    };
    Ok(Endpoint { address, tls, source: setting.to_owned() })
}

/// `DOCKER_TLS_VERIFY` (TLS), `DOCKER_TLS` (TLS without a check) and `DOCKER_CERT_PATH` (else the config directory).
fn files_of_variables(environment: &Environment) -> Option<TlsFiles> {
    let verify = environment.var("DOCKER_TLS_VERIFY").is_some();
    if !verify && environment.var("DOCKER_TLS").is_none() {
        return None;
    }
    let folder = environment.path("DOCKER_CERT_PATH").map(Path::to_owned).or_else(|| environment.docker_config_dir());
    let mut files = folder.map(|folder| files_in(&folder, !verify)).unwrap_or_default();
    files.skip_verify = !verify;
    Some(files)
}

/// `ca.pem`, `cert.pem` and `key.pem`, as far as they are there.
fn files_in(folder: &Path, skip_verify: bool) -> TlsFiles {
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file()).map(Pem::File);
    TlsFiles { ca: file("ca.pem"), cert: file("cert.pem"), key: file("key.pem"), skip_verify, server_name: None }
}

fn current_context(environment: &Environment) -> Result<String> {
    let default = || "default".to_owned();
    let Some(path) = environment.docker_config_dir().map(|folder| folder.join("config.json")) else {
        return Ok(default());
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        // Rootless containers often cannot look into the home of the user they run as: no config then.
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
            return Ok(default());
        }
        Err(error) => return Err(config_error(&path, &error.to_string())),
    };
    // The parser's words are left out: they could quote a credential.
    let config: CliConfig = serde_json::from_slice(&text)
        .map_err(|error| config_error(&path, &format!("line {} is no valid JSON of a Docker config", error.line())))?;
    Ok(if config.current_context.is_empty() { default() } else { config.current_context })
}

fn config_error(path: &Path, reason: &str) -> Error {
    Error::DaemonConfig { setting: path.display().to_string(), reason: reason.to_owned() }
}

fn in_context(name: &str, source: String, spec: &EngineSpec, environment: &Environment) -> Result<Vec<Endpoint>> {
    if name == "default" {
        return Ok(defaults(spec, environment));
    }
    let missing = |reason: String| Error::DaemonConfig { setting: source.clone(), reason };
    let folder = environment
        .docker_config_dir()
        .ok_or_else(|| missing("neither HOME nor DOCKER_CONFIG is set".into()))?
        .join("contexts");
    let id = Digest::of(name.as_bytes()).hex();
    let meta = folder.join("meta").join(&id).join("meta.json");
    let text = fs::read(&meta).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => missing("there is no such context (`docker context ls` lists them)".into()),
        _ => missing(format!("cannot read {}: {error}", meta.display())),
    })?;
    let meta: ContextMeta =
        serde_json::from_slice(&text).map_err(|error| missing(format!("{}: {error}", meta.display())))?;
    let docker = meta.endpoints.docker.ok_or_else(|| missing("it has no Docker endpoint".into()))?;
    let tls_folder = folder.join("tls").join(&id).join("docker");
    let mut files = files_in(&tls_folder, docker.skip_tls_verify);
    if let Some(tls) = &spec.tls {
        files = TlsFiles::of(tls);
    }
    let secure = files != TlsFiles::default();
    let address = Address::parse(&docker.host, secure, &source)?;
    let tls = match &address {
        Address::Tcp { secure: true, .. } => Some(files),
        _ => None,
    };
    Ok(vec![Endpoint { address, tls, source }])
}

/// The well-known places. With TLS variables set and no host, the Docker CLI means the TLS port of this machine.
fn defaults(spec: &EngineSpec, environment: &Environment) -> Vec<Endpoint> {
    if let Some(files) = spec.tls.as_ref().map(TlsFiles::of).or_else(|| files_of_variables(environment)) {
        let address = Address::Tcp { host: "localhost".into(), port: 2376, secure: true };
        let source = "the default address with TLS".to_owned();
        return vec![Endpoint { address, tls: Some(files), source }];
    }
    let runtime = environment.path("XDG_RUNTIME_DIR");
    let home = environment.path("HOME");
    let places: [(Option<PathBuf>, &str); 5] = [
        (Some(environment.well_known("/var/run/docker.sock")), "the default socket"),
        (home.map(|home| home.join(".docker/run/docker.sock")), "Docker Desktop's socket"),
        (runtime.map(|runtime| runtime.join("docker.sock")), "the rootless socket"),
        (runtime.map(|runtime| runtime.join("podman/podman.sock")), "the user's Podman socket"),
        (Some(environment.well_known("/run/podman/podman.sock")), "the system's Podman socket"),
    ];
    let endpoint = |(path, source): (Option<PathBuf>, &str)| {
        path.map(|path| Endpoint { address: Address::Unix(path), tls: None, source: source.to_owned() })
    };
    places.into_iter().filter_map(endpoint).collect()
}
