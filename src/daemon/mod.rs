//! A Docker or Podman daemon: where it is, how it is reached, what it is, and images in and out of it.
//!
//! [`endpoint`] reads the settings as the Docker CLI does, [`dial`] connects, [`find()`] asks what answers, [`images`] moves
//! whole images. What a daemon builds is the business of [`crate::engine::docker`].

pub mod address;
pub(crate) mod client;
pub mod dial;
pub mod endpoint;
mod find;
pub mod images;
pub(crate) mod messages;
pub(crate) mod query;

pub use find::{Attempt, Daemon, Product, find};
