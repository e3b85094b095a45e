//! Images in files: written as OCI layouts and as archives for `docker load`, read as base images.
//!
//! An OCI layout (OCI image spec, image-layout.md) is a directory, or a tar archive of one. A Docker archive is what
//! `docker save` makes: a tar archive with a `manifest.json`. What is written as one is both at once, as BuildKit writes it.
//!
//! Files come from anywhere: what is read is checked before it is believed, and nothing is unpacked. Everything here blocks.

mod archive;
mod blobs;
mod docker;
mod layout;
mod lock;
mod merge;
mod open;
mod partial;
mod place;
mod plan;
mod received;
mod select;
mod source;
mod tagged;
mod tarball;

pub use archive::{ArchiveKind, write_archive, write_archive_to};
pub use blobs::{Blobs, Verified};
pub use layout::write_layout;
pub use open::{ImageBlobs, OpenedImage, open};
pub use partial::Partial;
pub use place::{Place, Scheme, Selector};
pub use plan::{Image, Watch, Written};
pub use received::{Received, receive_layout};
pub use tagged::{named, tag, tagged};

use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;

/// The annotation with an image's full name (containerd, `images.AnnotationImageName`).
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with an image's tag (OCI image spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the time that an image was made (OCI image spec, annotations.md).
const CREATED: &str = "org.opencontainers.image.created";

/// The file that makes a directory an OCI layout, and the one that lists its images.
const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
/// The one version that there is of the layout.
const LAYOUT_VERSION: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file that lists the images of a Docker archive.
const MANIFEST_FILE: &str = "manifest.json";

/// How much is copied at a time, between two looks at the flag that stops everything.
const BLOCK: usize = 1 << 18;

/// The place of a blob in a layout.
fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A name in full, as containerd writes it; `None` for one that has a digest only.
fn full_name(name: &Reference) -> Option<String> {
    let tag = name.tag_or_latest()?;
    Some(format!("{}/{}:{tag}", name.registry(), name.repository()))
}

fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::ImageInvalid { what: what.into(), reason: reason.into() }
}
