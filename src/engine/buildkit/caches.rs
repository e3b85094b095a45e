//! Caches and base images in directories of this machine, which the session serves to the worker.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::worker::Ready;
use crate::buildkit::attrs::BuildkitVersion;
use crate::buildkit::content::Stores;
use crate::buildkit::content_store::Store;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::image::{self, Place, Scheme};
use crate::oci::Descriptor;
use crate::platform::Platform;
use crate::request::{BuildOptions, CacheSpec, Job};

/// The kind of a cache in a directory.
const LOCAL: &str = "local";
/// The tag of a cache that has no other, as in BuildKit's own client.
const LATEST: &str = "latest";
/// What BuildKit's exporter of such caches takes, and what is ours.
const EXPORT: [&str; 9] = [
    "dest",
    "tag",
    "mode",
    "ignore-error",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
];
const IMPORT: [&str; 3] = ["src", "tag", "digest"];
/// Images in directories can be named contexts since.
const LAYOUTS: BuildkitVersion = BuildkitVersion::v0(11);
/// What the worker calls the cache that it has written.
const WRITTEN: &str = "cache.manifest";

/// The options as the worker gets them, and what it may then ask for.
pub(super) struct Caches {
    pub(super) options: BuildOptions,
    pub(super) stores: Stores,
    /// Directories that get a cache, and the tags that it gets there.
    written: Vec<(PathBuf, String)>,
}

impl Caches {
    /// Looks into the directories that the options name. A cache that is not there yet is told, and left out.
    ///
    /// Fails with `InvalidOption`, with `ImageInvalid` where a directory is damaged, and as [`image::named`] does.
    pub(super) async fn open(options: &BuildOptions, ready: &Ready, job: &Job) -> Result<Self> {
        let is_layout = |source: &String| source.starts_with("oci-layout://");
        if ready.version < LAYOUTS && options.build_contexts.values().any(is_layout) {
            return Err(Error::Unsupported {
                engine: "the BuildKit engine".into(),
                feature: "use an OCI layout as a build context".into(),
                reason: format!("it needs BuildKit 0.11, the worker has {}", ready.version_text()),
            });
        }
        let platform = options.platforms.first().or_else(|| ready.platforms().first()).cloned();
        let platform = platform.unwrap_or_else(Platform::of_containers);
        let (options, cancel) = (options.clone(), job.cancel.clone());
        let (caches, missing) = blocking(move || Self::look(options, &platform, &cancel)).await?;
        for place in missing {
            job.events.send(Event::Notice { message: format!("there is no cache at {place} yet") }).await;
        }
        Ok(caches)
    }

    fn look(options: BuildOptions, platform: &Platform, cancel: &Cancel) -> Result<(Self, Vec<String>)> {
        let mut caches = Self { options, stores: Stores::new(), written: Vec::new() };
        let (mut missing, mut found) = (BTreeSet::new(), BTreeSet::new());
        let exports = std::mem::take(&mut caches.options.cache_to);
        for cache in exports {
            let cache = caches.export(cache)?;
            caches.options.cache_to.push(cache);
        }
        let imports = std::mem::take(&mut caches.options.cache_from);
        for cache in imports {
            let root = place_of(&cache);
            match caches.import(cache, cancel)? {
                Some(cache) => {
                    caches.options.cache_from.push(cache);
                    found.extend(root);
                }
                None => missing.extend(root),
            }
        }
        let mut contexts = std::mem::take(&mut caches.options.build_contexts);
        for source in contexts.values_mut() {
            if let Some(place) = Place::parse(source)?.filter(|place| place.scheme == Scheme::OciLayout) {
                *source = caches.layout(&place, platform, cancel)?;
            }
        }
        caches.options.build_contexts = contexts;
        Ok((caches, missing.difference(&found).cloned().collect()))
    }

    fn export(&mut self, cache: CacheSpec) -> Result<CacheSpec> {
        let CacheSpec::Other(kind, mut attrs) = cache else { return Ok(cache) };
        if kind != LOCAL {
            return Ok(CacheSpec::Other(kind, attrs));
        }
        let root = directory("cache-to", "dest", &EXPORT, &mut attrs)?;
        let tag = attrs.get("tag").map_or(LATEST, String::as_str).to_owned();
        let id = store_id("local:", &attrs["dest"]);
        self.stores.insert(id, Arc::new(Store::to_write(root.clone())));
        self.written.push((root, tag));
        Ok(CacheSpec::Other(kind, attrs))
    }

    /// `None` where there is no cache.
    fn import(&mut self, cache: CacheSpec, cancel: &Cancel) -> Result<Option<CacheSpec>> {
        let CacheSpec::Other(kind, mut attrs) = cache else { return Ok(Some(cache)) };
        if kind != LOCAL {
            return Ok(Some(CacheSpec::Other(kind, attrs)));
        }
        let root = directory("cache-from", "src", &IMPORT, &mut attrs)?;
        let digest = match attrs.get("digest") {
            Some(digest) => Some(digest.parse().map_err(|_| invalid("cache-from", "`digest` is no sha256 digest"))?),
            None => image::tagged(&root, attrs.get("tag").map_or(LATEST, String::as_str), cancel)?,
        };
        let is_there = |digest: &Digest| root.join("blobs/sha256").join(digest.hex()).is_file();
        let Some(digest) = digest.filter(is_there) else { return Ok(None) };
        attrs.insert("digest".into(), digest.to_string());
        let id = store_id("local:", &attrs["src"]);
        // One that is written to as well can be read.
        self.stores.entry(id).or_insert_with(|| Arc::new(Store::to_read(root)));
        Ok(Some(CacheSpec::Other(kind, attrs)))
    }

    /// The source of a named context, as the frontend takes it: a store, and a digest in it.
    fn layout(&mut self, place: &Place, platform: &Platform, cancel: &Cancel) -> Result<String> {
        let digest = image::named(place, platform, cancel)?;
        let root = absolute(&place.path);
        // It has to be a name that an image could have.
        let name = format!("layout-{}", &Digest::of(root.as_os_str().as_encoded_bytes()).hex()[..16]);
        self.stores.insert(format!("oci:{name}"), Arc::new(Store::to_read(root)));
        Ok(format!("oci-layout://{name}@{digest}"))
    }

    /// Puts what the worker has written into the lists of the directories. Without that, nobody would find it.
    pub(super) async fn keep(self, response: &BTreeMap<String, String>, job: &Job) -> Result<()> {
        let Some(descriptor) = response.get(WRITTEN).filter(|_| !self.written.is_empty()) else { return Ok(()) };
        let wrong = |error: serde_json::Error| Error::DaemonProtocol {
            action: "the export of a cache".into(),
            reason: format!("`{WRITTEN}` is no descriptor: {error}"),
        };
        let descriptor: Descriptor = serde_json::from_str(descriptor).map_err(wrong)?;
        let (written, cancel) = (self.written, job.cancel.clone());
        let left_out = blocking(move || list(&written, &descriptor, &cancel)).await?;
        for root in left_out {
            // Of several caches, the worker tells one.
            let message = format!("the cache in {} was not written; write one cache in each build", root.display());
            job.events.send(Event::Warning { code: "cache-not-written".into(), message }).await;
        }
        Ok(())
    }
}

/// The result is where the cache is not.
fn list(written: &[(PathBuf, String)], descriptor: &Descriptor, cancel: &Cancel) -> Result<Vec<PathBuf>> {
    let mut left_out = Vec::new();
    for (root, tag) in written {
        if root.join("blobs/sha256").join(descriptor.digest.hex()).is_file() {
            image::tag(root, descriptor.clone(), tag, cancel)?;
        } else {
            left_out.push(root.clone());
        }
    }
    Ok(left_out)
}

/// The directory of a cache that is in one, for people.
fn place_of(cache: &CacheSpec) -> Option<String> {
    let CacheSpec::Other(kind, attrs) = cache else { return None };
    let place = attrs.get("src").filter(|_| kind == LOCAL)?;
    Some(absolute(Path::new(place)).display().to_string())
}

fn invalid(option: &str, reason: impl Into<String>) -> Error {
    Error::InvalidOption { name: option.into(), reason: reason.into() }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The directory of a cache. The worker gets its name as a header can carry it.
fn directory(option: &str, key: &str, known: &[&str], attrs: &mut BTreeMap<String, String>) -> Result<PathBuf> {
    if let Some(unknown) = attrs.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(invalid(option, format!("type=local knows no `{unknown}`; it knows {}", known.join(", "))));
    }
    match attrs.entry(key.to_owned()) {
        Entry::Occupied(mut place) if !place.get().is_empty() => {
            let root = absolute(Path::new(place.get()));
            place.insert(printable(&root));
            Ok(root)
        }
        _ => Err(invalid(option, format!("type=local needs `{key}`, a directory"))),
    }
}

fn store_id(prefix: &str, place: &str) -> String {
    format!("{prefix}{place}")
}

/// A path in letters that a header can carry.
fn printable(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02x}");
            }
            byte => text.push(char::from(*byte)),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media;

    fn local(attrs: &[(&str, &str)]) -> CacheSpec {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        CacheSpec::Other(LOCAL.into(), attrs)
    }

    fn look(options: BuildOptions) -> Result<(Caches, Vec<String>)> {
        Caches::look(options, &"linux/amd64".parse().unwrap(), &Cancel::new())
    }

    fn entry(cache: &CacheSpec) -> BTreeMap<String, String> {
        cache.entry().1
    }

    #[test]
    fn a_cache_is_found_by_its_tag_once_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a b");
        let options = || BuildOptions {
            cache_to: vec![local(&[("dest", root.to_str().unwrap()), ("tag", "t")])],
            cache_from: vec![local(&[("src", root.to_str().unwrap()), ("tag", "t")])],
            ..BuildOptions::default()
        };
        let (caches, missing) = look(options()).unwrap();
        assert_eq!((caches.options.cache_from.len(), missing), (0, vec![root.display().to_string()]));
        let id = entry(&caches.options.cache_to[0])["dest"].clone();
        assert!(id.ends_with("/a%20b") && caches.stores.contains_key(&format!("local:{id}")), "{id}");
        let descriptor = Descriptor::of(media::OCI_MANIFEST, b"cache");
        let written = [(root.clone(), "t".to_owned())];
        assert_eq!(list(&written, &descriptor, &Cancel::new()).unwrap(), vec![root.clone()]);
        std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
        std::fs::write(root.join("blobs/sha256").join(descriptor.digest.hex()), "cache").unwrap();
        assert!(list(&written, &descriptor, &Cancel::new()).unwrap().is_empty());
        let (caches, missing) = look(options()).unwrap();
        assert!(missing.is_empty());
        assert_eq!(entry(&caches.options.cache_from[0])["digest"], descriptor.digest.to_string());
        assert_eq!(caches.stores.len(), 1);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for attrs in [&[][..], &[("dest", "")], &[("dest", "x"), ("reset", "true")], &[("src", "x")]] {
            let options = BuildOptions { cache_to: vec![local(attrs)], ..BuildOptions::default() };
            assert_eq!(look(options).err().map(|error| error.code()), Some("invalid-option"), "{attrs:?}");
        }
        for attrs in [&[][..], &[("src", "x"), ("digest", "y")], &[("src", "x"), ("mode", "max")]] {
            let options = BuildOptions { cache_from: vec![local(attrs)], ..BuildOptions::default() };
            assert_eq!(look(options).err().map(|error| error.code()), Some("invalid-option"), "{attrs:?}");
        }
        let kept = [CacheSpec::Image("a".parse().unwrap()), CacheSpec::Other("gha".into(), BTreeMap::new())];
        let options = BuildOptions { cache_from: kept.to_vec(), cache_to: kept.to_vec(), ..BuildOptions::default() };
        let (caches, _) = look(options).unwrap();
        assert_eq!((caches.options.cache_from, caches.options.cache_to), (kept.to_vec(), kept.to_vec()));
    }

    #[test]
    fn an_image_in_a_layout_is_a_store_and_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let descriptor = Descriptor::of(media::OCI_MANIFEST, b"x");
        image::tag(folder.path(), descriptor.clone(), "1", &Cancel::new()).unwrap();
        let source = format!("oci-layout://{}:1", folder.path().display());
        let build_contexts = [("base".to_owned(), source), ("other".to_owned(), "docker-image://a".to_owned())].into();
        let (caches, _) = look(BuildOptions { build_contexts, ..BuildOptions::default() }).unwrap();
        let source = &caches.options.build_contexts["base"];
        let (name, digest) = source.strip_prefix("oci-layout://").unwrap().split_once('@').unwrap();
        assert_eq!(digest, descriptor.digest.to_string());
        assert!(caches.stores.contains_key(&format!("oci:{name}")));
        assert_eq!(caches.options.build_contexts["other"], "docker-image://a");
    }
}
