//! What instructions change of an image's configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::instruction::Healthcheck;
use super::variables::Variables;

/// The part of an image's configuration that instructions read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Config {
    /// ENV.
    pub env: Variables,
    /// CMD.
    pub cmd: Option<Vec<String>>,
    /// ENTRYPOINT.
    pub entrypoint: Option<Vec<String>>,
    /// LABEL.
    pub labels: BTreeMap<String, String>,
    /// EXPOSE, as `port/protocol`.
    pub exposed_ports: BTreeSet<String>,
    /// VOLUME.
    pub volumes: BTreeSet<String>,
    /// WORKDIR; empty is `/`.
    pub working_dir: String,
    /// USER; empty is root.
    pub user: String,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// SHELL; empty is the platform's default.
    pub shell: Vec<String>,
    /// HEALTHCHECK.
    pub healthcheck: Option<Healthcheck>,
    /// ONBUILD.
    pub onbuild: Vec<String>,
    /// MAINTAINER.
    pub author: Option<String>,
}

/// `PATH` of an image that has none. Windows has one of its own.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Config {
    /// Sets `PATH` if it is not set.
    pub(super) fn complete_path(&mut self, os: &str) {
        if os != "windows" && self.env.get("PATH").is_none() {
            self.env.set("PATH", DEFAULT_PATH);
        }
    }

    /// A text for the shell as a command.
    pub(super) fn with_shell(&self, text: &str, os: &str) -> Vec<String> {
        let default: &[&str] = if os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        let mut command = self.shell.clone();
        if command.is_empty() {
            command.extend(default.iter().map(|&word| word.to_owned()));
        }
        command.push(text.to_owned());
        command
    }
}
