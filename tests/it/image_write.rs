//! Images that are written: what is in the files, and what is there when it fails.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Barrier;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::image::{ArchiveKind, Watch, write_archive, write_archive_to, write_layout};
use cooper::oci::media::{self, Compression, Family};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::image_support::{Sample, layer, listing, open, read, tree, watched};

const KINDS: [ArchiveKind; 2] = [ArchiveKind::Oci, ArchiveKind::Docker];

fn archive(sample: &Sample, kind: ArchiveKind) -> Vec<u8> {
    let mut out = Vec::new();
    watched(|watch| write_archive_to(sample.image(), kind, &mut out, watch)).unwrap();
    out
}

fn entry(archive: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut found = entries.find(|entry| entry.path_bytes() == name.as_bytes()).unwrap_or_else(|| panic!("no {name}"));
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut found, &mut bytes).unwrap();
    bytes
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn an_archive_is_listed() {
    let sample = Sample::new(&["app", "r.example:5000/a/b:v1"], &[(&layer("a", "a"), Compression::None)]);
    let written = archive(&sample, ArchiveKind::Docker);
    let manifest = sample.manifest_digest();
    let (config, layer) = (Digest::of(&sample.config), *sample.blobs.blobs.keys().next().unwrap());
    let mut blobs = [(manifest, sample.manifest.len()), (config, sample.config.len()), (layer, 2048)];
    blobs.sort_unstable();
    let mut expected = vec!["d 755 0 blobs/".to_owned(), "d 755 0 blobs/sha256/".to_owned()];
    expected.extend(blobs.iter().map(|(digest, size)| format!("- 444 {size} blobs/sha256/{}", digest.hex())));
    let index = entry(&written, "index.json");
    let docker = entry(&written, "manifest.json");
    expected.push(format!("- 644 {} index.json", index.len()));
    expected.push(format!("- 644 {} manifest.json", docker.len()));
    expected.push("- 444 30 oci-layout".into());
    assert_eq!(listing(&written), expected);
    assert_eq!(entry(&written, "oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#);
    let image = |name: &str, tag: &str| {
        json!({
            "mediaType": media::OCI_MANIFEST, "digest": manifest.to_string(), "size": sample.manifest.len(),
            "annotations": {
                "io.containerd.image.name": name,
                "org.opencontainers.image.created": "2024-05-06T07:08:09Z",
                "org.opencontainers.image.ref.name": tag,
            },
            "platform": {"architecture": "amd64", "os": "linux"},
        })
    };
    let manifests = [image("docker.io/library/app:latest", "latest"), image("r.example:5000/a/b:v1", "v1")];
    let expected = json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": manifests});
    assert_eq!(json_of(&index), expected);
    let path = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
    let item = json!({
        "Config": path(config), "RepoTags": ["app:latest", "r.example:5000/a/b:v1"], "Layers": [path(layer)]
    });
    assert_eq!(json_of(&docker), json!([item]));
}

#[test]
fn an_oci_archive_is_no_docker_archive() {
    let sample = Sample::new(&[], &[]);
    let written = archive(&sample, ArchiveKind::Oci);
    assert!(!listing(&written).iter().any(|line| line.contains("manifest.json")));
    let index = json_of(&entry(&written, "index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(index["manifests"][0]["annotations"].get("io.containerd.image.name"), None);
    let nameless = json_of(&entry(&archive(&sample, ArchiveKind::Docker), "manifest.json"));
    assert_eq!(nameless[0]["RepoTags"], Value::Null);
}

#[test]
fn equal_images_give_equal_bytes() {
    let contents = [layer("a", "a"), layer("b", "b")];
    let layers = [(contents[0].as_slice(), Compression::Gzip), (contents[1].as_slice(), Compression::Zstd)];
    for kind in KINDS {
        assert_eq!(archive(&Sample::new(&["a:1"], &layers), kind), archive(&Sample::new(&["a:1"], &layers), kind));
    }
}

#[test]
fn a_layer_that_old_dockers_cannot_load_is_unpacked() {
    let contents = [layer("a", "a"), layer("b", "b")];
    let layers = [(contents[0].as_slice(), Compression::Gzip), (contents[1].as_slice(), Compression::Zstd)];
    let sample = Sample::new(&["a:1"], &layers);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let written = watched(|watch| write_archive(sample.image(), ArchiveKind::Docker, &path, watch)).unwrap();
    assert_ne!(written.manifest.digest, sample.manifest_digest());
    let (opened, read) = read(&format!("docker-archive://{}:a:1", path.display())).unwrap();
    assert_eq!(opened.manifest_digest, written.manifest.digest);
    assert_eq!(opened.config_bytes, sample.config);
    let types: Vec<&str> = opened.manifest.layers.iter().map(|layer| layer.media_type.as_str()).collect();
    assert_eq!(types, [media::OCI_LAYER_GZIP, media::OCI_LAYER]);
    assert_eq!(opened.manifest.layers[1].digest, Digest::of(&contents[1]));
    assert_eq!(read[1], contents[1]);
    // As an OCI image it stays as it is.
    let oci = archive(&sample, ArchiveKind::Oci);
    assert_eq!(json_of(&entry(&oci, "index.json"))["manifests"][0]["digest"], sample.manifest_digest().to_string());
}

#[test]
fn a_layer_that_holds_something_else_is_not_unpacked() {
    let mut sample = Sample::new(&[], &[(b"one", Compression::Zstd)]);
    let other = Sample::new(&[], &[(b"two", Compression::Zstd)]);
    // The manifest of the one, the configuration of the other: consistent, but for what is in the layer.
    let manifest = String::from_utf8(sample.manifest.clone()).unwrap();
    let (ours, theirs) = (Digest::of(&sample.config).to_string(), Digest::of(&other.config).to_string());
    sample.manifest = manifest.replace(&ours, &theirs).into_bytes();
    sample.config.clone_from(&other.config);
    let mut out = Vec::new();
    let write = |watch: Watch<'_>| write_archive_to(sample.image(), ArchiveKind::Docker, &mut out, watch);
    assert_eq!(watched(write).unwrap_err().code(), "image-invalid");
    assert!(out.is_empty());
}

#[test]
fn a_layout_is_in_oci_s_words() {
    let content = layer("a", "a");
    let layers = [(content.as_slice(), Compression::None), (content.as_slice(), Compression::Gzip)];
    let sample = Sample::of(Family::Docker, &["a:1"], &layers);
    let foreign = media::DOCKER_LAYER_GZIP.replace("rootfs", "rootfs.foreign");
    let mut manifest = json_of(&sample.manifest);
    manifest["layers"][1]["mediaType"] = json!(foreign);
    let sample = Sample { manifest: manifest.to_string().into_bytes(), ..sample };
    let written = archive(&sample, ArchiveKind::Oci);
    let descriptor = &json_of(&entry(&written, "index.json"))["manifests"][0];
    assert_eq!(descriptor["mediaType"], media::OCI_MANIFEST);
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let found = json_of(&entry(&written, &format!("blobs/sha256/{digest}")));
    assert_eq!(found["mediaType"], media::OCI_MANIFEST);
    assert_eq!(found["config"]["mediaType"], media::OCI_CONFIG);
    assert_eq!(found["config"]["digest"], Digest::of(&sample.config).to_string());
    assert_eq!(found["layers"][0]["mediaType"], media::OCI_LAYER);
    assert_eq!(found["layers"][1]["mediaType"], "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    // A Docker archive keeps Docker's.
    let kept = json_of(&entry(&archive(&sample, ArchiveKind::Docker), "index.json"));
    assert_eq!(kept["manifests"][0]["digest"], sample.manifest_digest().to_string());
}

#[test]
fn layouts_keep_other_images() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/er");
    let text = |selector: &str| format!("oci-layout://{}{selector}", root.display());
    let put = |sample: &Sample| watched(|watch| write_layout(sample.image(), &root, watch)).unwrap();
    let (base, one, two) = (layer("base", ""), layer("1", ""), layer("2", ""));
    let sample = |name: &str, top: &[u8]| Sample::new(&[name], &[(&base, Compression::Gzip), (top, Compression::Gzip)]);
    let (first, second) = (sample("a:1", &one), sample("b:1", &two));
    put(&first);
    assert_eq!(open(&text("")).unwrap().manifest_digest, first.manifest_digest());
    put(&second);
    for (name, sample) in [(":a:1", &first), (":b:1", &second), (":docker.io/library/b:1", &second)] {
        assert_eq!(open(&text(name)).unwrap().manifest_digest, sample.manifest_digest(), "{name}");
    }
    let several = open(&text("")).unwrap_err();
    assert_eq!(several.code(), "invalid-option");
    assert!(several.to_string().contains("library/a:1, docker.io/library/b:1"), "{several}");
    let replaced = sample("a:1", &two);
    assert_eq!(replaced.manifest_digest(), second.manifest_digest());
    put(&replaced);
    assert_eq!(open(&text(":a:1")).unwrap().manifest_digest, second.manifest_digest());
    let index = json_of(&fs::read(root.join("index.json")).unwrap());
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    // The old image is not listed any more; its blobs are there.
    let old = open(&text(&format!("@{}", first.manifest_digest()))).unwrap();
    assert_eq!(old.config_bytes, first.config);
    assert!(tree(&root).keys().all(|path| !path.contains("partial") && !path.contains("lock")));
}

#[test]
fn a_blob_that_is_there_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let content = layer("a", "a");
    let sample = Sample::new(&["a:1"], &[(&content, Compression::None)]);
    let put = || watched(|watch| write_layout(sample.image(), dir.path(), watch)).unwrap();
    put();
    sample.blobs.opened.lock().unwrap().clear();
    put();
    assert!(sample.blobs.opened.lock().unwrap().is_empty(), "a good blob was written again");
    let blob = dir.path().join(format!("blobs/sha256/{}", Digest::of(&content).hex()));
    fs::write(&blob, vec![b'x'; content.len()]).unwrap();
    put();
    assert_eq!(fs::read(blob).unwrap(), content);
}

#[test]
fn several_write_to_one_layout() {
    const WRITERS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("layout");
    let base = layer("base", "");
    let start = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let (root, base, start) = (&root, &base, &start);
            scope.spawn(move || {
                let own = layer(&format!("{number}"), "");
                let layers = [(base.as_slice(), Compression::Gzip), (own.as_slice(), Compression::Gzip)];
                let sample = Sample::new(&[&format!("app:{number}")], &layers);
                start.wait();
                watched(|watch| write_layout(sample.image(), root, watch)).unwrap();
            });
        }
    });
    for number in 0..WRITERS {
        let (_, layers) = read(&format!("oci-layout://{}:app:{number}", root.display())).unwrap();
        assert_eq!(layers.len(), 2);
    }
}

/// An image whose second layer is not what it should be.
fn damaged() -> Sample {
    let (good, bad) = (layer("good", ""), layer("bad", ""));
    let mut sample = Sample::new(&["a:1"], &[(&good, Compression::None), (&bad, Compression::None)]);
    let blob = sample.blobs.blobs.get_mut(&Digest::of(&bad)).unwrap();
    *blob.last_mut().unwrap() ^= 1;
    sample
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let sample = damaged();
    let layout = dir.path().join("x/layout");
    assert_eq!(watched(|watch| write_layout(sample.image(), &layout, watch)).unwrap_err().code(), "image-invalid");
    for kind in KINDS {
        let path = dir.path().join("image.tar");
        assert_eq!(
            watched(|watch| write_archive(sample.image(), kind, &path, watch)).unwrap_err().code(),
            "image-invalid"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // What is there stays.
    let good = Sample::new(&["a:1"], &[]);
    watched(|watch| write_layout(good.image(), &layout, watch)).unwrap();
    let path = dir.path().join("image.tar");
    watched(|watch| write_archive(good.image(), ArchiveKind::Oci, &path, watch)).unwrap();
    let before = tree(dir.path());
    watched(|watch| write_layout(sample.image(), &layout, watch)).unwrap_err();
    watched(|watch| write_archive(sample.image(), ArchiveKind::Oci, &path, watch)).unwrap_err();
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn layouts_of_another_kind_are_left_alone() {
    let sample = Sample::new(&["a:1"], &[]);
    for (name, content) in
        [("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#), ("oci-layout", "x"), ("index.json", "{")]
    {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        let before = tree(dir.path());
        let error = watched(|watch| write_layout(sample.image(), dir.path(), watch)).unwrap_err();
        assert_eq!(error.code(), "image-invalid", "{content}");
        assert_eq!(tree(dir.path()), before);
    }
}

#[test]
fn what_cannot_be_written_says_so() {
    let sample = Sample::new(&["a:1"], &[(b"x", Compression::None)]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("below");
    assert_eq!(watched(|watch| write_layout(sample.image(), &file, watch)).unwrap_err().code(), "output-failed");
    assert_eq!(watched(|watch| write_layout(sample.image(), &below, watch)).unwrap_err().code(), "output-failed");
    for (path, code) in
        [(below.as_path(), "output-failed"), (dir.path(), "output-failed"), (Path::new("/dev/full"), "no-space")]
    {
        let error = watched(|watch| write_archive(sample.image(), ArchiveKind::Oci, path, watch)).unwrap_err();
        assert_eq!(error.code(), code, "{}", path.display());
    }
    assert_eq!(fs::read(&file).unwrap(), b"");
}

#[test]
fn progress_ends_at_the_whole_and_cancelling_stops() {
    let content = vec![7; 3 << 20];
    let sample = Sample::new(&["a:1"], &[(&content, Compression::None)]);
    let dir = tempfile::tempdir().unwrap();
    let seen = RefCell::new(Vec::new());
    let cancel = Cancel::new();
    let progress = |done, total| seen.borrow_mut().push((done, total));
    let watch = Watch { cancel: &cancel, progress: &progress };
    let written = write_archive(sample.image(), ArchiveKind::Docker, &dir.path().join("a"), watch).unwrap();
    let seen = seen.into_inner();
    assert!(seen.is_sorted() && seen.len() > 10, "{seen:?}");
    assert_eq!(seen.last(), Some(&(written.bytes, written.bytes)));
    fs::remove_file(dir.path().join("a")).unwrap();

    let stop = |done: u64, _| {
        if done > 1 << 20 {
            cancel.cancel();
        }
    };
    let watch = Watch { cancel: &cancel, progress: &stop };
    let error = write_archive(sample.image(), ArchiveKind::Oci, &dir.path().join("a"), watch).unwrap_err();
    assert_eq!(error.code(), "interrupted");
    assert_eq!(write_layout(sample.image(), &dir.path().join("b"), watch).unwrap_err().code(), "interrupted");
    let cancel = Cancel::new();
    let stop = |done: u64, _| {
        if done > 1 << 20 {
            cancel.cancel();
        }
    };
    let watch = Watch { cancel: &cancel, progress: &stop };
    assert_eq!(write_layout(sample.image(), &dir.path().join("b"), watch).unwrap_err().code(), "interrupted");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        layers in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..2000), 0..3u8), 0..4),
        docker in any::<bool>(),
    ) {
        let compression = |number: &u8| [Compression::None, Compression::Gzip, Compression::Zstd][usize::from(*number)];
        let family = if docker { Family::Docker } else { Family::Oci };
        let packed: Vec<(&[u8], Compression)> =
            layers.iter().map(|(content, number)| (content.as_slice(), compression(number))).collect();
        let sample = Sample::of(family, &["r.example/a:1"], &packed);
        let dir = tempfile::tempdir().unwrap();
        let (layout, tar) = (dir.path().join("layout"), dir.path().join("image.tar"));
        watched(|watch| write_layout(sample.image(), &layout, watch)).unwrap();
        let places = [format!("oci-layout://{}", layout.display()), format!("oci-archive://{}:1", tar.display())];
        watched(|watch| write_archive(sample.image(), ArchiveKind::Oci, &tar, watch)).unwrap();
        for place in places {
            let (opened, read) = read(&place).unwrap();
            prop_assert_eq!(docker, opened.manifest_bytes != sample.manifest);
            prop_assert_eq!(opened.manifest.family(), Family::Oci);
            prop_assert_eq!(&opened.config_bytes, &sample.config);
            let expected: Vec<&Vec<u8>> =
                opened.manifest.layers.iter().map(|layer| &sample.blobs.blobs[&layer.digest]).collect();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        }
        watched(|watch| write_archive(sample.image(), ArchiveKind::Docker, &tar, watch)).unwrap();
        let (opened, read) = read(&format!("docker-archive://{}:r.example/a:1", tar.display())).unwrap();
        prop_assert_eq!(&opened.config_bytes, &sample.config);
        prop_assert_eq!(read.len(), layers.len());
    }
}
