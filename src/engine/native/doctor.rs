//! What this machine has for the native engine, and what to do about what is missing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::NativeEngine;
use crate::engine::doctor::{Report, Status, look_at_registry};
use crate::engine::{Engine, blocking};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::net::tls::TlsFiles;
use crate::reference::Reference;
use crate::request::{EngineSpec, Job};
use crate::sandbox::{Level, Sandboxes, Support};
use crate::store::Store;

/// Less than this is soon gone: bases are not downloaded, but a layer of code and packages is kept for each build.
const LITTLE_SPACE: u64 = 2 << 30;

/// Looks at what builds here need and, if one is named, at a registry. Fails only with `Interrupted`: everything else is a
/// finding. A store is made where there is none and can be one.
pub async fn examine(
    spec: &EngineSpec,
    registry: Option<&Reference>,
    environment: Environment,
    job: &Job,
) -> Result<Report> {
    let environment = environment.with_cache(spec.cache_dir.as_deref(), spec.cache_size.as_deref());
    let mut report = Report::default();
    job.cancel
        .guard(async {
            look_at_store(&environment, &mut report).await?;
            if report.status() != Status::Fail {
                match NativeEngine::new(environment.clone()).check(job).await {
                    Ok(info) => report.engine = Some(info),
                    Err(error) => report.add_error("engine", &error),
                }
            }
            look_at_git(&environment, &mut report);
            look_at_certificates(&environment, &mut report);
            look_at_commands(spec, &environment, job, &mut report).await?;
            if let Some(reference) = registry {
                look_at_registry(reference, job, &Arc::new(environment), None, &mut report).await?;
            }
            Ok(())
        })
        .await?;
    Ok(report)
}

async fn look_at_store(environment: &Environment, report: &mut Report) -> Result<()> {
    let advice = "set COOPER_CACHE_DIR to a directory on a local disk";
    let Some(dir) = environment.cache_dir() else {
        let text = "there is no place for layers: none of COOPER_CACHE_DIR, XDG_CACHE_HOME and HOME is set";
        report.add("store", Status::Fail, text, Some(advice));
        return Ok(());
    };
    if dir.join("store").exists() {
        let environment = environment.clone();
        let opened = tokio::task::spawn_blocking(move || Store::of_user(&environment)).await;
        if let Err(error) = opened.map_err(|error| Error::internal(error.to_string()))? {
            report.add_error("store", &error);
            return Ok(());
        }
    }
    let (place, shown) = (nearest(&dir.join("store")), dir.display());
    if !place.is_dir() {
        let text = format!("layers cannot be kept in {shown}: {} is no directory", place.display());
        report.add("store", Status::Fail, text, Some(advice));
    } else if let Err(error) = access(&place, Access::WRITE_OK | Access::EXEC_OK) {
        let text = format!("layers cannot be kept in {shown}: {} cannot be written to: {error}", place.display());
        report.add("store", Status::Fail, text, Some(advice));
    } else {
        report.add("store", Status::Ok, format!("layers are kept in {shown}"), None);
        report.look_at_disk(&place, "layers", LITTLE_SPACE, "make room, e.g. with `cooper cache prune`");
    }
    Ok(())
}

/// Whether commands can be run, and how. Roots are made in the store: what is found holds for the place where that is.
async fn look_at_commands(spec: &EngineSpec, environment: &Environment, job: &Job, report: &mut Report) -> Result<()> {
    let (Some(helper), Some(dir)) = (spec.helper.clone(), environment.cache_dir()) else {
        let text = "commands cannot be run: this interpreter cannot start itself as a process of its own";
        report.add("run", Status::Warn, text, Some("use an installed Python, not one that is part of a program"));
        return Ok(());
    };
    let (place, cancel) = (nearest(&dir.join("store")), job.cancel.clone());
    let probed = blocking(move || Sandboxes::new(helper).probe(&place, &cancel)).await;
    match probed {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => report.add_error("run", &error),
        Ok(support) => tell_levels(&support, report),
    }
    Ok(())
}

/// What a level means for whoever builds.
const fn meaning(level: Level) -> &'static str {
    match level {
        Level::Root => "as root, in namespaces of their own",
        Level::Subordinate => "in a user namespace with subordinate ids: files have their true owners",
        Level::Single => "in a user namespace with one id: owners of files are noted, and true in the image",
        Level::Chroot => "in another root directory: nothing else of this machine is out of their reach",
        Level::None => "not at all",
    }
}

fn tell_levels(support: &Support, report: &mut Report) {
    let best = support.best(false);
    for found in &support.levels {
        let level = found.level;
        if let Some(problem) = &found.problem {
            // What a better level makes up for is no trouble.
            let status = if best == Level::None && level != Level::Chroot { Status::Warn } else { Status::Ok };
            report.add("sandbox", status, format!("`{level}` does not work: {problem}"), problem.advice.as_deref());
            continue;
        }
        let proc = if found.own_proc || level == Level::Chroot { "" } else { "; they see this machine's processes" };
        report.add("sandbox", Status::Ok, format!("`{level}` works: commands run {}{proc}", meaning(level)), None);
        if let Some(problem) = found.overlay.as_ref().filter(|_| level == best) {
            let text = format!("roots are copied for each command, which takes time: {problem}");
            report.add("overlay", Status::Warn, text, problem.advice.as_deref());
        }
    }
    if best == Level::None {
        let chroot = support.best(true) == Level::Chroot;
        let advice = if chroot {
            "see what is missing above; or choose `sandbox=chroot`, if whatever the Dockerfile runs may do what this user may"
        } else {
            "see what is missing above; what is in a cache (`cache_from`) needs no command to run"
        };
        report.add("run", Status::Warn, "a RUN that is neither folded nor in the cache ends the build", Some(advice));
    } else {
        report.add("run", Status::Ok, format!("commands run {} (`{best}`)", meaning(best)), None);
    }
}

/// The path, or the part of it that is there.
fn nearest(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(&whole).to_owned()
}

fn look_at_git(environment: &Environment, report: &mut Report) {
    let folders = environment.path("PATH").map(|path| std::env::split_paths(path).collect::<Vec<_>>());
    let programs = folders.into_iter().flatten().map(|folder| folder.join("git"));
    match programs.into_iter().find(|program| program.is_file() && access(program, Access::EXEC_OK).is_ok()) {
        Some(program) => report.add("git", Status::Ok, format!("{} fetches git repositories", program.display()), None),
        None => report.add(
            "git",
            Status::Warn,
            "there is no `git` on the PATH: ADD of a git repository, and one as a build context, cannot be used",
            Some("install git, if a Dockerfile needs it"),
        ),
    }
}

fn look_at_certificates(environment: &Environment, report: &mut Report) {
    match TlsFiles::default().client_config(environment) {
        Ok(_) => {
            report.add("certificates", Status::Ok, "registries are checked with this machine's certificates", None);
        }
        Err(reason) => report.add(
            "certificates",
            Status::Warn,
            format!("no registry with TLS can be checked: {reason}"),
            Some("install `ca-certificates`, or set SSL_CERT_FILE"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cancel::Cancel;
    use crate::event::Events;
    use crate::registry::credentials::Anonymous;
    use crate::request::EngineKind;

    async fn look(environment: Environment) -> Report {
        let spec = EngineSpec { kind: EngineKind::Native, ..EngineSpec::default() };
        let job = Job { events: Events::none(), cancel: Cancel::new(), credentials: Arc::new(Anonymous) };
        examine(&spec, None, environment, &job).await.unwrap()
    }

    fn finding<'a>(report: &'a Report, check: &str) -> (&'a str, Status) {
        let found = report.findings.iter().find(|finding| finding.check == check);
        found.map_or_else(|| panic!("no {check} in {report:?}"), |finding| (finding.text.as_str(), finding.status))
    }

    #[tokio::test]
    async fn a_machine_with_everything() {
        let folder = tempfile::tempdir().unwrap();
        let git = folder.path().join("git");
        fs::write(&git, "").unwrap();
        fs::set_permissions(&git, fs::Permissions::from_mode(0o755)).unwrap();
        let store = folder.path().join("not/yet/there");
        let environment = Environment::with("/", [("PATH", folder.path()), ("COOPER_CACHE_DIR", &store)]);
        let report = look(environment).await;
        assert_eq!(report.engine.as_ref().unwrap().engine, "native");
        let (text, status) = finding(&report, "store");
        assert!(status == Status::Ok && text.contains(store.to_str().unwrap()), "{report:?}");
        assert!(finding(&report, "disk").0.contains("GiB free"), "{report:?}");
        assert_eq!(finding(&report, "git"), (&*format!("{} fetches git repositories", git.display()), Status::Ok));
        assert_eq!(finding(&report, "run").1, Status::Warn);
    }

    #[tokio::test]
    async fn a_machine_with_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let report = look(Environment::with(folder.path(), [("PATH", folder.path())])).await;
        assert_eq!((report.status(), &report.engine), (Status::Fail, &None));
        assert_eq!(finding(&report, "git").1, Status::Warn);
        assert!(finding(&report, "certificates").0.contains("no bundle of trusted certificates"), "{report:?}");
        assert!(finding(&report, "store").0.contains("none of COOPER_CACHE_DIR"), "{report:?}");
        let size = Environment::with("/", [("COOPER_CACHE_DIR", folder.path())]).with_cache(None, Some("much"));
        fs::create_dir(folder.path().join("store")).unwrap();
        let report = look(size).await;
        assert!(finding(&report, "store").0.contains("COOPER_CACHE_SIZE"), "{report:?}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let report = look(Environment::with("/", [("COOPER_CACHE_DIR", file.join("below"))])).await;
        assert!(finding(&report, "store").0.contains("is no directory"), "{report:?}");
    }
}
