//! Tests of the crate from outside: one binary, so that the crate is linked once.

mod architecture;
mod buildkit_failure;
mod buildkit_fake;
mod buildkit_filesync;
mod buildkit_services;
mod buildkit_solve;
mod context_archive;
mod context_ignore;
mod context_report;
mod context_support;
mod context_tree;
mod docker_credentials;
mod docker_daemon;
mod docker_endpoint;
mod docker_fake;
mod errors;
mod sources;
