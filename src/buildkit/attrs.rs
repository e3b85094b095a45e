//! What the Dockerfile frontend and the solver are asked for: build options in BuildKit's own words.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bollard_buildkit_proto::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry};
use serde::Serialize;

use super::content::Stores;
use crate::error::{Error, Result};
use crate::request::{BuildOptions, CacheSpec};

/// A release of BuildKit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BuildkitVersion {
    /// 0, so far.
    pub major: u32,
    /// The one that matters.
    pub minor: u32,
}

impl BuildkitVersion {
    /// The release 0.`minor`.
    pub const fn v0(minor: u32) -> Self {
        Self { major: 0, minor }
    }
}

/// An option that a BuildKit does not honour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What it is, e.g. `limit memory`.
    pub feature: &'static str,
    /// Why, and since when it can be done.
    pub reason: String,
}

/// The first option that a BuildKit of this version would silently ignore, or never honours.
///
/// `syntax` says that the Dockerfile names its own frontend (`# syntax=`), which may be newer than the daemon.
pub fn unsupported(options: &BuildOptions, version: BuildkitVersion, syntax: bool) -> Option<Unsupported> {
    let classic = || "BuildKit has no such option, the classic builder does".to_owned();
    let since = |minor: u32| {
        let reason = format!("it needs BuildKit 0.{minor}, the daemon has {}.{}", version.major, version.minor);
        (version < BuildkitVersion::v0(minor) && !syntax).then_some(reason)
    };
    let memory = options.memory.is_some() || options.memory_swap.is_some();
    let cpu = options.cpu_shares.is_some() || options.cpu_period.is_some() || options.cpu_quota.is_some();
    // The frontend compares names only, and ignores what is none.
    let is_number = |stage: &String| stage.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = options.no_cache_filter.iter().any(is_number);
    let checks: [(bool, &'static str, Option<String>); 10] = [
        (
            numbered,
            "leave the cache out for a stage by its number",
            Some("BuildKit knows stages by their names".into()),
        ),
        (options.squash, "squash layers", Some(classic())),
        (memory, "limit memory", Some(classic())),
        (cpu || options.cpuset_cpus.is_some(), "limit CPU use", Some(classic())),
        (options.rm == Some(false), "keep intermediate containers", Some("BuildKit has none".into())),
        (is_named_network(options), "use a named network", Some("BuildKit knows `default`, `none` and `host`".into())),
        (options.shm_size.is_some(), "set the size of /dev/shm", since(10)),
        (!options.ulimits.is_empty(), "set ulimits", since(10)),
        (options.cgroup_parent.is_some(), "set the parent cgroup", since(10)),
        (!options.build_contexts.is_empty(), "use named build contexts", since(10)),
    ];
    checks
        .into_iter()
        .find_map(|(wanted, feature, reason)| reason.filter(|_| wanted).map(|reason| Unsupported { feature, reason }))
}

fn is_named_network(options: &BuildOptions) -> bool {
    !matches!(options.network.as_deref(), None | Some("" | "default" | "none" | "host"))
}

/// Where a named build context comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of this machine, which the session serves under the context's name.
    Local(PathBuf),
    /// Something that the daemon fetches: an image, a Git repository, an archive.
    Remote(String),
}

/// Sorts out the named build contexts. Fails with `InvalidOption` for what is neither a URL nor a directory, nor an image in
/// one of the stores that the session serves.
pub fn named_contexts(options: &BuildOptions, stores: &Stores) -> Result<BTreeMap<String, NamedContext>> {
    let invalid = |reason: String| Error::InvalidOption { name: "build_contexts".into(), reason };
    let mut contexts = BTreeMap::new();
    for (name, source) in &options.build_contexts {
        let known = ["docker-image://", "https://", "http://", "git://", "ssh://"];
        let is_served = |source: &str| {
            let store = source.strip_prefix("oci-layout://").and_then(|source| source.split_once('@'));
            store.is_some_and(|(store, _)| stores.contains_key(&format!("oci:{store}")))
        };
        let is_remote =
            |source: &str| known.iter().any(|scheme| source.starts_with(scheme)) || source.starts_with("git@");
        let context = if is_remote(source) || is_served(source) {
            NamedContext::Remote(source.clone())
        } else if source.contains("://") {
            return Err(invalid(format!("`{name}`: sources like `{source}` are not supported")));
        } else if PathBuf::from(source).is_dir() {
            NamedContext::Local(source.into())
        } else {
            return Err(invalid(format!("`{name}`: there is no directory `{source}`")));
        };
        if matches!(name.as_str(), "" | "context" | "dockerfile") {
            return Err(invalid(format!("a build context cannot be named `{name}`")));
        }
        contexts.insert(name.clone(), context);
    }
    Ok(contexts)
}

/// The attributes of the Dockerfile frontend. `filename` is the Dockerfile's name in the directory `dockerfile`.
pub fn frontend_attrs(
    options: &BuildOptions,
    contexts: &BTreeMap<String, NamedContext>,
    filename: &str,
) -> Result<HashMap<String, String>> {
    let mut attrs = HashMap::new();
    let mut set = |key: &str, value: String| attrs.insert(key.to_owned(), value);
    set("filename", filename.to_owned());
    for (name, value) in &options.build_args {
        if let Some(value) = value.clone().or_else(|| std::env::var(name).ok()) {
            set(&format!("build-arg:{name}"), value);
        }
    }
    for (name, value) in &options.labels {
        set(&format!("label:{name}"), value.clone());
    }
    for (kind, parameters) in &options.attestations {
        set(&format!("attest:{kind}"), parameters.clone());
    }
    for (key, value) in plain_attrs(options) {
        if let Some(value) = value {
            set(key, value);
        }
    }
    for (name, context) in contexts {
        let source = match context {
            NamedContext::Local(_) => format!("local:{name}"),
            NamedContext::Remote(source) => source.clone(),
        };
        set(&format!("context:{name}"), source);
    }
    if !contexts.is_empty() {
        // Without this, a frontend that does not know named contexts would ignore them.
        set("frontend.caps", "moby.buildkit.frontend.contexts+forward".into());
    }
    let imports = cache_entries(&options.cache_from);
    if !imports.is_empty() {
        set("cache-imports", cache_json(&imports)?);
    }
    Ok(attrs)
}

/// The options that are one attribute each.
fn plain_attrs(options: &BuildOptions) -> [(&'static str, Option<String>); 10] {
    let list = |values: Vec<String>| (!values.is_empty()).then(|| csv(values.into_iter()));
    let epoch = options.source_date_epoch.filter(|_| !options.build_args.contains_key("SOURCE_DATE_EPOCH"));
    let network = options.network.as_deref().filter(|network| matches!(*network, "none" | "host"));
    let hosts = options.add_hosts.iter().map(|(host, address)| format!("{host}={address}"));
    [
        ("target", options.target.clone()),
        ("platform", list(options.platforms.iter().map(ToString::to_string).collect())),
        // A list of stages; none is all.
        ("no-cache", no_cache(options)),
        ("image-resolve-mode", options.pull.then(|| "pull".to_owned())),
        ("force-network-mode", network.map(str::to_owned)),
        ("add-hosts", list(hosts.collect())),
        ("shm-size", options.shm_size.map(|size| size.to_string())),
        ("ulimit", list(options.ulimits.clone())),
        ("cgroup-parent", options.cgroup_parent.clone()),
        ("build-arg:SOURCE_DATE_EPOCH", epoch.map(|epoch| epoch.to_string())),
    ]
}

fn no_cache(options: &BuildOptions) -> Option<String> {
    let stages = &options.no_cache_filter;
    if options.no_cache { Some(String::new()) } else { (!stages.is_empty()).then(|| stages.join(",")) }
}

/// A line of comma-separated values, as Go's `encoding/csv` reads it.
fn csv(values: impl Iterator<Item = String>) -> String {
    let quoted = |value: String| {
        let special = value.contains([',', '"', '\n']);
        if special { format!("\"{}\"", value.replace('"', "\"\"")) } else { value }
    };
    values.map(quoted).collect::<Vec<_>>().join(",")
}

/// The names that Go's JSON gives to a cache entry.
#[derive(Serialize)]
struct CacheJson<'a> {
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Attrs")]
    attrs: BTreeMap<&'a str, &'a str>,
}

fn cache_json(entries: &[CacheOptionsEntry]) -> Result<String> {
    let entries: Vec<_> = entries
        .iter()
        .map(|entry| CacheJson {
            kind: &entry.r#type,
            attrs: entry.attrs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        })
        .collect();
    serde_json::to_string(&entries).map_err(|error| Error::internal(error.to_string()))
}

/// What the solver is told about caches.
pub fn cache_options(options: &BuildOptions) -> CacheOptions {
    let mut exports = cache_entries(&options.cache_to);
    // The build argument is the Docker CLI's older way to say `type=inline`.
    let wants_inline = options.build_args.get("BUILDKIT_INLINE_CACHE").and_then(Option::as_deref);
    if matches!(wants_inline, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
        && !exports.iter().any(|export| export.r#type == "inline")
    {
        exports.push(CacheOptionsEntry { r#type: "inline".into(), ..CacheOptionsEntry::default() });
    }
    let imports = cache_entries(&options.cache_from);
    CacheOptions { exports, imports, ..CacheOptions::default() }
}

fn cache_entries(caches: &[CacheSpec]) -> Vec<CacheOptionsEntry> {
    let read = |cache: &CacheSpec| {
        let (kind, attrs) = cache.entry();
        CacheOptionsEntry { r#type: kind.to_owned(), attrs: attrs.into_iter().collect() }
    };
    caches.iter().map(read).collect()
}

/// Fails with `InvalidOption` for a cache in a directory that the session does not serve.
pub fn check_caches(options: &BuildOptions, stores: &Stores) -> Result<()> {
    let lists = [("cache-to", "dest", &options.cache_to), ("cache-from", "src", &options.cache_from)];
    for (option, key, caches) in lists {
        let is_served = |cache: &CacheSpec| {
            let (kind, attrs) = cache.entry();
            kind != "local" || attrs.get(key).is_some_and(|place| stores.contains_key(&format!("local:{place}")))
        };
        if !caches.iter().all(is_served) {
            return Err(Error::InvalidOption {
                name: option.to_owned(),
                reason: "a Docker daemon keeps no cache in a directory; `--engine buildkit` does, with a buildkitd"
                    .into(),
            });
        }
    }
    Ok(())
}

/// Rights that the build asks for, as `docker buildx build` does.
pub fn entitlements(options: &BuildOptions) -> Vec<String> {
    let mut rights = options.entitlements.clone();
    if options.network.as_deref() == Some("host") {
        rights.insert("network.host".into());
    }
    rights.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::super::content_store::Store;
    use super::*;
    use crate::request::{CacheMode, RegistryCache};

    fn attrs(options: &BuildOptions) -> HashMap<String, String> {
        frontend_attrs(options, &BTreeMap::new(), "Dockerfile").unwrap()
    }

    #[test]
    fn options_become_attributes() {
        let options = BuildOptions {
            build_args: BTreeMap::from([("A".into(), Some("1".into())), ("NO_SUCH_VARIABLE_HERE".into(), None)]),
            labels: BTreeMap::from([("l".into(), "v".into())]),
            target: Some("t".into()),
            platforms: vec!["linux/arm64".parse().unwrap()],
            no_cache: true,
            pull: true,
            network: Some("host".into()),
            add_hosts: BTreeMap::from([("a".into(), "1.2.3.4".into()), ("b".into(), "::1".into())]),
            shm_size: Some(1024),
            ulimits: vec!["nofile=1:2".into(), "nproc=3".into()],
            cgroup_parent: Some("p".into()),
            cache_from: vec![CacheSpec::Image("localhost:5000/a:b".parse().unwrap())],
            source_date_epoch: Some(7),
            ..BuildOptions::default()
        };
        let expected = [
            ("filename", "Dockerfile"),
            ("build-arg:A", "1"),
            ("build-arg:SOURCE_DATE_EPOCH", "7"),
            ("label:l", "v"),
            ("target", "t"),
            ("platform", "linux/arm64"),
            ("no-cache", ""),
            ("image-resolve-mode", "pull"),
            ("force-network-mode", "host"),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("shm-size", "1024"),
            ("ulimit", "nofile=1:2,nproc=3"),
            ("cgroup-parent", "p"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"localhost:5000/a:b"}}]"#),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(attrs(&options), HashMap::from(expected));
        assert_eq!(entitlements(&options), ["network.host"]);
    }

    #[test]
    fn named_contexts_are_sorted_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let contexts = |source: &str| {
            let build_contexts = BTreeMap::from([("lib".into(), source.into())]);
            {
                let store = std::sync::Arc::new(Store::to_read("x".into()));
                let stores = [("oci:there".to_owned(), store)].into();
                named_contexts(&BuildOptions { build_contexts, ..BuildOptions::default() }, &stores)
            }
        };
        let local = contexts(&path).unwrap();
        assert_eq!(local["lib"], NamedContext::Local(path.into()));
        let attrs = frontend_attrs(&BuildOptions::default(), &local, "Dockerfile").unwrap();
        assert_eq!(attrs["context:lib"], "local:lib");
        assert!(attrs["frontend.caps"].contains("contexts"));
        assert_eq!(contexts("docker-image://a").unwrap()["lib"], NamedContext::Remote("docker-image://a".into()));
        assert_eq!(contexts("/no/such/directory").unwrap_err().code(), "invalid-option");
        assert_eq!(contexts("oci-layout://x").unwrap_err().code(), "invalid-option");
        assert_eq!(contexts("oci-layout://x@sha256:0").unwrap_err().code(), "invalid-option");
        let served = "oci-layout://there@sha256:0";
        assert_eq!(contexts(served).unwrap()["lib"], NamedContext::Remote(served.into()));
    }

    #[test]
    fn caches_are_written_as_by_the_docker_cli() {
        let attributes = BTreeMap::from([("oci-mediatypes".to_owned(), "true".to_owned())]);
        let reference = "example.com/a/b".parse().unwrap();
        let cache = RegistryCache { mode: Some(CacheMode::Max), attributes, ..RegistryCache::at(reference) };
        let entries = cache_entries(&[CacheSpec::Registry(cache)]);
        let expected = [("ref", "example.com/a/b"), ("mode", "max"), ("oci-mediatypes", "true")];
        let expected: HashMap<_, _> = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        assert_eq!((entries[0].r#type.as_str(), &entries[0].attrs), ("registry", &expected));
        let local = CacheSpec::Other("local".into(), BTreeMap::from([("dest".into(), "x".into())]));
        let options = BuildOptions { cache_to: vec![local], ..BuildOptions::default() };
        assert_eq!(check_caches(&options, &Stores::new()).unwrap_err().code(), "invalid-option");
        let store = std::sync::Arc::new(Store::to_read("x".into()));
        assert!(check_caches(&options, &[("local:x".to_owned(), store)].into()).is_ok());
        let build_args = BTreeMap::from([("BUILDKIT_INLINE_CACHE".to_owned(), Some("1".to_owned()))]);
        let inline = cache_options(&BuildOptions { build_args, ..BuildOptions::default() });
        assert_eq!(inline.exports[0].r#type, "inline");
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let old = BuildkitVersion::v0(8);
        let shm = BuildOptions { shm_size: Some(1), ..BuildOptions::default() };
        assert!(unsupported(&shm, old, false).unwrap().reason.contains("0.10"));
        assert_eq!(unsupported(&shm, old, true), None);
        assert_eq!(unsupported(&shm, BuildkitVersion::v0(10), false), None);
        let stage = |name: &str| BuildOptions { no_cache_filter: vec![name.into()], ..BuildOptions::default() };
        assert!(unsupported(&stage("1"), old, true).unwrap().reason.contains("names"));
        assert_eq!(unsupported(&stage("one"), old, false), None);
        assert_eq!(attrs(&stage("one"))["no-cache"], "one");
        assert_eq!(attrs(&BuildOptions { no_cache: true, ..stage("one") })["no-cache"], "");
        let network = BuildOptions { network: Some("my-network".into()), ..BuildOptions::default() };
        assert_eq!(unsupported(&network, BuildkitVersion::v0(20), true).unwrap().feature, "use a named network");
        assert_eq!(unsupported(&BuildOptions::default(), old, false), None);
    }
}
