//! Cache mounts: directories of the store that commands share.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::super::key::Key;
use super::super::shared::Shared;
use super::inputs::{Bound, Inputs};
use super::machine::Machine;
use super::travel;
use crate::digest::Digest;
use crate::dockerfile::instruction::{Mount, MountKind, Sharing};
use crate::dockerfile::paths;
use crate::dockerfile::step::{RunMount, RunStep};
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::sandbox::{self, Task};
use crate::store::{CacheDirectory, CacheKey, CacheSharing};

/// The build argument that keeps caches of the same id apart, as with BuildKit.
const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// The mode of a new directory.
const MODE: u32 = 0o755;

/// The caches that a command uses, by their keys.
pub(super) type InUse = BTreeMap<Digest, Arc<CacheDirectory>>;

/// What a cache begins with.
struct Beginning {
    /// The mode and the owner of an empty one.
    mode: u32,
    owner: (u32, u32),
    /// What is in it.
    bound: Option<Bound>,
}

/// One cache mount of a command.
struct Wanted<'a> {
    mount: &'a Mount,
    /// What it is called.
    name: String,
    key: CacheKey,
    beginning: Beginning,
}

/// Whether a mount has attributes of its own: then it begins empty, whatever it comes from.
fn has_attributes(mount: &Mount) -> bool {
    mount.source.is_none() && (mount.mode.is_some() || mount.uid.is_some() || mount.gid.is_some())
}

fn wanted<'a>(mount: &'a RunMount, bound: Option<&Bound>, namespace: &str, form: &str) -> Wanted<'a> {
    let mount = &mount.mount;
    let id = mount.id.clone().unwrap_or_else(|| paths::clean(mount.target.as_deref().unwrap_or_default()));
    let attributes = has_attributes(mount).then_some((mount.mode, mount.uid, mount.gid));
    let seed = bound.map(|bound| bound.digest);
    let digest = Key::new("cache mount").text(namespace).text(&id).value(&(seed, attributes)).finish();
    let beginning = Beginning {
        mode: mount.mode.filter(|_| attributes.is_some()).unwrap_or(MODE),
        owner: attributes.map_or((0, 0), |(_, uid, gid)| (uid.unwrap_or(0), gid.unwrap_or(0))),
        bound: bound.filter(|_| attributes.is_none()).cloned(),
    };
    Wanted { mount, name: id, key: CacheKey { id: digest, form: form.to_owned() }, beginning }
}

/// Who may use a directory at the same time. One of which a part is mounted is not shared: nobody is to put a link into its
/// path meanwhile.
fn sharing(mount: &Mount) -> CacheSharing {
    match (mount.sharing, &mount.source) {
        (Some(Sharing::Private), _) => CacheSharing::Private,
        (Some(Sharing::Locked), _) | (_, Some(_)) => CacheSharing::Locked,
        (Some(Sharing::Shared) | None, None) => CacheSharing::Shared,
    }
}

impl Shared {
    /// The cache mounts of a command, by their numbers, and what they use.
    pub(super) async fn caches(
        &self,
        machine: &Arc<Machine>,
        run: &RunStep,
        inputs: &Inputs,
    ) -> Result<(BTreeMap<usize, sandbox::Mount>, InUse)> {
        let namespace = self.request.options.build_args.get(NAMESPACE).cloned().flatten().unwrap_or_default();
        let form = machine.form.key();
        let is_cache = |(_, mount): &(usize, &RunMount)| mount.mount.kind == MountKind::Cache;
        let mounts = run.mounts.iter().enumerate().filter(is_cache);
        let mut all: Vec<(usize, Wanted<'_>)> =
            mounts.map(|(number, mount)| (number, wanted(mount, inputs.get(&number), &namespace, &form))).collect();
        // Commands that wait for each other's directories wait in one order.
        all.sort_by_key(|(_, wanted)| wanted.key.id.hex());
        let (mut made, mut in_use) = (BTreeMap::new(), InUse::new());
        for (number, wanted) in all {
            let directory = match in_use.get(&wanted.key.id) {
                Some(directory) => Arc::clone(directory),
                None => Box::pin(self.cache(machine, &wanted)).await?,
            };
            in_use.insert(wanted.key.id, Arc::clone(&directory));
            self.note_cache(wanted.key.id, &wanted.name);
            let source = directory.path();
            let part = wanted.mount.source.clone();
            let source = blocking(move || part.map_or(Ok(source.clone()), |part| inside(&source, &part))).await?;
            let target = run.mounts[number].path.clone().unwrap_or_default();
            made.insert(number, sandbox::Mount::Bind { source, target, read_only: wanted.mount.read_only });
        }
        Ok((made, in_use))
    }

    /// A directory of the store, made if it is not there.
    async fn cache(&self, machine: &Arc<Machine>, wanted: &Wanted<'_>) -> Result<Arc<CacheDirectory>> {
        let (store, key, sharing) = (self.store.clone(), wanted.key.clone(), sharing(wanted.mount));
        let cancel = self.job.cancel.clone();
        let directory = blocking(move || store.cache_directory(&key, sharing, &cancel)).await?;
        let directory = Arc::new(directory);
        if directory.path().is_dir() {
            return Ok(directory);
        }
        let layers = match &wanted.beginning.bound {
            None => Vec::new(),
            Some(bound) if bound.trees.is_view() => {
                let unpacked = self.unpacked(machine, &bound.trees.layers, 0).await?;
                unpacked.trees.into_iter().flatten().collect()
            }
            Some(bound) => vec![Box::pin(self.directory_of(machine, bound)).await?],
        };
        let travelled = self.travelled(&wanted.key.id).await;
        let (own, machine, cancel) = (Arc::clone(&directory), Arc::clone(machine), self.job.cancel.clone());
        let Beginning { mode, owner, .. } = wanted.beginning;
        blocking(move || {
            let Some(new) = own.or_new(&cancel)? else { return Ok(()) };
            machine.task(&Task::Remove { paths: vec![new.path()] }, &cancel)?;
            if let Some(travelled) = travelled {
                travel::fill(&machine, &new, travelled, (mode, owner), &cancel)?;
                return new.finish();
            }
            machine.make_directory(new.path(), mode, owner, &cancel)?;
            if !layers.is_empty() {
                machine.task(&Task::Copy { layers, to: new.path() }, &cancel)?;
            }
            new.finish()
        })
        .await?;
        Ok(directory)
    }
}

/// A directory in a cache. Commands may have put links there: none is followed.
fn inside(tree: &Path, part: &str) -> Result<PathBuf> {
    let part = paths::join("/", part);
    let failed = |source: rustix::io::Errno| Error::Store {
        path: tree.to_owned(),
        action: format!("mount `{part}` of a cache"),
        source: source.into(),
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at: OwnedFd = openat(CWD, tree, flags, Mode::empty()).map_err(failed)?;
    for name in part.split('/').filter(|name| !name.is_empty()) {
        at = openat(&at, name, flags, Mode::empty()).map_err(failed)?;
        let found = rustix::fs::fstat(&at).map_err(failed)?;
        if rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Symlink {
            return Err(failed(rustix::io::Errno::LOOP));
        }
    }
    Ok(tree.join(part.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(change: impl FnOnce(&mut Mount)) -> RunMount {
        let target = Some("/root/.cache/pip/".to_owned());
        let mut mount = Mount { kind: MountKind::Cache, target, ..Mount::default() };
        change(&mut mount);
        RunMount { mount, origin: None, path: Some("/root/.cache/pip".into()) }
    }

    #[test]
    fn a_cache_is_known_by_its_id_and_what_it_began_with() {
        let key = |mount: &RunMount, namespace: &str| wanted(mount, None, namespace, "root").key.id;
        let plain = key(&cache(|_| {}), "");
        assert_eq!(key(&cache(|mount| mount.id = Some("/root/.cache/pip".into())), ""), plain);
        assert_eq!(key(&cache(|mount| mount.sharing = Some(Sharing::Locked)), ""), plain);
        for other in [
            cache(|mount| mount.id = Some("pip".into())),
            cache(|mount| mount.uid = Some(1000)),
            cache(|mount| mount.mode = Some(0o700)),
        ] {
            assert_ne!(key(&other, ""), plain);
        }
        assert_ne!(key(&cache(|_| {}), "mine"), plain);
        let mount = cache(|mount| mount.gid = Some(5));
        let Beginning { mode, owner, .. } = wanted(&mount, None, "", "root").beginning;
        assert_eq!((mode, owner), (0o755, (0, 5)));
    }

    #[test]
    fn links_in_a_cache_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("a/etc")).unwrap();
        assert_eq!(inside(dir.path(), "a/../a/b").unwrap(), dir.path().join("a/b"));
        for part in ["a/etc", "a/etc/passwd", "a/none"] {
            assert_eq!(inside(dir.path(), part).unwrap_err().code(), "store", "{part}");
        }
    }
}
