//! Manifests and indexes (OCI image spec, manifest.md and image-index.md; distribution's manifest-v2-2.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use super::media::{self, Family};
use crate::error::{Error, Result};
use crate::platform::Platform;

/// The manifest of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What this is; OCI's may leave it out.
    #[serde(default)]
    pub media_type: String,
    /// What an artifact is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// What this is; OCI's may leave it out.
    #[serde(default)]
    pub media_type: String,
    /// The images.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// Free text by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What stands behind a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An image.
    Manifest(Box<Manifest>),
    /// Several of them.
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index. `media_type` is what it was announced as; it has to agree with what it says of itself.
    ///
    /// Fails with `ImageInvalid`.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self> {
        let invalid = |reason: String| Error::ImageInvalid { what: "manifest".into(), reason };
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        let own = value.get("mediaType").and_then(|own| own.as_str()).unwrap_or_default();
        if value.get("schemaVersion").and_then(serde_json::Value::as_u64) != Some(2) {
            return Err(invalid("its schema version is not 2; push the image again with a current tool".into()));
        }
        let known = |text: &str| media::ACCEPT.contains(&text);
        if known(media_type) && known(own) && media_type != own {
            return Err(invalid(format!("it was announced as `{media_type}` and says that it is `{own}`")));
        }
        let has = |name: &str| value.get(name).is_some();
        if has("manifests") && (has("layers") || has("config")) {
            // CVE-2021-41190: what is both could be taken for either.
            return Err(invalid("it is a manifest and an index at once".into()));
        }
        let of = |text: &str| if known(own) { own.to_owned() } else { text.to_owned() };
        if has("manifests") {
            let mut index: Index = serde_json::from_value(value.clone()).map_err(|error| invalid(error.to_string()))?;
            index.media_type = of(if known(media_type) { media_type } else { media::OCI_INDEX });
            return Ok(Self::Index(index));
        }
        let mut manifest: Manifest =
            serde_json::from_value(value.clone()).map_err(|error| invalid(error.to_string()))?;
        manifest.media_type = of(if known(media_type) { media_type } else { media::OCI_MANIFEST });
        Ok(Self::Manifest(Box::new(manifest)))
    }
}

impl Manifest {
    /// A new one, of a family.
    pub fn new(family: Family, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: family.manifest().to_owned(),
            artifact_type: None,
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        Family::of_manifest(&self.media_type)
    }

    /// Its bytes.
    ///
    /// # Panics
    /// Never: it has nothing that JSON lacks.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is JSON")
    }
}

impl Index {
    /// A new one, in OCI's words.
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: media::OCI_INDEX.to_owned(), manifests, annotations: BTreeMap::new() }
    }

    /// The image for a platform: an equal one, or else one that the platform runs as well (containerd's
    /// `platforms.Only`: arm64 runs arm/v8, v7, v6, v5 in this order; an amd64 variant runs the lower ones).
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let wanted = runs(platform);
        let images = || self.manifests.iter().filter(|image| !is_attestation(image));
        let matching = wanted.iter().find_map(|wanted| {
            images()
                .find(|image| image.platform.as_ref().and_then(super::PlatformSpec::platform).as_ref() == Some(wanted))
        });
        // A single image without a platform is for whoever asks.
        let mut all = images();
        matching.or_else(|| match (all.next(), all.next()) {
            (Some(image), None) if image.platform.is_none() => Some(image),
            _ => None,
        })
    }

    /// The platforms that there are images for, for messages.
    pub fn platforms(&self) -> Vec<String> {
        let images = self.manifests.iter().filter(|image| !is_attestation(image));
        images.filter_map(|image| Some(image.platform.as_ref()?.platform()?.to_string())).collect()
    }

    /// Its bytes.
    ///
    /// # Panics
    /// Never: it has nothing that JSON lacks.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index is JSON")
    }
}

/// What BuildKit puts beside an image, for a platform of its own.
fn is_attestation(image: &Descriptor) -> bool {
    image.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
}

/// The platforms whose images run on one, the best first.
fn runs(platform: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: Option<&str>| Platform {
        os: platform.os.clone(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
    };
    let number = |text: &Option<String>| text.as_ref().and_then(|text| text.strip_prefix('v')?.parse::<u32>().ok());
    match (platform.architecture.as_str(), number(&platform.variant)) {
        ("arm64", variant) => {
            let mut all = vec![platform.clone()];
            if variant.is_some() {
                all.push(with("arm64", None));
            }
            all.extend((5..=8).rev().map(|variant| with("arm", Some(&format!("v{variant}")))));
            all
        }
        ("arm", Some(most)) => (5..=most).rev().map(|variant| with("arm", Some(&format!("v{variant}")))).collect(),
        ("amd64", Some(most)) => {
            let lower = (2..=most).rev().map(|variant| with("amd64", Some(&format!("v{variant}"))));
            lower.chain([with("amd64", None)]).collect()
        }
        _ => vec![platform.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::oci::PlatformSpec;

    fn image(platform: &str) -> Descriptor {
        let platform: Platform = platform.parse().unwrap();
        let digest = Digest::of(platform.to_string().as_bytes());
        let platform = Some(PlatformSpec::from(&platform));
        Descriptor { platform, ..Descriptor::new(media::OCI_MANIFEST, digest, 1) }
    }

    #[test]
    fn a_platform_takes_the_best_that_it_runs() {
        let index = Index::new(["linux/arm/v6", "linux/arm/v7", "linux/amd64", "windows/amd64"].map(image).to_vec());
        let select = |platform: &str| {
            let found = index.select(&platform.parse().unwrap())?;
            Some(found.platform.as_ref()?.platform()?.to_string())
        };
        assert_eq!(select("linux/amd64").unwrap(), "linux/amd64");
        assert_eq!(select("linux/amd64/v3").unwrap(), "linux/amd64");
        assert_eq!(select("linux/arm64").unwrap(), "linux/arm/v7");
        assert_eq!(select("linux/arm/v6").unwrap(), "linux/arm/v6");
        assert_eq!(select("linux/arm/v5"), None);
        assert_eq!(select("linux/s390x"), None);
    }

    #[test]
    fn what_is_two_things_at_once_is_refused() {
        let parse = |media_type: &str, text: &str| Document::parse(media_type, text.as_bytes());
        let digest = Digest::of(b"");
        let config = format!(r#""config": {{"mediaType": "x", "digest": "{digest}", "size": 0}}"#);
        let manifest = format!(r#"{{"schemaVersion": 2, {config}, "layers": []}}"#);
        let Ok(Document::Manifest(read)) = parse(media::DOCKER_MANIFEST, &manifest) else { panic!("a manifest") };
        assert_eq!(read.family(), Family::Docker);
        let both = format!(r#"{{"schemaVersion": 2, {config}, "layers": [], "manifests": []}}"#);
        assert_eq!(parse(media::OCI_MANIFEST, &both).unwrap_err().code(), "image-invalid");
        let other = format!(r#"{{"schemaVersion": 2, "mediaType": "{}", {config}}}"#, media::OCI_MANIFEST);
        assert!(parse(media::DOCKER_MANIFEST, &other).is_err());
        assert!(parse("", &other).is_ok());
        assert!(parse("", r#"{"schemaVersion": 1}"#).is_err());
    }
}
