//! The command itself: who runs it, with which environment, network and limits.

use std::collections::BTreeMap;

use super::super::stage::Builder;
use super::machine::Machine;
use crate::dockerfile::instruction::{Network, Security};
use crate::dockerfile::step::RunStep;
use crate::dockerfile::{Step, Variables};
use crate::error::{Error, Result, StepFailure};
use crate::request::BuildOptions;
use crate::rootfs::{ExecUser, View};
use crate::sandbox::{self, Level, Process, Spec, Ulimit};
use crate::secret::Secret;

/// The proxies, in BuildKit's order. Each is set in both cases.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
/// What Docker calls the machine that a container runs on. Without a network of its own, a command has that of the machine.
const HOST_GATEWAY: &str = "host-gateway";

/// The network of a command: its own flag, else the build's option.
pub(super) fn network(run: &RunStep, options: &BuildOptions) -> Network {
    match (run.network, options.network.as_deref()) {
        (Network::Default, Some("none")) => Network::None,
        (Network::Default, Some("host")) => Network::Host,
        (network, _) => network,
    }
}

impl Builder<'_> {
    /// Fails with `StepUnsupported` for what no command gets here.
    pub(super) fn refuse(&self, step: &Step, run: &RunStep) -> Result<()> {
        if run.security == Security::Insecure {
            let message = "`--security=insecure` is not available: commands run without privileges on this machine";
            return Err(self.unsupported(step, message.to_owned()));
        }
        if let Some(device) = run.devices.iter().find(|device| device.required) {
            let message =
                format!("`--device={}` is not available: commands get no devices of this machine", device.name);
            return Err(self.unsupported(step, message));
        }
        Ok(())
    }

    /// Fails with `StepUnsupported` for what no command gets at a level.
    pub(super) fn refuse_at(&self, machine: &Machine, step: &Step, run: &RunStep) -> Result<()> {
        let options = &self.around.shared.request.options;
        if machine.level == Level::Chroot && network(run, options) == Network::None {
            let message = "`--network=none` is not available in the sandbox `chroot`: it shares this machine's network";
            return Err(self.unsupported(step, message.to_owned()));
        }
        Ok(())
    }

    /// Who runs a command.
    pub(super) fn user(&self, step: &Step, run: &RunStep, view: &View) -> Result<ExecUser> {
        match view.exec_user(&run.user)? {
            Some(user) => Ok(user),
            None => Err(self.step_failed(step, unknown(&run.user, view)?)),
        }
    }

    /// A command that could not be started.
    pub(super) fn step_failed(&self, step: &Step, message: String) -> Error {
        Error::StepFailed(Box::new(StepFailure {
            instruction: step.text.clone(),
            exit_code: None,
            location: Some(self.place(step)),
            tail: Vec::new(),
            message,
        }))
    }
}

/// What BuildKit says of a user or a group that it does not find.
fn unknown(text: &str, view: &View) -> Result<String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if !user.is_empty() && view.user(user)?.is_none() {
        return Ok(format!("unable to find user {user}: no matching entries in passwd file"));
    }
    Ok(format!("unable to find group {group}: no matching entries in group file"))
}

/// The environment of a command. What is set first wins: ENV and ARG, proxies, secrets, and what every program expects.
pub(super) fn environment(
    run: &RunStep,
    secrets: &[(String, Secret<Vec<u8>>)],
    agent: Option<&str>,
    home: &str,
) -> Vec<(String, String)> {
    let mut env = Variables::default();
    let mut add = |name: &str, value: &str| {
        if env.get(name).is_none() {
            env.set(name, value);
        }
    };
    for (name, value) in run.env.iter() {
        add(name, value);
    }
    if let Some(agent) = agent {
        add("SSH_AUTH_SOCK", agent);
    }
    for (name, value) in proxies(&run.proxies) {
        add(&name, value);
    }
    add("PATH", crate::dockerfile::DEFAULT_PATH);
    for (name, value) in secrets {
        add(name, &String::from_utf8_lossy(value.expose()));
    }
    add("HOME", home);
    env.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Proxies as BuildKit sets them. In whichever case a build argument is, both variables get it.
fn proxies(given: &Variables) -> Vec<(String, &str)> {
    let mut set = Vec::new();
    for name in PROXIES {
        let value = given.iter().find(|(known, value)| known.eq_ignore_ascii_case(name) && !value.is_empty());
        if let Some((_, value)) = value {
            set.extend([(name.to_owned(), value), (name.to_lowercase(), value)]);
        }
    }
    set
}

/// What the sandbox is told of a command besides its root and its mounts.
pub(super) fn configure(spec: &mut Spec, run: &RunStep, options: &BuildOptions) -> Result<()> {
    spec.network = match network(run, options) {
        Network::None => sandbox::Network::None,
        Network::Default | Network::Host => sandbox::Network::Host,
    };
    spec.hosts = hosts(&options.add_hosts);
    spec.shm_size = options.shm_size.filter(|size| *size > 0).unwrap_or(Spec::SHM_SIZE);
    spec.ulimits = options.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_>>()?;
    Ok(())
}

/// The process of a command.
pub(super) fn process(run: &RunStep, user: &ExecUser, env: Vec<(String, String)>) -> Process {
    Process {
        argv: run.command.clone(),
        env,
        cwd: run.working_dir.clone(),
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
    }
}

fn hosts(given: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let address = |address: &String| if address == HOST_GATEWAY { "127.0.0.1".to_owned() } else { address.clone() };
    given.iter().map(|(host, given)| (host.clone(), address(given))).collect()
}

/// `name=soft:hard`.
fn ulimit(text: &str) -> Result<Ulimit> {
    let parse = || {
        let (name, limits) = text.split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some(Ulimit { name: name.to_lowercase(), soft: soft.parse().ok()?, hard: hard.parse().ok()? })
    };
    let known = parse().filter(|limit| Ulimit::number(&limit.name).is_some());
    known.ok_or_else(|| Error::InvalidOption {
        name: "ulimit".into(),
        reason: format!(
            "`{text}` is not NAME=SOFT[:HARD] with one of {}",
            Ulimit::KNOWN.map(|(name, _)| name).join(", ")
        ),
    })
}

/// Fails with `InvalidOption` for limits that there are none of.
pub(in super::super) fn check(options: &BuildOptions) -> Result<()> {
    options.ulimits.iter().try_for_each(|text| ulimit(text).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(env: &[(&str, &str)], proxies: &[(&str, &str)]) -> RunStep {
        RunStep {
            command: vec!["x".into()],
            script: None,
            env: env.iter().copied().collect(),
            proxies: proxies.iter().copied().collect(),
            working_dir: "/".into(),
            user: String::new(),
            mounts: Vec::new(),
            network: Network::Default,
            security: Security::Sandbox,
            devices: Vec::new(),
        }
    }

    #[test]
    fn what_the_dockerfile_sets_wins() {
        let run = run(
            &[("PATH", "/bin"), ("no_proxy", "mine"), ("T", "plain")],
            &[("http_proxy", "http://p"), ("NO_PROXY", "theirs"), ("HTTPS_PROXY", "")],
        );
        let secrets = [("T".to_owned(), Secret::new(b"s".to_vec())), ("S".to_owned(), Secret::new(b"t".to_vec()))];
        let env = environment(&run, &secrets, Some("/run/agent"), "/root");
        let expected = [
            ("PATH", "/bin"),
            ("no_proxy", "mine"),
            ("T", "plain"),
            ("SSH_AUTH_SOCK", "/run/agent"),
            ("HTTP_PROXY", "http://p"),
            ("http_proxy", "http://p"),
            ("NO_PROXY", "theirs"),
            ("S", "t"),
            ("HOME", "/root"),
        ];
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, expected);
        let bare = environment(&super::tests::run(&[], &[]), &[], None, "/");
        assert_eq!(bare[0].0, "PATH");
    }

    #[test]
    fn limits_have_names() {
        let limit = ulimit("nofile=5:-1").unwrap();
        assert_eq!(limit, Ulimit { name: "nofile".into(), soft: 5, hard: -1 });
        for text in ["nofiles=5:5", "nofile", "nofile=x:5"] {
            assert_eq!(ulimit(text).unwrap_err().code(), "invalid-option", "{text}");
        }
    }

    #[test]
    fn a_command_has_its_own_network_or_that_of_the_build() {
        let options = |network: &str| BuildOptions { network: Some(network.to_owned()), ..BuildOptions::default() };
        let mut step = run(&[], &[]);
        assert_eq!(network(&step, &BuildOptions::default()), Network::Default);
        assert_eq!(network(&step, &options("none")), Network::None);
        step.network = Network::Host;
        assert_eq!(network(&step, &options("none")), Network::Host);
    }

    #[test]
    fn the_machine_has_a_name_for_commands() {
        let given = [("a".to_owned(), "1.2.3.4".to_owned()), ("b".to_owned(), "host-gateway".to_owned())].into();
        assert_eq!(hosts(&given), [("a".into(), "1.2.3.4".into()), ("b".into(), "127.0.0.1".into())]);
    }
}
