//! Git repositories, by the `git` program (BuildKit, source/git): exactly what is wanted of one, without its history where the
//! server can do that.

mod program;
mod tree;

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use url::Url;

use self::program::{Program, Said};
use super::{Secrets, failed};
use crate::cancel::Cancel;
use crate::dockerfile::GitReference;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::mtime::Mtime;

/// A repository that something is wanted of.
pub struct Repository<'a> {
    reference: &'a GitReference,
    program: Program,
    cancel: &'a Cancel,
}

/// What a reference names now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The full name of the branch or tag (`refs/heads/main`), or the commit where it was named by itself.
    pub name: String,
    /// What the name points to: a commit, or an annotated tag.
    pub object: String,
    /// The commit. Where the object was named by its digest, it may be a tag: nobody has asked the server.
    pub commit: String,
}

/// What was checked out. Dropping it removes it.
#[derive(Debug)]
pub struct Checkout {
    /// The files. Modes are those of git under the umask 022. All of them have the time of the commit: that of a checkout says
    /// when it was made, and would make each build another.
    pub directory: PathBuf,
    /// The commit.
    pub commit: String,
    /// When it was committed.
    pub time: Mtime,
    _scratch: TempDir,
}

impl<'a> Repository<'a> {
    /// The environment tells where `git` is, proxies and the SSH agent. Secrets `GIT_AUTH_HEADER` and `GIT_AUTH_TOKEN` (with
    /// `.host` behind them, or without) are sent to the repository's own address; a token also to the rest of GitHub, if the
    /// repository is there.
    pub fn new(
        reference: &'a GitReference,
        environment: &Environment,
        secrets: &Secrets<'_>,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let refuse = |reason: &str| Err(failed(&reference.remote, reason));
        if reference.reference.as_deref().is_some_and(|name| name.starts_with('-')) {
            return refuse("a reference cannot begin with `-`");
        }
        let is_hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if reference.checksum.as_deref().is_some_and(|checksum| !is_hex(checksum)) {
            return refuse("its checksum is no commit");
        }
        if reference.remote.starts_with('-') {
            return refuse("this is no address");
        }
        Ok(Self { reference, program: Program::new(&reference.remote, environment, secrets), cancel })
    }

    /// Asks the server what the reference names, and fetches nothing. A full commit is believed.
    pub async fn resolve(&self) -> Result<Resolved> {
        let wanted = self.reference.reference.as_deref();
        let checksum = self.reference.checksum.as_deref().map(str::to_ascii_lowercase);
        let begins = |object: &str| checksum.as_deref().is_none_or(|checksum| object.starts_with(checksum));
        if let Some(commit) = wanted.filter(|name| is_commit(name)) {
            let commit = commit.to_ascii_lowercase();
            return if begins(&commit) { Ok(Resolved::commit(commit)) } else { Err(self.other_commit(&commit)) };
        }
        if self.reference.fetch_by_commit {
            let commit = checksum.filter(|commit| is_commit(commit));
            let commit = commit.ok_or_else(|| self.failed("fetch-by-commit needs a full commit as its checksum"))?;
            let name = wanted.map_or_else(|| commit.clone(), full_branch);
            return Ok(Resolved { name, object: commit.clone(), commit });
        }
        let resolved = self.ask(wanted).await?;
        if begins(&resolved.object) || begins(&resolved.commit) {
            Ok(resolved)
        } else {
            Err(self.other_commit(&resolved.commit))
        }
    }

    async fn ask(&self, wanted: Option<&str>) -> Result<Resolved> {
        let name = match wanted {
            Some(name) => name.to_owned(),
            None => self.default_branch().await?,
        };
        let listed =
            self.run(None, &["ls-remote", "--", self.program.address(), &name, &format!("{name}^{{}}")]).await?;
        let found = choose(&listed, &name).filter(|found| is_commit(&found.object));
        found.ok_or_else(|| self.failed(format!("it has no branch or tag `{name}`")))
    }

    async fn default_branch(&self) -> Result<String> {
        let listed = self.run(None, &["ls-remote", "--symref", "--", self.program.address(), "HEAD"]).await?;
        let branch = listed.lines().find_map(|line| line.strip_prefix("ref: ")?.split_whitespace().next());
        let branch = branch.filter(|branch| branch.starts_with("refs/heads/"));
        branch.map(ToOwned::to_owned).ok_or_else(|| self.failed("it has no default branch"))
    }

    /// Fetches and checks out what was resolved, below `directory`.
    pub async fn checkout(&self, resolved: &Resolved, directory: &Path) -> Result<Checkout> {
        let scratch = tempfile::Builder::new().prefix("git-").tempdir_in(directory);
        let scratch = scratch.map_err(|error| self.failed(format!("a temporary directory: {error}")))?;
        let subdirectory = tree::parts(self.reference.subdirectory.as_deref().unwrap_or_default());
        // A part of a repository is no repository.
        let keep = self.reference.keep_git_dir == Some(true) && subdirectory.is_empty();
        let root = scratch.path().join("tree");
        let git = if keep { root.join(".git") } else { scratch.path().join("git") };
        let place = Place { root, git };
        std::fs::create_dir(&place.root).map_err(|error| self.failed(error.to_string()))?;
        self.fetch(&place, resolved).await?;
        self.run(Some(&place), &["checkout", "--quiet", "--detach", &resolved.object]).await?;
        if self.reference.submodules != Some(false) {
            self.submodules(&place).await?;
        }
        let (commit, time) = self.commit(&place, &resolved.object).await?;
        if keep {
            self.tidy(&place).await?;
        }
        let task = tree::Finish { root: place.root, subdirectory, keep, time, cancel: self.cancel.clone() };
        let finished = tokio::task::spawn_blocking(move || task.run()).await;
        let finished = finished.map_err(|error| Error::internal(error.to_string()))?;
        let directory = finished.map_err(|error| error.unwrap_or_else(|reason| self.failed(reason)))?;
        Ok(Checkout { directory, commit, time, _scratch: scratch })
    }

    async fn fetch(&self, place: &Place, resolved: &Resolved) -> Result<()> {
        // Templates differ from machine to machine, and hold programs.
        let mut init = vec!["-c", "init.defaultBranch=master", "init", "--quiet", "--template="];
        if resolved.object.len() == 64 {
            init.push("--object-format=sha256");
        }
        self.run(Some(place), &init).await?;
        self.run(Some(place), &["remote", "add", "origin", self.program.address()]).await?;
        let by_commit = self.reference.fetch_by_commit || is_commit(&resolved.name);
        let source = if by_commit { &resolved.object } else { &resolved.name };
        let refspec = if is_commit(&resolved.name) { source.clone() } else { format!("+{source}:{}", resolved.name) };
        let shallow = ["fetch", "--quiet", "--update-head-ok", "--depth=1", "--no-tags", "origin", &refspec];
        let mut said = self.program.run(Some(place), &shallow, self.cancel).await?;
        if said.lacks_shallow() {
            let whole: Vec<&str> = shallow.into_iter().filter(|argument| *argument != "--depth=1").collect();
            said = self.program.run(Some(place), &whole, self.cancel).await?;
        }
        // Servers may refuse a commit, in many words.
        if !by_commit {
            said.success().map_err(|reason| self.failed(reason))?;
        }
        if !self.has(place, &resolved.object).await? {
            self.fetch_hidden(place, &resolved.object).await?;
        }
        Ok(())
    }

    /// Fetches what is at the end of no branch and no tag, or no longer: branches may have moved since they were asked for.
    async fn fetch_hidden(&self, place: &Place, object: &str) -> Result<()> {
        let shallow = ["fetch", "--quiet", "--depth=1", "--no-tags", "origin", object];
        self.program.run(Some(place), &shallow, self.cancel).await?;
        if self.has(place, object).await? {
            return Ok(());
        }
        let mut everything = vec!["fetch", "--quiet", "--tags"];
        if place.git.join("shallow").exists() {
            everything.push("--unshallow");
        }
        everything.push("origin");
        self.run(Some(place), &everything).await?;
        if self.has(place, object).await? {
            return Ok(());
        }
        Err(self.failed(format!("it has no commit {object}, or no branch and no tag leads to it any more")))
    }

    async fn has(&self, place: &Place, object: &str) -> Result<bool> {
        let commit = format!("{object}^{{commit}}");
        let said = self.program.run(Some(place), &["cat-file", "-e", &commit], self.cancel).await?;
        Ok(said.success().is_ok())
    }

    async fn submodules(&self, place: &Place) -> Result<()> {
        let shallow = ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"];
        let said = self.program.run(Some(place), &shallow, self.cancel).await?;
        if said.lacks_shallow() || said.refuses_commit() {
            return self.run(Some(place), &shallow[..5]).await.map(drop);
        }
        said.success().map(drop).map_err(|reason| self.failed(reason))
    }

    async fn commit(&self, place: &Place, object: &str) -> Result<(String, Mtime)> {
        let said = self.run(Some(place), &["log", "-1", "--format=%H %ct", &format!("{object}^{{commit}}")]).await?;
        let parts = said.trim().split_once(' ').and_then(|(commit, seconds)| Some((commit, seconds.parse().ok()?)));
        let (commit, seconds) = parts.ok_or_else(|| self.failed("git does not say when the commit was made"))?;
        Ok((commit.to_owned(), Mtime { seconds, nanoseconds: 0 }))
    }

    /// Takes out of `.git` what tells of the fetch and not of the repository.
    async fn tidy(&self, place: &Place) -> Result<()> {
        self.run(Some(place), &["reflog", "expire", "--all", "--expire=now"]).await?;
        match std::fs::remove_file(place.git.join("FETCH_HEAD")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.failed(error.to_string())),
            _ => Ok(()),
        }
    }

    async fn run(&self, place: Option<&Place>, arguments: &[&str]) -> Result<String> {
        let said: Said = self.program.run(place, arguments, self.cancel).await?;
        said.success().map_err(|reason| self.failed(reason))
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        failed(&self.reference.remote, reason)
    }

    fn other_commit(&self, found: &str) -> Error {
        let expected = self.reference.checksum.as_deref().unwrap_or_default();
        self.failed(format!("its commit is {found}, and should be {expected}"))
    }
}

impl Resolved {
    fn commit(commit: String) -> Self {
        Self { name: commit.clone(), object: commit.clone(), commit }
    }
}

/// Where a repository is worked on.
struct Place {
    root: PathBuf,
    git: PathBuf,
}

/// A full object name, of SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn full_branch(name: &str) -> String {
    if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") }
}

/// What a name means among the lines of `ls-remote`. A full name comes first, then a branch, then a tag, as for `git checkout`.
fn choose(listed: &str, name: &str) -> Option<Resolved> {
    let find = |full: &str| listed.lines().find_map(|line| line.split_once('\t').filter(|(_, found)| *found == full));
    let full = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    let found = [full("refs/"), full("refs/heads/"), full("refs/tags/")].into_iter().find_map(|full| find(&full));
    let (object, found) = found?;
    let commit = find(&format!("{found}^{{}}")).map_or(object, |(commit, _)| commit);
    Some(Resolved { name: found.to_owned(), object: object.to_owned(), commit: commit.to_owned() })
}

/// The address without credentials: they go along as a header.
fn without_user(remote: &str) -> String {
    match Url::parse(remote) {
        Ok(mut url) if remote.contains("://") => {
            // Both fail for addresses that cannot have a user, and those have none.
            let _ = url.set_password(None);
            if matches!(url.scheme(), "http" | "https") {
                let _ = url.set_username("");
            }
            url.to_string()
        }
        _ => remote.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn branches_come_before_tags_and_tags_have_commits() {
        let listed = format!("{A}\trefs/heads/v1\n{B}\trefs/tags/v1\n{A}\trefs/tags/v2\n{B}\trefs/tags/v2^{{}}\n");
        let found = |name| choose(&listed, name).map(|found| (found.name, found.object, found.commit));
        let parts =
            |name: &str, object: &str, commit: &str| Some((name.to_owned(), object.to_owned(), commit.to_owned()));
        assert_eq!(found("v1"), parts("refs/heads/v1", A, A));
        assert_eq!(found("refs/tags/v1"), parts("refs/tags/v1", B, B));
        assert_eq!(found("tags/v2"), parts("refs/tags/v2", A, B));
        assert_eq!(found("v2"), parts("refs/tags/v2", A, B));
        assert_eq!(found("v3"), None);
    }

    #[test]
    fn addresses_for_the_command_line_have_no_passwords() {
        let cases = [
            ("https://me:hunter2@x.test/a.git", "https://x.test/a.git"),
            ("https://x.test/a.git", "https://x.test/a.git"),
            ("ssh://git:hunter2@x.test/a", "ssh://git@x.test/a"),
            ("git@x.test:a/b.git", "git@x.test:a/b.git"),
        ];
        for (remote, shown) in cases {
            assert_eq!(without_user(remote), shown);
        }
    }
}
