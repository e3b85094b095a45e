//! Who owns what in an unpacked layer.

use crate::digest::Digest;

/// How a layer is unpacked: who owns the files, and where overlayfs finds what it wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Owners are real, and overlayfs is mounted by root: what it wants to know is in `trusted.overlay.*`.
    Root,
    /// Owners are real, but this root may not mount: `user.overlay.*`, which everybody may write.
    Chroot,
    /// Everything is written as this user, which is 0 inside. What is not 0's then is given away from inside ([`super::own`]).
    Subordinate {
        /// What the mapping is, so that trees of different ones are kept apart.
        map: Digest,
    },
    /// Everything is this user's. Whose it should be is in [`OWNER`] where that is not 0:0.
    Single,
}

/// The attribute that says whose a file is meant to be: `UID:GID`, decimal.
pub const OWNER: &str = "user.cooper.owner";

impl Form {
    /// A name for trees of this form: lower-case letters, digits and `-`. Trees of one name may be used in place of each
    /// other.
    pub fn key(&self) -> String {
        match self {
            Self::Root => "root".into(),
            Self::Chroot => "chroot".into(),
            Self::Single => "single".into(),
            Self::Subordinate { map } => format!("subordinate-{}", &map.hex()[..16]),
        }
    }

    /// Whether owners are given where files are written.
    pub(super) const fn is_real(&self) -> bool {
        matches!(self, Self::Root | Self::Chroot)
    }

    /// The attribute that makes a directory opaque.
    pub(super) const fn opaque(&self) -> &'static str {
        match self {
            Self::Root => "trusted.overlay.opaque",
            _ => "user.overlay.opaque",
        }
    }
}
