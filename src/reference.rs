//! Image names (distribution/reference, `reference.go`), as the Docker CLI reads them.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::Error;

/// The registry of a name that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// distribution/reference: the longest repository name, registry included.
const MAX_NAME: usize = 255;

/// One or more lower-case words joined by single separators, between slashes.
static REPOSITORY: LazyLock<Regex> = LazyLock::new(|| {
    let word = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";
    Regex::new(&format!("^{word}(?:/{word})*$")).expect("a constant pattern")
});
/// A host name, IPv4 address or bracketed IPv6 address, and a port.
static REGISTRY: LazyLock<Regex> = LazyLock::new(|| {
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    Regex::new(&format!("^(?:{label}(?:\\.{label})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$")).expect("a constant pattern")
});
static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$").expect("a constant pattern"));

/// `[registry/]repository[:tag][@digest]`, with the defaults of the Docker CLI filled in by the accessors.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host and port; `docker.io` where the name had none.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry, with `library/` in front of Docker's official images.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag as written, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as written, if any.
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The tag, or `latest` where there is neither a tag nor a digest.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, Some(_)) => None,
            (None, None) => Some("latest"),
        }
    }

    /// The name without tag and digest, as the Docker CLI prints it (`docker.io/library/` left out).
    pub fn name(&self) -> String {
        if self.registry == DEFAULT_REGISTRY {
            return self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned();
        }
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same name with this digest and no tag: what a pushed image is called.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Splits off the registry: the first part is one if it has a dot, a colon or an upper-case letter, or is `localhost`.
    fn split_registry(name: &str) -> (&str, &str) {
        match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, rest)
            }
            _ => (DEFAULT_REGISTRY, name),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// Fails with `InvalidReference`, which says which part is wrong.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &'static str| Error::InvalidReference { input: text.to_owned(), reason };
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid("64 hexadecimal digits are an image id, not a name"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| invalid("after `@` stands no sha256 digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the registry's port.
        let (name, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !TAG.is_match(tag)) {
            return Err(invalid(
                "a tag has 1 to 128 letters, digits, `_`, `.` and `-`, and starts with none of `.` and `-`",
            ));
        }
        let (registry, repository) = Self::split_registry(name);
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if !REGISTRY.is_match(registry) {
            return Err(invalid("the registry is no host name with an optional port"));
        }
        if repository.is_empty() {
            return Err(invalid("the repository is missing"));
        }
        if repository.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("the repository must be lower case"));
        }
        if !REPOSITORY.is_match(repository) {
            return Err(invalid(
                "the repository may hold lower-case letters and digits, with single separators between",
            ));
        }
        if name.len() > MAX_NAME {
            return Err(invalid("the name is longer than 255 characters"));
        }
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        let cases = [
            ("busybox", "docker.io", "library/busybox", None),
            ("user/app:1", "docker.io", "user/app", Some("1")),
            ("localhost/app", "localhost", "app", None),
            ("localhost:5000/a/b:v1", "localhost:5000", "a/b", Some("v1")),
            ("127.0.0.1:5000/app", "127.0.0.1:5000", "app", None),
            ("[::1]:5000/app:t", "[::1]:5000", "app", Some("t")),
            ("index.docker.io/library/x", "docker.io", "library/x", None),
            ("my-host.io/x__y/z-1.2", "my-host.io", "x__y/z-1.2", None),
        ];
        for (input, registry, repository, tag) in cases {
            let found: Reference = input.parse().unwrap();
            assert_eq!((found.registry(), found.repository(), found.tag()), (registry, repository, tag), "{input}");
        }
    }

    #[test]
    fn printing_is_familiar_and_parses_again() {
        let digest = Digest::of(b"x");
        let full = format!("localhost:5000/a:1@{digest}");
        for (input, expected) in
            [("docker.io/library/busybox:1", "busybox:1"), ("user/app", "user/app"), (&full, &full)]
        {
            let parsed: Reference = input.parse().unwrap();
            assert_eq!(parsed.to_string(), expected);
            assert_eq!(expected.parse::<Reference>().unwrap(), parsed);
        }
        let named: Reference = "localhost:5000/a:1".parse().unwrap();
        assert_eq!(named.with_digest(digest).to_string(), format!("localhost:5000/a@{digest}"));
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(300);
        for text in [
            "",
            ":1",
            "App",
            "a//b",
            "a:",
            "a:-x",
            "a@sha256:1",
            "-host.io/a",
            "a/",
            "host:port/a",
            "a b",
            &long,
            "a..b",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err().code(), "invalid-reference", "{text}");
        }
    }
}
