//! Secrets of this user, one for each registry, that a daemon's view of us is derived from ([`super::tokens`]).
//!
//! They are kept so that the next build is the same person to a daemon, which then uses the tokens that it has. Where one
//! cannot be kept, there is one for the process: builds then only ask for more tokens.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::OFlags;
use rustix::process::getuid;
use sha2::{Digest as _, Sha256};

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// One secret.
pub(super) type Seed = Secret<[u8; LENGTH]>;

const LENGTH: usize = 32;
/// Permission bits of the group and of everybody.
const OTHERS: u32 = 0o077;

/// Those that could not be kept.
static OF_PROCESS: LazyLock<Mutex<BTreeMap<String, Seed>>> = LazyLock::new(Mutex::default);

/// The folder of the secrets.
#[derive(Clone, Debug)]
pub(super) struct Seeds {
    folder: Option<PathBuf>,
}

impl Seeds {
    /// Those in the user's cache.
    pub(super) fn of_user(environment: &Environment) -> Self {
        Self { folder: environment.cache_dir().map(|cache| cache.join("seeds")) }
    }

    /// The one for a registry. Blocks. Fails where the machine has no randomness.
    pub(super) fn get(&self, registry: &str) -> Result<Seed> {
        let fresh = random()?;
        let kept = self.folder.as_deref().and_then(|folder| keep(folder, registry, &fresh).ok());
        Ok(kept.unwrap_or_else(|| {
            let mut seeds = OF_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
            seeds.entry(registry.to_owned()).or_insert(fresh).clone()
        }))
    }
}

fn random() -> Result<Seed> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("no randomness"))?;
    Ok(Secret::new(bytes))
}

/// The seed that is kept; `fresh` if there is none yet. Of processes that do this at once, one is first, and all get its.
fn keep(folder: &Path, registry: &str, fresh: &Seed) -> io::Result<Seed> {
    let file = folder.join(hex::encode(&Sha256::digest(registry)[..16]));
    match read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Readable for this user only, from the beginning.
    let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    new.write_all(fresh.expose())?;
    match new.persist_noclobber(&file) {
        Ok(_) => Ok(fresh.clone()),
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => read(&file),
        Err(failed) => Err(failed.error),
    }
}

/// A seed that somebody else may know, or have put there, is none.
fn read(file: &Path) -> io::Result<Seed> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    let mut opened = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    let metadata = opened.metadata()?;
    let own = metadata.uid() == getuid().as_raw() && metadata.mode() & OTHERS == 0;
    if !metadata.is_file() || !own || metadata.len() != LENGTH as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = [0; LENGTH];
    opened.read_exact(&mut bytes)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(folder: &Path) -> Seeds {
        Seeds::of_user(&Environment::with("/", [("COOPER_CACHE_DIR", folder)]))
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder.join("seeds")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_seed_is_kept_for_each_registry_and_for_this_user_alone() {
        let cache = tempfile::tempdir().unwrap();
        let first = at(cache.path()).get("a").unwrap();
        assert_eq!(at(cache.path()).get("a").unwrap().expose(), first.expose());
        assert_ne!(at(cache.path()).get("b").unwrap().expose(), first.expose());
        let files = files(cache.path());
        assert_eq!(files.len(), 2);
        for file in files {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn all_who_come_at_once_get_the_same() {
        let cache = tempfile::tempdir().unwrap();
        let ask = || *at(cache.path()).get("a").unwrap().expose();
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|seed| *seed == all[0]));
        assert_eq!(files(cache.path()).len(), 1, "nothing is left of the others");
    }

    #[test]
    fn a_seed_that_others_can_read_or_that_is_damaged_is_not_used() {
        for damage in ["readable", "short", "link"] {
            let cache = tempfile::tempdir().unwrap();
            let kept = at(cache.path()).get(damage).unwrap();
            let file = files(cache.path()).remove(0);
            match damage {
                "readable" => fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap(),
                "short" => fs::write(&file, "short").unwrap(),
                _ => {
                    fs::rename(&file, cache.path().join("moved")).unwrap();
                    std::os::unix::fs::symlink(cache.path().join("moved"), &file).unwrap();
                }
            }
            let other = at(cache.path()).get(damage).unwrap();
            assert_ne!(other.expose(), kept.expose(), "{damage}");
            assert_eq!(at(cache.path()).get(damage).unwrap().expose(), other.expose(), "one for the process");
        }
    }

    #[test]
    fn without_a_cache_there_is_one_for_the_process() {
        let seeds = Seeds { folder: None };
        let first = seeds.get("nowhere").unwrap();
        assert_eq!(seeds.get("nowhere").unwrap().expose(), first.expose());
        assert_ne!(seeds.get("elsewhere").unwrap().expose(), first.expose());
        // A file in the place of the folder.
        let cache = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(at(cache.path()).get("nowhere").unwrap().expose(), first.expose());
    }
}
