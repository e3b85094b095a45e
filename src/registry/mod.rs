//! Registries: whom to ask for credentials, whether one answers, and reading and writing images.

mod challenge;
pub mod check;
pub mod client;
pub mod credentials;
