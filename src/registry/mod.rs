//! Registries: whom to ask for credentials, and whether one answers.

mod challenge;
pub mod check;
pub mod credentials;
mod http;
