//! What a build is given besides the Dockerfile, and the arguments that exist without being declared.

use std::collections::{BTreeMap, BTreeSet};

use super::variables::Variables;
use crate::platform::Platform;

/// What a build is given.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// The platform that builds.
    pub build_platform: Platform,
    /// `--platform`; the platform that builds where there is none.
    pub target_platform: Option<Platform>,
    /// `--target`: a stage by name or number; the last one where there is none.
    pub target: Option<String>,
    /// The names of `--build-context`.
    pub contexts: BTreeSet<String>,
}

/// Variables of the environment that reach a RUN without ARG, in both cases (`HTTP_PROXY`, `http_proxy`).
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Arguments that BuildKit's attestations are asked for with: they are no variables of the build.
pub(super) const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Inputs {
    /// A build on and for one platform.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            build_args: BTreeMap::new(),
            build_platform,
            target_platform: None,
            target: None,
            contexts: BTreeSet::new(),
        }
    }

    /// The platform of the image.
    pub fn platform(&self) -> &Platform {
        self.target_platform.as_ref().unwrap_or(&self.build_platform)
    }

    /// The arguments of a platform's parts, and of the target, as FROM sees them.
    pub(super) fn predefined(&self, target: &str) -> Variables {
        let mut variables = Variables::default();
        for (prefix, platform) in [("BUILD", &self.build_platform), ("TARGET", self.platform())] {
            let parts = [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os.clone()),
                ("OSVERSION", String::new()),
                ("ARCH", platform.architecture.clone()),
                ("VARIANT", platform.variant.clone().unwrap_or_default()),
            ];
            for (part, value) in parts {
                variables.set(&format!("{prefix}{part}"), &value);
            }
        }
        variables.set("TARGETSTAGE", if target.is_empty() { "default" } else { target });
        let given: Vec<_> = self.build_args.iter().filter(|(name, _)| variables.get(name).is_some()).collect();
        for (name, value) in given {
            variables.set(name, value);
        }
        variables
    }

    /// The proxies among the build arguments. Every RUN has them, and no image keeps them.
    pub fn proxies(&self) -> Variables {
        let is_proxy = |name: &str| PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy));
        self.build_args.iter().filter(|(name, _)| is_proxy(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_have_parts() {
        let mut inputs = Inputs::new("linux/amd64".parse().unwrap());
        inputs.target_platform = Some("linux/arm/v7".parse().unwrap());
        inputs.build_args = [("TARGETOS", "plan9"), ("http_proxy", "p"), ("X", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let variables = inputs.predefined("");
        let expected = [
            ("BUILDPLATFORM", "linux/amd64"),
            ("BUILDVARIANT", ""),
            ("TARGETPLATFORM", "linux/arm/v7"),
            ("TARGETOS", "plan9"),
            ("TARGETARCH", "arm"),
            ("TARGETVARIANT", "v7"),
            ("TARGETSTAGE", "default"),
        ];
        for (name, value) in expected {
            assert_eq!(variables.get(name), Some(value), "{name}");
        }
        assert_eq!(variables.get("X"), None);
        assert_eq!(inputs.proxies().iter().collect::<Vec<_>>(), [("http_proxy", "p")]);
    }
}
