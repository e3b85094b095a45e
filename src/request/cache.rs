//! Where the results of steps are kept besides the builder's own place (`--cache-from`, `--cache-to`).

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::reference::Reference;

/// A cache that is read, or written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheSpec {
    /// An image's name alone: the classic builder looks for such an image, for all others it means `type=registry`.
    Image(Reference),
    /// `type=registry`.
    Registry(RegistryCache),
    /// Another kind of BuildKit's, such as `inline` or `gha`, with its attributes.
    Other(String, BTreeMap<String, String>),
}

/// `type=registry,ref=REF[,mode=min|max][,ignore-error=true|false]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryCache {
    /// Where it is.
    pub reference: Reference,
    /// What is kept; `None` is [`CacheMode::Min`]. Means nothing where a cache is read.
    #[serde(default)]
    pub mode: Option<CacheMode>,
    /// A cache that cannot be written does not fail the build.
    #[serde(default)]
    pub ignore_error: bool,
    /// Other attributes, in BuildKit's words: `oci-mediatypes`, `image-manifest`, ...
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// Of which steps the results are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheMode {
    /// Those whose layers are in the image.
    Min,
    /// All, those of other stages included.
    Max,
}

impl RegistryCache {
    /// A cache of which only the place is known.
    pub const fn at(reference: Reference) -> Self {
        Self { reference, mode: None, ignore_error: false, attributes: BTreeMap::new() }
    }
}

impl CacheSpec {
    /// The cache in a registry that this one is, for builders that have no other.
    pub fn registry(&self) -> Option<RegistryCache> {
        match self {
            Self::Image(reference) => Some(RegistryCache::at(reference.clone())),
            Self::Registry(cache) => Some(cache.clone()),
            Self::Other(..) => None,
        }
    }

    /// BuildKit's name for its kind, and its attributes.
    pub fn entry(&self) -> (&str, BTreeMap<String, String>) {
        let cache = match self {
            Self::Other(kind, attributes) => return (kind, attributes.clone()),
            Self::Image(reference) => RegistryCache::at(reference.clone()),
            Self::Registry(cache) => cache.clone(),
        };
        let mut entry = cache.attributes;
        entry.insert("ref".into(), cache.reference.to_string());
        if let Some(mode) = cache.mode {
            entry.insert("mode".into(), mode.name().into());
        }
        if cache.ignore_error {
            entry.insert("ignore-error".into(), "true".into());
        }
        ("registry", entry)
    }
}

impl CacheMode {
    /// As the Docker CLI spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
        }
    }
}

impl fmt::Display for CacheSpec {
    /// As the Docker CLI takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Image(reference) = self {
            return reference.fmt(f);
        }
        let (kind, attributes) = self.entry();
        write!(f, "type={kind}")?;
        for (key, value) in attributes {
            let field = format!("{key}={value}");
            if field.contains([',', '"']) {
                write!(f, ",\"{}\"", field.replace('"', "\"\""))?;
            } else {
                write!(f, ",{field}")?;
            }
        }
        Ok(())
    }
}
