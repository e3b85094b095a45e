//! What a request may ask for that the native engine does not do.

use std::collections::BTreeMap;

use super::share::MOUNTS;
use crate::error::{Error, Result};
use crate::options::only_buildkit_engine;
use crate::request::{BuildOptions, BuildRequest, BuilderChoice, CacheSpec};

/// Attributes of a registry cache that say what is so anyway: a manifest of OCI's media types, which every registry takes.
const CACHE_ATTRIBUTES: &[(&str, &str)] = &[
    ("oci-mediatypes", "true"),
    ("image-manifest", "true"),
    // Whether what commands keep in cache mounts is part of it.
    (MOUNTS, "true"),
    (MOUNTS, "false"),
];

/// Fails with `Unsupported` for the first option that would be without an effect. Those that matter to RUN alone (`network`,
/// `add-host`, `shm-size`, `ulimit`, `secret`, `ssh`) are for whatever runs it. Fails with `InvalidOption` for a sandbox, a runtime
/// or a limit that there is none of.
pub(super) fn check(request: &BuildRequest) -> Result<()> {
    let options = &request.options;
    let refused = only_buildkit_engine(options)
        .map(|(_, feature)| (feature.to_owned(), "`--engine buildkit` can".to_owned()))
        .or_else(|| in_general(request))
        .or_else(|| limits(options))
        .or_else(|| options.cache_from.iter().chain(&options.cache_to).find_map(cache));
    match refused {
        None => super::run::check(request),
        Some((feature, reason)) => Err(Error::Unsupported { engine: "the native engine".into(), feature, reason }),
    }
}

/// What cannot be done, and why.
type Refused = (String, String);

fn in_general(request: &BuildRequest) -> Option<Refused> {
    let BuildOptions { squash, rm, network, .. } = &request.options;
    let platform = request.options.platform().filter(|platform| platform.os != "linux");
    let network = network.as_deref().filter(|network| !matches!(*network, "" | "default" | "none" | "host"));
    [
        squash.then_some(("squash layers", "layers stay apart, so that a rebuild moves only what changed")),
        (*rm == Some(false)).then_some(("keep intermediate containers", "it has none")),
        platform.map(|_| ("build for another operating system than Linux", "layers of others have other rules")),
        network.map(|_| ("use a named network", "it knows `default`, `none` and `host`")),
        (request.engine.builder != BuilderChoice::Auto)
            .then_some(("choose a builder", "`builder` names one of a Docker daemon; leave it out")),
    ]
    .into_iter()
    .flatten()
    .map(|(feature, reason)| (feature.to_owned(), reason.to_owned()))
    .next()
}

fn limits(options: &BuildOptions) -> Option<Refused> {
    let reason = "it starts no containers; limit the process that builds";
    [
        ("cgroup-parent", options.cgroup_parent.is_some()),
        ("memory", options.memory.is_some()),
        ("memory-swap", options.memory_swap.is_some()),
        ("cpuset-cpus", options.cpuset_cpus.is_some()),
        ("cpu-shares", options.cpu_shares.is_some()),
        ("cpu-period", options.cpu_period.is_some()),
        ("cpu-quota", options.cpu_quota.is_some()),
    ]
    .into_iter()
    .find_map(|(name, given)| given.then(|| (format!("serve the build option `{name}`"), reason.to_owned())))
}

fn cache(cache: &CacheSpec) -> Option<Refused> {
    match cache {
        CacheSpec::Image(_) => None,
        CacheSpec::Registry(cache) => attribute(&cache.attributes),
        CacheSpec::Other(kind, _) => Some((
            format!("use a cache of `type={kind}`"),
            "it keeps caches in registries: `type=registry,ref=NAME`; what it builds on this machine it keeps anyway"
                .to_owned(),
        )),
    }
}

fn attribute(attributes: &BTreeMap<String, String>) -> Option<Refused> {
    let unknown = attributes.iter().find(|(key, value)| !CACHE_ATTRIBUTES.contains(&(key, value)));
    unknown.map(|(key, _)| {
        let reason = "a cache in a registry has `ref`, `mode`, `ignore-error` and `mounts`".to_owned();
        (format!("serve `{key}` of a cache as it is given"), reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Value, names, normalize};
    use crate::request::EngineSpec;

    fn said(option: &str) -> Option<String> {
        let options = normalize(serde_json::from_str::<Value>(&format!("{{{option}}}")).unwrap()).unwrap();
        match check(&BuildRequest { options, ..BuildRequest::default() }) {
            Ok(()) => None,
            Err(error @ Error::Unsupported { .. }) => Some(error.to_string()),
            Err(other) => panic!("{other:?}"),
        }
    }

    const REFUSED: &[(&str, &str)] = &[
        (r#""squash": true"#, "squash"),
        (r#""rm": false"#, "intermediate"),
        (r#""cgroup-parent": "x""#, "`cgroup-parent`"),
        (r#""memory": 1"#, "`memory`"),
        (r#""memory-swap": 1"#, "`memory-swap`"),
        (r#""cpuset-cpus": 0"#, "`cpuset-cpus`"),
        (r#""cpu-shares": 1"#, "`cpu-shares`"),
        (r#""cpu-period": 1"#, "`cpu-period`"),
        (r#""cpu-quota": 1"#, "`cpu-quota`"),
        (r#""container-limits": {"memory": 1}"#, "`memory`"),
        (r#""platform": "windows/amd64""#, "Linux"),
        (r#""platform": "linux/amd64,linux/arm64""#, "several platforms"),
        (r#""annotation": "a=b""#, "annotate"),
        (r#""attest": "type=sbom""#, "attest"),
        (r#""provenance": "mode=max""#, "attest"),
        (r#""sbom": true"#, "attest"),
        (r#""allow": "security.insecure""#, "rights"),
        (r#""oci-mediatypes": true"#, "media types"),
        (r#""force-compression": true"#, "anew"),
        (r#""network": "mine""#, "named network"),
        (r#""cache-to": "type=inline""#, "`type=inline`"),
        (r#""cache-from": "type=gha""#, "`type=gha`"),
        (r#""cache-to": "type=registry,ref=a,force-compression=true""#, "`force-compression`"),
        (r#""cache-to": "type=registry,ref=a,oci-mediatypes=false""#, "`oci-mediatypes`"),
    ];

    const TAKEN: &[&str] = &[
        r#""build-arg": "A=1""#,
        r#""label": "a=b""#,
        r#""target": "t""#,
        r#""platform": "linux/arm64""#,
        r#""no-cache": true"#,
        r#""no-cache-filter": "0,b""#,
        r#""pull": true"#,
        r#""rm": true"#,
        r#""force-rm": true"#,
        r#""shm-size": 1"#,
        r#""ulimit": "core=1""#,
        r#""network": "host""#,
        r#""add-host": "a:::1""#,
        r#""cache-from": ["a", "type=registry,ref=b"]"#,
        r#""cache-to": "type=registry,ref=b,mode=max,ignore-error=true,image-manifest=true,mounts=true""#,
        r#""secret": "id=a,env=A""#,
        r#""ssh": "default""#,
        r#""build-context": "a=b""#,
        r#""source-date-epoch": 1"#,
        r#""compression": "zstd:9""#,
        r#""fold": false"#,
        r#""provenance": false"#,
        r#""sbom": false"#,
    ];

    #[test]
    fn every_option_is_served_or_refused() {
        for (option, expected) in REFUSED {
            let said = said(option).unwrap_or_else(|| panic!("{option}"));
            assert!(said.contains(expected), "{option}: {said}");
        }
        for option in TAKEN {
            assert_eq!(said(option), None, "{option}");
        }
        let given = REFUSED.iter().map(|(option, _)| option).chain(TAKEN);
        let given: Vec<&str> = given.map(|option| option.split('"').nth(1).unwrap()).collect();
        let missing: Vec<_> = names().into_keys().filter(|name| !given.contains(name)).collect();
        assert!(missing.is_empty(), "neither served nor refused: {missing:?}");
    }

    #[test]
    fn a_builder_of_a_daemon_is_refused() {
        let engine = EngineSpec { builder: BuilderChoice::Buildkit, ..EngineSpec::default() };
        assert!(check(&BuildRequest { engine, ..BuildRequest::default() }).is_err());
    }
}
