//! Platforms (OCI image spec, image-index.md, "platform"), written `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// An operating system, an architecture in Go's spelling and, for some architectures, a variant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`, `windows`, ...
    pub os: String,
    /// `amd64`, `arm64`, ...: aliases such as `x86_64` are normalized.
    pub architecture: String,
    /// `v7` of `linux/arm/v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// What containers on this machine run on: Linux, and the processor's architecture.
    pub fn of_containers() -> Self {
        let (architecture, variant) = Self::normalize(std::env::consts::ARCH, None);
        Self { os: "linux".to_owned(), architecture, variant }
    }

    /// The spelling that containerd's platforms package gives to an alias.
    fn normalize(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", other) => ("amd64", other),
            ("i386" | "i486" | "i586" | "i686", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", other) => ("arm64", other),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            other => other,
        };
        (architecture.to_owned(), variant.map(str::to_owned))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Fails with `InvalidPlatform` unless the text has two or three non-empty parts of letters, digits, `_`, `-` and `.`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let plain = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(plain) {
            return Err(Error::InvalidPlatform { input: text.to_owned() });
        }
        let (architecture, variant) = Self::normalize(parts[1], parts.get(2).copied());
        let os = if parts[0] == "macos" { "darwin" } else { parts[0] };
        Ok(Self { os: os.to_owned(), architecture, variant })
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_become_the_standard_spelling() {
        let cases = [
            ("linux/amd64", "linux/amd64"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ];
        for (input, expected) in cases {
            assert_eq!(input.parse::<Platform>().unwrap().to_string(), expected, "{input}");
        }
    }

    #[test]
    fn this_machine_has_a_platform() {
        let platform = Platform::of_containers();
        assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
        assert_eq!(platform.os, "linux");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/am d64"] {
            assert_eq!(text.parse::<Platform>().unwrap_err().code(), "invalid-platform", "{text}");
        }
    }
}
