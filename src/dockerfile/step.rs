//! What an instruction asks an engine to do, with every variable expanded.

use serde::Serialize;

use super::chmod::Chmod;
use super::instruction::{Device, Instruction, Mount, Network, Security};
use super::plan::Origin;
use super::remote::GitReference;
use super::source::Span;
use super::variables::Variables;

/// One step of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The instruction on one line, as written.
    pub text: String,
    /// Its lines; those of FROM for a trigger of the base.
    pub span: Span,
    /// Whether it is a trigger of the base (ONBUILD).
    pub from_base: bool,
    /// What is to be done.
    pub action: Action,
    /// What the image's history says of it (`created_by`); ONBUILD leaves no trace there.
    pub history: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing: only the configuration has changed.
    Configure,
    /// Make a directory.
    MakeDirectory(MakeDirectory),
    /// Run a command.
    Run(Box<RunStep>),
    /// Bring files in.
    Copy(Box<CopyStep>),
}

impl Action {
    /// Whether it makes a layer.
    pub const fn makes_layer(&self) -> bool {
        !matches!(self, Self::Configure)
    }
}

/// The directory of WORKDIR, and those above it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MakeDirectory {
    /// Its path.
    pub path: String,
    /// Whom it belongs to; empty is root.
    pub user: String,
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunStep {
    /// The program and its arguments, the shell included.
    pub command: Vec<String>,
    /// A file that the command is, where a here-document begins with `#!`.
    pub script: Option<Script>,
    /// ENV and ARG.
    pub env: Variables,
    /// Proxies: for the command, in no image and in no cache key.
    pub proxies: Variables,
    /// Where it runs.
    pub working_dir: String,
    /// Who runs it; empty is root.
    pub user: String,
    /// `--mount`.
    pub mounts: Vec<RunMount>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`.
    pub devices: Vec<Device>,
}

/// A here-document to be run as a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Script {
    /// Where the command expects it.
    pub path: String,
    /// What is in it.
    pub content: String,
}

/// A mount of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunMount {
    /// Its options.
    #[serde(flatten)]
    pub mount: Mount,
    /// What it is mounted from; `None` is the build context. Has no meaning for secrets, agents and tmpfs.
    pub origin: Option<Origin>,
    /// Where to, as an absolute path; `None` for a secret that goes to a variable only, and for an agent's default socket.
    pub path: Option<String>,
}

/// Files to bring in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "they are the flags of COPY and ADD")]
pub struct CopyStep {
    /// Where paths are looked up; `None` is the build context.
    pub origin: Option<Origin>,
    /// What.
    pub sources: Vec<CopySource>,
    /// Where to, as an absolute path.
    pub destination: String,
    /// Whether the destination is written as a directory (`/x/`).
    pub into_directory: bool,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Whether local archives are unpacked.
    pub unpack: bool,
}

/// One source of COPY or ADD.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopySource {
    /// A path in the origin, which may have wildcards.
    Path {
        /// Absolute, and clean.
        path: String,
        /// With `--parents`: the part whose directories are kept, which `path` does not have.
        pattern: Option<String>,
        /// Whether something has to be there. A path with wildcards may match nothing.
        required: bool,
    },
    /// A file whose content stands in the Dockerfile.
    Inline {
        /// Its name.
        name: String,
        /// What is in it.
        content: String,
    },
    /// A file on the web.
    Url {
        /// Its address.
        url: String,
        /// Its name.
        file_name: String,
        /// The digest that it has to have.
        checksum: Option<String>,
        /// Whether it is unpacked if it is an archive.
        unpack: bool,
    },
    /// A git repository.
    Git(GitReference),
}

impl Step {
    pub(super) fn new(instruction: &Instruction, from_base: bool, action: Action, history: Option<String>) -> Self {
        Self { text: instruction.text.clone(), span: instruction.span, from_base, action, history }
    }
}
