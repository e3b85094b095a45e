//! What looks like credentials, by its name; a key also by its first bytes.

use super::Context;
use super::entry::{Entry, Kind};

/// Files by name.
const FILES: &[(&str, &str)] = &[
    (".env", "environment variables with secrets"),
    (".netrc", "passwords of hosts"),
    ("_netrc", "passwords of hosts"),
    (".pypirc", "credentials for a package index"),
    (".npmrc", "credentials for a package registry"),
    (".git-credentials", "git credentials"),
    (".pgpass", "database passwords"),
    (".my.cnf", "database passwords"),
    (".htpasswd", "password hashes"),
    (".dockercfg", "registry credentials"),
    ("id_rsa", "a private SSH key"),
    ("id_dsa", "a private SSH key"),
    ("id_ecdsa", "a private SSH key"),
    ("id_ed25519", "a private SSH key"),
    ("application_default_credentials.json", "Google Cloud credentials"),
    ("kubeconfig", "Kubernetes credentials"),
];

/// Files by the end of their path.
const PATHS: &[(&str, &str)] = &[
    (".aws/credentials", "AWS credentials"),
    (".azure/accessTokens.json", "Azure credentials"),
    (".docker/config.json", "registry credentials"),
    (".kube/config", "Kubernetes credentials"),
    (".streamlit/secrets.toml", "application secrets"),
];

/// Endings of keystores.
const KEYSTORES: &[&str] = &[".p12", ".pfx", ".jks", ".keystore", ".kdbx"];
/// Endings of files that hold a private key or only certificates.
const KEYS: &[&str] = &[".pem", ".key"];
/// Endings of `.env` files that are examples.
const EXAMPLES: &[&str] = &[".example", ".sample", ".template", ".dist", ".defaults"];
/// How much of a file is searched for a key; a bundle may have certificates first.
const BEGINNING: usize = 64 << 10;

/// What the entry looks like, if it looks like something that should not be in an image.
pub(super) fn look(context: &Context, entry: &Entry) -> Option<&'static str> {
    let path = std::str::from_utf8(&entry.path).ok()?;
    let name = path.rsplit('/').next()?;
    match entry.kind {
        Kind::Dir => match name {
            ".git" | ".hg" | ".svn" => Some("the history of a repository"),
            ".ssh" => Some("SSH keys"),
            _ => None,
        },
        Kind::File { .. } | Kind::Hardlink { .. } => {
            let ends_with = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
            let known = FILES.iter().find(|(known, _)| *known == name);
            let at = |tail: &str| path.strip_suffix(tail).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'));
            if let Some((_, reason)) = known.or_else(|| PATHS.iter().find(|(tail, _)| at(tail))) {
                Some(reason)
            } else if name.starts_with(".env.") && !ends_with(EXAMPLES) {
                Some("environment variables with secrets")
            } else if ends_with(KEYSTORES) {
                Some("a keystore")
            } else if ends_with(KEYS) && holds_private_key(context, entry) {
                Some("a private key")
            } else {
                None
            }
        }
        _ => None,
    }
}

fn holds_private_key(context: &Context, entry: &Entry) -> bool {
    let Ok(mut reader) = context.reader(entry) else { return false };
    let mut beginning = vec![0; BEGINNING];
    // What cannot be read is an error when it is packed; here it is only nothing to warn of.
    let count = reader.read_some(&mut beginning).unwrap_or_default();
    let marker = b"PRIVATE KEY-----";
    beginning[..count].windows(marker.len()).any(|window| window == marker)
}
