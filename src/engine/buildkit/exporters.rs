//! What BuildKit is asked to make of a result: images that it pushes, and attributes of layers and manifests.

use std::collections::{BTreeMap, BTreeSet};

use crate::buildkit::Exporter;
use crate::buildkit::attrs::BuildkitVersion;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::request::{BuildOptions, CompressionAlgorithm, CompressionSpec};

/// The highest level of gzip that Go's library has; ours has more.
const HIGHEST_GZIP: i32 = 9;
/// `rewrite-timestamp` is there since.
const REWRITES_TIMES: BuildkitVersion = BuildkitVersion::v0(13);

/// The exporter that pushes to a registry, under all names at once.
pub(super) fn push(tags: &[Reference], options: &BuildOptions, version: BuildkitVersion) -> Result<Exporter> {
    let mut exporter = store(tags, options, version)?;
    exporter.attrs.insert("push".into(), "true".into());
    Ok(exporter)
}

/// The exporter that keeps the image with the worker.
pub(super) fn store(tags: &[Reference], options: &BuildOptions, version: BuildkitVersion) -> Result<Exporter> {
    let attrs = image(options, version)?;
    Ok(named("image", attrs, tags))
}

/// The exporter that sends an OCI layout as an archive. Its media types are OCI's, whatever else the image has elsewhere.
pub(super) fn oci(tags: &[Reference], options: &BuildOptions, version: BuildkitVersion) -> Result<Exporter> {
    let options = BuildOptions { oci_media_types: Some(true), ..options.clone() };
    let attrs = image(&options, version)?;
    Ok(named("oci", attrs, tags))
}

/// The exporter that sends an archive for `docker load`. It has Docker's media types, and so no annotations; layers of
/// Zstandard, which Docker before 23 cannot load, are sent uncompressed.
pub(super) fn docker(tags: &[Reference], options: &BuildOptions, version: BuildkitVersion) -> Result<Exporter> {
    let is_zstd = |compression: &CompressionSpec| compression.algorithm == CompressionAlgorithm::Zstd;
    let is_unpacked = options.compression.as_ref().is_some_and(is_zstd);
    let compression = options.compression.filter(|_| !is_unpacked);
    let options =
        BuildOptions { oci_media_types: Some(false), annotations: BTreeMap::new(), compression, ..options.clone() };
    let mut attrs = image(&options, version)?;
    if is_unpacked {
        attrs.insert("compression".into(), "uncompressed".into());
        attrs.insert("force-compression".into(), "true".into());
    }
    Ok(named("docker", attrs, tags))
}

fn named(kind: &str, mut attrs: BTreeMap<String, String>, tags: &[Reference]) -> Exporter {
    if !tags.is_empty() {
        attrs.insert("name".into(), tags.iter().map(full_name).collect::<Vec<_>>().join(","));
    }
    Exporter { kind: kind.into(), attrs, target: None }
}

/// The same without a tag: the image has its digest only, for an index that is made of several.
pub(super) fn push_by_digest(tags: &[Reference], options: &BuildOptions, version: BuildkitVersion) -> Result<Exporter> {
    let mut exporter = push(tags, options, version)?;
    let repositories: BTreeSet<String> = tags.iter().map(Reference::name).collect();
    exporter.attrs.insert("name".into(), repositories.into_iter().collect::<Vec<_>>().join(","));
    exporter.attrs.insert("push-by-digest".into(), "true".into());
    Ok(exporter)
}

/// `repository:tag`, with the tag that is meant where there is none.
pub(super) fn full_name(tag: &Reference) -> String {
    format!("{}:{}", tag.name(), tag.tag_or_latest().unwrap_or("latest"))
}

/// What all image exporters are told: media types and compression always, so that no default of a worker matters.
pub(super) fn image(options: &BuildOptions, version: BuildkitVersion) -> Result<BTreeMap<String, String>> {
    let mut attrs = options.annotations.clone();
    let (algorithm, level) = match options.compression {
        None => (CompressionAlgorithm::Gzip, None),
        Some(compression) => (compression.algorithm, compression.level),
    };
    let name = match algorithm {
        CompressionAlgorithm::Gzip => "gzip",
        CompressionAlgorithm::Zstd => "zstd",
    };
    if algorithm == CompressionAlgorithm::Gzip && level.is_some_and(|level| level > HIGHEST_GZIP) {
        let reason = format!("BuildKit's gzip has levels from 1 to {HIGHEST_GZIP}");
        return Err(Error::InvalidOption { name: "compression".into(), reason });
    }
    attrs.insert("compression".into(), name.into());
    if let Some(level) = level {
        attrs.insert("compression-level".into(), level.to_string());
    }
    attrs.insert("force-compression".into(), options.force_compression.unwrap_or(false).to_string());
    attrs.insert("oci-mediatypes".into(), oci_media_types(options, algorithm)?.to_string());
    if options.source_date_epoch.is_some() && version >= REWRITES_TIMES {
        // The build argument sets the times of the image alone; this one those of its files as well.
        attrs.insert("rewrite-timestamp".into(), "true".into());
    }
    Ok(attrs)
}

/// Docker's media types where any will do: every registry and every service takes them. What only OCI's can say needs those.
fn oci_media_types(options: &BuildOptions, algorithm: CompressionAlgorithm) -> Result<bool> {
    let needs = [
        ("layers of zstd", algorithm == CompressionAlgorithm::Zstd),
        ("annotations", !options.annotations.is_empty()),
        ("attestations", !options.attestations.is_empty()),
    ];
    let needs = needs.iter().find(|(_, given)| *given).map(|(what, _)| *what);
    match (options.oci_media_types, needs) {
        (Some(false), Some(what)) => {
            let reason = format!("{what} exist with OCI's media types only");
            Err(Error::InvalidOption { name: "oci-mediatypes".into(), reason })
        }
        (given, needs) => Ok(given.unwrap_or(needs.is_some())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: BuildkitVersion = BuildkitVersion::v0(20);

    fn zstd(level: Option<i32>) -> CompressionSpec {
        CompressionSpec { algorithm: CompressionAlgorithm::Zstd, level }
    }

    #[test]
    fn media_types_and_compression_are_always_said() {
        let tags = ["localhost:5000/a".parse().unwrap(), "b:2".parse().unwrap()];
        let exporter = push(&tags, &BuildOptions::default(), NEW).unwrap();
        let expected = [
            ("compression", "gzip"),
            ("force-compression", "false"),
            ("name", "localhost:5000/a:latest,b:2"),
            ("oci-mediatypes", "false"),
            ("push", "true"),
        ];
        let found: Vec<_> = exporter.attrs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!((exporter.kind.as_str(), found.as_slice()), ("image", expected.as_slice()));
        let options =
            BuildOptions { compression: Some(zstd(Some(5))), source_date_epoch: Some(0), ..BuildOptions::default() };
        let attrs = image(&options, NEW).unwrap();
        assert_eq!((attrs["compression"].as_str(), attrs["compression-level"].as_str()), ("zstd", "5"));
        assert_eq!((attrs["oci-mediatypes"].as_str(), attrs["rewrite-timestamp"].as_str()), ("true", "true"));
        assert!(!image(&options, BuildkitVersion::v0(12)).unwrap().contains_key("rewrite-timestamp"));
    }

    #[test]
    fn archives_have_the_media_types_that_their_readers_want() {
        let annotations = [("annotation.a".to_owned(), "b".to_owned())].into();
        let options = BuildOptions { compression: Some(zstd(Some(3))), annotations, ..BuildOptions::default() };
        let (oci, docker) = (oci(&[], &options, NEW).unwrap(), docker(&[], &options, NEW).unwrap());
        let of = |exporter: &Exporter, name: &str| exporter.attrs.get(name).cloned().unwrap_or_default();
        let all = ["oci-mediatypes", "compression", "compression-level", "annotation.a", "name"];
        assert_eq!(all.map(|name| of(&oci, name)), ["true", "zstd", "3", "b", ""]);
        assert_eq!(all.map(|name| of(&docker, name)), ["false", "uncompressed", "", "", ""]);
        assert_eq!((oci.kind.as_str(), docker.kind.as_str()), ("oci", "docker"));
        assert_eq!(of(&docker, "force-compression"), "true");
        let kept = store(&["a".parse().unwrap()], &BuildOptions::default(), NEW).unwrap();
        assert_eq!((of(&kept, "name").as_str(), of(&kept, "push").as_str()), ("docker.io/library/a:latest", ""));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let options =
            BuildOptions { compression: Some(zstd(None)), oci_media_types: Some(false), ..BuildOptions::default() };
        assert!(image(&options, NEW).unwrap_err().to_string().contains("zstd"));
        let gzip = CompressionSpec { algorithm: CompressionAlgorithm::Gzip, level: Some(12) };
        let options = BuildOptions { compression: Some(gzip), ..BuildOptions::default() };
        assert!(image(&options, NEW).unwrap_err().to_string().contains("1 to 9"));
    }
}
