//! RUN.

use serde::Serialize;

use super::mount::{MountSpec, parse_bool, split_fields};
use super::{Command, Mistake, Result, nearest};
use crate::dockerfile::flags::{Flags, Takes};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::statement::Statement;

/// Runs a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The command. Where there are here-documents it is one for the shell.
    pub command: Command,
    /// The here-documents that it starts.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`.
    pub mounts: Vec<MountSpec>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// `--network` of RUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// What the build has.
    #[default]
    Default,
    /// None but the loopback.
    None,
    /// The host's.
    Host,
}

/// `--security` of RUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// The usual one.
    #[default]
    Sandbox,
    /// All privileges.
    Insecure,
}

/// `--device` of RUN: a device by its CDI name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Whether the step fails without it.
    pub required: bool,
}

const FLAGS: &[(&str, Takes)] =
    &[("mount", Takes::Texts), ("network", Takes::Text), ("security", Takes::Text), ("device", Takes::Texts)];

impl Run {
    pub(super) fn parse(statement: &Statement) -> Result<Self> {
        let flags = Flags::parse(&statement.flags, FLAGS)?;
        Ok(Self {
            command: Command::of(&statement.arguments),
            heredocs: statement.heredocs.clone(),
            mounts: flags.texts("mount").iter().map(|text| MountSpec::parse(text)).collect::<Result<_>>()?,
            network: network(flags.text("network").as_deref())?,
            security: security(flags.text("security").as_deref())?,
            devices: flags.texts("device").iter().map(|text| Device::parse(text)).collect::<Result<_>>()?,
        })
    }
}

fn network(text: Option<&str>) -> Result<Network> {
    match text {
        None | Some("default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(Mistake::syntax(format!("`{other}` is no network of RUN: it is default, none or host"))
            .near(other)
            .suggest(nearest(other, ["default", "none", "host"]))),
    }
}

fn security(text: Option<&str>) -> Result<Security> {
    match text {
        None | Some("sandbox") => Ok(Security::Sandbox),
        Some("insecure") => Ok(Security::Insecure),
        Some(other) => Err(Mistake::syntax(format!("`{other}` is no security of RUN: it is sandbox or insecure"))
            .near(other)
            .suggest(nearest(other, ["sandbox", "insecure"]))),
    }
}

impl Device {
    fn parse(text: &str) -> Result<Self> {
        let mut device = Self::default();
        for field in split_fields(text).map_err(|mistake| mistake.near("--device"))? {
            let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            match (key.to_lowercase().as_str(), value) {
                ("required", value) => device.required = parse_bool(key, value.unwrap_or("true"))?,
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(Mistake::syntax("a device has two names").near(field));
                }
                ("name", Some(value)) => value.clone_into(&mut device.name),
                // Anything else is a name; those of CDI have a `=` in them.
                _ if device.name.is_empty() => device.name = field,
                _ => {
                    let message = format!("unknown key `{key}` of --device");
                    return Err(Mistake::syntax(message).near(&field).suggest(nearest(key, ["name", "required"])));
                }
            }
        }
        Ok(device)
    }
}
