//! Small images, and archives of any shape.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write as _};
use std::path::Path;
use std::sync::Mutex;

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::error::{Error, Result};
use cooper::image::{self, Blobs, OpenedImage, Place, Watch};
use cooper::oci::media::{Compression, Family};
use cooper::oci::{Descriptor, ImageConfig, Manifest, RootFs};
use cooper::platform::Platform;
use cooper::reference::Reference;
use flate2::write::GzEncoder;

/// Blobs in memory; remembers what was opened.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) opened: Mutex<Vec<Digest>>,
}

impl Blobs for Memory {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>> {
        self.opened.lock().unwrap().push(descriptor.digest);
        let missing = || Error::ImageInvalid { what: descriptor.digest.to_string(), reason: "not here".into() };
        Ok(Box::new(Cursor::new(self.blobs.get(&descriptor.digest).ok_or_else(missing)?.clone())))
    }
}

/// An image in memory.
pub(crate) struct Sample {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) names: Vec<Reference>,
    pub(crate) blobs: Memory,
}

impl Sample {
    pub(crate) fn new(names: &[&str], layers: &[(&[u8], Compression)]) -> Self {
        Self::of(Family::Oci, names, layers)
    }

    pub(crate) fn of(family: Family, names: &[&str], layers: &[(&[u8], Compression)]) -> Self {
        let mut blobs = Memory::default();
        let mut add = |(content, compression): &(&[u8], Compression)| {
            let packed = pack(content, *compression);
            let descriptor = Descriptor::of(family.layer(*compression), &packed);
            blobs.blobs.insert(descriptor.digest, packed);
            descriptor
        };
        let layer_descriptors: Vec<Descriptor> = layers.iter().map(&mut add).collect();
        let config = config(&layers.iter().map(|(content, _)| *content).collect::<Vec<_>>());
        let descriptor = Descriptor::of(family.config(), &config);
        let manifest = Manifest::new(family, descriptor, layer_descriptors).to_bytes();
        Self { manifest, config, names: names.iter().map(|name| name.parse().unwrap()).collect(), blobs }
    }

    pub(crate) fn image(&self) -> image::Image<'_> {
        image::Image { manifest: &self.manifest, config: &self.config, names: &self.names, blobs: &self.blobs }
    }

    pub(crate) fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// A configuration with these layers, for linux/amd64.
pub(crate) fn config(layers: &[&[u8]]) -> Vec<u8> {
    let rootfs = RootFs { diff_ids: layers.iter().map(|layer| Digest::of(layer)).collect(), ..RootFs::default() };
    let config = ImageConfig {
        created: Some("2024-05-06T07:08:09Z".into()),
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs,
        ..ImageConfig::default()
    };
    config.to_bytes()
}

pub(crate) fn pack(content: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => content.to_vec(),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::bulk::compress(content, 3).unwrap(),
    }
}

/// A layer: a tar archive with one file.
pub(crate) fn layer(path: &str, content: &str) -> Vec<u8> {
    Archive::new().file(path, content.as_bytes()).bytes()
}

/// Calls with a watch that sees nothing.
pub(crate) fn watched<T>(work: impl FnOnce(Watch<'_>) -> T) -> T {
    work(Watch { cancel: &Cancel::new(), progress: &|_, _| {} })
}

pub(crate) fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

pub(crate) fn open(text: &str) -> Result<OpenedImage> {
    let place = Place::parse(text)?.expect("a place");
    image::open(&place, &amd64(), &Cancel::new())
}

/// Opens an image and reads all its layers.
pub(crate) fn read(text: &str) -> Result<(OpenedImage, Vec<Vec<u8>>)> {
    let opened = open(text)?;
    let content = |layer: &Descriptor| {
        let mut bytes = Vec::new();
        let read = opened.blobs.open(layer)?.read_to_end(&mut bytes);
        read.map_err(|error| error.downcast::<Error>().unwrap())?;
        Ok(bytes)
    };
    let layers = opened.manifest.layers.iter().map(content).collect::<Result<Vec<_>>>()?;
    Ok((opened, layers))
}

/// Why something was refused.
pub(crate) fn refusal(text: &str) -> (&'static str, String) {
    let error = read(text).map(|(opened, _)| panic!("{text} was read: {opened:?}")).unwrap_err();
    (error.code(), error.to_string())
}

/// A tar archive of any shape.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(tar::EntryType::Regular, path, "", content.as_ref())
    }

    pub(crate) fn json(self, path: &str, value: &serde_json::Value) -> Self {
        self.file(path, value.to_string())
    }

    pub(crate) fn entry(mut self, kind: tar::EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        // Not by the builder, which refuses names that lead out.
        let fields = header.as_old_mut();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }

    pub(crate) fn save(self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

/// The paths, kinds, modes and sizes of an archive's entries.
pub(crate) fn listing(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let line = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        let kind = if header.entry_type().is_dir() { 'd' } else { '-' };
        format!("{kind} {:o} {} {}", header.mode().unwrap(), entry.size(), entry.path().unwrap().display())
    };
    archive.entries().unwrap().map(line).collect()
}

/// All files below a directory, with their contents.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
