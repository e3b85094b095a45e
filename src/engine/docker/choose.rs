//! Which builder of a daemon: `BuildKit` where it is there and can do what was asked for, else the classic one.

use crate::buildkit::attrs::{self, BuildkitVersion};
use crate::daemon::{Daemon, Product};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::moby::build as modern;
use crate::request::{BuildOptions, BuilderChoice, CacheSpec};

/// The builders of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Builder {
    Buildkit,
    Classic,
}

impl Builder {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Buildkit => "buildkit",
            Self::Classic => "classic",
        }
    }
}

/// A choice and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) builder: Builder,
    pub(super) reason: String,
    /// The user would have expected something else, and should be told.
    pub(super) surprising: bool,
}

/// What a choice depends on, of a daemon.
pub(super) struct Abilities {
    pub(super) product: Product,
    pub(super) buildkit: bool,
    pub(super) version: BuildkitVersion,
    /// The Dockerfile names a frontend of its own, which may know more than the daemon's.
    pub(super) own_frontend: bool,
}

impl Abilities {
    pub(super) fn of(daemon: &Daemon, own_frontend: bool) -> Self {
        let version = modern::version(daemon.api_version);
        Self { product: daemon.product, buildkit: daemon.buildkit, version, own_frontend }
    }
}

/// Chooses. Fails with `Unsupported` if no builder of this daemon can do all that was asked for.
pub(super) fn choose(
    choice: BuilderChoice,
    options: &BuildOptions,
    daemon: &Abilities,
    environment: &Environment,
) -> Result<Chosen> {
    let lacks = attrs::unsupported(options, daemon.version, daemon.own_frontend);
    let modern = only_buildkit(options);
    let unsupported = |engine: &str, feature: String, reason: String| {
        Err(Error::Unsupported { engine: engine.to_owned(), feature, reason })
    };
    let chosen = |builder, reason: String, surprising| Ok(Chosen { builder, reason, surprising });
    let product = daemon.product.name();
    let no_buildkit = format!("{product} at this address has no BuildKit; use Docker Engine 19.03 or later");
    let may_be_classic = choice != BuilderChoice::Buildkit;
    match (modern, lacks) {
        (Some(modern), _) if choice == BuilderChoice::Classic => {
            unsupported("the classic builder", format!("use `{modern}`"), "BuildKit can; let it build".into())
        }
        (Some(modern), _) if !daemon.buildkit => unsupported(product, format!("use `{modern}`"), no_buildkit),
        (None, _) if !daemon.buildkit && !may_be_classic => {
            unsupported(product, "build with BuildKit".into(), no_buildkit)
        }
        // The classic builder is no way out where something needs BuildKit.
        (Some(modern), Some(lacks)) => {
            let reason = format!("{}; and `{modern}` needs BuildKit", lacks.reason);
            unsupported("BuildKit of this daemon", lacks.feature.to_owned(), reason)
        }
        (None, Some(lacks)) if !may_be_classic => {
            unsupported("BuildKit of this daemon", lacks.feature.to_owned(), lacks.reason)
        }
        _ if choice != BuilderChoice::Auto => {
            let builder = if may_be_classic { Builder::Classic } else { Builder::Buildkit };
            chosen(builder, "as asked for".into(), false)
        }
        _ if !daemon.buildkit => chosen(Builder::Classic, format!("{product} at this address has no BuildKit"), true),
        (None, Some(lacks)) => {
            let reason = format!("BuildKit of this daemon cannot {}: {}", lacks.feature, lacks.reason);
            chosen(Builder::Classic, reason, true)
        }
        (None, None) if environment.var("DOCKER_BUILDKIT").is_some_and(is_false) => {
            chosen(Builder::Classic, "DOCKER_BUILDKIT turns BuildKit off".into(), true)
        }
        _ => chosen(Builder::Buildkit, "the daemon has BuildKit".into(), false),
    }
}

/// Go's `strconv.ParseBool`, as the Docker CLI reads the variable.
fn is_false(value: &str) -> bool {
    matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False")
}

/// The first option that only `BuildKit` has.
fn only_buildkit(options: &BuildOptions) -> Option<&'static str> {
    let present = [
        ("secrets", !options.secrets.is_empty()),
        ("ssh", !options.ssh.is_empty()),
        ("cache_to", !options.cache_to.is_empty()),
        ("cache_from", options.cache_from.iter().any(|cache| !matches!(cache, CacheSpec::Image(_)))),
        ("no_cache_filter", !options.no_cache_filter.is_empty()),
        ("build_contexts", !options.build_contexts.is_empty()),
        ("source_date_epoch", options.source_date_epoch.is_some()),
    ];
    present.iter().find(|(_, present)| *present).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER_20: Abilities = docker(8);
    const DOCKER_27: Abilities = docker(13);
    const PODMAN: Abilities = Abilities { product: Product::Podman, buildkit: false, ..docker(0) };

    const fn docker(minor: u32) -> Abilities {
        let version = BuildkitVersion::v0(minor);
        Abilities { product: Product::Docker, buildkit: true, version, own_frontend: false }
    }

    fn pick(choice: BuilderChoice, options: &BuildOptions, daemon: &Abilities) -> Result<(Builder, bool)> {
        let environment = Environment::with("/", [("DOCKER_BUILDKIT", "")]);
        choose(choice, options, daemon, &environment).map(|chosen| (chosen.builder, chosen.surprising))
    }

    #[test]
    fn buildkit_is_used_where_it_can_serve() {
        let plain = BuildOptions::default();
        let shm = BuildOptions { shm_size: Some(1 << 20), ..BuildOptions::default() };
        let memory = BuildOptions { memory: Some(1 << 30), ..BuildOptions::default() };
        let auto = BuilderChoice::Auto;
        assert_eq!(pick(auto, &plain, &DOCKER_20).unwrap(), (Builder::Buildkit, false));
        assert_eq!(pick(auto, &plain, &PODMAN).unwrap(), (Builder::Classic, true));
        assert_eq!(pick(auto, &shm, &DOCKER_20).unwrap(), (Builder::Classic, true));
        assert_eq!(pick(auto, &shm, &DOCKER_27).unwrap(), (Builder::Buildkit, false));
        assert_eq!(pick(auto, &memory, &DOCKER_27).unwrap(), (Builder::Classic, true));
        assert_eq!(pick(BuilderChoice::Classic, &plain, &DOCKER_27).unwrap(), (Builder::Classic, false));
        let off = Environment::with("/", [("DOCKER_BUILDKIT", "0")]);
        assert_eq!(choose(auto, &plain, &DOCKER_27, &off).unwrap().builder, Builder::Classic);
    }

    #[test]
    fn what_no_builder_can_do_is_an_error() {
        let modern =
            BuildOptions { cache_to: vec![CacheSpec::Other("inline".into(), [].into())], ..BuildOptions::default() };
        let stages = BuildOptions { no_cache_filter: vec!["a".into()], ..BuildOptions::default() };
        let both = BuildOptions { memory: Some(1 << 30), ..modern.clone() };
        let cases = [
            (BuilderChoice::Auto, &both, &DOCKER_27),
            (BuilderChoice::Auto, &modern, &PODMAN),
            (BuilderChoice::Classic, &modern, &DOCKER_27),
            (BuilderChoice::Buildkit, &both, &DOCKER_27),
            (BuilderChoice::Buildkit, &modern, &PODMAN),
            (BuilderChoice::Classic, &stages, &DOCKER_27),
        ];
        for (choice, options, daemon) in cases {
            assert_eq!(pick(choice, options, daemon).unwrap_err().code(), "unsupported", "{choice:?}");
        }
    }
}
