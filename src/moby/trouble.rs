//! What a daemon's sentences mean. It has no codes for what a registry or a disk told it, only their text.

use crate::error::{Error, Location};
use crate::reference::Reference;

/// Kinds of trouble that have an error of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    NoSpace,
    Missing,
    Denied,
    Unreachable,
}

/// Text that gives a kind away, most telling first.
const SIGNS: &[(&str, Trouble)] = &[
    ("no space left on device", Trouble::NoSpace),
    ("disk quota exceeded", Trouble::NoSpace),
    ("not enough space", Trouble::NoSpace),
    // Nothing has to be there for a push.
    ("push access denied", Trouble::Denied),
    ("authorization failed: no basic auth credentials", Trouble::Denied),
    // Docker Hub and others say this of a missing repository as well as of a private one.
    ("repository does not exist or may require", Trouble::Missing),
    ("manifest unknown", Trouble::Missing),
    ("name unknown", Trouble::Missing),
    ("repository name not known", Trouble::Missing),
    ("not found: does not exist", Trouble::Missing),
    ("no such image", Trouble::Missing),
    ("no basic auth credentials", Trouble::Denied),
    ("authentication required", Trouble::Denied),
    ("authorization failed", Trouble::Denied),
    ("insufficient_scope", Trouble::Denied),
    ("incorrect username or password", Trouble::Denied),
    ("invalid username/password", Trouble::Denied),
    ("unauthorized", Trouble::Denied),
    ("access to the resource is denied", Trouble::Denied),
    ("access denied", Trouble::Denied),
    ("401 unauthorized", Trouble::Denied),
    ("403 forbidden", Trouble::Denied),
    ("denied:", Trouble::Denied),
    ("connection refused", Trouble::Unreachable),
    ("no such host", Trouble::Unreachable),
    ("i/o timeout", Trouble::Unreachable),
    ("network is unreachable", Trouble::Unreachable),
    ("no route to host", Trouble::Unreachable),
    ("connection reset by peer", Trouble::Unreachable),
    ("server gave http response to https client", Trouble::Unreachable),
    ("request canceled while waiting for connection", Trouble::Unreachable),
    ("client.timeout exceeded", Trouble::Unreachable),
    ("tls handshake timeout", Trouble::Unreachable),
    ("x509:", Trouble::Unreachable),
    ("server misbehaving", Trouble::Unreachable),
    ("502 bad gateway", Trouble::Unreachable),
    ("503 service unavailable", Trouble::Unreachable),
    ("manifest for", Trouble::Missing),
    ("not found", Trouble::Missing),
];

/// The kind of trouble that a sentence tells of, if it tells of one.
pub(crate) fn kind(text: &str) -> Option<Trouble> {
    let text = text.to_ascii_lowercase();
    SIGNS.iter().find(|(sign, _)| text.contains(sign)).map(|(_, kind)| *kind)
}

/// The error for an image that cannot be pulled.
pub(crate) fn pull_error(
    reference: &str,
    message: &str,
    had_credentials: impl Fn(&str) -> bool,
    location: Option<Location>,
) -> Option<Error> {
    let parsed = reference.parse::<Reference>().ok();
    let registry = parsed.as_ref().map_or("", |reference| reference.registry()).to_owned();
    Some(match kind(message)? {
        Trouble::NoSpace => Error::NoSpace { message: message.to_owned() },
        Trouble::Missing => Error::BaseMissing {
            reference: reference.to_owned(),
            location: location.map(Box::new),
            message: message.to_owned(),
        },
        Trouble::Denied => Error::RegistryDenied {
            had_credentials: had_credentials(&registry),
            registry,
            reference: reference.to_owned(),
            message: message.to_owned(),
        },
        Trouble::Unreachable => Error::RegistryUnreachable { registry, reason: message.to_owned() },
    })
}

/// The error for an image that cannot be pushed.
pub(crate) fn push_error(reference: &Reference, message: &str, had_credentials: bool) -> Error {
    let registry = reference.registry().to_owned();
    let message = message.to_owned();
    match kind(&message) {
        Some(Trouble::NoSpace) => Error::NoSpace { message },
        Some(Trouble::Denied) => {
            Error::RegistryDenied { registry, reference: reference.to_string(), message, had_credentials }
        }
        Some(Trouble::Unreachable) => Error::RegistryUnreachable { registry, reason: message },
        // "Repository not found" on a push: some registries (ECR) want it made first; their text says so.
        Some(Trouble::Missing) | None => Error::PushFailed { reference: reference.to_string(), message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_seen_in_the_wild() {
        let cases = [
            ("manifest for localhost:5000/x:1 not found: manifest unknown: manifest unknown", Trouble::Missing),
            (
                "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                Trouble::Missing,
            ),
            ("Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused", Trouble::Unreachable),
            (
                "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io on 1.1.1.1:53: no such host",
                Trouble::Unreachable,
            ),
            ("unauthorized: authentication required", Trouble::Denied),
            (
                "push access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
                Trouble::Denied,
            ),
            (
                "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
                Trouble::Denied,
            ),
            (
                "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
                Trouble::Missing,
            ),
            ("no basic auth credentials", Trouble::Denied),
            ("denied: requested access to the resource is denied", Trouble::Denied),
            ("write /var/lib/docker/x: no space left on device", Trouble::NoSpace),
            ("Get \"https://h:5000/v2/\": x509: certificate signed by unknown authority", Trouble::Unreachable),
        ];
        for (text, expected) in cases {
            assert_eq!(kind(text), Some(expected), "{text}");
        }
        assert_eq!(kind("The command '/bin/sh -c false' returned a non-zero code: 1"), None);
    }
}
