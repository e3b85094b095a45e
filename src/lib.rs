//! `cooper` builds container images for [ZenML](https://zenml.io).
//!
//! A build takes this path:
//!
//! 1. A caller (the Python boundary, [`python`], or a test) makes one [`request::BuildRequest`]. All names, digests and
//!    platforms in it are already types; nothing is parsed later.
//! 2. [`engine`] chooses what will do the work and asks whether it can.
//! 3. [`context`] lists what goes into the build: the files under a root, less what the ignore file excludes, plus files
//!    that exist only in memory. It is read as a stream, never copied to disk.
//! 4. The engine runs. The native one builds by itself; the Docker and the `BuildKit` engine hand the context to a daemon,
//!    through a [`buildkit`] session wherever there is one. What happens on the way is told as [`event::Event`]s.
//! 5. Credentials come from the caller or from the user's Docker config ([`registry`]), the image is pushed, and the
//!    caller gets an [`outcome::Outcome`] or an [`error::Error`].
//!
//! [`dockerfile`] is the Dockerfile language, for an engine that builds by itself; [`check`] looks at a Dockerfile without
//! building it.
//!
//! Dependencies point one way: `python -> {engine, check} -> {context, dockerfile, buildkit, registry} -> {request, outcome,
//! reference, digest, platform, secret} -> {error, event, cancel}`. A test (`tests/it/architecture.rs`) keeps it so.

pub mod buildkit;
pub mod cancel;
pub mod check;
pub mod context;
pub mod daemon;
pub mod digest;
pub mod dockerfile;
pub mod engine;
pub mod environment;
pub mod error;
pub mod event;
pub mod fetch;
mod folders;
pub mod image;
pub mod layer;
mod moby;
pub mod mtime;
pub mod net;
pub mod oci;
pub mod options;
pub mod outcome;
mod pack;
pub mod paths;
pub mod platform;
#[cfg(feature = "python")]
pub mod python;
pub mod reference;
pub mod registry;
pub mod request;
pub mod rootfs;
pub mod sandbox;
#[cfg(target_os = "linux")]
mod scoped;
pub mod secret;
mod spelling;
pub mod store;

pub use error::{Error, Result};
