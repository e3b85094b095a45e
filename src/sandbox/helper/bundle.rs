//! What an OCI runtime is told: the configuration of a bundle (runtime-spec `config.md`, `config-linux.md`).

use serde_json::{Value, json};

use super::super::spec::{Network, Spec};
use super::{mounts, privileges, seccomp};

/// Something of this machine that is mounted.
pub(super) struct Bound {
    /// Where it is.
    pub(super) source: String,
    /// Where it is seen.
    pub(super) target: String,
    /// Whether it can only be read.
    pub(super) read_only: bool,
}

/// The configuration of a command whose root is mounted at `root`.
pub(super) fn config(spec: &Spec, root: &str, bound: &[Bound]) -> Value {
    let process = &spec.process;
    let env: Vec<String> = process.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let capabilities = privileges::default_names();
    let kept: &[String] = if process.uid == 0 { &capabilities } else { &[] };
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let limits = spec.ulimits.iter().map(|limit| {
        let kind = format!("RLIMIT_{}", limit.name.to_uppercase());
        json!({"type": kind, "soft": value(limit.soft), "hard": value(limit.hard)})
    });
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if spec.network == Network::None {
        namespaces.push("network");
    }
    let namespaces: Vec<Value> = namespaces.into_iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": process.uid, "gid": process.gid, "additionalGids": process.groups, "umask": 0o022},
            "args": process.argv,
            "env": env,
            "cwd": process.cwd,
            "capabilities": {"bounding": capabilities, "effective": kept, "permitted": kept},
            "rlimits": limits.collect::<Vec<_>>(),
            "noNewPrivileges": spec.no_new_privileges,
        },
        "root": {"path": root, "readonly": false},
        "hostname": mounts::HOST_NAME,
        "mounts": all_mounts(spec, bound),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": mounts::MASKED,
            "readonlyPaths": mounts::READ_ONLY,
            "seccomp": filter(),
        },
    })
}

fn all_mounts(spec: &Spec, bound: &[Bound]) -> Vec<Value> {
    let file_system = |kind: &str, path: &str, options: &[&str]| json!({"destination": path, "type": kind, "source": kind, "options": options});
    let shm = format!("size={}", spec.shm_size);
    let sys = if spec.network == Network::None {
        file_system("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"])
    } else {
        bind("/sys", "/sys", &["rbind", "rro", "nosuid", "noexec", "nodev"])
    };
    let mut mounts = vec![
        file_system("proc", "/proc", &["nosuid", "noexec", "nodev"]),
        file_system("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        file_system("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
        file_system("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        file_system("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
    ];
    mounts.extend(bound.iter().map(|Bound { source, target, read_only }| {
        let options: &[&str] = if *read_only { &["rbind", "ro"] } else { &["rbind"] };
        bind(source, target, options)
    }));
    mounts
}

fn bind(source: &str, target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": "bind", "source": source, "options": options})
}

/// The filter of [`seccomp`], as runtimes take it.
fn filter() -> Value {
    let names = |lists: [&[seccomp::Call]; 2]| -> Vec<&str> {
        lists.into_iter().flatten().map(|(name, _)| name.trim_start_matches("SYS_")).collect()
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "syscalls": [
            {"names": names([seccomp::ALLOWED, seccomp::ALLOWED_HERE]), "action": "SCMP_ACT_ALLOW"},
            {
                "names": names([seccomp::DENIED, seccomp::DENIED_HERE]),
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": libc::EPERM,
            },
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": seccomp::NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            },
        ],
    })
}
