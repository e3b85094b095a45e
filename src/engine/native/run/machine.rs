//! What runs commands here: found out once, when the first command has to run.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::request::{EngineSpec, Helper};
use crate::rootfs::{Fixes, Form};
use crate::sandbox::{IdMap, Level, Problem, Sandboxes, Support, Task, TaskAnswer};
use crate::spelling;

/// The OCI runtimes that are known by a name.
const RUNTIMES: [&str; 2] = ["crun", "runc"];

/// What this process has found out, for each store and way to start a helper.
static FOUND: Mutex<Vec<(PathBuf, Helper, Support)>> = Mutex::new(Vec::new());

/// What runs commands.
#[derive(Clone, Debug)]
pub(in super::super) struct Machine {
    /// The processes that do it.
    pub(super) sandboxes: Sandboxes,
    /// How.
    pub(super) level: Level,
    /// Whose files are whose.
    pub(super) form: Form,
    /// Why roots are copied, if overlayfs does not work.
    pub(super) no_overlay: Option<Problem>,
    /// What does it in place of the helper.
    pub(super) runtime: Option<PathBuf>,
}

/// Why no command can be run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Impossible {
    /// What is wrong.
    pub(super) reason: String,
    /// What can be done.
    pub(super) advice: Option<String>,
}

/// Fails with `InvalidOption` for a sandbox or a runtime that there is none of.
pub(in super::super) fn check(spec: &EngineSpec) -> Result<()> {
    level(spec)?;
    match &spec.runtime {
        Some(name) if !name.contains('/') && !RUNTIMES.contains(&name.as_str()) => {
            Err(invalid("runtime", name, "an OCI runtime, or its path", &RUNTIMES))
        }
        _ => Ok(()),
    }
}

/// The level that was asked for.
fn level(spec: &EngineSpec) -> Result<Option<Level>> {
    let Some(name) = spec.sandbox.as_deref().filter(|name| !matches!(*name, "" | "auto")) else { return Ok(None) };
    let found = Level::ALL.into_iter().find(|level| level.name() == name);
    let names = Level::ALL.map(Level::name);
    found.map(Some).ok_or_else(|| invalid("sandbox", name, "a sandbox", &names))
}

fn invalid(option: &str, value: &str, what: &str, known: &[&str]) -> Error {
    let nearest = known.iter().map(|known| (spelling::distance(value, known), known)).min();
    let meant = nearest.filter(|(distance, _)| distance * 3 <= value.chars().count().max(3));
    let meant = meant.map(|(_, known)| format!("; did you mean `{known}`?")).unwrap_or_default();
    let reason = format!("`{value}` is not {what}: {}{meant}", known.join(", "));
    Error::InvalidOption { name: option.into(), reason }
}

impl Machine {
    /// Finds out what runs commands, with roots in the directory of a store. Blocks: some 50 ms, the first time.
    ///
    /// Fails with `Interrupted`, and as [`check`] does.
    pub(in super::super) fn find(
        spec: &EngineSpec,
        environment: &Environment,
        store: &Path,
        cancel: &Cancel,
    ) -> Result<std::result::Result<Self, Impossible>> {
        let Some(helper) = spec.helper.clone() else {
            let reason = "the program that runs commands is not installed".to_owned();
            return Ok(Err(Impossible { reason, advice: Some("install the `zenml-cooper` package again".into()) }));
        };
        let runtime = match spec.runtime.as_deref().map(|name| runtime(name, environment)).transpose() {
            Ok(runtime) => runtime,
            Err(impossible) => return Ok(Err(impossible)),
        };
        let sandboxes = Sandboxes::new(helper.clone());
        let support = match support(&sandboxes, &helper, store, cancel) {
            Ok(support) => support,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(error) => return Ok(Err(Impossible { reason: error.to_string(), advice: error.hint() })),
        };
        let level = match choose(&support, level(spec)?) {
            Ok(Level::Chroot) if runtime.is_some() => {
                let reason = "an OCI runtime needs namespaces, which the sandbox `chroot` does without".to_owned();
                return Ok(Err(Impossible { reason, advice: Some("leave `runtime` out".into()) }));
            }
            Ok(level) => level,
            Err(impossible) => return Ok(Err(impossible)),
        };
        let form = form(level, &sandboxes.id_map(level)?);
        let no_overlay = support.of(level).and_then(|found| found.overlay.clone());
        Ok(Ok(Self { sandboxes, level, form, no_overlay, runtime }))
    }

    /// Does something as root of the level's ids; what the user should know of it. Blocks.
    pub(super) fn task(&self, task: &Task, cancel: &Cancel) -> Result<Vec<String>> {
        match self.sandboxes.task(self.level, task, cancel)? {
            TaskAnswer::Done => Ok(Vec::new()),
            TaskAnswer::Incomplete(lines) => Ok(lines),
        }
    }

    /// Gives the files of an unpacked layer to their owners; what the user should know of it. Blocks.
    pub(super) fn own(&self, tree: PathBuf, fixes: &Fixes, cancel: &Cancel) -> Result<Vec<String>> {
        if fixes.is_empty() {
            return Ok(Vec::new());
        }
        self.task(&Task::Own { tree, fixes: fixes.to_bytes() }, cancel)
    }

    /// Makes a directory for commands. Blocks.
    pub(super) fn make_directory(&self, path: PathBuf, mode: u32, owner: (u32, u32), cancel: &Cancel) -> Result<()> {
        let (uid, gid) = owner;
        self.task(&Task::MakeDirectory { path, mode, uid, gid }, cancel).map(drop)
    }

    /// Whether this process can read and change whatever commands leave.
    pub(super) const fn is_real(&self) -> bool {
        matches!(self.level, Level::Root | Level::Chroot)
    }
}

fn support(sandboxes: &Sandboxes, helper: &Helper, store: &Path, cancel: &Cancel) -> Result<Support> {
    let is_it = |(path, other, _): &&(PathBuf, Helper, Support)| path == store && other == helper;
    let known = || FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((.., found)) = known().iter().find(is_it) {
        return Ok(found.clone());
    }
    let found = sandboxes.probe(store, cancel)?;
    known().push((store.to_owned(), helper.clone(), found.clone()));
    Ok(found)
}

/// The level that is used: the one that was asked for, or the best.
fn choose(support: &Support, asked: Option<Level>) -> std::result::Result<Level, Impossible> {
    if let Some(level) = asked {
        let problem = match support.of(level) {
            Some(found) => found.problem.clone(),
            None => Some(Problem { reason: "it was not found here".into(), advice: None }),
        };
        return match problem {
            None => Ok(level),
            Some(Problem { reason, advice }) => {
                Err(Impossible { reason: format!("the sandbox `{level}` does not work here: {reason}"), advice })
            }
        };
    }
    match support.best(false) {
        Level::None => Err(none(support)),
        level => Ok(level),
    }
}

/// Why no level works: each with its reason, and one advice.
fn none(support: &Support) -> Impossible {
    let mut problems = support.levels.iter().filter_map(|found| Some((found.level, found.problem.as_ref()?)));
    let reasons: Vec<String> = problems.clone().map(|(level, problem)| format!("{level}: {problem}")).collect();
    // The one that wants the least comes first.
    let single = support.of(Level::Single).and_then(|found| found.problem.as_ref()?.advice.clone());
    let mut advice = single.or_else(|| problems.find_map(|(_, problem)| problem.advice.clone()));
    if support.levels.iter().any(|found| found.level == Level::Chroot && found.problem.is_none()) {
        advice = Some("`sandbox=chroot` runs commands, but keeps nothing of this container from them".into());
    }
    let reason = match reasons.as_slice() {
        [] => "no sandbox works here".to_owned(),
        reasons => format!("no sandbox works here ({})", reasons.join("; ")),
    };
    Impossible { reason, advice }
}

fn form(level: Level, map: &IdMap) -> Form {
    match level {
        Level::Root => Form::Root,
        Level::Single => Form::Single,
        Level::Chroot | Level::None => Form::Chroot,
        Level::Subordinate => {
            let bytes = serde_json::to_vec(map).unwrap_or_default();
            Form::Subordinate { map: Digest::of(&bytes) }
        }
    }
}

/// Where a runtime is.
fn runtime(name: &str, environment: &Environment) -> std::result::Result<PathBuf, Impossible> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let path = environment.var("PATH").unwrap_or("/usr/sbin:/usr/bin:/sbin:/bin");
    let mut places = std::env::split_paths(path).map(|folder| folder.join(name));
    places.find(|place| place.is_file()).ok_or_else(|| Impossible {
        reason: format!("the runtime `{name}` is not in PATH"),
        advice: Some(format!("install `{name}`, or leave `runtime` out")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::LevelSupport;

    fn found(level: Level, problem: Option<(&str, Option<&str>)>) -> LevelSupport {
        let problem =
            problem.map(|(reason, advice)| Problem { reason: reason.into(), advice: advice.map(str::to_owned) });
        LevelSupport { level, problem, overlay: None, own_proc: true }
    }

    #[test]
    fn the_best_level_that_works_is_used() {
        let support = Support {
            levels: vec![
                found(Level::Root, Some(("not root", None))),
                found(Level::Subordinate, Some(("no ids", Some("ask for some")))),
                found(Level::Single, None),
                found(Level::Chroot, Some(("not root", None))),
            ],
        };
        assert_eq!(choose(&support, None), Ok(Level::Single));
        let refused = choose(&support, Some(Level::Subordinate)).unwrap_err();
        assert_eq!(refused.reason, "the sandbox `subordinate` does not work here: no ids");
        assert_eq!(refused.advice.as_deref(), Some("ask for some"));
    }

    #[test]
    fn where_nothing_works_all_reasons_are_told() {
        let mut support = Support {
            levels: vec![
                found(Level::Root, Some(("not allowed", None))),
                found(Level::Single, Some(("EPERM", Some("allow user namespaces")))),
            ],
        };
        let refused = choose(&support, None).unwrap_err();
        assert_eq!(refused.reason, "no sandbox works here (root: not allowed; single: EPERM)");
        assert_eq!(refused.advice.as_deref(), Some("allow user namespaces"));
        support.levels.push(found(Level::Chroot, None));
        assert!(choose(&support, None).unwrap_err().advice.unwrap().contains("sandbox=chroot"));
        assert_eq!(choose(&support, Some(Level::Chroot)), Ok(Level::Chroot));
    }

    #[test]
    fn names_are_checked_before_anything_runs() {
        let spec = |sandbox: Option<&str>, runtime: Option<&str>| EngineSpec {
            sandbox: sandbox.map(str::to_owned),
            runtime: runtime.map(str::to_owned),
            ..EngineSpec::default()
        };
        for (sandbox, runtime) in
            [(None, None), (Some("auto"), None), (Some("single"), Some("crun")), (None, Some("/opt/x"))]
        {
            assert!(check(&spec(sandbox, runtime)).is_ok(), "{sandbox:?} {runtime:?}");
        }
        let said = check(&spec(Some("singel"), None)).unwrap_err().to_string();
        assert!(said.contains("did you mean `single`?"), "{said}");
        assert_eq!(check(&spec(None, Some("crum"))).unwrap_err().code(), "invalid-option");
    }
}
