//! Git repositories, made here by the `git` program and served as files or by a plain web server.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::dockerfile::GitReference;
use cooper::environment::Environment;
use cooper::fetch::git::{Checkout, Repository, Resolved};
use cooper::mtime::Mtime;
use cooper::secret::Secret;
use tempfile::TempDir;

use crate::fetch_support::{Reply, Server, reply};

/// When the commits of the tests are from, in seconds since 1970.
const TIME: i64 = 1_600_000_000;

/// A repository with a file, an executable, a link and a directory; a branch, two kinds of tag, and a second commit.
struct Origin {
    folder: TempDir,
    first: String,
    second: String,
}

fn git(place: &Path, arguments: &[&str]) -> String {
    let date = format!("{TIME} +0000");
    let output = Command::new("git")
        .args([
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "init.defaultBranch=main",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(arguments)
        .current_dir(place)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs([("GIT_AUTHOR_DATE", &date), ("GIT_COMMITTER_DATE", &date)])
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Origin {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        git(root, &["init", "--quiet"]);
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("a.txt"), "one").unwrap();
        fs::write(root.join("d/e/run.sh"), "#!/bin/sh").unwrap();
        fs::set_permissions(root.join("d/e/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("../a.txt", root.join("d/link")).unwrap();
        symlink("d", root.join("linked")).unwrap();
        let first = Self::commit(root);
        git(root, &["tag", "light"]);
        git(root, &["tag", "-a", "-m", "x", "heavy"]);
        fs::write(root.join("a.txt"), "two").unwrap();
        let second = Self::commit(root);
        git(root, &["branch", "feature/x", &first]);
        Self { folder, first, second }
    }

    fn commit(root: &Path) -> String {
        git(root, &["add", "--all"]);
        git(root, &["commit", "--quiet", "--message", "x"]);
        git(root, &["rev-parse", "HEAD"])
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn reference(&self, name: Option<&str>) -> GitReference {
        let remote = format!("file://{}", self.path().display());
        GitReference { remote, reference: name.map(Into::into), ..GitReference::default() }
    }

    /// A web server that has its files, for those who may have them.
    async fn served(&self, authorization: Option<&'static str>) -> Server {
        git(self.path(), &["update-server-info"]);
        let root = self.path().join(".git");
        Server::start(move |_, request| {
            if authorization.is_some_and(|value| !request.contains(value)) {
                return reply("401 Unauthorized", &[("WWW-Authenticate", "Basic realm=\"x\"")], b"");
            }
            let path = request.split(' ').nth(1).unwrap().split('?').next().unwrap();
            match fs::read(root.join(path.trim_start_matches("/x.git/"))) {
                Ok(bytes) => reply("200 OK", &[], &bytes),
                Err(_) => reply("404 Not Found", &[], b""),
            }
        })
        .await
    }
}

fn environment() -> Environment {
    Environment::with("/", std::env::var_os("PATH").map(|path| ("PATH", path)))
}

async fn resolve(reference: &GitReference) -> Result<Resolved, Error> {
    let (environment, cancel) = (environment(), Cancel::new());
    Repository::new(reference, &environment, &|_| None, &cancel)?.resolve().await
}

async fn checkout(reference: &GitReference, folder: &Path) -> Result<Checkout, Error> {
    let (environment, cancel) = (environment(), Cancel::new());
    let repository = Repository::new(reference, &environment, &|_| None, &cancel)?;
    let resolved = repository.resolve().await?;
    repository.checkout(&resolved, folder).await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let entry = entry.unwrap();
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn names_mean_what_they_mean_to_git() {
    let origin = Origin::new();
    let tag = git(origin.path(), &["rev-parse", "heavy"]);
    let cases = [
        (None, "refs/heads/main", &origin.second, &origin.second),
        (Some("main"), "refs/heads/main", &origin.second, &origin.second),
        (Some("feature/x"), "refs/heads/feature/x", &origin.first, &origin.first),
        (Some("light"), "refs/tags/light", &origin.first, &origin.first),
        (Some("heavy"), "refs/tags/heavy", &tag, &origin.first),
        (Some("refs/tags/heavy"), "refs/tags/heavy", &tag, &origin.first),
        (Some(&origin.first), &origin.first, &origin.first, &origin.first),
    ];
    for (name, full, object, commit) in cases {
        let found = resolve(&origin.reference(name)).await.unwrap();
        assert_eq!((found.name.as_str(), &found.object, &found.commit), (full, object, commit), "{name:?}");
    }
    let error = resolve(&origin.reference(Some("nothing"))).await.unwrap_err();
    assert_eq!(error.code(), "fetch-failed");
    assert!(error.to_string().contains("`nothing`"), "{error}");
    assert!(resolve(&origin.reference(Some("--upload-pack=touch"))).await.is_err());
}

#[tokio::test]
async fn a_checkout_is_that_commit_and_nothing_else() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    for (name, content) in [(None, "two"), (Some("heavy"), "one"), (Some(origin.first.as_str()), "one")] {
        let found = checkout(&origin.reference(name), folder.path()).await.unwrap();
        assert_eq!(fs::read_to_string(found.directory.join("a.txt")).unwrap(), content, "{name:?}");
        assert_eq!(found.commit, if content == "two" { &*origin.second } else { &*origin.first });
        assert_eq!(found.time, Mtime { seconds: TIME, nanoseconds: 0 });
        assert_eq!(names(&found.directory), ["a.txt", "d", "linked"]);
        assert_eq!(fs::read_link(found.directory.join("d/link")).unwrap(), Path::new("../a.txt"));
        let mode = |path: &str| fs::symlink_metadata(found.directory.join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a.txt"), mode("d"), mode("d/e/run.sh")), (0o644, 0o755, 0o755));
        let mut all = vec![found.directory.clone()];
        walk(&found.directory, &mut all);
        for path in all {
            assert_eq!(fs::symlink_metadata(&path).unwrap().mtime(), TIME, "{}", path.display());
        }
    }
    assert_eq!(names(folder.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn the_repository_comes_along_where_it_is_wanted() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    for name in ["main", "heavy", "light", &origin.first] {
        let reference = GitReference { keep_git_dir: Some(true), ..origin.reference(Some(name)) };
        let found = checkout(&reference, folder.path()).await.unwrap();
        assert_eq!(git(&found.directory, &["rev-parse", "HEAD"]), found.commit, "{name}");
        assert_eq!(git(&found.directory, &["status", "--porcelain"]), "");
        assert_eq!(git(&found.directory, &["rev-list", "--all", "HEAD"]).lines().count(), 1, "no history");
        assert_eq!(git(&found.directory, &["config", "remote.origin.url"]), reference.remote);
        assert!(!found.directory.join(".git/FETCH_HEAD").exists());
        assert!(!found.directory.join(".git/hooks").exists());
    }
    let kept = GitReference { keep_git_dir: Some(true), ..origin.reference(Some("heavy")) };
    let found = checkout(&kept, folder.path()).await.unwrap();
    assert_eq!(git(&found.directory, &["describe", "--tags"]), "heavy");
}

#[tokio::test]
async fn a_subdirectory_is_all_that_comes() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    let below = |path: &str| GitReference {
        subdirectory: Some(path.into()),
        keep_git_dir: Some(true),
        ..origin.reference(None)
    };
    let found = checkout(&below("d"), folder.path()).await.unwrap();
    assert_eq!(names(&found.directory), ["e", "link"]);
    for path in ["nothing", "a.txt", "linked", "linked/e"] {
        let error = checkout(&below(path), folder.path()).await.unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
    }
    let found = checkout(&below("../../d/e"), folder.path()).await.unwrap();
    assert_eq!(names(&found.directory), ["run.sh"]);
}

#[tokio::test]
async fn a_checksum_is_the_commit_that_it_has_to_be() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    let checked =
        |name: &str, checksum: &str| GitReference { checksum: Some(checksum.into()), ..origin.reference(Some(name)) };
    for checksum in [&origin.first, &origin.first[..10]] {
        assert_eq!(resolve(&checked("heavy", checksum)).await.unwrap().commit, origin.first);
        assert_eq!(resolve(&checked(&origin.first, checksum)).await.unwrap().commit, origin.first);
    }
    for name in ["main", &origin.second] {
        let error = resolve(&checked(name, &origin.first)).await.unwrap_err().to_string();
        assert!(error.contains(&origin.first) && error.contains(&origin.second), "{error}");
    }
    assert!(resolve(&checked("main", "xyz")).await.is_err());
    let by_commit = GitReference { fetch_by_commit: true, ..checked("main", &origin.first) };
    let found = checkout(&by_commit, folder.path()).await.unwrap();
    assert_eq!(found.commit, origin.first);
    assert!(resolve(&GitReference { checksum: Some(origin.first[..10].into()), ..by_commit }).await.is_err());
}

#[tokio::test]
async fn a_branch_that_moved_gives_the_commit_that_was_resolved() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    let (reference, environment, cancel) = (origin.reference(Some("main")), environment(), Cancel::new());
    let repository = Repository::new(&reference, &environment, &|_| None, &cancel).unwrap();
    let resolved = repository.resolve().await.unwrap();
    fs::write(origin.path().join("a.txt"), "three").unwrap();
    Origin::commit(origin.path());
    let found = repository.checkout(&resolved, folder.path()).await.unwrap();
    assert_eq!(found.commit, origin.second);
    assert_eq!(fs::read_to_string(found.directory.join("a.txt")).unwrap(), "two");
    git(origin.path(), &["reset", "--quiet", "--hard", &origin.first]);
    git(origin.path(), &["reflog", "expire", "--all", "--expire=now"]);
    git(origin.path(), &["gc", "--quiet", "--prune=now"]);
    let error = repository.checkout(&resolved, folder.path()).await.unwrap_err();
    assert_eq!(error.code(), "fetch-failed");
    drop(found);
    assert_eq!(names(folder.path()), [] as [&str; 0]);
}

#[tokio::test]
async fn servers_that_know_no_shallow_fetch_give_all() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    let server = origin.served(None).await;
    for name in ["heavy", &origin.first] {
        let reference = GitReference { remote: server.url("/x.git"), ..origin.reference(Some(name)) };
        let found = checkout(&reference, folder.path()).await.unwrap();
        assert_eq!(fs::read_to_string(found.directory.join("a.txt")).unwrap(), "one", "{name}");
    }
}

#[tokio::test]
async fn submodules_come_along_unless_they_are_files_of_this_machine() {
    let (origin, inner, folder) = (Origin::new(), Origin::new(), tempfile::tempdir().unwrap());
    let server = inner.served(None).await;
    let add = |url: &str| {
        let text = format!("[submodule \"s\"]\n\tpath = sub\n\turl = {url}\n");
        fs::write(origin.path().join(".gitmodules"), text).unwrap();
        git(origin.path(), &["add", ".gitmodules"]);
        git(origin.path(), &["update-index", "--add", "--cacheinfo", &format!("160000,{},sub", inner.second)]);
        git(origin.path(), &["commit", "--quiet", "--message", "x"]);
    };
    add(&server.url("/x.git"));
    let found = checkout(&origin.reference(None), folder.path()).await.unwrap();
    assert_eq!(fs::read_to_string(found.directory.join("sub/a.txt")).unwrap(), "two");
    assert_eq!(names(&found.directory.join("sub")), ["a.txt", "d", "linked"]);
    let kept = GitReference { keep_git_dir: Some(true), ..origin.reference(None) };
    let found = checkout(&kept, folder.path()).await.unwrap();
    let pointer = fs::read_to_string(found.directory.join("sub/.git")).unwrap();
    assert_eq!(pointer.trim(), "gitdir: ../.git/modules/s");
    let without = GitReference { submodules: Some(false), ..origin.reference(None) };
    let found = checkout(&without, folder.path()).await.unwrap();
    assert_eq!(names(&found.directory.join("sub")), [] as [&str; 0]);
    for hostile in [format!("file://{}", inner.path().display()), "ext::sh -c touch% /tmp/x".into()] {
        add(&hostile);
        let error = checkout(&origin.reference(None), folder.path()).await.unwrap_err();
        assert!(error.to_string().contains("not allowed"), "{error}");
    }
}

#[tokio::test]
async fn secrets_reach_their_server_and_nobody_else() {
    let (origin, folder) = (Origin::new(), tempfile::tempdir().unwrap());
    // `x-access-token:hunter2`
    let header = "Authorization: basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==";
    let server = origin.served(Some(header)).await;
    let reference = GitReference { remote: server.url("/x.git"), ..origin.reference(Some("heavy")) };
    let error = resolve(&reference).await.unwrap_err();
    assert_eq!(error.code(), "fetch-failed");
    let (environment, cancel) = (environment(), Cancel::new());
    let secrets = |name: &str| (name == "GIT_AUTH_TOKEN").then(|| Secret::new("hunter2".to_owned()));
    let kept = GitReference { keep_git_dir: Some(true), ..reference };
    let repository = Repository::new(&kept, &environment, &secrets, &cancel).unwrap();
    let resolved = repository.resolve().await.unwrap();
    let found = repository.checkout(&resolved, folder.path()).await.unwrap();
    let mut all = Vec::new();
    walk(&found.directory, &mut all);
    assert!(all.len() > 10);
    for path in all.iter().filter(|path| fs::symlink_metadata(path).unwrap().is_file()) {
        let bytes = fs::read(path).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hunter2"), "{}", path.display());
        assert!(!String::from_utf8_lossy(&bytes).contains("eC1hY2"), "{}", path.display());
    }
}

#[tokio::test]
async fn a_password_of_the_address_is_sent_but_not_shown() {
    let origin = Origin::new();
    let server = origin.served(Some("Authorization: Basic bWU6aHVudGVyMg==")).await;
    let url = |password: &str| format!("http://me:{password}@127.0.0.1:{}/x.git", server.port());
    let reference = |password: &str| GitReference { remote: url(password), ..origin.reference(Some("light")) };
    assert_eq!(resolve(&reference("hunter2")).await.unwrap().commit, origin.first);
    let error = resolve(&reference("hunter3")).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter3"), "{error:?}");
}

#[tokio::test]
async fn the_caller_ends_git() {
    let server = Server::start(|_, _| Reply::Hang(b"HTTP/1.1 200 OK\r\n".to_vec())).await;
    let reference = GitReference { remote: server.url("/x.git"), ..GitReference::default() };
    let (environment, cancel) = (environment(), Cancel::new());
    let repository = Repository::new(&reference, &environment, &|_| None, &cancel).unwrap();
    let stop = async {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    };
    let (result, ()) = tokio::join!(repository.resolve(), stop);
    assert_eq!(result.unwrap_err().code(), "interrupted");
}

#[tokio::test]
async fn a_machine_without_git_is_told_so() {
    let (origin, cancel) = (Origin::new(), Cancel::new());
    let (reference, empty) = (origin.reference(None), tempfile::tempdir().unwrap());
    let environment = Environment::with("/", [("PATH", empty.path())]);
    let repository = Repository::new(&reference, &environment, &|_| None, &cancel).unwrap();
    let error = repository.resolve().await.unwrap_err();
    assert!(error.to_string().contains("`git` is not installed"), "{error}");
}

#[test]
fn fetching_can_be_done_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    let (reference, environment, cancel) = (GitReference::default(), environment(), Cancel::new());
    let repository = Repository::new(&reference, &environment, &|_| None, &cancel).unwrap();
    is_send(&repository.resolve());
}
