//! The `git` program: what it is told, what it is not, and how it ends.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use url::Url;

use super::{Place, without_user};
use crate::cancel::Cancel;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::fetch::{Secrets, failed};
use crate::net::proxy::basic;
use crate::secret::Secret;

/// More than the lists of branches of the largest repositories.
const MAX_OUTPUT: u64 = 64 << 20;
/// How much of what went wrong is kept for an error.
const MAX_ERRORS: u64 = 16 << 10;
/// Processes that were killed are gone by then.
const GONE: Duration = Duration::from_secs(2);
/// What git gets of the environment.
const PASSED_ON: &[&str] = &[
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];
/// A question would wait unseen behind the progress display. Hosts that are new are believed, as BuildKit believes them; those
/// whose key has changed are not.
const SSH: &str = "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new";
/// Options that the repository and the machine have no say in.
const OPTIONS: &[(&str, &str)] = &[
    ("protocol.allow", "never"),
    ("protocol.http.allow", "always"),
    ("protocol.https.allow", "always"),
    ("protocol.git.allow", "always"),
    ("protocol.ssh.allow", "always"),
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
];

/// Git, for one repository.
pub(super) struct Program {
    remote: String,
    address: String,
    environment: Vec<(OsString, OsString)>,
    secrets: Vec<Secret<String>>,
}

/// What git said, and how it ended.
pub(super) struct Said {
    status: ExitStatus,
    output: String,
    errors: String,
}

impl Program {
    pub(super) fn new(remote: &str, environment: &Environment, secrets: &Secrets<'_>) -> Self {
        let address = without_user(remote);
        let header = header(remote, secrets);
        let mut options: Vec<(String, String)> =
            OPTIONS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Submodules may not point to this machine's files: git allows `user` for what it was told directly.
        if address.starts_with("file://") {
            options.push(("protocol.file.allow".into(), "user".into()));
        }
        if let Some(header) = &header {
            let name = format!("http.{}.extraHeader", scope(&address));
            options.push((name, format!("Authorization: {}", header.expose())));
        }
        let mut variables: Vec<(OsString, OsString)> = PASSED_ON
            .iter()
            .filter_map(|name| Some((OsString::from(name), environment.path(name)?.as_os_str().to_owned())))
            .collect();
        let fixed = [
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_SSH_COMMAND", SSH),
        ];
        variables.extend(fixed.map(|(name, value)| (name.into(), value.into())));
        variables.push(("GIT_CONFIG_COUNT".into(), options.len().to_string().into()));
        for (index, (name, value)) in options.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{index}").into(), name.into()));
            variables.push((format!("GIT_CONFIG_VALUE_{index}").into(), value.into()));
        }
        Self { remote: remote.to_owned(), address, environment: variables, secrets: header.into_iter().collect() }
    }

    /// The address without credentials.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Runs git, and kills it with all that it started when the flag is set.
    pub(super) async fn run(&self, place: Option<&Place>, arguments: &[&str], cancel: &Cancel) -> Result<Said> {
        cancel.check()?;
        let failed = |reason: String| failed(&self.remote, reason);
        let mut child = self.command(place, arguments).spawn().map_err(|error| failed(format!("git: {error}")))?;
        let group = Group::of(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut work = Box::pin(async {
            // They end when all processes of the group have ended.
            let (output, errors) = tokio::join!(collect(stdout, MAX_OUTPUT), collect(stderr, MAX_ERRORS));
            (child.wait().await, output, errors)
        });
        let (status, output, errors) = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                group.kill();
                // A process that still writes would keep the directory from being removed.
                let _ = tokio::time::timeout(GONE, &mut work).await;
                return Err(Error::Interrupted);
            }
            ended = &mut work => ended,
        };
        group.has_ended();
        let status = status.map_err(|error| failed(format!("git: {error}")))?;
        // What the shell says of a program that is not there.
        if status.code() == Some(127) {
            return Err(failed("the program `git` is not installed".into()));
        }
        Ok(Said { status, output, errors: self.without_secrets(errors) })
    }

    fn command(&self, place: Option<&Place>, arguments: &[&str]) -> Command {
        // Modes of files must not depend on the umask of this process; BuildKit sets it too.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"umask 022; exec git "$@""#, "git"]);
        if let Some(place) = place {
            command.arg("--git-dir").arg(&place.git).arg("--work-tree").arg(&place.root).current_dir(&place.root);
        } else {
            command.current_dir("/");
        }
        command.args(arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// A server can repeat what it was sent.
    fn without_secrets(&self, mut text: String) -> String {
        for secret in &self.secrets {
            let value = secret.expose();
            for part in [value.as_str(), value.rsplit(' ').next().unwrap_or_default()].iter().filter(|p| !p.is_empty())
            {
                text = text.replace(part, "***");
            }
        }
        text
    }
}

impl Said {
    /// What it printed, or the reason why it failed.
    pub(super) fn success(self) -> Result<String, String> {
        if self.status.success() {
            return Ok(self.output);
        }
        let lines = self.errors.lines().map(str::trim).filter(|line| !line.is_empty());
        let told: Vec<&str> = lines.filter(|line| !line.starts_with("hint:")).take(4).collect();
        Err(if told.is_empty() {
            format!("git ended with {}", self.status)
        } else {
            format!("git: {}", told.join("; "))
        })
    }

    /// Whether the server (or a plain web server) cannot leave the history out.
    pub(super) fn lacks_shallow(&self) -> bool {
        !self.status.success() && (self.errors.contains("shallow") || self.errors.contains("--depth"))
    }

    /// Whether the server gives no commit that is not at the end of a branch or tag.
    pub(super) fn refuses_commit(&self) -> bool {
        let words = ["not our ref", "unadvertised object", "did not contain", "couldn't find remote ref"];
        !self.status.success() && words.iter().any(|words| self.errors.contains(words))
    }
}

/// A process and all that it started, killed when this is dropped.
struct Group(std::cell::Cell<Option<Pid>>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(std::cell::Cell::new(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))))
    }

    fn kill(&self) {
        if let Some(group) = self.0.take() {
            // It fails when nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn has_ended(&self) {
        self.0.set(None);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn collect(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut text = Vec::new();
    // What could be read is all that can be told.
    let _ = (&mut pipe).take(most).read_to_end(&mut text).await;
    let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// The value of `Authorization`: BuildKit's secrets, those with the host first, else the user and password of the address.
fn header(remote: &str, secrets: &Secrets<'_>) -> Option<Secret<String>> {
    let url = Url::parse(remote).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let token = |token: Secret<String>| {
        let pair = format!("x-access-token:{}", token.expose());
        Secret::new(format!("basic {}", BASE64_STANDARD.encode(pair)))
    };
    secrets(&format!("GIT_AUTH_HEADER.{host}"))
        .or_else(|| secrets(&format!("GIT_AUTH_TOKEN.{host}")).map(token))
        .or_else(|| secrets("GIT_AUTH_HEADER"))
        .or_else(|| secrets("GIT_AUTH_TOKEN").map(token))
        .or_else(|| basic(&url))
}

/// What a header is for: the repository alone, or all of GitHub, as the action `actions/checkout` has it.
fn scope(address: &str) -> &str {
    let hubs = ["https://github.com/", "https://www.github.com/"];
    hubs.into_iter().find(|hub| address.starts_with(hub)).unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(program: &Program, name: &str) -> Option<String> {
        let found = program.environment.iter().find(|(key, _)| key == name)?;
        Some(found.1.to_string_lossy().into_owned())
    }

    #[test]
    fn secrets_are_passed_by_the_environment_and_to_their_host() {
        let environment = Environment::with("/", [("PATH", "/bin"), ("SECRET", "x"), ("SSH_AUTH_SOCK", "/s")]);
        let secrets = |name: &str| match name {
            "GIT_AUTH_TOKEN.x.test:81" => Some(Secret::new("hunter2".to_owned())),
            "GIT_AUTH_HEADER" => Some(Secret::new("bearer hunter3".to_owned())),
            _ => None,
        };
        let program = Program::new("https://x.test:81/a.git", &environment, &secrets);
        let last = OPTIONS.len();
        assert_eq!(
            value(&program, &format!("GIT_CONFIG_KEY_{last}")).unwrap(),
            "http.https://x.test:81/a.git.extraHeader"
        );
        let header = value(&program, &format!("GIT_CONFIG_VALUE_{last}")).unwrap();
        assert_eq!(header, "Authorization: basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg==");
        assert_eq!(value(&program, "GIT_CONFIG_COUNT").unwrap(), (last + 1).to_string());
        assert_eq!((value(&program, "SECRET"), value(&program, "SSH_AUTH_SOCK")), (None, Some("/s".into())));
        let hub = Program::new("https://github.com/a/b.git", &environment, &secrets);
        assert_eq!(value(&hub, &format!("GIT_CONFIG_KEY_{last}")).unwrap(), "http.https://github.com/.extraHeader");
        assert_eq!(hub.without_secrets("no bearer hunter3, hunter3".into()), "no ***, ***");
        let ssh = Program::new("git@x.test:a.git", &environment, &secrets);
        assert_eq!(value(&ssh, "GIT_CONFIG_COUNT").unwrap(), last.to_string());
    }
}
