//! Images as registries and layouts keep them (OCI image spec 1.1, and Docker's image manifest version 2, schema 2).
//!
//! Types and bytes only: nothing here reads a file or a socket. What a registry sends is checked where it is parsed; members
//! that we do not know are kept where an image is passed on, and dropped where it is made anew.

mod config;
mod descriptor;
mod manifest;
pub mod media;

pub use config::{ContainerConfig, Health, History, ImageConfig, RootFs};
pub use descriptor::{Descriptor, PlatformSpec};
pub use manifest::{Document, Index, Manifest};
