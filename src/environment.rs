//! The environment of the process, as data: everything that looks for a setting gets it passed in, so that a test can
//! say what the environment is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// Environment variables, and the directory that absolute paths start from.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    root: PathBuf,
}

impl Environment {
    /// That of this process, now.
    pub fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect(), root: PathBuf::from("/") }
    }

    /// One that has these variables only, with well-known absolute paths (`/var/run/docker.sock`) looked for below `root`.
    pub fn with<K: Into<OsString>, V: Into<OsString>>(
        root: impl Into<PathBuf>,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, root: root.into() }
    }

    /// A variable's value if it is set, not empty and UTF-8.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.variables.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// A variable that holds a path, if it is set and not empty.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.variables.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(Path::new)
    }

    /// All variables, for a child process.
    pub fn variables(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }

    /// A well-known absolute path.
    pub fn well_known(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The same with another place, and another limit, for what is kept; `None` leaves it.
    #[must_use]
    pub fn with_cache(mut self, dir: Option<&Path>, size: Option<&str>) -> Self {
        let dir = dir.map(|dir| ("COOPER_CACHE_DIR", dir.as_os_str()));
        let size = size.map(|size| ("COOPER_CACHE_SIZE", OsStr::new(size)));
        self.variables.extend(dir.into_iter().chain(size).map(|(name, value)| (name.into(), value.to_owned())));
        self
    }

    /// Where things are kept that can be made again: `COOPER_CACHE_DIR`, or `zenml-cooper` in the user's cache (XDG Base
    /// Directory Specification: a relative `XDG_CACHE_HOME` does not count).
    pub fn cache_dir(&self) -> Option<PathBuf> {
        if let Some(path) = self.path("COOPER_CACHE_DIR") {
            return Some(path.to_owned());
        }
        let named = self.path("XDG_CACHE_HOME").filter(|path| path.is_absolute()).map(Path::to_owned);
        let cache = named.or_else(|| self.path("HOME").map(|home| home.join(".cache")))?;
        Some(cache.join("zenml-cooper"))
    }

    /// Where the user's settings are: `XDG_CONFIG_HOME` if it is absolute, or `~/.config` (XDG Base Directory Specification).
    pub fn config_home(&self) -> Option<PathBuf> {
        let named = self.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).map(Path::to_owned);
        named.or_else(|| self.path("HOME").map(|home| home.join(".config")))
    }

    /// The Docker CLI's configuration directory: `DOCKER_CONFIG`, or `~/.docker`.
    pub fn docker_config_dir(&self) -> Option<PathBuf> {
        match self.path("DOCKER_CONFIG") {
            Some(path) => Some(path.to_owned()),
            None => self.path("HOME").map(|home| home.join(".docker")),
        }
    }
}

impl fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variables_count_as_unset_and_values_are_not_shown() {
        let environment = Environment::with("/", [("HOME", "/home/me"), ("DOCKER_CONFIG", ""), ("TOKEN", "hunter2")]);
        assert_eq!(environment.var("DOCKER_CONFIG"), None);
        assert_eq!(environment.docker_config_dir(), Some(PathBuf::from("/home/me/.docker")));
        assert!(!format!("{environment:?}").contains("hunter2"));
    }

    #[test]
    fn the_cache_is_where_the_user_says_or_below_home() {
        let of = |variables: &[(&str, &str)]| Environment::with("/", variables.iter().copied()).cache_dir();
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("COOPER_CACHE_DIR", "c")]), Some("c".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/zenml-cooper".into()));
        assert_eq!(of(&[("HOME", "/h"), ("XDG_CACHE_HOME", "x")]), Some("/h/.cache/zenml-cooper".into()));
        assert_eq!(of(&[]), None);
        let environment = Environment::with("/", [("COOPER_CACHE_DIR", "/c"), ("COOPER_CACHE_SIZE", "1g")]);
        let same = environment.clone().with_cache(None, None);
        assert_eq!((same.cache_dir(), same.var("COOPER_CACHE_SIZE")), (Some("/c".into()), Some("1g")));
        let other = environment.with_cache(Some(Path::new("/d")), Some("2g"));
        assert_eq!((other.cache_dir(), other.var("COOPER_CACHE_SIZE")), (Some("/d".into()), Some("2g")));
    }

    #[test]
    fn well_known_paths_start_at_the_root() {
        let environment = Environment::with("/tmp/x", [("A", "b")]);
        assert_eq!(environment.well_known("/var/run/docker.sock"), PathBuf::from("/tmp/x/var/run/docker.sock"));
    }
}
