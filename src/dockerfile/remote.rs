//! The sources of ADD: paths, URLs, and git repositories.

use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;

use super::mistake::{Mistake, Result};

static PROTOCOL: LazyLock<Regex> = LazyLock::new(|| Regex::new("^([a-zA-Z0-9]+)://").expect("a constant pattern"));
/// `git@github.com:owner/name.git?query#ref:directory`.
static SCP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^([a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:.*?)(?:\?(.*?))?(?:#(.*))?$").expect("a constant pattern")
});

/// What a source of ADD is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remote {
    /// A path in the context.
    No,
    /// A file on the web.
    Url,
    /// A git repository.
    Git(GitReference),
}

/// A git repository, and what is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GitReference {
    /// Its address.
    pub remote: String,
    /// A branch, tag or commit.
    pub reference: Option<String>,
    /// A directory in it.
    pub subdirectory: Option<String>,
    /// The commit that it has to be.
    pub checksum: Option<String>,
    /// Whether `.git` is wanted too.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub submodules: Option<bool>,
    /// Whether files have the time of their commit, not that of the checkout.
    pub commit_times: bool,
    /// Fetch the commit of `checksum`, without comparing it with `reference`.
    pub fetch_by_commit: bool,
}

impl Remote {
    pub(super) fn of(source: &str) -> Result<Self> {
        let Some((remote, query, fragment, is_git)) = split(source) else { return Ok(Self::No) };
        if !is_git {
            return Ok(Self::Url);
        }
        let mut git = GitReference { remote, ..GitReference::default() };
        let (reference, directory) = fragment.split_once(':').unwrap_or((&fragment, ""));
        git.reference = non_empty(reference);
        git.subdirectory = non_empty(super::paths::clean(&format!("/{directory}")).trim_start_matches('/'));
        git.read_query(query).map_err(|mistake| mistake.near(source))?;
        Ok(Self::Git(git))
    }
}

/// The address, the query and the fragment of a remote source, and whether it is one of git.
fn split(source: &str) -> Option<(String, &str, String, bool)> {
    let Some(protocol) = PROTOCOL.captures(source) else {
        let found = SCP.captures(source)?;
        let part = |index| found.get(index).map_or("", |part| part.as_str());
        return Some((part(1).to_owned(), part(2), part(3).to_owned(), true));
    };
    let (rest, fragment) = source.split_once('#').unwrap_or((source, ""));
    let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_git = match protocol[1].to_lowercase().as_str() {
        "git" | "ssh" => true,
        "http" | "https" if remote.strip_suffix(".git").is_some() => true,
        // Other spellings of the protocol are paths, to BuildKit too.
        _ if &protocol[1] == "http" || &protocol[1] == "https" => false,
        _ => return None,
    };
    Some((remote.to_owned(), query, decode(fragment), is_git))
}

impl GitReference {
    fn read_query(&mut self, query: &str) -> Result<()> {
        let mut branch_or_tag = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(&value.replace('+', " "));
            let flag = || match value.as_str() {
                "" => Ok(true),
                value => super::instruction::parse_bool(key, value),
            };
            match key {
                "submodules" => self.submodules = Some(flag()?),
                "keep-git-dir" => self.keep_git_dir = Some(flag()?),
                "fetch-by-commit" => self.fetch_by_commit = flag()?,
                _ if value.is_empty() => return Err(Mistake::value(format!("`{key}` of a git source has no value"))),
                "ref" => set("ref", &mut self.reference, value)?,
                "tag" => set("tag and branch", &mut branch_or_tag, prefixed("refs/tags/", &value))?,
                "branch" => set("tag and branch", &mut branch_or_tag, prefixed("refs/heads/", &value))?,
                "subdir" => set("subdir", &mut self.subdirectory, value)?,
                "checksum" | "commit" => self.checksum = Some(value),
                "mtime" if matches!(value.as_str(), "checkout" | "commit") => self.commit_times = value == "commit",
                _ => return Err(Mistake::value(format!("unknown `{pair}` of a git source"))),
            }
        }
        match branch_or_tag {
            Some(reference) => set("ref", &mut self.reference, reference),
            None => Ok(()),
        }
    }
}

/// Sets what must not be something else already.
fn set(what: &str, slot: &mut Option<String>, value: String) -> Result<()> {
    match slot {
        Some(other) if *other != value => {
            Err(Mistake::value(format!("a git source has two values for {what}: `{other}` and `{value}`")))
        }
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// `%20` is a space. What is no such escape stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let mut decoded = [0];
        let escaped =
            *first == b'%' && after.get(..2).is_some_and(|hex| hex::decode_to_slice(hex, &mut decoded).is_ok());
        bytes.push(if escaped { decoded[0] } else { *first });
        rest = if escaped { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name of the file at a URL, where its address has one.
pub(super) fn file_name(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1.split_once('/')?.1;
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    non_empty(&decode(name))
}

/// Fails for what is no digest that a download can be compared with.
pub(super) fn check_digest(text: &str) -> Result<()> {
    let is_hex = |digits: &str, length| {
        digits.len() == length && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    match text.split_once(':') {
        Some(("sha256", digits)) if is_hex(digits, 64) => Ok(()),
        Some(("sha384", digits)) if is_hex(digits, 96) => Ok(()),
        Some(("sha512", digits)) if is_hex(digits, 128) => Ok(()),
        _ => Err(Mistake::value(format!("`{text}` is no digest: write sha256: and 64 hexadecimal digits")).near(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(source: &str) -> GitReference {
        match Remote::of(source).unwrap() {
            Remote::Git(git) => git,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn sources_are_told_apart() {
        for source in ["a.tar", "./x.git", "/x", "github.com/a/b", "ftp://x/y", "HTTPS://x", "a@b", "*.git"] {
            assert_eq!(Remote::of(source).unwrap(), Remote::No, "{source}");
        }
        for source in ["http://x/y", "https://x/y.git/z"] {
            assert_eq!(Remote::of(source).unwrap(), Remote::Url, "{source}");
        }
        for source in ["https://x/y.git", "git://x/y", "ssh://git@x/y", "git@x:y", "https://x/y.git?tag=1#"] {
            assert!(matches!(Remote::of(source).unwrap(), Remote::Git(_)), "{source}");
        }
    }

    #[test]
    fn git_sources_have_parts() {
        let found = git("https://x/y.git#main:a//b/");
        assert_eq!((found.remote.as_str(), found.reference.as_deref()), ("https://x/y.git", Some("main")));
        assert_eq!(found.subdirectory.as_deref(), Some("a/b"));
        let found = git("git@x.y:z.git?tag=v1&submodules=false&keep-git-dir&commit=abc&mtime=commit&subdir=a%20b");
        let expected = GitReference {
            remote: "git@x.y:z.git".into(),
            reference: Some("refs/tags/v1".into()),
            subdirectory: Some("a b".into()),
            checksum: Some("abc".into()),
            keep_git_dir: Some(true),
            submodules: Some(false),
            commit_times: true,
            fetch_by_commit: false,
        };
        assert_eq!(found, expected);
        for query in ["ref=a#b", "tag=a&branch=b", "branch=", "mtime=x", "what=1", "submodules=x", "tag=a&ref=b"] {
            assert!(Remote::of(&format!("https://x/y.git?{query}")).is_err(), "{query}");
        }
    }

    #[test]
    fn files_of_the_web_have_names() {
        let cases = [("https://x/a/b.tar?c#d", Some("b.tar")), ("https://x/a%20b/", Some("a b")), ("https://x", None)];
        for (url, name) in cases {
            assert_eq!(file_name(url).as_deref(), name, "{url}");
        }
    }
}
