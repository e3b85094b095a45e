//! What a command depends on, part by part: for its key in the cache, and to tell what has changed.
//!
//! As with BuildKit, values of secrets and proxies do not count, nor do addresses of further hosts, nor what is in caches. Of a
//! bind mount, what it shows counts, and nothing else of where it comes from.

use std::collections::BTreeMap;

use super::super::key::Key;
use super::super::stage::Builder;
use super::command::network;
use super::inputs::Inputs;
use crate::digest::Digest;
use crate::dockerfile::instruction::{Mount, MountKind};
use crate::dockerfile::step::{RunMount, RunStep};
use crate::request::BuildOptions;

/// The parts, by what they are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(BTreeMap<String, Digest>);

impl Parts {
    fn add(&mut self, name: impl Into<String>, value: &impl serde::Serialize) {
        self.0.insert(name.into(), Key::new("part").value(value).finish());
    }

    /// Each part with its name.
    pub(super) fn named(&self) -> BTreeMap<String, Digest> {
        self.0.clone()
    }

    /// All of them, in one.
    pub(super) fn digest(&self) -> Digest {
        self.0.iter().fold(Key::new("parts"), |key, (name, part)| key.text(name).digest(part)).finish()
    }
}

/// What a command depends on besides its root. `shown` is what its mounts show, by their numbers.
pub(super) fn parts(run: &RunStep, options: &BuildOptions, platform: &str, shown: &BTreeMap<usize, Digest>) -> Parts {
    let RunStep { command, script, env, proxies: _, working_dir, user, mounts, network: _, security, devices } = run;
    let mut parts = Parts::default();
    parts.add("the command", &(command, script));
    parts.add("its privileges", &(security, devices));
    parts.add("the working directory", working_dir);
    parts.add("the user", user);
    parts.add("the platform", &platform);
    parts.add("the network", &network(run, options));
    parts.add("the size of /dev/shm", &options.shm_size);
    parts.add("the resource limits", &options.ulimits);
    let hosts: Vec<&String> = options.add_hosts.keys().collect();
    parts.add("the names of further hosts", &hosts);
    parts.add("the latest time of files", &options.source_date_epoch);
    for (name, value) in env.iter() {
        parts.add(format!("the variable {name}"), &value);
    }
    // Their order decides which is on top.
    let order: Vec<(&MountKind, &Option<String>)> =
        mounts.iter().map(|mount| (&mount.mount.kind, &mount.path)).collect();
    parts.add("the mounts", &order);
    for (number, mount) in mounts.iter().enumerate() {
        let mut name = name(mount);
        if parts.0.contains_key(&name) {
            name = format!("{name} (mount {})", number + 1);
        }
        parts.add(name, &(options_of(&mount.mount), shown.get(&number)));
    }
    parts
}

/// What a mount is called.
fn name(mount: &RunMount) -> String {
    match (&mount.path, mount.mount.kind) {
        (Some(path), MountKind::Bind) => format!("what is mounted at {path}"),
        (Some(path), _) => format!("the mount at {path}"),
        (None, _) => "a mount without a target".to_owned(),
    }
}

/// The options of a mount that count: not where something comes from, but what it is.
fn options_of(mount: &Mount) -> Mount {
    let mut counts = mount.clone();
    counts.from = None;
    if matches!(mount.kind, MountKind::Bind) {
        counts.source = None;
    }
    counts
}

impl Builder<'_> {
    /// The parts of a command, by what its mounts show.
    pub(super) fn parts(&self, run: &RunStep, shown: &BTreeMap<usize, Digest>) -> Parts {
        let platform = self.stage.evaluated.platform.to_string();
        parts(run, &self.around.shared.request.options, &platform, shown)
    }

    /// The key of a command.
    pub(super) fn run_key(&self, kind: &str, parts: &Parts) -> Digest {
        Key::new(kind).digest(&self.stage.key).digest(&parts.digest()).finish()
    }
}

/// The digests of what mounts show.
pub(super) fn shown(inputs: &Inputs) -> BTreeMap<usize, Digest> {
    inputs.iter().map(|(number, bound)| (*number, bound.digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::instruction::{Network, Security};

    fn run(change: impl FnOnce(&mut RunStep)) -> RunStep {
        let mut run = RunStep {
            command: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            script: None,
            env: [("A", "1")].into_iter().collect(),
            proxies: [("HTTP_PROXY", "http://one")].into_iter().collect(),
            working_dir: "/".into(),
            user: String::new(),
            mounts: Vec::new(),
            network: Network::Default,
            security: Security::Sandbox,
            devices: Vec::new(),
        };
        change(&mut run);
        run
    }

    fn mount(kind: MountKind, path: &str, change: impl FnOnce(&mut Mount)) -> RunMount {
        let mut mount = Mount { kind, ..Mount::default() };
        change(&mut mount);
        RunMount { mount, origin: None, path: Some(path.into()) }
    }

    fn digest(run: &RunStep, options: &BuildOptions, shown: &[(usize, &str)]) -> Digest {
        let shown = shown.iter().map(|(number, text)| (*number, Digest::of(text.as_bytes()))).collect();
        parts(run, options, "linux/amd64", &shown).digest()
    }

    #[test]
    fn what_does_not_count_does_not_count() {
        let (plain, options) = (run(|_| {}), BuildOptions::default());
        let key = digest(&plain, &options, &[]);
        let proxy = run(|run| run.proxies = [("HTTP_PROXY", "http://two")].into_iter().collect());
        assert_eq!(digest(&proxy, &options, &[]), key);
        let host = |address: &str| BuildOptions {
            add_hosts: [("h".to_owned(), address.to_owned())].into(),
            ..BuildOptions::default()
        };
        assert_eq!(digest(&plain, &host("1.2.3.4"), &[]), digest(&plain, &host("::1"), &[]));
        assert_ne!(digest(&plain, &host("::1"), &[]), key);
        let bind = |source: &str| {
            run(|run| {
                run.mounts = vec![mount(MountKind::Bind, "/m", |mount| mount.source = Some(source.into()))];
            })
        };
        assert_eq!(digest(&bind("a"), &options, &[(0, "x")]), digest(&bind("b"), &options, &[(0, "x")]));
        assert_ne!(digest(&bind("a"), &options, &[(0, "x")]), digest(&bind("a"), &options, &[(0, "y")]));
    }

    #[test]
    fn everything_else_counts() {
        let options = BuildOptions::default();
        let cache =
            |id: &str| run(|run| run.mounts = vec![mount(MountKind::Cache, "/m", |mount| mount.id = Some(id.into()))]);
        let runs = [
            run(|_| {}),
            run(|run| run.command.push("x".into())),
            run(|run| run.env = [("A", "2")].into_iter().collect()),
            run(|run| run.env = [("B", "1")].into_iter().collect()),
            run(|run| run.user = "me".into()),
            run(|run| run.working_dir = "/w".into()),
            run(|run| run.network = Network::None),
            cache("a"),
            cache("b"),
            run(|run| run.mounts = vec![mount(MountKind::Secret, "/m", |mount| mount.id = Some("a".into()))]),
        ];
        let mut keys: Vec<Digest> = runs.iter().map(|run| digest(run, &options, &[])).collect();
        let plain = run(|_| {});
        for options in [
            BuildOptions { shm_size: Some(1), ..BuildOptions::default() },
            BuildOptions { ulimits: vec!["nofile=1:1".into()], ..BuildOptions::default() },
            BuildOptions { source_date_epoch: Some(1), ..BuildOptions::default() },
        ] {
            keys.push(digest(&plain, &options, &[]));
        }
        let count = keys.len();
        keys.sort_by_key(Digest::hex);
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
