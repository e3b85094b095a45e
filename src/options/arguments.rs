//! Build options as arguments of a program that builds somewhere else: `docker build` on a machine of a cloud's build service,
//! or Kaniko's executor in a pod.
//!
//! An option that would change the image and cannot be passed on is an error. One that could only have made the build faster
//! is left out with a notice. `rm`, `force-rm` and, for Kaniko, `pull` have nothing to do there: what builds is thrown away
//! afterwards, and Kaniko always looks for newer base images.

use std::str::FromStr;

use serde::Serialize;

use super::only_buildkit_engine;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::request::{BuildOptions, SecretSource};

/// What the arguments are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `docker build` in AWS CodeBuild, where variables of the environment can be set.
    CodeBuild,
    /// `docker build` in Google Cloud Build.
    CloudBuild,
    /// Kaniko's executor.
    Kaniko,
}

impl FromStr for Program {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "codebuild" => Ok(Self::CodeBuild),
            "cloudbuild" => Ok(Self::CloudBuild),
            "kaniko" => Ok(Self::Kaniko),
            _ => Err(Error::internal(format!("no program `{name}`"))),
        }
    }
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::CodeBuild => "AWS CodeBuild",
            Self::CloudBuild => "Google Cloud Build",
            Self::Kaniko => "Kaniko",
        }
    }

    fn refuse(self, option: &str, reason: &str) -> Error {
        Error::Unsupported {
            engine: self.name().into(),
            feature: format!("serve the build option `{option}`"),
            reason: reason.into(),
        }
    }
}

/// Arguments, and what was left out.
#[derive(Debug, Default, Serialize)]
pub struct Arguments {
    /// Each is `--name=value` or `--name`.
    pub arguments: Vec<String>,
    /// Options without an effect, and why.
    pub notices: Vec<String>,
}

impl Arguments {
    /// `options` as `program` takes them. Build arguments without a value get that of our environment, as with the Docker
    /// command line; where it has none either, they are left out.
    ///
    /// Fails with `Unsupported` for an option that would change the image and cannot be passed on.
    pub fn of(program: Program, options: &BuildOptions, environment: &Environment) -> Result<Self> {
        let mut line = Self::default();
        for (name, value) in &options.build_args {
            if let Some(value) = value.as_deref().or_else(|| environment.var(name)) {
                line.pair("build-arg", name, value);
            }
        }
        for (name, value) in &options.labels {
            line.pair("label", name, value);
        }
        line.value("target", options.target.as_ref());
        Self::ours(program, options)?;
        match program {
            Program::Kaniko => line.kaniko(options)?,
            Program::CodeBuild | Program::CloudBuild => line.docker(program, options)?,
        }
        Ok(line)
    }

    /// What only our own engines have.
    fn ours(program: Program, options: &BuildOptions) -> Result<()> {
        if options.compression.is_some() {
            return Err(program.refuse("compression", "it compresses layers as it likes"));
        }
        if options.fold == Some(true) {
            return Err(program.refuse("fold", "it runs every RUN"));
        }
        let only = "the BuildKit engine can: flavor `cooper_buildkit`";
        match only_buildkit_engine(options) {
            Some((option, _)) => Err(program.refuse(option, only)),
            None => Ok(()),
        }
    }

    fn kaniko(&mut self, options: &BuildOptions) -> Result<()> {
        self.value("custom-platform", options.platform());
        // Kaniko's word for one layer of all new ones.
        self.flag("single-snapshot", options.squash);
        if options.no_cache {
            // Also where the executor's arguments ask for one.
            self.arguments.push("--cache=false".into());
        }
        let network = options.network.as_deref().filter(|network| *network != "default");
        for (option, given, reason) in [
            ("network", network.is_some(), "RUN has the pod's network"),
            ("no-cache-filter", !options.no_cache_filter.is_empty(), "it has `no-cache` for all stages"),
            ("add-host", !options.add_hosts.is_empty(), "RUN has the pod's host names"),
            ("secret", !options.secrets.is_empty(), "it has no secrets; mount one with `volumes` and `volume_mounts`"),
            ("ssh", !options.ssh.is_empty(), "it forwards no SSH agent"),
            ("build-context", !options.build_contexts.is_empty(), "it has one context"),
            ("ulimit", !options.ulimits.is_empty(), "RUN has the pod's limits"),
            ("shm-size", options.shm_size.is_some(), "RUN has the pod's `/dev/shm`"),
            ("cgroup-parent", options.cgroup_parent.is_some(), "RUN is in the pod's control group"),
            (
                "source-date-epoch",
                options.source_date_epoch.is_some(),
                "`--reproducible` in `executor_args` drops times",
            ),
        ] {
            if given {
                return Err(Program::Kaniko.refuse(option, reason));
            }
        }
        if let Some(option) = limit(options) {
            return Err(Program::Kaniko.refuse(option, "RUN has the pod's limits"));
        }
        for (option, given) in
            [("cache-from", !options.cache_from.is_empty()), ("cache-to", !options.cache_to.is_empty())]
        {
            if given {
                self.notices.push(format!(
                    "Kaniko has no `{option}`; it caches with `--cache=true` and `--cache-repo=REPOSITORY` in \
                     `executor_args`"
                ));
            }
        }
        Ok(())
    }

    fn docker(&mut self, program: Program, options: &BuildOptions) -> Result<()> {
        self.value("platform", options.platform());
        self.flag("no-cache", options.no_cache);
        if !options.no_cache_filter.is_empty() {
            self.value("no-cache-filter", Some(options.no_cache_filter.join(",")));
        }
        self.flag("pull", options.pull);
        self.flag("squash", options.squash);
        self.value("shm-size", options.shm_size);
        self.value("network", options.network.as_ref());
        for (host, address) in &options.add_hosts {
            self.arguments.push(format!("--add-host={host}:{address}"));
        }
        self.values("cache-from", &options.cache_from);
        self.values("cache-to", &options.cache_to);
        self.values("ulimit", &options.ulimits);
        self.value("cgroup-parent", options.cgroup_parent.as_ref());
        self.value("memory", options.memory);
        self.value("memory-swap", options.memory_swap);
        self.value("cpuset-cpus", options.cpuset_cpus.as_ref());
        self.value("cpu-shares", options.cpu_shares);
        self.value("cpu-period", options.cpu_period);
        self.value("cpu-quota", options.cpu_quota);
        if let Some(epoch) = options.source_date_epoch {
            // BuildKit takes it as a build argument.
            self.pair("build-arg", "SOURCE_DATE_EPOCH", &epoch.to_string());
        }
        for (name, source) in &options.build_contexts {
            if !source.contains("://") {
                return Err(
                    program.refuse("build-context", "a directory of this machine is not on the one that builds")
                );
            }
            self.pair("build-context", name, source);
        }
        if !options.ssh.is_empty() {
            return Err(program.refuse("ssh", "the machine that builds has no agent of yours"));
        }
        for secret in &options.secrets {
            let SecretSource::Env(variable) = &secret.source else {
                return Err(program.refuse("secret", "only `env=VARIABLE` does not send the secret with the build"));
            };
            if program == Program::CloudBuild {
                return Err(program.refuse("secret", "no variable can be set there"));
            }
            self.arguments.push(format!("--secret=id={},env={variable}", secret.id));
        }
        Ok(())
    }

    fn flag(&mut self, name: &str, given: bool) {
        if given {
            self.arguments.push(format!("--{name}"));
        }
    }

    fn value(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.arguments.push(format!("--{name}={value}"));
        }
    }

    fn values(&mut self, name: &str, values: &[impl std::fmt::Display]) {
        self.arguments.extend(values.iter().map(|value| format!("--{name}={value}")));
    }

    fn pair(&mut self, name: &str, key: &str, value: &str) {
        self.arguments.push(format!("--{name}={key}={value}"));
    }
}

/// The first limit of RUN's memory or processors that is given.
fn limit(options: &BuildOptions) -> Option<&'static str> {
    [
        ("memory", options.memory.is_some()),
        ("memory-swap", options.memory_swap.is_some()),
        ("cpuset-cpus", options.cpuset_cpus.is_some()),
        ("cpu-shares", options.cpu_shares.is_some()),
        ("cpu-period", options.cpu_period.is_some()),
        ("cpu-quota", options.cpu_quota.is_some()),
    ]
    .into_iter()
    .find_map(|(option, given)| given.then_some(option))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{OPTIONS, Value, normalize};

    fn arguments(program: Program, json: &str) -> Result<Arguments> {
        let value: Value = serde_json::from_str(json).unwrap();
        let environment = Environment::with("/", [("FROM_HERE", "here")]);
        Arguments::of(program, &normalize(value)?, &environment)
    }

    fn docker(json: &str) -> Vec<String> {
        arguments(Program::CodeBuild, json).unwrap().arguments
    }

    fn kaniko(json: &str) -> Vec<String> {
        arguments(Program::Kaniko, json).unwrap().arguments
    }

    fn refused(program: Program, json: &str) -> String {
        match arguments(program, json) {
            Err(error @ Error::Unsupported { .. }) => error.to_string(),
            other => panic!("{json}: {other:?}"),
        }
    }

    /// One of every option, as a user may write it.
    const ALL: &str = r#"{
        "buildargs": {"A": "1 = 2", "FROM_HERE": null, "NOWHERE": null}, "labels": {"l": "$x"}, "target": "t",
        "platform": "linux/arm64", "nocache": true, "pull": true, "rm": true, "force-rm": true, "squash": true,
        "shmsize": "1k", "network": "host", "extra_hosts": {"h": "::1"}, "cache_from": ["a:1"], "cache-to": "type=inline",
        "secret": "id=s,env=S", "ssh": null, "build-context": "b=https://example.com/b.git", "ulimit": "nofile=1:2",
        "cgroup-parent": "g", "memory": 5, "memory-swap": -1, "cpuset-cpus": "0", "cpu-shares": 1, "cpu-period": 2,
        "cpu-quota": 3, "container-limits": null, "source-date-epoch": 4, "no-cache-filter": ["a", "b"], "compression": null,
        "force-compression": false, "oci-mediatypes": null, "annotation": null, "attest": null, "allow": null,
        "fold": false, "provenance": false, "sbom": false
    }"#;

    #[test]
    fn docker_takes_all_of_them() {
        let value: Value = serde_json::from_str(ALL).unwrap();
        let Value::Map(given) = value else { unreachable!() };
        assert_eq!(given.len(), OPTIONS.len(), "every option stands in the test");
        assert_eq!(
            docker(ALL),
            [
                "--build-arg=A=1 = 2",
                "--build-arg=FROM_HERE=here",
                "--label=l=$x",
                "--target=t",
                "--platform=linux/arm64",
                "--no-cache",
                "--no-cache-filter=a,b",
                "--pull",
                "--squash",
                "--shm-size=1024",
                "--network=host",
                "--add-host=h:::1",
                "--cache-from=a:1",
                "--cache-to=type=inline",
                "--ulimit=nofile=1:2",
                "--cgroup-parent=g",
                "--memory=5",
                "--memory-swap=-1",
                "--cpuset-cpus=0",
                "--cpu-shares=1",
                "--cpu-period=2",
                "--cpu-quota=3",
                "--build-arg=SOURCE_DATE_EPOCH=4",
                "--build-context=b=https://example.com/b.git",
                "--secret=id=s,env=S",
            ]
        );
    }

    #[test]
    fn what_stays_here_is_not_sent() {
        assert!(refused(Program::CodeBuild, r#"{"secret": "id=s,src=/f"}"#).contains("`secret`"));
        assert!(refused(Program::CloudBuild, r#"{"secret": "id=s,env=S"}"#).contains("no variable can be set"));
        assert!(refused(Program::CloudBuild, r#"{"compression": "gzip:9"}"#).contains("as it likes"));
        assert!(refused(Program::CodeBuild, r#"{"fold": true}"#).contains("runs every RUN"));
        assert!(refused(Program::CloudBuild, r#"{"ssh": "default"}"#).contains("Google Cloud Build cannot serve"));
        assert!(refused(Program::CodeBuild, r#"{"build-context": "b=../b"}"#).contains("this machine"));
        let value = refused(Program::CodeBuild, r#"{"secret": {"id": "s", "value": "hunter2"}}"#);
        assert!(!value.contains("hunter2"), "{value}");
    }

    #[test]
    fn kaniko_takes_refuses_or_tells() {
        assert_eq!(
            kaniko(
                r#"{"build_args": {"A": "1"}, "labels": {"l": "2"}, "target": "t", "platform": "linux/arm64",
                    "no_cache": true, "pull": true, "rm": false, "force_rm": true, "squash": true, "network": "default"}"#
            ),
            [
                "--build-arg=A=1",
                "--label=l=2",
                "--target=t",
                "--custom-platform=linux/arm64",
                "--single-snapshot",
                "--cache=false"
            ]
        );
        for option in [
            r#""network": "host""#,
            r#""no-cache-filter": "a""#,
            r#""compression": "zstd""#,
            r#""fold": true"#,
            r#""add-host": "h:1.2.3.4""#,
            r#""secret": "id=s,env=S""#,
            r#""ssh": "default""#,
            r#""build-context": "b=https://example.com""#,
            r#""ulimit": "nofile=1""#,
            r#""shm-size": 1"#,
            r#""cgroup-parent": "g""#,
            r#""source-date-epoch": 1"#,
            r#""memory": 1"#,
            r#""memory-swap": 1"#,
            r#""cpuset-cpus": "0""#,
            r#""cpu-shares": 1"#,
            r#""cpu-period": 1"#,
            r#""cpu-quota": 1"#,
        ] {
            let name = option.split('"').nth(1).unwrap();
            let said = refused(Program::Kaniko, &format!("{{{option}}}"));
            assert!(said.contains(&format!("`{name}`")), "{option}: {said}");
        }
        let told = arguments(Program::Kaniko, r#"{"cache-from": "a", "cache-to": "type=inline"}"#).unwrap();
        assert_eq!((told.arguments.len(), told.notices.len()), (0, 2));
        assert!(told.notices[0].contains("--cache-repo"), "{:?}", told.notices);
    }
}
