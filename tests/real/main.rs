//! Tests against a real daemon and a real registry, started by `scripts/testbed`.

mod buildkit_bed;
mod buildkit_sync;
mod docker_bed;
mod docker_build;
