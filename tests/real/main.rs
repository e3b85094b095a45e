//! Tests against a real daemon and a real registry, started by `scripts/testbed`.

mod buildkit_bed;
mod buildkit_cancel;
mod buildkit_errors;
mod buildkit_run;
mod buildkit_sync;
#[path = "../it/change_ops.rs"]
mod change_ops;
mod daemon_images;
mod docker_bed;
mod docker_build;
mod docker_compare;
mod docker_doctor;
mod image_load;
mod overlay_changes;
mod registry_bed;
mod registry_client;
mod sandbox_bed;
mod sandbox_chroot;
mod sandbox_escape;
mod sandbox_run;
mod sandbox_runtime;
