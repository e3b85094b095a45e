//! Everything that can go wrong, as data.
//!
//! A variant holds what a program needs to know; [`Display`](std::fmt::Display) makes one line of it, [`Error::hint`] says
//! what to do next, [`Error::code`] names it for good. `docs/errors.md` lists every code, and a test keeps the list whole.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

/// What this crate's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failing step of a build, with all that a person needs to mend it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StepFailure {
    /// The instruction as written, e.g. `RUN pip install -r requirements.txt`.
    pub instruction: String,
    /// The exit status of its command, if a command ran.
    pub exit_code: Option<i64>,
    /// Where the instruction stands, if that is known.
    pub location: Option<Location>,
    /// The last lines that it printed, at most [`MAX_TAIL_LINES`].
    pub tail: Vec<String>,
    /// What the builder itself said.
    pub message: String,
}

/// How many lines of a failing step's output are kept: enough for a Python traceback below pip's summary.
pub const MAX_TAIL_LINES: usize = 40;

/// A place in a text, and the text around it for a code frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file, as the caller named it.
    pub file: String,
    /// First line of the place, from 1.
    pub line: usize,
    /// Last line of the place, from 1.
    pub end_line: usize,
    /// First column, in characters from 1.
    pub column: usize,
    /// How many characters the marker covers; 0 draws none.
    pub width: usize,
    /// Lines `line` to `end_line` of the file.
    pub source: Vec<String>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named for what they hold; each variant says what happened")]
pub enum Error {
    // What the caller asked for.
    /// A text is no image name.
    #[error("`{input}` is no image name: {reason}")]
    InvalidReference { input: String, reason: &'static str },
    /// A text is no SHA-256 digest.
    #[error("`{input}` is no sha256 digest")]
    InvalidDigest { input: String },
    /// A text is no platform.
    #[error("`{input}` is no platform")]
    InvalidPlatform { input: String },
    /// A build option is not known.
    #[error("unknown build option `{name}`")]
    UnknownOption { name: String, suggestion: Option<String> },
    /// A build option has a value that it cannot have.
    #[error("build option `{name}`: {reason}")]
    InvalidOption { name: String, reason: String },
    /// The chosen engine or daemon cannot do what was asked for.
    #[error("{engine} cannot {feature}: {reason}")]
    Unsupported { engine: String, feature: String, reason: String },
    /// The value of a build secret cannot be had.
    #[error("secret `{id}`: {reason}")]
    SecretUnavailable { id: String, reason: String },
    /// The SSH agent or key of a build cannot be had.
    #[error("ssh `{id}`: {reason}")]
    SshUnavailable { id: String, reason: String },

    // The build context.
    /// The root of the context is no directory that can be read.
    #[error("build context `{}`: {source}", path.display())]
    ContextRoot { path: PathBuf, source: io::Error },
    /// Something in the context cannot be read.
    #[error("cannot read `{}` for the build context: {source}", path.display())]
    ContextRead { path: PathBuf, source: io::Error },
    /// A file changed while it was read.
    #[error("`{}` changed while it was read: it had {expected} bytes, then {found}", path.display())]
    ContextChanged { path: PathBuf, expected: u64, found: String },
    /// The archive cannot be written.
    #[error("cannot write the build context: {source}")]
    ContextWrite { source: io::Error },
    /// Two entries of the context exclude each other, or a path leaves the context.
    #[error("`{path}` cannot be in a build context: {reason}")]
    ContextPath { path: String, reason: String },
    /// An ignore file cannot be read.
    #[error("cannot read the ignore file `{}`: {source}", path.display())]
    IgnoreFile { path: PathBuf, source: io::Error },
    /// An ignore file has a malformed pattern.
    #[error("malformed pattern in an ignore file: {reason}")]
    IgnorePattern { location: Box<Location>, reason: String },

    // The Dockerfile and its steps.
    /// There is no Dockerfile where one was expected.
    #[error("there is no Dockerfile `{path}`")]
    DockerfileMissing { path: String },
    /// The Dockerfile has a mistake.
    #[error("{message}")]
    Dockerfile { location: Option<Box<Location>>, message: String },
    /// The text of a Dockerfile is not well-formed: an instruction, a flag or an argument.
    #[error("{message}")]
    DockerfileSyntax { location: Box<Location>, message: String, suggestion: Option<String> },
    /// Variables, quotes or escapes of a Dockerfile cannot be expanded.
    #[error("{message}")]
    DockerfileVariable { location: Box<Location>, message: String, suggestion: Option<String> },
    /// A value that a Dockerfile gives an instruction is none that it can have.
    #[error("{message}")]
    DockerfileValue { location: Box<Location>, message: String, suggestion: Option<String> },
    /// A stage of a Dockerfile is not there, comes too late, or needs itself.
    #[error("{message}")]
    DockerfileStage { location: Box<Location>, message: String, suggestion: Option<String> },
    /// A Dockerfile is written for a frontend (`# syntax=`) other than Docker's own.
    #[error("{message}")]
    DockerfileFrontend { location: Box<Location>, message: String },
    /// A step failed.
    #[error("{}", step_line(.0))]
    StepFailed(Box<StepFailure>),
    /// A base image is not there, or not to be had without other credentials.
    #[error("base image `{reference}` was not found")]
    BaseMissing { reference: String, location: Option<Box<Location>>, message: String },
    /// The builder stopped with an error that belongs to no step.
    #[error("the build failed: {message}")]
    BuildFailed { message: String },

    // The daemon.
    /// Nothing answers at the daemon's address.
    #[error("no Docker or Podman daemon answers at {endpoint}: {reason}")]
    DaemonUnreachable { endpoint: String, reason: String },
    /// The daemon's address may not be used by this user.
    #[error("permission denied for the daemon at {endpoint}")]
    DaemonDenied { endpoint: String },
    /// The daemon answered with an error that has no code of its own.
    #[error("the daemon refused {action} ({status}): {message}")]
    DaemonRefused { action: String, status: u16, message: String },
    /// The daemon answered something that cannot be understood, or stopped in the middle.
    #[error("the connection to the daemon failed during {action}: {reason}")]
    DaemonProtocol { action: String, reason: String },
    /// The machine that builds has no space left.
    #[error("no space left on the machine that builds: {message}")]
    NoSpace { message: String },
    /// No BuildKit answers at an address, or at any of several.
    #[error("no BuildKit answers at {endpoint}: {reason}")]
    WorkerUnreachable { endpoint: String, reason: String },
    /// A BuildKit went away while it built.
    #[error("the BuildKit at {endpoint} went away: {reason}")]
    WorkerLost { endpoint: String, reason: String },
    /// The address, TLS files or Docker context that lead to the daemon are wrong.
    #[error("{setting}: {reason}")]
    DaemonConfig { setting: String, reason: String },

    // Registries.
    /// A registry refused the credentials that it was given, or wants some.
    #[error("registry {registry} denied access to `{reference}`: {message}")]
    RegistryDenied { registry: String, reference: String, message: String, had_credentials: bool },
    /// A registry does not answer.
    #[error("registry {registry} does not answer: {reason}")]
    RegistryUnreachable { registry: String, reason: String },
    /// A registry refused a push for another reason.
    #[error("pushing `{reference}` failed: {message}")]
    PushFailed { reference: String, message: String },
    /// A registry holds something other than what was pushed.
    #[error("`{reference}` should be {expected} and is {found}")]
    DigestMismatch { reference: String, expected: String, found: String },
    /// A credential helper or the Docker config cannot be used.
    #[error("credentials for {registry}: {reason}")]
    Credentials { registry: String, reason: String },

    // Images, layers and what is kept of them.
    /// A manifest, a configuration or a layer is not what it should be.
    #[error("invalid {what}: {reason}")]
    ImageInvalid { what: String, reason: String },
    /// An image is not there for the platform that was asked for.
    #[error("`{reference}` is not there for {platform}; there are: {available}")]
    PlatformMissing { reference: String, platform: String, available: String },
    /// A registry answered with an error that has no code of its own.
    #[error("registry {registry} refused {action} ({status}): {message}")]
    RegistryRefused { registry: String, action: String, status: u16, message: String },
    /// The store of layers and records cannot be used.
    #[error("cannot {action} in the store at `{}`: {source}", path.display())]
    Store { path: PathBuf, action: String, source: io::Error },
    /// The store holds something other than what was put there.
    #[error("`{}` in the store is damaged: {reason}", path.display())]
    StoreDamaged { path: PathBuf, reason: String },
    /// What COPY or ADD names is not there, or cannot be put where it should go.
    #[error("{message}")]
    CopyFailed { location: Box<Location>, message: String, suggestion: Option<String> },
    /// What ADD names on the web, or in a git repository, cannot be had.
    #[error("cannot fetch `{url}`: {reason}")]
    FetchFailed { location: Option<Box<Location>>, url: String, reason: String },
    /// A step that this engine cannot do on this machine.
    #[error("{message}")]
    StepUnsupported { location: Box<Location>, message: String },
    /// A command could not be isolated as it has to be: the sandbox could not be made, or its process went away.
    #[error("cannot {action}: {reason}")]
    Sandbox { action: String, reason: String },
    /// The image cannot be written where it should go.
    #[error("cannot write the image to `{}`: {source}", path.display())]
    OutputFailed { path: PathBuf, source: io::Error },

    // The rest.
    /// The caller cancelled, or a signal came.
    #[error("interrupted")]
    Interrupted,
    /// Something took longer than it ever should.
    #[error("{action} did not end within {} s", after.as_secs())]
    TimedOut { action: String, after: Duration },
    /// A defect of this program.
    #[error("internal error: {message}")]
    Internal { message: String },
}

fn step_line(step: &StepFailure) -> String {
    match step.exit_code {
        Some(code) => format!("`{}` failed with exit code {code}", step.instruction),
        None => format!("`{}` failed: {}", step.instruction, step.message),
    }
}

impl Error {
    /// Every code, in the order of the variants.
    pub const CODES: &[&str] = &[
        "invalid-reference",
        "invalid-digest",
        "invalid-platform",
        "unknown-option",
        "invalid-option",
        "unsupported",
        "secret-unavailable",
        "ssh-unavailable",
        "context-root",
        "context-read",
        "context-changed",
        "context-write",
        "context-path",
        "ignore-file",
        "ignore-pattern",
        "dockerfile-missing",
        "dockerfile",
        "dockerfile-syntax",
        "dockerfile-variable",
        "dockerfile-value",
        "dockerfile-stage",
        "dockerfile-frontend",
        "step-failed",
        "base-missing",
        "build-failed",
        "daemon-unreachable",
        "daemon-denied",
        "daemon-refused",
        "daemon-protocol",
        "no-space",
        "worker-unreachable",
        "worker-lost",
        "daemon-config",
        "registry-denied",
        "registry-unreachable",
        "push-failed",
        "digest-mismatch",
        "credentials",
        "image-invalid",
        "platform-missing",
        "registry-refused",
        "store",
        "store-damaged",
        "copy-failed",
        "fetch-failed",
        "step-unsupported",
        "sandbox",
        "output-failed",
        "interrupted",
        "timed-out",
        "internal",
    ];

    /// The stable name of this kind of error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidReference { .. } => "invalid-reference",
            Self::InvalidDigest { .. } => "invalid-digest",
            Self::InvalidPlatform { .. } => "invalid-platform",
            Self::UnknownOption { .. } => "unknown-option",
            Self::InvalidOption { .. } => "invalid-option",
            Self::Unsupported { .. } => "unsupported",
            Self::SecretUnavailable { .. } => "secret-unavailable",
            Self::SshUnavailable { .. } => "ssh-unavailable",
            Self::ContextRoot { .. } => "context-root",
            Self::ContextRead { .. } => "context-read",
            Self::ContextChanged { .. } => "context-changed",
            Self::ContextWrite { .. } => "context-write",
            Self::ContextPath { .. } => "context-path",
            Self::IgnoreFile { .. } => "ignore-file",
            Self::IgnorePattern { .. } => "ignore-pattern",
            Self::DockerfileMissing { .. } => "dockerfile-missing",
            Self::Dockerfile { .. } => "dockerfile",
            Self::DockerfileSyntax { .. } => "dockerfile-syntax",
            Self::DockerfileVariable { .. } => "dockerfile-variable",
            Self::DockerfileValue { .. } => "dockerfile-value",
            Self::DockerfileStage { .. } => "dockerfile-stage",
            Self::DockerfileFrontend { .. } => "dockerfile-frontend",
            Self::StepFailed(_) => "step-failed",
            Self::BaseMissing { .. } => "base-missing",
            Self::BuildFailed { .. } => "build-failed",
            Self::DaemonUnreachable { .. } => "daemon-unreachable",
            Self::DaemonDenied { .. } => "daemon-denied",
            Self::DaemonRefused { .. } => "daemon-refused",
            Self::DaemonProtocol { .. } => "daemon-protocol",
            Self::NoSpace { .. } => "no-space",
            Self::WorkerUnreachable { .. } => "worker-unreachable",
            Self::WorkerLost { .. } => "worker-lost",
            Self::DaemonConfig { .. } => "daemon-config",
            Self::RegistryDenied { .. } => "registry-denied",
            Self::RegistryUnreachable { .. } => "registry-unreachable",
            Self::PushFailed { .. } => "push-failed",
            Self::DigestMismatch { .. } => "digest-mismatch",
            Self::Credentials { .. } => "credentials",
            Self::ImageInvalid { .. } => "image-invalid",
            Self::PlatformMissing { .. } => "platform-missing",
            Self::RegistryRefused { .. } => "registry-refused",
            Self::Store { .. } => "store",
            Self::StoreDamaged { .. } => "store-damaged",
            Self::CopyFailed { .. } => "copy-failed",
            Self::FetchFailed { .. } => "fetch-failed",
            Self::StepUnsupported { .. } => "step-unsupported",
            Self::Sandbox { .. } => "sandbox",
            Self::OutputFailed { .. } => "output-failed",
            Self::Interrupted => "interrupted",
            Self::TimedOut { .. } => "timed-out",
            Self::Internal { .. } => "internal",
        }
    }

    /// What the user can do about it, if there is something to do.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::InvalidReference { .. } => "write a name as [registry[:port]/]repository[:tag], in lower case",
            Self::InvalidPlatform { .. } => "write a platform as os/architecture[/variant], e.g. linux/amd64",
            Self::UnknownOption { suggestion: Some(name), .. }
            | Self::DockerfileSyntax { suggestion: Some(name), .. }
            | Self::DockerfileVariable { suggestion: Some(name), .. }
            | Self::DockerfileValue { suggestion: Some(name), .. }
            | Self::DockerfileStage { suggestion: Some(name), .. }
            | Self::CopyFailed { suggestion: Some(name), .. } => return Some(format!("did you mean `{name}`?")),
            Self::UnknownOption { suggestion: None, .. } => "docs/flavors/docker.md lists the build options",
            Self::ContextChanged { .. } => "build again when nothing writes to it, or exclude it in .dockerignore",
            Self::ContextRead { .. } => "make it readable, or exclude it in .dockerignore",
            Self::DockerfileMissing { .. } => "name it with --file, or take it out of the ignore file",
            Self::DockerfileFrontend { .. } => {
                "take the `# syntax=` line out if the file is a plain Dockerfile, or build it with `--engine docker`"
            }
            Self::BaseMissing { .. } => "check the name, and that the registry's credentials may read it",
            Self::DaemonUnreachable { .. } => {
                "start the daemon, or name its address (`host` of the image builder, --endpoint, or DOCKER_HOST); `cooper doctor` shows what was tried"
            }
            Self::DaemonDenied { .. } => {
                "add the user to the group that owns the socket (usually `docker`), or use a rootless daemon; then log in again"
            }
            Self::WorkerUnreachable { .. } => {
                "start buildkitd, or name its address (`endpoints` of the image builder, --endpoint, or BUILDKIT_HOST); `cooper doctor --engine buildkit` shows what was tried"
            }
            Self::WorkerLost { .. } => "look at its log, and build again: what it had finished is in its cache",
            Self::NoSpace { .. } => {
                "free some space there, e.g. with `docker system prune` or `cooper cache prune`, and build again"
            }
            Self::RegistryDenied { had_credentials: true, .. } => {
                "check that the credentials are current and may write to this repository"
            }
            Self::RegistryDenied { had_credentials: false, .. } => {
                "give the ZenML container registry credentials or a connector, or run `docker login`"
            }
            Self::RegistryUnreachable { .. } => {
                "check the registry's address, and that the machine that pushes can reach it"
            }
            Self::PlatformMissing { .. } => "choose one of these with `platform`, or another base image",
            Self::Store { .. } => {
                "check the space and the permissions there, or set COOPER_CACHE_DIR to another directory on a local disk"
            }
            Self::StoreDamaged { .. } => "build again: what was damaged is gone and will be made anew",
            Self::StepUnsupported { .. } => {
                "see `cooper doctor --engine native`, or build with `--engine docker`, flavor `cooper_docker`"
            }
            Self::Sandbox { .. } => "`cooper doctor --engine native` says what works on this machine",
            Self::OutputFailed { .. } => "check the path and the permissions there",
            Self::Internal { .. } => "please report this, with the output of `cooper doctor --json`",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Where in a text the mistake is, if it is in one.
    pub fn location(&self) -> Option<&Location> {
        match self {
            Self::IgnorePattern { location, .. }
            | Self::DockerfileSyntax { location, .. }
            | Self::DockerfileVariable { location, .. }
            | Self::DockerfileValue { location, .. }
            | Self::DockerfileStage { location, .. }
            | Self::DockerfileFrontend { location, .. }
            | Self::CopyFailed { location, .. }
            | Self::StepUnsupported { location, .. } => Some(location),
            Self::Dockerfile { location, .. }
            | Self::BaseMissing { location, .. }
            | Self::FetchFailed { location, .. } => location.as_deref(),
            Self::StepFailed(step) => step.location.as_ref(),
            _ => None,
        }
    }

    /// Why something cannot be written to a path: [`Self::NoSpace`], or else [`Self::OutputFailed`].
    pub(crate) fn unwritten(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { message: format!("writing `{}`: {source}", path.display()) }
            }
            _ => Self::OutputFailed { path: path.to_owned(), source },
        }
    }

    /// An error that says that this program is wrong.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal { message: message.into() }
    }
}

impl Location {
    /// Draws the place for a person:
    ///
    /// ```text
    ///   --> Dockerfile:4:1
    /// 4 | RUNN pip install -r requirements.txt
    ///   | ^^^^
    /// ```
    pub fn frame(&self) -> String {
        let gutter = self.end_line.max(self.line).to_string().len();
        let mut text = format!("{:gutter$}--> {}:{}:{}\n", "", self.file, self.line, self.column.max(1));
        // Writing to a string cannot fail.
        for (number, line) in (self.line..).zip(&self.source) {
            let _ = writeln!(text, "{number:>gutter$} | {line}");
        }
        if self.width > 0 && self.source.len() == 1 {
            let indent = self.column.saturating_sub(1);
            let _ = writeln!(text, "{:gutter$} | {:indent$}{}", "", "", "^".repeat(self.width));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_marks_the_place() {
        let location = Location {
            file: "Dockerfile".into(),
            line: 10,
            end_line: 10,
            column: 3,
            width: 4,
            source: vec!["  RUNN x".into()],
        };
        assert_eq!(location.frame(), "  --> Dockerfile:10:3\n10 |   RUNN x\n   |   ^^^^\n");
    }

    #[test]
    fn a_full_disk_is_no_fault_of_the_path() {
        let code = |kind: io::ErrorKind| Error::unwritten(Path::new("x"), kind.into()).code();
        assert_eq!(code(io::ErrorKind::StorageFull), "no-space");
        assert_eq!(code(io::ErrorKind::PermissionDenied), "output-failed");
    }

    #[test]
    fn codes_are_unique() {
        let mut codes = Error::CODES.to_vec();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Error::CODES.len());
        assert!(codes.len() > 30);
    }
}
