//! Images from somebody who means harm: what is read is what a digest names, from nowhere but the file, or it is refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cooper::digest::Digest;
use cooper::image::write_layout;
use cooper::oci::media::{self, Compression};
use cooper::oci::{Descriptor, Index, Manifest};
use proptest::prelude::*;
use serde_json::json;
use tar::EntryType;

use crate::image_support::{Archive, Sample, config, layer, read, refusal, watched};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Saves an archive and says why it was refused.
fn refused(scheme: &str, archive: Archive) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    archive.save(&path);
    let (code, text) = refusal(&format!("{scheme}://{}", path.display()));
    assert_eq!(code, "image-invalid", "{text}");
    text
}

fn docker_with(layers: &serde_json::Value, add: impl FnOnce(Archive) -> Archive) -> String {
    let content = layer("a", "a");
    let item = json!({"Config": "c.json", "RepoTags": ["a:1"], "Layers": layers});
    let archive = Archive::new().file("c.json", config(&[&content])).json("manifest.json", &json!([item]));
    refused("docker-archive", add(archive))
}

#[test]
fn paths_and_links_stay_in_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, layer("a", "a")).unwrap();
    let outside = secret.to_str().unwrap();
    for path in [outside, "../../../../../etc/passwd", "/etc/passwd", "", "."] {
        assert!(docker_with(&json!([path]), |archive| archive).contains("is missing"), "{path}");
    }
    for kind in [EntryType::Symlink, EntryType::Link] {
        for target in [outside, "../../../../../../etc/passwd", "link", "gone", "dir"] {
            let add = |archive: Archive| {
                archive.entry(EntryType::Directory, "dir/", "", b"").entry(kind, "link", target, b"")
            };
            assert!(docker_with(&json!(["link"]), add).contains("is missing"), "{target}");
        }
    }
    let around =
        |archive: Archive| archive.entry(EntryType::Symlink, "a", "b", b"").entry(EntryType::Symlink, "b", "a", b"");
    assert!(docker_with(&json!(["a"]), around).contains("is missing"));
    let fifo = |archive: Archive| archive.entry(EntryType::Fifo, "pipe", "", b"");
    assert!(docker_with(&json!(["pipe"]), fifo).contains("is missing"));
}

#[test]
fn names_that_lead_out_name_nothing() {
    let content = layer("a", "a");
    let item = json!({"Config": "c.json", "Layers": ["l"]});
    let archive = Archive::new().file("c.json", config(&[&content])).json("manifest.json", &json!([item]));
    let archive = archive.file("../l", "x").file("/l", "x").file("a/../../l", "x").file("./l", &content);
    let dir = tempfile::tempdir().unwrap();
    archive.save(&dir.path().join("image.tar"));
    let (_, layers) = read(&format!("docker-archive://{}/image.tar", dir.path().display())).unwrap();
    assert_eq!(layers, [content]);
}

#[test]
fn entries_come_once() {
    for twice in ["manifest.json", "c.json", "./c.json", "x"] {
        let add = |archive: Archive| archive.file("l", layer("a", "a")).file("x", "").file(twice, "{}");
        let text = docker_with(&json!(["l"]), add);
        assert!(text.contains("twice"), "{text}");
    }
}

#[test]
fn layers_are_what_the_configuration_says() {
    let text = docker_with(&json!(["l"]), |archive| archive.file("l", layer("a", "b")));
    assert!(text.contains("digest"), "{text}");
    assert!(docker_with(&json!(["l", "l"]), |archive| archive.file("l", layer("a", "a"))).contains("2 layers"));
    assert!(docker_with(&json!([]), |archive| archive).contains("0 layers"));
    let bzip2 = docker_with(&json!(["l"]), |archive| archive.file("l", b"BZh91AY"));
    assert!(bzip2.contains("bzip2"), "{bzip2}");
    let broken = docker_with(&json!(["l"]), |archive| archive.file("l", [0x1f, 0x8b, 8, 0, 1, 2, 3]));
    assert!(broken.contains('l'), "{broken}");
}

#[test]
fn documents_are_documents() {
    for text in ["", "{", "{}", "[1]", r#"[{"Layers": []}]"#, "null"] {
        refused("docker-archive", Archive::new().file("manifest.json", text));
    }
    for config in ["", "[]", "{}"] {
        let item = json!([{"Config": "c.json", "Layers": []}]);
        refused("docker-archive", Archive::new().file("c.json", config).json("manifest.json", &item));
    }
    let other = Digest::of(b"other");
    for name in [format!("{}.json", other.hex()), format!("blobs/sha256/{}", other.hex()), other.to_string()] {
        let item = json!([{"Config": name, "Layers": []}]);
        let archive = Archive::new().file(&name, config(&[])).json("manifest.json", &item);
        assert!(refused("docker-archive", archive).contains("has the digest"), "{name}");
    }
    for index in ["", "{", "[]", r#"{"schemaVersion": 1, "manifests": []}"#] {
        refused("oci-archive", Archive::new().file("oci-layout", LAYOUT).file("index.json", index));
    }
    for layout in ["", "{}", r#"{"imageLayoutVersion":"2.0.0"}"#] {
        refused("oci-archive", Archive::new().file("oci-layout", layout).file("index.json", "{}"));
    }
    refused("oci-archive", Archive::new().file("oci-layout", LAYOUT));
    let big = vec![b' '; 9 << 20];
    let text = refused("docker-archive", Archive::new().file("manifest.json", big));
    assert!(text.contains("at most"), "{text}");
}

#[test]
fn archives_are_whole() {
    let content = layer("a", "a");
    let item = json!({"Config": "c.json", "Layers": ["l"]});
    let archive = Archive::new().file("c.json", config(&[&content])).json("manifest.json", &json!([item]));
    let bytes = archive.file("l", &content).bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let text = format!("docker-archive://{}", path.display());
    fs::write(&path, &bytes).unwrap();
    assert!(read(&text).is_ok());
    let mut damaged = bytes.clone();
    damaged[600 + 512] ^= 1;
    let garbage = vec![0x55; 4096];
    for bytes in [&bytes[..1], &bytes[..700], &bytes[..bytes.len() - 2000], &damaged, &garbage, &[]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(refusal(&text).0, "image-invalid");
    }
}

/// A layout in a directory with one image, and the path of its layer.
fn layout(dir: &Path) -> (String, std::path::PathBuf) {
    let content = layer("a", "a");
    let sample = Sample::new(&["a:1"], &[(&content, Compression::None)]);
    watched(|watch| write_layout(sample.image(), dir, watch)).unwrap();
    let blob = dir.join(format!("blobs/sha256/{}", Digest::of(&content).hex()));
    assert!(blob.is_file());
    (format!("oci-layout://{}", dir.display()), blob)
}

#[test]
fn blobs_are_what_their_names_say() {
    let dir = tempfile::tempdir().unwrap();
    let (text, blob) = layout(dir.path());
    assert!(read(&text).is_ok());
    let content = fs::read(&blob).unwrap();
    let mut changed = content.clone();
    changed[0] ^= 1;
    for (bytes, reason) in [(&changed[..], "digest"), (&content[1..], "2047 bytes"), (&[], "0 bytes")] {
        fs::write(&blob, bytes).unwrap();
        let (code, text) = refusal(&text);
        assert_eq!(code, "image-invalid");
        assert!(text.contains(reason), "{text}");
    }
    fs::remove_file(&blob).unwrap();
    assert!(refusal(&text).1.contains("is missing"));
    fs::create_dir(&blob).unwrap();
    assert!(refusal(&text).1.contains("is no file"));
}

#[test]
fn links_stay_in_the_layout() {
    let dir = tempfile::tempdir().unwrap();
    let (text, blob) = layout(&dir.path().join("layout"));
    let (inside, outside) = (dir.path().join("layout/elsewhere"), dir.path().join("outside"));
    fs::copy(&blob, &outside).unwrap();
    fs::rename(&blob, &inside).unwrap();
    symlink("../../elsewhere", &blob).unwrap();
    assert!(read(&text).is_ok());
    for target in [outside.to_str().unwrap(), "../../../outside", "/dev/zero", "/proc/self/environ"] {
        fs::remove_file(&blob).unwrap();
        symlink(target, &blob).unwrap();
        let (code, text) = refusal(&text);
        assert_eq!(code, "image-invalid", "{target}");
        assert!(text.contains("leads out"), "{text}");
    }
    // A pipe is not waited for.
    fs::remove_file(&blob).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &blob, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(refusal(&text).1.contains("is no file"));
}

/// A layout whose only image is what these bytes are.
fn layout_of(media_type: &str, document: &[u8], blobs: &[&[u8]]) -> String {
    let descriptor = Descriptor::of(media_type, document);
    layout_with(descriptor, &[&[document], blobs].concat())
}

fn layout_with(descriptor: Descriptor, blobs: &[&[u8]]) -> String {
    let index = Index::new(vec![descriptor]).to_bytes();
    let archive = Archive::new().file("oci-layout", LAYOUT).file("index.json", index);
    let put = |archive: Archive, blob: &&[u8]| archive.file(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    refused("oci-archive", blobs.iter().fold(archive, put))
}

#[test]
fn manifests_are_manifests_of_images() {
    let config = config(&[]);
    let family = media::Family::Oci;
    let manifest = |config: Descriptor, layers: Vec<Descriptor>| Manifest::new(family, config, layers).to_bytes();
    let image = Descriptor::of(media::OCI_CONFIG, &config);
    let artifact = manifest(Descriptor::of("application/vnd.oci.empty.v1+json", &config), Vec::new());
    assert!(layout_of(media::OCI_MANIFEST, &artifact, &[&config]).contains("holds no image"));
    let more = manifest(image.clone(), vec![Descriptor::of(media::OCI_LAYER, b"x")]);
    assert!(layout_of(media::OCI_MANIFEST, &more, &[&config, b"x"]).contains("1 layers"));
    assert!(layout_of(media::OCI_MANIFEST, &manifest(image.clone(), Vec::new()), &[]).contains("is missing"));
    let plain = manifest(image, Vec::new());
    assert!(layout_of(media::OCI_INDEX, &plain, &[&config]).contains("announced"));
    // What says that it is bigger than it is, or too big to be read at all.
    let lying = |size| Descriptor { size, ..Descriptor::of(media::OCI_MANIFEST, &plain) };
    assert!(layout_with(lying(plain.len() as u64 + 1), &[&plain, &config]).contains("should have"));
    assert!(layout_with(lying(u64::MAX), &[&plain, &config]).contains("at most"));
    let typed = {
        let content = layer("a", "a");
        let config = crate::image_support::config(&[&content]);
        let odd = Descriptor::of("application/octet-stream", &content);
        let bytes = manifest(Descriptor::of(media::OCI_CONFIG, &config), vec![odd]);
        layout_of(media::OCI_MANIFEST, &bytes, &[&config, &content])
    };
    assert!(typed.contains("is no layer"), "{typed}");
}

#[test]
fn indexes_end() {
    let mut blobs: Vec<Vec<u8>> =
        vec![Manifest::new(media::Family::Oci, Descriptor::of("", b""), Vec::new()).to_bytes()];
    let mut descriptor = Descriptor::of(media::OCI_MANIFEST, &blobs[0]);
    for _ in 0..10 {
        let index = Index::new(vec![descriptor]).to_bytes();
        descriptor = Descriptor::of(media::OCI_INDEX, &index);
        blobs.push(index);
    }
    let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    assert!(layout_with(descriptor, &blobs).contains("too deep"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is changed in an archive: what is read is what was written, or an error; never something else, never a panic.
    #[test]
    fn changed_bytes_change_nothing(at in 0..16_384usize, value in any::<u8>(), scheme in 0..2usize) {
        let content = layer("a", "a");
        let sample = Sample::new(&["a:1"], &[(&content, Compression::Gzip)]);
        let mut bytes = Vec::new();
        let kind = cooper::image::ArchiveKind::Docker;
        watched(|watch| cooper::image::write_archive_to(sample.image(), kind, &mut bytes, watch)).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.tar");
        fs::write(&path, &bytes).unwrap();
        let scheme = ["oci-archive", "docker-archive"][scheme];
        if let Ok((opened, layers)) = read(&format!("{scheme}://{}", path.display())) {
            prop_assert_eq!(opened.config_bytes, sample.config);
            prop_assert_eq!(layers, sample.blobs.blobs.values().cloned().collect::<Vec<_>>());
        }
    }
}
