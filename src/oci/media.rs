//! Media types.

/// OCI's image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's layers; `+gzip` and `+zstd` follow.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI's layers in gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI's layers in Zstandard.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layers, uncompressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layers, in gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker's name for layers in Zstandard, which some tools wrote.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// What a registry is told that we take for a manifest.
pub const ACCEPT: [&str; 4] = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];

/// The two families. A manifest, its configuration and its layers are of one: mixed ones are refused by registries and
/// runtimes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's; it has no name for Zstandard that others know.
    Docker,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    #[default]
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Family {
    /// That of a manifest's media type.
    pub fn of_manifest(media_type: &str) -> Self {
        if media_type == DOCKER_MANIFEST || media_type == DOCKER_INDEX { Self::Docker } else { Self::Oci }
    }

    /// The media type of a manifest.
    pub const fn manifest(self) -> &'static str {
        match self {
            Self::Oci => OCI_MANIFEST,
            Self::Docker => DOCKER_MANIFEST,
        }
    }

    /// The media type of a configuration.
    pub const fn config(self) -> &'static str {
        match self {
            Self::Oci => OCI_CONFIG,
            Self::Docker => DOCKER_CONFIG,
        }
    }

    /// The media type of a layer.
    pub const fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => OCI_LAYER,
            (Self::Oci, Compression::Gzip) => OCI_LAYER_GZIP,
            (Self::Oci, Compression::Zstd) => OCI_LAYER_ZSTD,
            (Self::Docker, Compression::None) => DOCKER_LAYER,
            (Self::Docker, Compression::Gzip) => DOCKER_LAYER_GZIP,
            (Self::Docker, Compression::Zstd) => DOCKER_LAYER_ZSTD,
        }
    }
}

impl Compression {
    /// That of a layer's media type; `None` for what is no layer of a file system.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        Some(match media_type {
            OCI_LAYER | DOCKER_LAYER | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Self::None,
            OCI_LAYER_GZIP
            | DOCKER_LAYER_GZIP
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Self::Gzip,
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                Self::Zstd
            }
            _ => return None,
        })
    }
}

/// Whether a media type is one of an index.
pub fn is_index(media_type: &str) -> bool {
    media_type == OCI_INDEX || media_type == DOCKER_INDEX
}
