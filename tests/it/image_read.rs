//! Images that others wrote, as base images.

use std::fs;
use std::path::{Path, PathBuf};

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::image::{self, Place};
use cooper::oci::media::{self, Compression};
use cooper::oci::{Descriptor, Index, PlatformSpec};
use serde_json::{Value, json};
use tar::EntryType;

use crate::image_support::{Archive, Sample, config, layer, open, pack, read, refusal, watched};

const LAYOUT: &str = r#"{"imageLayoutVersion": "1.0.0"}"#;

fn save(archive: Archive) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    archive.save(&path);
    (dir, path)
}

fn docker(path: &Path, selector: &str) -> String {
    format!("docker-archive://{}{selector}", path.display())
}

/// What Docker 1.10 to 24 saves: a directory for each layer, and links where two are the same.
fn old_docker(first: &[u8], second: &[u8]) -> (Archive, Vec<u8>) {
    let config = config(&[first, second, first]);
    let name = format!("{}.json", Digest::of(&config).hex());
    let item = json!({"Config": name, "RepoTags": ["app:1", "r.example/app:2"],
        "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"]});
    let archive = Archive::new()
        .entry(EntryType::Directory, "aa/", "", b"")
        .file("aa/VERSION", "1.0")
        .file("aa/json", "{}")
        .file("aa/layer.tar", first)
        .file("bb/layer.tar", second)
        .entry(EntryType::Symlink, "cc/layer.tar", "../aa/layer.tar", b"")
        .file(&name, &config)
        .json("manifest.json", &json!([item]))
        .json("repositories", &json!({"app": {"1": "cc"}}));
    (archive, config)
}

#[test]
fn archives_of_older_dockers_get_a_manifest() {
    let (first, second) = (layer("a", "a"), layer("b", "b"));
    let (archive, config) = old_docker(&first, &second);
    let (_dir, path) = save(archive);
    for selector in ["", ":app:1", ":docker.io/library/app:1", ":r.example/app:2"] {
        let (opened, layers) = read(&docker(&path, selector)).unwrap();
        assert_eq!(layers, [first.clone(), second.clone(), first.clone()], "{selector}");
        assert_eq!(opened.config_bytes, config);
        assert_eq!(opened.config.rootfs.diff_ids.len(), 3);
        assert_eq!(opened.manifest.media_type, media::DOCKER_MANIFEST);
        assert_eq!(opened.manifest.config, Descriptor::of(media::DOCKER_CONFIG, &config));
        assert_eq!(opened.manifest.layers[1], Descriptor::of(media::DOCKER_LAYER, &second));
        assert_eq!(opened.manifest_digest, Digest::of(&opened.manifest_bytes));
    }
    let id = docker(&path, &format!("@{}", Digest::of(&config)));
    assert_eq!(read(&id).unwrap().1.len(), 3);
    let (code, text) = refusal(&docker(&path, ":other"));
    assert_eq!(code, "invalid-option");
    assert!(text.contains("app:1"), "{text}");
    assert_eq!(refusal(&docker(&path, &format!("@{}", Digest::of(b"")))).0, "invalid-option");
}

#[test]
fn compressed_archives_are_unpacked() {
    let (first, second) = (layer("a", "a"), layer("b", "b"));
    let bytes = old_docker(&first, &second).0.bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar.gz");
    let mut halves = pack(&bytes[..1000], Compression::Gzip);
    halves.extend(pack(&bytes[1000..], Compression::Gzip));
    for packed in [pack(&bytes, Compression::Gzip), halves.clone(), pack(&bytes, Compression::Zstd)] {
        fs::write(&path, packed).unwrap();
        assert_eq!(read(&docker(&path, "")).unwrap().1[1], second);
    }
    halves.truncate(halves.len() - 20);
    for packed in [halves, b"BZh91AY".to_vec(), b"\xfd7zXZ\0".to_vec()] {
        fs::write(&path, packed).unwrap();
        assert_eq!(refusal(&docker(&path, "")).0, "image-invalid");
    }
}

/// As crane, kaniko and Bazel write them: layers are compressed, and there is no OCI manifest.
#[test]
fn compressed_layers_are_told_by_their_bytes() {
    let contents = [layer("a", "a"), layer("b", "b")];
    let config = config(&[&contents[0], &contents[1]]);
    for (second, family) in [(Compression::Gzip, media::DOCKER_MANIFEST), (Compression::Zstd, media::OCI_MANIFEST)] {
        let packed = [pack(&contents[0], Compression::Gzip), pack(&contents[1], second)];
        let item = json!({"Config": "c.json", "Layers": ["0.tar.gz", "1.tar.gz"]});
        let archive = Archive::new().file("c.json", &config).json("manifest.json", &json!([item]));
        let (_dir, path) = save(archive.file("0.tar.gz", &packed[0]).file("1.tar.gz", &packed[1]));
        let (opened, read) = read(&docker(&path, "")).unwrap();
        assert_eq!(read, packed);
        assert_eq!(opened.manifest.media_type, family);
        assert_eq!(opened.manifest.layers[0].digest, Digest::of(&packed[0]));
        assert_eq!(Compression::of_layer(&opened.manifest.layers[1].media_type), Some(second));
    }
    // What is in them has to be what the configuration says.
    let item = json!({"Config": "c.json", "Layers": ["0.tar.gz", "0.tar.gz"]});
    let archive = Archive::new().file("c.json", &config).json("manifest.json", &json!([item]));
    let (_dir, path) = save(archive.file("0.tar.gz", pack(&contents[0], Compression::Gzip)));
    assert_eq!(refusal(&docker(&path, "")).0, "image-invalid");
}

#[test]
fn several_images_want_a_name() {
    let content = layer("a", "a");
    let item = |tag: &str, config: &str| json!({"Config": config, "RepoTags": [tag], "Layers": ["l"]});
    let archive = |items: &Value| {
        let two = String::from_utf8(config(&[&content])).unwrap().replace("2024", "2025");
        let archive = Archive::new().file("1.json", config(&[&content])).file("2.json", two).file("l", &content);
        save(archive.json("manifest.json", items))
    };
    let (_dir, path) = archive(&json!([item("a:1", "1.json"), item("b:2", "2.json")]));
    let (code, text) = refusal(&docker(&path, ""));
    assert_eq!(code, "invalid-option");
    assert!(text.contains("a:1, b:2"), "{text}");
    assert!(read(&docker(&path, ":b:2")).unwrap().0.config.created.unwrap().starts_with("2025"));
    let (_dir, path) = archive(&json!([item("a:1", "1.json"), item("b:latest", "2.json")]));
    assert!(read(&docker(&path, "")).unwrap().0.config.created.unwrap().starts_with("2025"));
    assert!(read(&docker(&path, ":b")).unwrap().0.config.created.unwrap().starts_with("2025"));
    let (_dir, path) = archive(&json!([]));
    assert_eq!(refusal(&docker(&path, "")).0, "invalid-option");
}

#[test]
fn the_kind_of_archive_is_suggested() {
    let (_dir, path) = save(Archive::new().file("repositories", "{}"));
    assert!(refusal(&docker(&path, "")).1.contains("1.10"));
    let (_dir, path) = save(Archive::new().file("oci-layout", LAYOUT));
    assert!(refusal(&docker(&path, "")).1.contains("oci-archive://"));
    let (_dir, path) = save(Archive::new().json("manifest.json", &json!([])));
    assert!(refusal(&format!("oci-archive://{}", path.display())).1.contains("docker-archive://"));
    assert!(refusal(&format!("oci-layout://{}", path.display())).1.contains("oci-archive://"));
    let dir = tempfile::tempdir().unwrap();
    assert!(refusal(&docker(dir.path(), "")).1.contains("oci-layout://"));
    let nothing = dir.path().join("nothing");
    for scheme in ["docker-archive", "oci-archive", "oci-layout"] {
        assert_eq!(refusal(&format!("{scheme}://{}", nothing.display())).0, "base-missing");
    }
}

/// A layout in a directory with an image for each of some platforms, below an index, as `docker buildx` writes it.
fn multi_platform(dir: &Path) -> (Vec<Sample>, Digest) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    let mut samples = Vec::new();
    let mut images = Vec::new();
    for platform in ["linux/arm64", "linux/amd64"] {
        let content = layer("platform", platform);
        let sample = Sample::new(&[], &[(&content, Compression::Gzip)]);
        sample.blobs.blobs.values().for_each(|blob| put(blob));
        put(&sample.config);
        put(&sample.manifest);
        let spec = PlatformSpec::from(&platform.parse().unwrap());
        images.push(Descriptor { platform: Some(spec), ..Descriptor::of(media::OCI_MANIFEST, &sample.manifest) });
        samples.push(sample);
    }
    let index = Index::new(images).to_bytes();
    put(&index);
    let mut top = Descriptor::of(media::OCI_INDEX, &index);
    top.annotations.insert("org.opencontainers.image.ref.name".into(), "multi".into());
    fs::write(dir.join("index.json"), Index::new(vec![top]).to_bytes()).unwrap();
    fs::write(dir.join("oci-layout"), LAYOUT).unwrap();
    (samples, Digest::of(&index))
}

#[test]
fn indexes_lead_to_the_platform() {
    let dir = tempfile::tempdir().unwrap();
    let (samples, index) = multi_platform(dir.path());
    let text = |selector: &str| format!("oci-layout://{}{selector}", dir.path().display());
    for selector in [String::new(), ":multi".into(), format!("@{index}"), format!(":x@{index}")] {
        assert_eq!(open(&text(&selector)).unwrap().manifest_digest, samples[1].manifest_digest(), "{selector}");
    }
    let arm = open(&text(&format!("@{}", samples[0].manifest_digest()))).unwrap();
    assert_eq!(arm.manifest_digest, samples[0].manifest_digest());
    let place = Place::parse(&text("")).unwrap().unwrap();
    let error = image::open(&place, &"linux/s390x".parse().unwrap(), &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "platform-missing");
    assert!(error.to_string().contains("linux/arm64, linux/amd64"), "{error}");
    // The platforms may be in the list itself.
    let bytes = fs::read(dir.path().join(format!("blobs/sha256/{}", index.hex()))).unwrap();
    fs::write(dir.path().join("index.json"), bytes).unwrap();
    assert_eq!(open(&text("")).unwrap().manifest_digest, samples[1].manifest_digest());
}

#[test]
fn latest_is_meant_where_no_name_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let text = |selector: &str| format!("oci-layout://{}{selector}", dir.path().display());
    let sample = |name: &str| Sample::new(&[name], &[(name.as_bytes(), Compression::None)]);
    let (one, latest) = (sample("a:1"), sample("a"));
    for sample in [&latest, &one] {
        watched(|watch| image::write_layout(sample.image(), dir.path(), watch)).unwrap();
    }
    assert_eq!(open(&text("")).unwrap().manifest_digest, latest.manifest_digest());
    assert_eq!(open(&text(":1")).unwrap().manifest_digest, one.manifest_digest());
    let (code, message) = refusal(&text(":2"));
    assert_eq!(code, "invalid-option");
    assert!(message.contains("docker.io/library/a:1, docker.io/library/a:latest"), "{message}");
    // A tag that two names have wants the name.
    watched(|watch| image::write_layout(sample("b").image(), dir.path(), watch)).unwrap();
    assert_eq!(refusal(&text(":latest")).0, "invalid-option");
    assert_eq!(open(&text(":a")).unwrap().manifest_digest, latest.manifest_digest());
}

#[test]
fn opening_can_be_stopped() {
    let (archive, _) = old_docker(&layer("a", "a"), &layer("b", "b"));
    let (_dir, path) = save(archive);
    let cancel = Cancel::new();
    cancel.cancel();
    let place = Place::parse(&docker(&path, "")).unwrap().unwrap();
    let error = image::open(&place, &"linux/amd64".parse().unwrap(), &cancel).unwrap_err();
    assert_eq!(error.code(), "interrupted");
}
