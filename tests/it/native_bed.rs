//! Builds with the native engine into an OCI layout, and what is in the image then.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cooper::cancel::Cancel;
use cooper::engine::Engine as _;
use cooper::engine::native::NativeEngine;
use cooper::environment::Environment;
use cooper::error::Error;
use cooper::event::{Event, Events};
use cooper::oci::{Document, ImageConfig, Manifest};
use cooper::outcome::Outcome;
use cooper::registry::credentials::Anonymous;
use cooper::request::{BuildRequest, ContextSpec, Job, Output};
use tempfile::TempDir;

/// A context, a store and a place for images.
pub(crate) struct Bed {
    folder: TempDir,
}

/// An image, read back.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
    /// What is in the layers, in the words of `describe`, by layer.
    pub(crate) layers: Vec<Vec<String>>,
}

/// A build that is over.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) outcome: Outcome,
    pub(crate) image: Image,
}

impl Bed {
    /// A context with these files; directories end with `/`.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let bed = Self { folder: tempfile::tempdir().unwrap() };
        for (path, content) in files {
            bed.write(path, content);
        }
        bed
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.folder.path().join("context")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.context().join(path);
        if path.to_str().unwrap().ends_with('/') {
            return fs::create_dir_all(path).unwrap();
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What a build without options asks for: an OCI layout.
    pub(crate) fn request(&self) -> BuildRequest {
        let context = ContextSpec { root: Some(self.context()), ..ContextSpec::default() };
        let output = Output::Oci { dest: self.folder.path().join("image"), tar: None };
        BuildRequest { context, outputs: vec![output], ..BuildRequest::default() }
    }

    pub(crate) async fn build(&self) -> Done {
        self.build_with(|_| {}).await
    }

    /// Builds, with other options.
    pub(crate) async fn build_with(&self, change: impl FnOnce(&mut BuildRequest)) -> Done {
        self.attempt(change).await.0.unwrap()
    }

    /// Builds what must fail.
    pub(crate) async fn fail_with(&self, change: impl FnOnce(&mut BuildRequest)) -> Error {
        self.attempt(change).await.0.unwrap_err()
    }

    /// Builds, and says what was told.
    pub(crate) async fn build_and_tell(&self) -> Vec<Event> {
        let (outcome, events) = self.attempt(|_| {}).await;
        outcome.unwrap();
        events
    }

    /// Builds what must fail, and says what was told.
    pub(crate) async fn fail_and_tell(&self) -> (Error, Vec<Event>) {
        let (outcome, events) = self.attempt(|_| {}).await;
        (outcome.unwrap_err(), events)
    }

    pub(crate) async fn attempt(&self, change: impl FnOnce(&mut BuildRequest)) -> (Result<Done, Error>, Vec<Event>) {
        self.attempt_until(change, Cancel::new(), |_| {}).await
    }

    /// Builds; `watch` sees what is told as it is told.
    pub(crate) async fn attempt_until(
        &self,
        change: impl FnOnce(&mut BuildRequest),
        cancel: Cancel,
        mut watch: impl FnMut(&Event),
    ) -> (Result<Done, Error>, Vec<Event>) {
        let mut request = self.request();
        change(&mut request);
        let dest = self.folder.path().join("image");
        let _ = fs::remove_dir_all(&dest);
        let (events, mut receiver) = Events::channel();
        let job = Job { events, cancel, credentials: Arc::new(Anonymous) };
        let variables = [("COOPER_CACHE_DIR", self.store()), ("HOME", self.folder.path().to_owned())];
        let engine = NativeEngine::new(Environment::with(self.folder.path(), variables));
        let collect = async {
            let mut events = Vec::new();
            while let Some(event) = receiver.recv().await {
                watch(&event);
                events.push(event);
            }
            events
        };
        let build = async move {
            let outcome = engine.build(&request, &job).await;
            drop(job);
            outcome
        };
        let (outcome, events) = tokio::join!(build, collect);
        (outcome.map(|outcome| Done { image: read(&dest), outcome }), events)
    }
}

/// Reads the one image of a layout.
pub(crate) fn read(layout: &Path) -> Image {
    let blob = |digest: &cooper::digest::Digest| fs::read(layout.join("blobs/sha256").join(digest.hex())).unwrap();
    let Document::Index(index) = Document::parse("", &fs::read(layout.join("index.json")).unwrap()).unwrap() else {
        panic!("a layout has an index");
    };
    let [descriptor] = index.manifests.as_slice() else { panic!("one image") };
    let Document::Manifest(manifest) = Document::parse(&descriptor.media_type, &blob(&descriptor.digest)).unwrap()
    else {
        panic!("the image has a manifest");
    };
    let config = ImageConfig::parse(&blob(&manifest.config.digest)).unwrap();
    assert_eq!(manifest.layers.len(), config.rootfs.diff_ids.len());
    let mut layers = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        let bytes = blob(&layer.digest);
        assert_eq!((cooper::digest::Digest::of(&bytes), bytes.len() as u64), (layer.digest, layer.size));
        let mut tar = Vec::new();
        if layer.media_type.ends_with("gzip") {
            flate2::read::MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut tar).unwrap();
        } else {
            tar = zstd::stream::decode_all(bytes.as_slice()).unwrap();
        }
        assert_eq!(cooper::digest::Digest::of(&tar), *diff_id);
        layers.push(list(&tar));
    }
    Image { manifest: *manifest, config, layers }
}

/// `MODE UID:GID PATH[ -> TARGET][: CONTENT]`, in the order of the archive.
pub(crate) fn list(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let (mode, uid, gid) = (header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap());
        let link = entry.link_name_bytes().map(|target| format!(" -> {}", String::from_utf8_lossy(&target)));
        let mut content = String::new();
        // What is no text is not shown.
        let _ = entry.read_to_string(&mut content);
        let colon = if content.is_empty() { "" } else { ": " };
        format!("{mode:04o} {uid}:{gid} {path}{}{colon}{content}", link.unwrap_or_default())
    });
    entries.collect()
}

impl Done {
    /// Which steps came out of the cache, by their names.
    pub(crate) fn cached(&self) -> BTreeMap<&str, bool> {
        self.outcome.steps.iter().map(|step| (step.name.as_str(), step.cached)).collect()
    }
}
