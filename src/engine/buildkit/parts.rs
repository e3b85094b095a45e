//! The caches of a build whose platforms several workers share. Each worker writes a cache as if it were the only one, so one
//! name for all would have the last one's alone: each gets a name of its own, with a platform behind it.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::{BuildOptions, CacheSpec, RegistryCache};

/// Kinds of caches outside of registries, the attribute that is a cache's name there, and what it is without one.
const NAMES: [(&str, &str, &str); 4] = [
    ("local", "tag", "latest"),
    ("s3", "name", "buildkit"),
    ("azblob", "name", "buildkit"),
    ("gha", "scope", "buildkit"),
];

/// Options that write their caches under the names of the first of these platforms. Fails with `InvalidOption` where such a
/// name would be too long.
pub(super) fn write(options: &mut BuildOptions, platforms: &[Platform]) -> Result<()> {
    let Some(platform) = platforms.first() else { return Ok(()) };
    for cache in &mut options.cache_to {
        if let Some(own) = of(cache, platform, "cache-to")? {
            *cache = own;
        }
    }
    Ok(())
}

/// Options that also read what [`write`] has named, whoever built these platforms the last time. Fails as [`write`].
pub(super) fn read(options: &mut BuildOptions, platforms: &[Platform]) -> Result<()> {
    let mut caches = Vec::new();
    for cache in std::mem::take(&mut options.cache_from) {
        for platform in platforms {
            caches.extend(of(&cache, platform, "cache-from")?);
        }
        caches.push(cache);
    }
    options.cache_from = caches;
    Ok(())
}

/// The cache of a platform beside this one; `None` where it is in the image or named by what is in it.
fn of(cache: &CacheSpec, platform: &Platform, option: &str) -> Result<Option<CacheSpec>> {
    let suffix = format!("-{}", platform.to_string().replace('/', "-"));
    Ok(match cache {
        CacheSpec::Image(reference) => named(reference, &suffix, option)?.map(CacheSpec::Image),
        CacheSpec::Registry(cache) => named(&cache.reference, &suffix, option)?
            .map(|reference| CacheSpec::Registry(RegistryCache { reference, ..cache.clone() })),
        CacheSpec::Other(kind, attrs) => other(kind, attrs, &suffix).map(|attrs| CacheSpec::Other(kind.clone(), attrs)),
    })
}

fn named(reference: &Reference, suffix: &str, option: &str) -> Result<Option<Reference>> {
    let Some(tag) = reference.tag_or_latest() else { return Ok(None) };
    let name = format!("{}:{tag}{suffix}", reference.name());
    let too_long = |_| Error::InvalidOption {
        name: option.to_owned(),
        reason: format!(
            "several workers build, each with a cache of its own, and `{name}` is no name: take a shorter tag"
        ),
    };
    name.parse().map(Some).map_err(too_long)
}

fn other(kind: &str, attrs: &BTreeMap<String, String>, suffix: &str) -> Option<BTreeMap<String, String>> {
    let (_, key, default) = NAMES.into_iter().find(|(known, ..)| *known == kind)?;
    if attrs.contains_key("digest") {
        return None;
    }
    // S3 takes several names.
    let names = attrs.get(key).map_or(default, String::as_str).split(';').map(|name| format!("{name}{suffix}"));
    let mut attrs = attrs.clone();
    attrs.insert(key.to_owned(), names.collect::<Vec<_>>().join(";"));
    Some(attrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(name: &str) -> CacheSpec {
        CacheSpec::Registry(RegistryCache::at(name.parse().unwrap()))
    }

    fn other(kind: &str, attrs: &[(&str, &str)]) -> CacheSpec {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        CacheSpec::Other(kind.into(), attrs)
    }

    #[test]
    fn each_worker_writes_a_cache_of_its_own_and_reads_those_of_its_platforms() {
        let platforms: Vec<Platform> = ["linux/arm/v7", "linux/arm64"].map(|text| text.parse().unwrap()).into();
        let caches = || {
            vec![
                registry("r.io/cache"),
                CacheSpec::Image("r.io/cache:x".parse().unwrap()),
                other("inline", &[]),
                other("local", &[("dest", "d")]),
                other("s3", &[("name", "a;b")]),
            ]
        };
        let mut options = BuildOptions { cache_to: caches(), cache_from: caches(), ..BuildOptions::default() };
        write(&mut options, &platforms).unwrap();
        read(&mut options, &platforms).unwrap();
        assert_eq!(
            options.cache_to,
            [
                registry("r.io/cache:latest-linux-arm-v7"),
                CacheSpec::Image("r.io/cache:x-linux-arm-v7".parse().unwrap()),
                other("inline", &[]),
                other("local", &[("dest", "d"), ("tag", "latest-linux-arm-v7")]),
                other("s3", &[("name", "a-linux-arm-v7;b-linux-arm-v7")]),
            ]
        );
        assert_eq!(
            options.cache_from[..3],
            [
                registry("r.io/cache:latest-linux-arm-v7"),
                registry("r.io/cache:latest-linux-arm64"),
                registry("r.io/cache"),
            ]
        );
        assert_eq!(options.cache_from.len(), 3 * 4 + 1);
    }

    #[test]
    fn what_is_named_by_its_content_is_no_other_one_and_a_name_has_its_length() {
        let digest = format!("r.io/cache@sha256:{}", "0".repeat(64));
        let kept = vec![registry(&digest), other("local", &[("src", "d"), ("digest", "sha256:0")])];
        let platforms = ["linux/arm64".parse().unwrap()];
        let mut options = BuildOptions { cache_from: kept.clone(), ..BuildOptions::default() };
        read(&mut options, &platforms).unwrap();
        assert_eq!(options.cache_from, kept);
        options.cache_to = vec![registry(&format!("r.io/cache:{}", "t".repeat(120)))];
        assert_eq!(write(&mut options, &platforms).unwrap_err().code(), "invalid-option");
    }
}
