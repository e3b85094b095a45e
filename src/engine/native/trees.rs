//! What COPY and ADD look their sources up in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::copy::{ContextFiles, Failure, Fetched, Files, Item, ItemKind, Nothing, Selection, ViewFiles, at, select};
use super::layer::Layer;
use super::remote::{self, Remote};
use super::stage::Builder;
use crate::cancel::Cancel;
use crate::context::Context;
use crate::dockerfile::step::CopyStep;
use crate::dockerfile::{Origin, Step};
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::layer::{Content, archive};
use crate::request::{ContextSpec, DockerfileSpec};

/// The trees of one instruction. What was fetched for it is there as long as this is.
pub(super) struct Trees {
    /// The layers that contents are in ([`Content::InLayer`]).
    pub(super) layers: Vec<Layer>,
    origin: Tree,
    fetched: BTreeMap<usize, Remote>,
}

/// One tree.
enum Tree {
    Nothing,
    Context(ContextFiles),
    View(ViewFiles),
}

impl Tree {
    fn files(&self) -> &dyn Files {
        match self {
            Self::Nothing => &Nothing,
            Self::Context(context) => context,
            Self::View(view) => view,
        }
    }
}

impl Trees {
    /// Opens what an instruction names, and fetches what is elsewhere.
    pub(super) async fn of(builder: &Builder<'_>, step: &Step, copy: &CopyStep) -> Result<Self> {
        let fetched = remote::fetch(builder, step, copy).await?;
        Ok(Self { fetched, ..Self::of_origin(builder, step, copy.origin.as_ref()).await? })
    }

    /// Opens a stage, an image, or a context: the build's where none is named.
    pub(super) async fn of_origin(builder: &Builder<'_>, step: &Step, origin: Option<&Origin>) -> Result<Self> {
        let around = builder.around;
        let shared = around.shared;
        let plain = |origin| Self { layers: Vec::new(), origin, fetched: BTreeMap::new() };
        let (layers, name) = match origin {
            None => {
                let context = ContextFiles::new(Arc::clone(&shared.opened.context), "the build context");
                return Ok(plain(Tree::Context(context)));
            }
            Some(Origin::Scratch) => return Ok(plain(Tree::Nothing)),
            Some(Origin::Stage(id)) => (around.stages[id].layers.clone(), "the stage".to_owned()),
            Some(origin) => match (around.images.get(origin), origin) {
                (Some(image), Origin::Image(name) | Origin::Context(name)) => {
                    (image.layers.clone(), format!("`{name}`"))
                }
                (None, Origin::Context(name)) => {
                    return Ok(plain(Tree::Context(named_context(builder, step, name).await?)));
                }
                _ => return Err(Error::internal("an image that was not looked up")),
            },
        };
        let view = ViewFiles::new(shared.view(&layers).await?, name);
        Ok(Self { layers, origin: Tree::View(view), fetched: BTreeMap::new() })
    }

    /// What the origin has at a path, and everything in it.
    pub(super) fn at(&self, path: &str, cancel: &Cancel) -> Result<Selection, Failure> {
        at(self.origin.files(), path.trim_start_matches('/').as_bytes(), cancel)
    }

    /// Whether the origin consists of layers.
    pub(super) const fn is_view(&self) -> bool {
        matches!(self.origin, Tree::View(_))
    }

    /// Finds what an instruction takes, and looks into archives that are to be unpacked.
    pub(super) fn select(&self, copy: &CopyStep, spool: &Path, cancel: &Cancel) -> Result<Selection, Failure> {
        let fetched = self.fetched.iter().map(|(number, remote)| {
            let fetched = match remote {
                Remote::File(item) => Fetched::File(item.clone()),
                Remote::Tree { files, .. } => Fetched::Tree(files),
            };
            (*number, fetched)
        });
        let mut selection = select(copy, self.origin.files(), &fetched.collect(), cancel)?;
        let archives: Vec<(usize, Item)> = selection.archives().map(|(number, item)| (number, item.clone())).collect();
        for (number, item) in archives {
            let Some(file) = on_disk(&item, spool, cancel)? else { continue };
            if let Some(entries) = archive::open(&file, spool, cancel)? {
                selection.unpack(number, entries);
            }
        }
        Ok(selection)
    }
}

/// The content of an item as a file of its own; nothing for what is no file.
fn on_disk(item: &Item, spool: &Path, cancel: &Cancel) -> Result<Option<File>> {
    let ItemKind::File { content, .. } = &item.kind else { return Ok(None) };
    let failed = |source| Error::Store { path: spool.to_owned(), action: "write".into(), source };
    let mut file = tempfile::tempfile_in(spool).map_err(failed)?;
    match content {
        Content::Bytes(bytes) => file.write_all(bytes).map_err(failed)?,
        Content::Context(context, id) => {
            let mut reader = context.reader(&context.entry(*id))?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                cancel.check()?;
                match reader.read_some(&mut buffer)? {
                    0 => break,
                    count => file.write_all(&buffer[..count]).map_err(failed)?,
                }
            }
        }
        // It has a file to itself: it was fetched.
        Content::Spool { file, offset: 0 } => return file.try_clone().map(Some).map_err(failed),
        Content::Spool { .. } | Content::Tree { .. } | Content::InLayer { .. } => return Ok(None),
    }
    Ok(Some(file))
}

/// A directory that `--build-context` names. Its ignore file holds.
async fn named_context(builder: &Builder<'_>, step: &Step, name: &str) -> Result<ContextFiles> {
    let shared = builder.around.shared;
    let source = &shared.request.options.build_contexts[name];
    if source.contains("://") || source.starts_with("git@") {
        let message =
            format!("the build context `{name}` is `{source}`; this engine takes directories, images and layouts");
        return Err(builder.unsupported(step, message));
    }
    let spec = ContextSpec { root: Some(source.into()), ..ContextSpec::default() };
    directory(spec, format!("the build context `{name}`"), &shared.job.cancel).await
}

/// A directory of this machine.
pub(super) async fn directory(spec: ContextSpec, name: String, cancel: &Cancel) -> Result<ContextFiles> {
    let cancel = cancel.clone();
    let context = blocking(move || Context::open(&spec, &DockerfileSpec::default(), &cancel)).await?;
    Ok(ContextFiles::new(Arc::new(context), name))
}
