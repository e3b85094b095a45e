//! What a caller asks for: every option, typed, checked once.

mod cache;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::cache::{CacheMode, CacheSpec, RegistryCache};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::secret::Secret;

/// One build.
///
/// Maps are sorted, so that equal requests make equal calls.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// What goes in.
    pub context: ContextSpec,
    /// The Dockerfile.
    #[serde(default)]
    pub dockerfile: DockerfileSpec,
    /// The image's names; the first is the one that is returned when nothing is pushed.
    #[serde(default)]
    pub tags: Vec<Reference>,
    /// How to build.
    #[serde(default)]
    pub options: BuildOptions,
    /// Push every tag after the build.
    #[serde(default)]
    pub push: bool,
    /// Where else the image goes. With none, and nothing to push, the engine's own place.
    #[serde(default)]
    pub outputs: Vec<Output>,
    /// Where to build.
    #[serde(default)]
    pub engine: EngineSpec,
}

/// Where an image goes, besides a registry (`--output`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type", deny_unknown_fields)]
pub enum Output {
    /// Into the Docker or Podman daemon that `engine` names, or that the Docker CLI would use (`type=docker`); with a
    /// destination, into an archive for `docker load`.
    Docker {
        /// The archive.
        #[serde(default)]
        dest: Option<PathBuf>,
    },
    /// The engine's own place and no other (`type=image`).
    Store,
    /// An OCI layout (`type=oci`): a tar archive where the name ends in `.tar` or `tar` is set, else a directory.
    Oci {
        /// The archive or the directory.
        dest: PathBuf,
        /// `tar=true|false`.
        #[serde(default)]
        tar: Option<bool>,
    },
    /// The image's files, in a directory (`type=local`).
    Local {
        /// The directory.
        dest: PathBuf,
    },
}

/// How new layers are compressed (`--compression`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionSpec {
    /// gzip or zstd.
    pub algorithm: CompressionAlgorithm,
    /// 1 to 12 for gzip, 1 to 22 for zstd; `None` is the default.
    #[serde(default)]
    pub level: Option<i32>,
}

impl CompressionSpec {
    /// The highest level of gzip: libdeflate's.
    pub const HIGHEST_GZIP: i32 = 12;
    /// The highest level of Zstandard.
    pub const HIGHEST_ZSTD: i32 = 22;
}

/// The ways to compress a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompressionAlgorithm {
    /// gzip: everything reads it.
    Gzip,
    /// Zstandard: smaller and faster, for OCI images only.
    Zstd,
}

/// What goes into a build.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextSpec {
    /// The directory; `None` builds from the extra files alone.
    pub root: Option<PathBuf>,
    /// The ignore file to use. `None` looks for `<Dockerfile>.dockerignore`, then `.dockerignore` in the root.
    pub ignore_file: Option<PathBuf>,
    /// Patterns that are appended to those of an ignore file (not used where there is none); ZenML appends `!/.zen`.
    pub extra_patterns: Vec<String>,
    /// Files that exist in memory only. They override walked files and are never excluded.
    pub extra_files: Vec<ExtraFile>,
    /// Leave the ignore file itself out of the context, as ZenML does. The Docker CLI leaves it in.
    pub omit_ignore_file: bool,
}

/// A file that exists in memory only.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraFile {
    /// Path in the context, with `/` between parts.
    pub path: String,
    /// What is in it.
    #[serde(with = "content")]
    pub content: Bytes,
    /// Permission bits.
    #[serde(default = "ExtraFile::default_mode")]
    pub mode: u32,
}

impl ExtraFile {
    const fn default_mode() -> u32 {
        0o644
    }
}

/// Bytes or text, as they come over the Python boundary.
mod content {
    use bytes::Bytes;
    use serde::Deserializer;
    use serde_bytes::ByteBuf;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        // `ByteBuf` takes a bytes object as well as a text.
        let buffer: ByteBuf = serde::Deserialize::deserialize(deserializer)?;
        Ok(Bytes::from(buffer.into_vec()))
    }
}

/// The Dockerfile.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DockerfileSpec {
    /// A file on this machine, inside or outside the context's root. Relative paths start at the working directory.
    Path(PathBuf),
    /// A path within the context, extra files included.
    InContext(String),
    /// The text itself (`-f -`).
    Text(String),
}

impl Default for DockerfileSpec {
    fn default() -> Self {
        Self::InContext("Dockerfile".into())
    }
}

/// How to build. The names are those of the Docker CLI, with `_` for `-`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuildOptions {
    /// `--build-arg`: `None` takes the value from the environment, as the Docker CLI does, or leaves the argument unset.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--target`: the stage to build.
    pub target: Option<String>,
    /// `--platform`: the machine's own where there is none. More than one makes an index, which a BuildKit can.
    pub platforms: Vec<Platform>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages, by name or number, that are built without the cache.
    pub no_cache_filter: Vec<String>,
    /// `--pull`: look for newer base images.
    pub pull: bool,
    /// `--rm` of the classic builder: remove intermediate containers; `None` is its default, true. BuildKit has none.
    pub rm: Option<bool>,
    /// `--force-rm` of the classic builder.
    pub force_rm: Option<bool>,
    /// `--squash` of the classic builder.
    pub squash: bool,
    /// `--shm-size` in bytes.
    pub shm_size: Option<u64>,
    /// `--network` of RUN: `default`, `none`, `host`, or, with the classic builder, a network's name.
    pub network: Option<String>,
    /// `--add-host`: name -> address.
    pub add_hosts: BTreeMap<String, String>,
    /// `--cache-from`: where to look for results of steps.
    pub cache_from: Vec<CacheSpec>,
    /// `--cache-to`: where to keep results of steps.
    pub cache_to: Vec<CacheSpec>,
    /// `--secret`.
    pub secrets: Vec<SecretSpec>,
    /// `--ssh`.
    pub ssh: Vec<SshSpec>,
    /// `--build-context`: name -> source (a directory, `docker-image://...`, an https or git URL).
    pub build_contexts: BTreeMap<String, String>,
    /// `--ulimit`, as `name=soft[:hard]`.
    pub ulimits: Vec<String>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// Limits of the classic builder.
    pub memory: Option<u64>,
    /// Memory and swap, in bytes, or -1 for no limit (classic builder).
    pub memory_swap: Option<i64>,
    /// `--cpuset-cpus` (classic builder).
    pub cpuset_cpus: Option<String>,
    /// `--cpu-shares` (classic builder).
    pub cpu_shares: Option<u64>,
    /// `--cpu-period` in microseconds (classic builder).
    pub cpu_period: Option<u64>,
    /// `--cpu-quota` in microseconds (classic builder).
    pub cpu_quota: Option<u64>,
    /// Unix time that replaces newer times in the image (`SOURCE_DATE_EPOCH`).
    pub source_date_epoch: Option<u64>,
    /// How new layers are compressed (native and BuildKit engines); `None` is gzip.
    pub compression: Option<CompressionSpec>,
    /// Whether the layers of the base are compressed anew as well (BuildKit engine); `None` is no.
    pub force_compression: Option<bool>,
    /// OCI's media types, or Docker's (BuildKit engine); `None` is what the other options need, Docker's where any will do.
    pub oci_media_types: Option<bool>,
    /// `--annotation`: the exporter's attribute, e.g. `annotation-manifest.KEY` -> value (BuildKit engine).
    pub annotations: BTreeMap<String, String>,
    /// `--attest`, `--provenance`, `--sbom`: type -> parameters, e.g. `provenance` -> `mode=max` (BuildKit engine). None is
    /// made unless it is asked for.
    pub attestations: BTreeMap<String, String>,
    /// `--allow`: what the build may do that BuildKit asks for, e.g. `security.insecure` (BuildKit engine).
    pub entitlements: BTreeSet<String>,
    /// Whether `RUN chmod -R a+rw .` and its like become part of the COPY before them, where that gives the same files
    /// (native engine); `None` is yes.
    pub fold: Option<bool>,
}

/// A secret that RUN may mount, and where its value comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// The `id` of `RUN --mount=type=secret,id=...`.
    pub id: String,
    /// Where the value comes from.
    pub source: SecretSource,
}

/// Where a secret's value comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// A file, read when the build asks for it.
    File(PathBuf),
    /// An environment variable, read when the build asks for it.
    Env(String),
    /// The value itself; text or bytes.
    Value(Secret<serde_bytes::ByteBuf>),
}

/// An SSH agent, or keys, that `RUN --mount=type=ssh` may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshSpec {
    /// The id, usually `default`.
    pub id: String,
    /// An agent's socket or key files; empty: the agent at `SSH_AUTH_SOCK`.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
}

/// Where to build.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSpec {
    /// Which engine.
    pub kind: EngineKind,
    /// The daemon's address (`unix://`, `tcp://`, `ssh://`, ...); without one it is found as the Docker CLI does, or by
    /// `BUILDKIT_HOST`. The BuildKit engine takes several.
    pub endpoints: Vec<String>,
    /// The Docker context to use (`docker context ls`), in place of the current one.
    pub docker_context: Option<String>,
    /// TLS for the connections to `endpoints`; `None` follows `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.
    pub tls: Option<TlsSpec>,
    /// Sent to a buildkitd with each call, as `authorization: Bearer`: for a proxy before it that asks for one.
    pub token: Option<Secret<String>>,
    /// How several workers share the work.
    pub pool: PoolSpec,
    /// Which builder of a Docker daemon.
    pub builder: BuilderChoice,
    /// Where things are kept between builds, in place of `COOPER_CACHE_DIR`.
    pub cache_dir: Option<PathBuf>,
    /// How much of it, in place of `COOPER_CACHE_SIZE`.
    pub cache_size: Option<String>,
    /// How commands are isolated: the name of a level (`subordinate`, `single`, `root`, `chroot`); `None` is the best that
    /// works, without `chroot`.
    pub sandbox: Option<String>,
    /// An OCI runtime that runs commands in place of our own sandbox: `crun` or `runc`, or a path.
    pub runtime: Option<String>,
    /// How the process is started that runs commands; the caller knows. Without it, no command can be run.
    #[serde(skip)]
    pub helper: Option<Helper>,
}

/// How a program is started that runs `cooper::sandbox::serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<std::ffi::OsString>,
}

/// Whom a TLS connection trusts, and what it shows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSpec {
    /// Certificates of the authority that signed the daemon's; `None` trusts the system's.
    pub ca_cert: Option<Pem>,
    /// Our certificate.
    pub client_cert: Option<Pem>,
    /// Our key.
    pub client_key: Option<Pem>,
    /// Do not check the daemon's certificate.
    pub skip_verify: bool,
    /// The name that the daemon's certificate has, where it is not the address's.
    pub server_name: Option<String>,
}

/// Certificates or a key: a file, or the text itself, which may come out of a secret store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// A file.
    File(PathBuf),
    /// The text.
    Text(Secret<String>),
}

impl Pem {
    /// Reads a setting: a text with PEM's marker in it is the thing itself, any other the name of a file.
    pub fn of(text: String) -> Self {
        if text.contains("-----BEGIN") { Self::Text(Secret::new(text)) } else { Self::File(text.into()) }
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl<'de> Deserialize<'de> for Pem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::<String>::deserialize(deserializer).map(|text| Self::of(text.expose().clone()))
    }
}

/// How several workers share the work (BuildKit engine).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolSpec {
    /// In which order workers are asked.
    pub policy: PoolPolicy,
    /// How many builds a worker runs before the next one is asked; `None` is [`PoolSpec::BUSY`].
    pub busy: Option<u32>,
}

impl PoolSpec {
    /// A worker with as many builds as this counts as busy, unless something else is said.
    pub const BUSY: u32 = 4;
}

/// In which order the workers of a pool are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolPolicy {
    /// A project meets the same worker each time, whose cache is warm, unless that one is busy or away.
    #[default]
    Affinity,
    /// The one with the fewest builds; of equals, the one that affinity would choose.
    LeastLoaded,
    /// As they are given: the first that answers.
    Ordered,
}

/// The engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// The best one that works here.
    #[default]
    Auto,
    /// This process: no daemon.
    Native,
    /// A Docker or Podman daemon.
    Docker,
    /// One or several `BuildKit` daemons, usually on other machines.
    Buildkit,
}

/// The builders of a Docker daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuilderChoice {
    /// BuildKit where the daemon has it and the options allow it, else the classic builder.
    #[default]
    Auto,
    /// BuildKit, or an error.
    Buildkit,
    /// The classic builder.
    Classic,
}

/// A user name and password, or an identity token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credential {
    /// The user; empty with an identity token.
    pub username: String,
    /// The password.
    pub password: Secret<String>,
    /// A refresh token in place of a password.
    pub identity_token: Option<Secret<String>>,
}

impl BuildOptions {
    /// The platform, if there is one and no other.
    pub fn platform(&self) -> Option<&Platform> {
        match self.platforms.as_slice() {
            [platform] => Some(platform),
            _ => None,
        }
    }
}

impl EngineSpec {
    /// The address of an engine that takes one. Fails with `InvalidOption` where there are several.
    pub fn endpoint(&self) -> Result<Option<&str>> {
        match self.endpoints.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Error::InvalidOption {
                name: "endpoint".into(),
                reason: "there is one daemon in a build; the BuildKit engine takes several".into(),
            }),
        }
    }
}

impl BuildRequest {
    /// Checks what the types cannot: fails with `InvalidOption` for options that contradict each other.
    pub fn validate(&self) -> Result<()> {
        let invalid = |name: &str, reason: &str| Err(Error::InvalidOption { name: name.into(), reason: reason.into() });
        if self.push && self.tags.is_empty() {
            return invalid("push", "there is no tag to push");
        }
        if self.push && self.tags.iter().any(|tag| tag.digest().is_some()) {
            return invalid("tag", "an image cannot be pushed under a digest; name a tag");
        }
        let mut ids = BTreeSet::new();
        for secret in &self.options.secrets {
            if secret.id.is_empty() {
                return invalid("secret", "an id is missing");
            }
            if !ids.insert(&secret.id) {
                return invalid("secret", &format!("the id `{}` is given twice", secret.id));
            }
        }
        Ok(())
    }
}

/// Something that knows credentials for registries. Asked once per registry and use, never stored.
#[async_trait::async_trait]
pub trait Credentials: Send + Sync {
    /// The credential for a registry (host and port; `docker.io` for Docker Hub), or `None` for anonymous access.
    ///
    /// `refresh` says that the last answer was refused or is old: do not answer from a cache.
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>>;
}

/// What every phase of one build shares.
#[derive(Clone)]
pub struct Job {
    /// Where to tell what happens.
    pub events: crate::event::Events,
    /// When to stop.
    pub cancel: crate::cancel::Cancel,
    /// Whom to ask for credentials.
    pub credentials: Arc<dyn Credentials>,
}
