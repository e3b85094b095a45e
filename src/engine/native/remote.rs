//! What ADD names that is elsewhere: files of the web, and git repositories.

use std::collections::BTreeMap;

use super::copy::{ContextFiles, Item, ItemKind, Owner};
use super::shared::Shared;
use super::stage::Builder;
use super::trees::directory;
use crate::dockerfile::step::{CopySource, CopyStep};
use crate::dockerfile::{GitReference, Step};
use crate::error::{Error, Result};
use crate::fetch::git::{Checkout, Repository};
use crate::fetch::http::{self, Answer, Fetcher, Wanted};
use crate::layer::Content;
use crate::request::{ContextSpec, SecretSource, SecretSpec};
use crate::rootfs::Xattrs;
use crate::secret::Secret;

/// The mode of a file of the web (BuildKit, `source/http`).
const MODE: u32 = 0o600;

/// Something that was fetched.
pub(super) enum Remote {
    /// A file.
    File(Item),
    /// A repository, and the directory that it was checked out into.
    Tree { files: ContextFiles, _checkout: Checkout },
}

/// Fetches the sources of an instruction that are not in its origin.
pub(super) async fn fetch(builder: &Builder<'_>, step: &Step, copy: &CopyStep) -> Result<BTreeMap<usize, Remote>> {
    let mut fetched = BTreeMap::new();
    for (number, source) in copy.sources.iter().enumerate() {
        let remote = match source {
            CopySource::Path { .. } | CopySource::Inline { .. } => continue,
            CopySource::Url { url, file_name, checksum, .. } => {
                file(builder.around.shared, url, file_name, checksum.as_deref()).await
            }
            CopySource::Git(reference) => repository(builder.around.shared, reference).await,
        };
        fetched.insert(number, remote.map_err(|error| placed(error, builder, step))?);
    }
    Ok(fetched)
}

/// Puts the place into an error that has none yet.
fn placed(error: Error, builder: &Builder<'_>, step: &Step) -> Error {
    match error {
        Error::FetchFailed { location: None, url, reason } => {
            Error::FetchFailed { location: Some(Box::new(builder.place(step))), url, reason }
        }
        other => other,
    }
}

async fn file(shared: &Shared, url: &str, name: &str, checksum: Option<&str>) -> Result<Remote> {
    let authorization = http::authorization(url, &|name: &str| secret(shared, name));
    let directory = shared.store.path().to_owned();
    let wanted = Wanted { url, checksum, previous: None, authorization: authorization.as_ref(), directory: &directory };
    let web = Fetcher::new(&shared.environment)?;
    let Answer::File(fetched) = Box::pin(web.fetch(&wanted, &shared.job.cancel, &|_, _| {})).await? else {
        return Err(Error::internal("a file that was not asked about has not changed"));
    };
    let kind = ItemKind::File {
        size: fetched.size,
        content: Content::Spool { file: fetched.file, offset: 0 },
        digest: Some(fetched.digest),
        first: None,
    };
    let mtime = fetched.mtime.unwrap_or_default();
    let owner = Owner { uid: 0, gid: 0 };
    let path = name.as_bytes().to_vec();
    Ok(Remote::File(Item { path, kind, mode: MODE, owner, mtime, xattrs: Xattrs::new() }))
}

async fn repository(shared: &Shared, reference: &GitReference) -> Result<Remote> {
    let secrets = |name: &str| secret(shared, name);
    let repository = Repository::new(reference, &shared.environment, &secrets, &shared.job.cancel)?;
    let resolved = repository.resolve().await?;
    let checkout = repository.checkout(&resolved, shared.store.path()).await?;
    // An ignore file in there is a file like any other.
    let root = ContextSpec {
        root: Some(checkout.directory.clone()),
        ignore_file: Some("/dev/null".into()),
        ..ContextSpec::default()
    };
    let files = directory(root, format!("`{}`", reference.remote), &shared.job.cancel).await?;
    Ok(Remote::Tree { files, _checkout: checkout })
}

/// A secret of the build.
fn secret(shared: &Shared, name: &str) -> Option<Secret<String>> {
    let SecretSpec { source, .. } = shared.request.options.secrets.iter().find(|secret| secret.id == name)?;
    let text = match source {
        SecretSource::File(path) => std::fs::read_to_string(path).ok()?,
        SecretSource::Env(variable) => shared.environment.var(variable)?.to_owned(),
        SecretSource::Value(value) => String::from_utf8(value.expose().to_vec()).ok()?,
    };
    Some(Secret::new(text))
}
