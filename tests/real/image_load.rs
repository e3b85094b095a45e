//! What we write, loaded by Docker and Podman; what they save, read as bases.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::image::{self, ArchiveKind, OpenedImage, Place, Watch, write_archive};
use cooper::oci::media::{Compression, Family};
use cooper::oci::{Descriptor, Manifest};
use cooper::platform::Platform;
use cooper::reference::Reference;

use crate::docker_bed::{busybox, docker, has_containerd_store, setting};

/// A name that nothing else has.
fn fresh(name: &str) -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("cooper-test/{name}:t{nanos}")
}

/// An image of the daemon, which goes when the test ends.
struct Loaded(String);

impl Drop for Loaded {
    fn drop(&mut self) {
        docker(&["rmi", "-f", &self.0]);
    }
}

fn open(text: &str) -> OpenedImage {
    let place = Place::parse(text).unwrap().unwrap();
    image::open(&place, &Platform::of_containers(), &Cancel::new()).unwrap()
}

/// The base image of the tests, as the daemon saves it.
fn saved(dir: &Path) -> OpenedImage {
    let path = dir.join("base.tar");
    docker(&["save", "-o", path.to_str().unwrap(), &busybox()]);
    open(&format!("docker-archive://{}:{}", path.display(), busybox()))
}

/// The same image with its layers compressed.
fn packed(base: &OpenedImage, compression: Compression, dir: &Path) -> (Vec<u8>, OpenedImage) {
    let layout = dir.join("packed");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    let pack = |layer: &Descriptor| {
        let mut plain = Vec::new();
        let mut reader: Box<dyn Read> = Box::new(image::Blobs::open(&base.blobs, layer).unwrap());
        // Docker's containerd image store saves layers as they came.
        if layer.media_type.ends_with("gzip") {
            reader = Box::new(flate2::read::MultiGzDecoder::new(reader));
        }
        reader.read_to_end(&mut plain).unwrap();
        let bytes = match compression {
            Compression::Zstd => zstd::bulk::compress(&plain, 1).unwrap(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut encoder, &plain).unwrap();
                encoder.finish().unwrap()
            }
            Compression::None => plain,
        };
        put(&bytes);
        Descriptor::of(Family::Oci.layer(compression), &bytes)
    };
    let layers = base.manifest.layers.iter().map(pack).collect();
    let config = Descriptor::of(Family::Oci.config(), &base.config_bytes);
    let manifest = Manifest::new(Family::Oci, config, layers).to_bytes();
    put(&base.config_bytes);
    put(&manifest);
    let index = cooper::oci::Index::new(vec![Descriptor::of(Family::Oci.manifest(), &manifest)]);
    fs::write(layout.join("index.json"), index.to_bytes()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let opened = open(&format!("oci-layout://{}", layout.display()));
    (manifest, opened)
}

fn write(opened: &OpenedImage, names: &[&str], kind: ArchiveKind, path: &Path) {
    let names: Vec<Reference> = names.iter().map(|name| name.parse().unwrap()).collect();
    let image = image::Image {
        manifest: &opened.manifest_bytes,
        config: &opened.config_bytes,
        names: &names,
        blobs: &opened.blobs,
    };
    let cancel = Cancel::new();
    write_archive(image, kind, path, Watch { cancel: &cancel, progress: &|_, _| {} }).unwrap();
}

#[test]
fn docker_loads_what_is_written_whatever_its_layers_are_packed_with() {
    let dir = tempfile::tempdir().unwrap();
    let base = saved(dir.path());
    let id = Digest::of(&base.config_bytes);
    if !has_containerd_store() {
        assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", &busybox()]), id.to_string());
    }
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        let (manifest, opened) = packed(&base, compression, dir.path());
        assert_eq!(opened.manifest_bytes, manifest);
        let (one, two) = (Loaded(fresh("load")), Loaded(fresh("load")));
        let path = dir.path().join("image.tar");
        write(&opened, &[&one.0, &two.0], ArchiveKind::Docker, &path);
        let said = docker(&["load", "-i", path.to_str().unwrap()]);
        let id = if has_containerd_store() {
            open(&format!("oci-archive://{}", path.display())).manifest_digest
        } else {
            id
        };
        for name in [&one.0, &two.0] {
            assert!(said.contains(&format!("Loaded image: {name}")), "{compression:?}: {said}");
            assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", name]), id.to_string());
        }
        assert_eq!(docker(&["run", "--rm", "--network", "none", &one.0, "echo", "it runs"]), "it runs");
    }
}

#[test]
fn podman_loads_both_kinds_of_archive() {
    let dir = tempfile::tempdir().unwrap();
    let base = saved(dir.path());
    let socket = format!("unix://{}", setting("COOPER_TEST_PODMAN"));
    let podman = |arguments: &[&str]| {
        let output = Command::new("podman").args(["--remote", "--url", &socket]).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let id = Digest::of(&base.config_bytes).hex();
    for (kind, compression) in [
        (ArchiveKind::Docker, Compression::Gzip),
        (ArchiveKind::Docker, Compression::Zstd),
        (ArchiveKind::Oci, Compression::Gzip),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (_, opened) = packed(&base, compression, dir.path());
        let name = fresh("podman");
        let path = dir.path().join("image.tar");
        write(&opened, &[&name], kind, &path);
        let said = podman(&["load", "-i", path.to_str().unwrap()]);
        // An OCI archive has the tag only, as far as Podman is concerned.
        let loaded = said.rsplit_once(": ").unwrap().1.to_owned();
        let loaded_id = podman(&["image", "inspect", "--format", "{{.Id}}", &loaded]);
        podman(&["rmi", "-f", &loaded]);
        assert_eq!(loaded_id, id, "{kind:?} {compression:?}: {said}");
        if kind == ArchiveKind::Docker {
            assert!(loaded.ends_with(&name), "{loaded}");
        }
    }
}

#[test]
fn what_the_daemon_saves_is_a_base() {
    let dir = tempfile::tempdir().unwrap();
    let base = saved(dir.path());
    assert_eq!(base.config.platform().unwrap().os, "linux");
    for layer in &base.manifest.layers {
        let mut reader = image::Blobs::open(&base.blobs, layer).unwrap();
        assert_eq!(std::io::copy(&mut reader, &mut std::io::sink()).unwrap(), layer.size);
    }
    // And what we write of it is the same one.
    let path = dir.path().join("again.tar");
    write(&base, &["cooper-test/again:1"], ArchiveKind::Docker, &path);
    for text in ["docker-archive", "oci-archive"].map(|scheme| format!("{scheme}://{}", path.display())) {
        assert_eq!(open(&text).manifest_digest, base.manifest_digest, "{text}");
    }
}
