//! Tests against a real daemon and a real registry, started by `scripts/testbed`.

mod buildkit_bed;
mod buildkit_cancel;
mod buildkit_errors;
mod buildkit_run;
mod buildkit_stale;
mod buildkit_sync;
mod buildkit_tokens;
#[path = "../it/change_ops.rs"]
mod change_ops;
mod daemon_images;
mod docker_bed;
mod docker_build;
mod docker_compare;
mod docker_doctor;
mod emulate;
mod image_load;
#[allow(dead_code, reason = "what tests of builds without commands need is there too")]
#[path = "../it/native_bed.rs"]
mod native_bed;
mod overlay_changes;
mod registry_bed;
mod registry_client;
mod run_bed;
mod run_commands;
mod run_mounts;
mod sandbox_bed;
mod sandbox_chroot;
mod sandbox_escape;
mod sandbox_run;
mod sandbox_runtime;
mod worker_bed;
mod worker_buildkitd;
mod worker_daemon;
mod worker_faults;
mod worker_kills;
mod worker_outputs;
mod worker_pool;
mod worker_programs;
mod worker_proxy;
mod worker_tls;
