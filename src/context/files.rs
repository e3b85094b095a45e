//! The two files that steer a build and need not be part of its context: the Dockerfile and the ignore file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;

use super::extra;
use super::ignore::Matcher;
use super::root::Root;
use crate::error::{Error, Result};
use crate::request::{ContextSpec, DockerfileSpec, ExtraFile};

/// The name that a Dockerfile has unless it is named.
const DOCKERFILE: &str = "Dockerfile";
/// The ignore file of a context.
const DOCKERIGNORE: &str = ".dockerignore";
/// What is bigger is no text that somebody wrote, and has no place in memory.
const MAX_BYTES: u64 = 64 << 20;

/// The Dockerfile's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerfileText {
    /// Its name in messages.
    pub name: String,
    /// What is in it.
    pub text: Bytes,
    /// Its path in the context, if it is part of it. It is not if it is outside of the root, excluded, or given as text.
    pub path_in_context: Option<String>,
}

/// A file that was looked up: where it is in the context, if it is below the root, and what is in it.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) relative: Option<Vec<u8>>,
    pub(super) content: Bytes,
    /// It is an extra file.
    pub(super) extra: bool,
}

/// Finds and reads the Dockerfile. Fails with `DockerfileMissing`.
pub(super) fn dockerfile(spec: &ContextSpec, root: Option<&Root>, dockerfile: &DockerfileSpec) -> Result<Found> {
    let missing = |path: &str| Error::DockerfileMissing { path: path.to_owned() };
    match dockerfile {
        DockerfileSpec::Text(text) => {
            let content = Bytes::copy_from_slice(text.as_bytes());
            Ok(Found { name: DOCKERFILE.to_owned(), relative: None, content, extra: false })
        }
        DockerfileSpec::Path(path) => {
            let name = path.display().to_string();
            // Whoever names a file may name a pipe.
            let content = optional(File::open(path))
                .and_then(|file| file.map(read).transpose())
                .map_err(|source| Error::ContextRead { path: path.clone(), source })?
                .ok_or_else(|| missing(&name))?;
            let relative = spec.root.as_deref().and_then(|root| below(root, path));
            Ok(Found { name, relative, content, extra: false })
        }
        DockerfileSpec::InContext(path) => {
            // BuildKit takes `dockerfile` for the default name.
            let lower = (path == DOCKERFILE).then(|| DOCKERFILE.to_lowercase());
            let names = [Some(path.clone()), lower];
            for name in names.into_iter().flatten() {
                if let Some(found) = in_context(spec, root, &name)? {
                    return Ok(found);
                }
            }
            Err(missing(path))
        }
    }
}

/// Finds and reads the ignore file: the one that is named, or `<Dockerfile>.dockerignore`, or `.dockerignore`.
///
/// Fails with `IgnoreFile` if the one that is named cannot be read, or another one exists and cannot be read.
pub(super) fn ignore_file(
    spec: &ContextSpec,
    root: Option<&Root>,
    dockerfile: &DockerfileSpec,
) -> Result<Option<Found>> {
    if let Some(path) = &spec.ignore_file {
        let content =
            File::open(path).and_then(read).map_err(|source| Error::IgnoreFile { path: path.clone(), source })?;
        let relative = spec.root.as_deref().and_then(|root| below(root, path));
        let name = path.display().to_string();
        return Ok(Some(Found { name, relative, content, extra: false }));
    }
    let own = match dockerfile {
        DockerfileSpec::Text(_) => None,
        DockerfileSpec::Path(path) => {
            let mut path = path.clone().into_os_string();
            path.push(DOCKERIGNORE);
            let path = PathBuf::from(path);
            let content = read_beside(&path).map_err(|source| Error::IgnoreFile { path: path.clone(), source })?;
            let relative = spec.root.as_deref().and_then(|root| below(root, &path));
            content.map(|content| Found { name: path.display().to_string(), relative, content, extra: false })
        }
        DockerfileSpec::InContext(path) => {
            // An error should name the Dockerfile, not the file that may stand beside it.
            extra::normalize(path)?;
            ignore_in_context(spec, root, &format!("{path}{DOCKERIGNORE}"))?
        }
    };
    match own {
        Some(found) => Ok(Some(found)),
        None => ignore_in_context(spec, root, DOCKERIGNORE),
    }
}

/// The patterns of an ignore file and those that the caller appends.
pub(super) fn matcher(spec: &ContextSpec, ignore: Option<&Found>) -> Result<Matcher> {
    let Some(file) = ignore else { return Ok(Matcher::default()) };
    let mut matcher = Matcher::parse(&file.name, &file.content)?;
    matcher.append(spec.extra_patterns.iter().map(String::as_bytes))?;
    Ok(matcher)
}

/// What `omit_ignore_file` leaves out: the ignore file that is used, and `.dockerignore`, which a daemon would apply again.
pub(super) fn omitted(spec: &ContextSpec, ignore: Option<&Found>) -> Vec<Vec<u8>> {
    if !spec.omit_ignore_file {
        return Vec::new();
    }
    let used = ignore.and_then(|file| file.relative.clone());
    std::iter::once(DOCKERIGNORE.as_bytes().to_vec()).chain(used).collect()
}

fn ignore_in_context(spec: &ContextSpec, root: Option<&Root>, path: &str) -> Result<Option<Found>> {
    in_context(spec, root, path).map_err(|error| match error {
        Error::ContextRead { path, source } => Error::IgnoreFile { path, source },
        error => error,
    })
}

/// Looks a path up among the extra files, then below the root, whether it is excluded or not.
fn in_context(spec: &ContextSpec, root: Option<&Root>, path: &str) -> Result<Option<Found>> {
    let relative = extra::normalize(path)?;
    let same = |file: &&ExtraFile| extra::normalize(&file.path).is_ok_and(|path| path == relative);
    if let Some(file) = spec.extra_files.iter().rev().find(same) {
        let content = file.content.clone();
        return Ok(Some(Found { name: path.to_owned(), relative: Some(relative), content, extra: true }));
    }
    let Some(root) = root else { return Ok(None) };
    let full = root.path.join(path);
    let read_error = |source| Error::ContextRead { path: full.clone(), source };
    let Some(resolved) = optional(full.canonicalize()).map_err(read_error)? else { return Ok(None) };
    // It may be a link, but not one that leads out. What is opened is where it leads, in a way that follows no link, so
    // that nothing that changes in the meantime leads out either.
    let Ok(target) = resolved.strip_prefix(root.path.canonicalize().map_err(read_error)?) else {
        let reason = "it is a link that leads out of the context".to_owned();
        return Err(Error::ContextPath { path: path.to_owned(), reason });
    };
    let opened = root.open_file(target.as_os_str().as_bytes());
    let Some(file) = optional(opened).map_err(read_error)? else { return Ok(None) };
    let content = read_regular(file).map_err(read_error)?;
    Ok(Some(Found { name: path.to_owned(), relative: Some(relative), content, extra: false }))
}

/// A file that nobody named: there may be none, and what is no file does not count as a text to wait for.
fn read_beside(path: &Path) -> io::Result<Option<Bytes>> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    optional(opened)?.map(read_regular).transpose()
}

/// `None` where there is no such file.
fn optional<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_regular(file: File) -> io::Result<Bytes> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    read(file)
}

fn read(file: File) -> io::Result<Bytes> {
    let mut content = Vec::new();
    if file.take(MAX_BYTES + 1).read_to_end(&mut content)? as u64 > MAX_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(content.into())
}

/// The path relative to the root, if it is below it. The file itself may be a link.
fn below(root: &Path, path: &Path) -> Option<Vec<u8>> {
    let parent = match path.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    let full = parent.canonicalize().ok()?.join(path.file_name()?);
    Some(full.strip_prefix(root.canonicalize().ok()?).ok()?.as_os_str().as_bytes().to_vec())
}
