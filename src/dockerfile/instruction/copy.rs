//! COPY and ADD.

use super::{Mistake, Result, words};
use crate::dockerfile::flags::{Flags, Takes};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::statement::Statement;

/// Brings files into the image. COPY and ADD share their form; what only one of them has is `None` in the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Paths, and with ADD URLs and git references too, with variables.
    pub sources: Vec<String>,
    /// Files whose content stands in the Dockerfile.
    pub inline: Vec<Heredoc>,
    /// Where to, with variables.
    pub destination: String,
    /// `--from`: a stage, an image or a named context. COPY only.
    pub from: Option<String>,
    /// `--chown`, with variables.
    pub chown: Option<String>,
    /// `--chmod`, with variables.
    pub chmod: Option<String>,
    /// `--link`: the layer does not depend on those before it.
    pub link: bool,
    /// `--parents`: keep the directories of the source. COPY only.
    pub parents: bool,
    /// `--exclude`: patterns of what to leave out.
    pub exclude: Vec<String>,
    /// `--checksum`, with variables. ADD only.
    pub checksum: Option<String>,
    /// `--keep-git-dir`. ADD only.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`. ADD only.
    pub unpack: Option<bool>,
}

const COPY_FLAGS: &[(&str, Takes)] = &[
    ("chown", Takes::Text),
    ("from", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("exclude", Takes::Texts),
    ("parents", Takes::Bool),
];
const ADD_FLAGS: &[(&str, Takes)] = &[
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Text),
    ("unpack", Takes::Bool),
    ("exclude", Takes::Texts),
];

impl Transfer {
    pub(super) fn copy(statement: &Statement) -> Result<Self> {
        Self::parse("COPY", COPY_FLAGS, statement)
    }

    pub(super) fn add(statement: &Statement) -> Result<Self> {
        Self::parse("ADD", ADD_FLAGS, statement)
    }

    fn parse(keyword: &str, known: &[(&str, Takes)], statement: &Statement) -> Result<Self> {
        let [sources @ .., destination] = words(statement) else { return Err(too_few(keyword)) };
        if sources.is_empty() {
            return Err(too_few(keyword));
        }
        let flags = Flags::parse(&statement.flags, known)?;
        if matches!(Heredoc::from_word(destination), Ok(Some(_))) {
            let message = format!("{keyword} cannot have a here-document as its destination");
            return Err(Mistake::syntax(message).near(destination));
        }
        let mut transfer = Self {
            destination: destination.clone(),
            from: given(flags.text("from")),
            chown: given(flags.text("chown")),
            chmod: given(flags.text("chmod")),
            link: flags.bool("link").unwrap_or_default(),
            parents: flags.bool("parents").unwrap_or_default(),
            exclude: flags.texts("exclude"),
            checksum: given(flags.text("checksum")),
            keep_git_dir: flags.bool("keep-git-dir"),
            unpack: flags.bool("unpack"),
            ..Self::default()
        };
        for source in sources {
            match Heredoc::from_word(source) {
                Ok(Some(heredoc)) => {
                    let read = statement.heredocs.iter().rfind(|read| read.name == heredoc.name);
                    let content = read.map(|read| read.content.clone()).unwrap_or_default();
                    transfer.inline.push(Heredoc { content, ..heredoc });
                }
                _ => transfer.sources.push(source.clone()),
            }
        }
        Ok(transfer)
    }
}

/// An empty value is none.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

fn too_few(keyword: &str) -> Mistake {
    Mistake::syntax(format!("{keyword} needs a source and a destination"))
}
