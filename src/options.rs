//! Build options as users write them, made into [`BuildOptions`].
//!
//! One table holds every name: those of the Docker CLI (with `-` or `_`), of docker-py's `images.build` and of ZenML's
//! `DockerBuildOptions`. A name that is not there is an error, with the name that was probably meant. Errors never quote a
//! value, which may be a secret.

mod arguments;
mod attach;
mod compression;
mod fields;
mod places;
mod read;
mod value;

use std::collections::BTreeMap;

pub use self::arguments::{Arguments, Program};
pub use self::places::{Outputs, outputs};
use self::read::Given;
pub use self::value::Value;
use crate::error::{Error, Result};
use crate::request::BuildOptions;
use crate::spelling::distance;

/// One option: the Docker CLI's name, its other names (with `_`), and how its value is read.
struct Known {
    name: &'static str,
    aliases: &'static [&'static str],
    set: fn(&mut BuildOptions, Given) -> Result<()>,
}

const fn known(
    name: &'static str,
    aliases: &'static [&'static str],
    set: fn(&mut BuildOptions, Given) -> Result<()>,
) -> Known {
    Known { name, aliases, set }
}

fn put<T>(place: &mut T, value: Result<T>) -> Result<()> {
    *place = value?;
    Ok(())
}

/// The options that a build has.
const OPTIONS: &[Known] = &[
    known("build-arg", &["build_args", "buildargs"], |to, given| put(&mut to.build_args, given.arguments())),
    known("label", &["labels"], |to, given| put(&mut to.labels, given.labels())),
    known("target", &[], |to, given| put(&mut to.target, given.text().map(Some))),
    known("platform", &["platforms"], |to, given| put(&mut to.platforms, given.platforms())),
    known("no-cache", &["nocache"], |to, given| put(&mut to.no_cache, given.flag())),
    known("no-cache-filter", &[], |to, given| put(&mut to.no_cache_filter, given.names())),
    known("pull", &[], |to, given| put(&mut to.pull, given.flag())),
    known("rm", &[], |to, given| put(&mut to.rm, given.flag().map(Some))),
    known("force-rm", &["forcerm"], |to, given| put(&mut to.force_rm, given.flag().map(Some))),
    known("squash", &[], |to, given| put(&mut to.squash, given.flag())),
    known("shm-size", &["shmsize"], |to, given| put(&mut to.shm_size, given.size().map(Some))),
    known("network", &["network_mode"], |to, given| put(&mut to.network, given.text().map(Some))),
    known("add-host", &["add_hosts", "extra_hosts"], |to, given| put(&mut to.add_hosts, given.hosts())),
    known("cache-from", &[], |to, given| put(&mut to.cache_from, given.caches())),
    known("cache-to", &[], |to, given| put(&mut to.cache_to, given.caches())),
    known("secret", &["secrets"], |to, given| put(&mut to.secrets, given.secrets())),
    known("ssh", &[], |to, given| put(&mut to.ssh, given.ssh())),
    known("build-context", &["build_contexts"], |to, given| put(&mut to.build_contexts, given.named_texts())),
    known("ulimit", &["ulimits"], |to, given| put(&mut to.ulimits, given.ulimits())),
    known("cgroup-parent", &[], |to, given| put(&mut to.cgroup_parent, given.text().map(Some))),
    known("memory", &["mem_limit"], |to, given| put(&mut to.memory, given.size().map(Some))),
    known("memory-swap", &["memswap", "memswap_limit"], |to, given| {
        put(&mut to.memory_swap, given.size_or_unlimited().map(Some))
    }),
    known("cpuset-cpus", &["cpusetcpus"], |to, given| put(&mut to.cpuset_cpus, given.text().map(Some))),
    known("cpu-shares", &["cpushares"], |to, given| put(&mut to.cpu_shares, given.count().map(Some))),
    known("cpu-period", &[], |to, given| put(&mut to.cpu_period, given.count().map(Some))),
    known("cpu-quota", &[], |to, given| put(&mut to.cpu_quota, given.count().map(Some))),
    known("container-limits", &[], container_limits),
    known("source-date-epoch", &[], |to, given| put(&mut to.source_date_epoch, given.count().map(Some))),
    known("compression", &[], |to, given| put(&mut to.compression, given.compression().map(Some))),
    known("force-compression", &[], |to, given| put(&mut to.force_compression, given.flag().map(Some))),
    known("oci-mediatypes", &["oci_media_types"], |to, given| put(&mut to.oci_media_types, given.flag().map(Some))),
    known("fold", &[], |to, given| put(&mut to.fold, given.flag().map(Some))),
    known("annotation", &["annotations"], |to, given| put(&mut to.annotations, given.annotations())),
    known("attest", &["attestation", "attestations"], |to, given| attest(to, given.attestations())),
    known("provenance", &[], |to, given| attest(to, given.attestation("provenance"))),
    known("sbom", &[], |to, given| attest(to, given.attestation("sbom"))),
    known("allow", &["entitlements"], |to, given| put(&mut to.entitlements, given.entitlements())),
];

/// Real options of `docker build` or docker-py that have another place here, and options that nothing here can serve.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &["tag", "tags", "t"],
        "the image's name is no option: ZenML chooses it (`cooper build --tag`, `tags=` of `build()`)",
    ),
    (
        &["file", "dockerfile", "f"],
        "the Dockerfile is no option: name it in ZenML's DockerSettings (`cooper build --file`, `dockerfile=` of `build()`)",
    ),
    (
        &["path", "context", "fileobj", "custom_context"],
        "the context is no option: set `build_context_root` in ZenML's DockerSettings (`context=` of `build()`)",
    ),
    (
        &["ignorefile", "ignore_file"],
        "the ignore file is no option: set `dockerignore` in ZenML's DockerSettings (`cooper build --ignorefile`)",
    ),
    (&["push"], "pushing is no option: ZenML pushes where the stack has a container registry (`cooper build --push`)"),
    (
        &["output", "o", "load"],
        "where the image goes is no option: `cooper build --output`, `outputs=` of `build()`; ZenML pushes where the stack \
         has a container registry",
    ),
    (
        &["quiet", "q", "progress"],
        "what is shown is set with `progress` of the image builder (`cooper build --progress`)",
    ),
    (&["metadata_file", "iidfile"], "the result is returned; `cooper build --metadata-file` writes it to a file"),
    (&["builder"], "the builder is set with `builder` of the image builder (`cooper build --engine`)"),
    (&["timeout"], "a build has no time limit of its own; interrupt it, or cancel it with a CancelHandle"),
    (
        &["decode", "encoding", "gzip", "compress", "stream"],
        "how the context and the output travel is chosen by the engine",
    ),
    (&["use_config_proxy"], "the proxies of the Docker config are always used, as the Docker command line does"),
    (&["isolation", "credential_spec"], "this is an option of Windows containers, which are not supported"),
    (&["security_opt"], "Docker serves it on Windows only"),
    (&["cpuset_mems"], "not supported; `cpuset-cpus` is"),
    (&["disable_content_trust"], "content trust is not supported: images are neither signed nor verified"),
    (&["call", "check"], "this engine builds only; it does not check or describe a Dockerfile"),
];

/// Attestations come in three options, which add to each other.
fn attest(to: &mut BuildOptions, given: Result<BTreeMap<String, Option<String>>>) -> Result<()> {
    for (kind, parameters) in given? {
        match parameters {
            Some(parameters) => to.attestations.insert(kind, parameters),
            None => to.attestations.remove(&kind),
        };
    }
    Ok(())
}

/// The first option that only the BuildKit engine serves, in the Docker CLI's words, and what it does.
pub fn only_buildkit_engine(options: &BuildOptions) -> Option<(&'static str, &'static str)> {
    [
        ("platform", "build for several platforms at once", options.platforms.len() > 1),
        ("annotation", "annotate the image", !options.annotations.is_empty()),
        ("attest", "attest how the image was made", !options.attestations.is_empty()),
        ("allow", "give a build further rights", !options.entitlements.is_empty()),
        ("oci-mediatypes", "choose the media types", options.oci_media_types.is_some()),
        ("force-compression", "compress the layers of the base anew", options.force_compression == Some(true)),
    ]
    .into_iter()
    .find_map(|(option, feature, given)| given.then_some((option, feature)))
}

/// docker-py's `container_limits={"memory": ..., "memswap": ..., "cpushares": ..., "cpusetcpus": ...}`.
fn container_limits(to: &mut BuildOptions, given: Given) -> Result<()> {
    const INNER: &[&str] = &["memory", "memory-swap", "cpu-shares", "cpuset-cpus"];
    for (name, value) in given.entries()? {
        let key = normal(&name);
        let known = OPTIONS.iter().filter(|known| INNER.contains(&known.name)).find(|known| known.is(&key));
        let Some(known) = known else {
            let suggestion = closest(&key, INNER.iter().copied());
            return Err(Error::UnknownOption { name: format!("container-limits.{name}"), suggestion });
        };
        if value != Value::Null {
            (known.set)(to, Given { name, value })?;
        }
    }
    Ok(())
}

impl Known {
    /// Whether this option goes by a name that [`normal`] made.
    fn is(&self, name: &str) -> bool {
        normal(self.name) == name || self.aliases.contains(&name)
    }
}

/// A name as the table's aliases spell it.
fn normal(name: &str) -> String {
    name.trim().trim_start_matches("--").to_ascii_lowercase().replace('-', "_")
}

/// Every option: the Docker CLI's name and the other names that are taken for it.
pub fn names() -> BTreeMap<&'static str, &'static [&'static str]> {
    OPTIONS.iter().map(|known| (known.name, known.aliases)).collect()
}

/// Reads options as a user wrote them. A value of [`Value::Null`] counts as not given.
///
/// Fails with `UnknownOption` for a name that nothing has, and with `InvalidOption` for a value that cannot be used, for an
/// option that has its place elsewhere, and for one that is given under two names.
pub fn normalize(options: Value) -> Result<BuildOptions> {
    apply(BuildOptions::default(), options)
}

/// Reads options, with defaults for those that are not given. Arguments, labels, hosts, contexts and secrets are put together;
/// of equal names the given one holds.
pub fn normalize_with_defaults(options: Value, defaults: Value) -> Result<BuildOptions> {
    let defaults = normalize(defaults)?;
    let mut result = apply(defaults.clone(), options)?;
    fill(&mut result.build_args, defaults.build_args);
    fill(&mut result.labels, defaults.labels);
    fill(&mut result.add_hosts, defaults.add_hosts);
    fill(&mut result.build_contexts, defaults.build_contexts);
    for secret in defaults.secrets {
        if result.secrets.iter().all(|given| given.id != secret.id) {
            result.secrets.push(secret);
        }
    }
    Ok(result)
}

fn fill<T>(given: &mut BTreeMap<String, T>, defaults: BTreeMap<String, T>) {
    for (name, value) in defaults {
        given.entry(name).or_insert(value);
    }
}

fn apply(mut result: BuildOptions, options: Value) -> Result<BuildOptions> {
    let mut seen: BTreeMap<&'static str, String> = BTreeMap::new();
    for (name, value) in (Given { name: "options".into(), value: options }).entries()? {
        let known = find(&name)?;
        if value == Value::Null {
            continue;
        }
        if let Some(other) = seen.insert(known.name, name.clone()) {
            return Err(Error::InvalidOption {
                reason: format!("it is given twice, the other time as `{other}`"),
                name,
            });
        }
        (known.set)(&mut result, Given { name, value })?;
    }
    Ok(result)
}

fn find(name: &str) -> Result<&'static Known> {
    let key = normal(name);
    if let Some(known) = OPTIONS.iter().find(|known| known.is(&key)) {
        return Ok(known);
    }
    if let Some((_, reason)) = ELSEWHERE.iter().find(|(names, _)| names.contains(&key.as_str())) {
        return Err(Error::InvalidOption { name: name.to_owned(), reason: (*reason).to_owned() });
    }
    let all = OPTIONS.iter().flat_map(|known| std::iter::once(known.name).chain(known.aliases.iter().copied()));
    Err(Error::UnknownOption { name: name.to_owned(), suggestion: closest(&key, all) })
}

/// The candidate that `name` was probably meant to be: at most a third of its letters differ.
fn closest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|candidate| (distance(name, &normal(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests;
