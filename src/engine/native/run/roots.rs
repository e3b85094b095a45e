//! Layers become directories, when a command has to run: each for itself, several at once, and each once for all builds.

use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::super::key::Key;
use super::super::layer::Layer;
use super::super::shared::Shared;
use super::super::stage::image_key;
use super::machine::Machine;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::engine::blocking;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::request::Output;
use crate::rootfs::{InView, LayerIndex, Limits, Packed, Unpacked, View, unpack, unpack_in_view};
use crate::store::{Blob, BlobWriter, NewTree, Tree, TreeKey, TreeState};

/// Some layers, unpacked.
#[derive(Clone)]
pub(super) struct Unpackeds {
    /// What they make together.
    pub(super) view: View,
    /// Each of them, lowest first; none of those that have nothing in them, and of those that were not wanted.
    pub(super) trees: Vec<Option<PathBuf>>,
}

/// The tree of a layer as the command left it that made the layer: it stands for the layer on these lower ones alone.
pub(super) fn left_key(machine: &Machine, lower: &[Layer], diff_id: Digest) -> TreeKey {
    let variant = Key::new("left by a command").digest(&image_key(lower)).finish();
    TreeKey { diff_id, form: machine.form.key(), variant: Some(variant) }
}

impl Shared {
    /// Unpacks some layers, from a number on: the view is of all.
    pub(super) async fn unpacked(&self, machine: &Arc<Machine>, layers: &[Layer], from: usize) -> Result<Unpackeds> {
        let view = self.view(layers).await?;
        let trees = (0..layers.len()).map(|number| {
            let view = &view;
            async move {
                if number < from || view.layers()[number].is_empty() {
                    return Ok(None);
                }
                Ok::<_, Error>(Some(self.tree(machine, layers, number, view).await?.path()))
            }
        });
        let trees = futures_util::future::try_join_all(trees).await?;
        Ok(Unpackeds { view, trees })
    }

    /// The tree of one layer of a view.
    async fn tree(&self, machine: &Arc<Machine>, layers: &[Layer], number: usize, view: &View) -> Result<Tree> {
        let layer = &layers[number];
        let left = left_key(machine, &layers[..number], layer.diff_id);
        let (store, own) = (self.store.clone(), view.clone());
        let form = machine.form.key();
        let diff_id = layer.diff_id;
        let look = move || {
            if let Some(tree) = store.tree(&left)? {
                return Ok((Some(tree), None));
            }
            Ok((None, Some(TreeKey { diff_id, form, variant: own.variant(number) })))
        };
        let key = match blocking(look).await? {
            (Some(tree), _) => return Ok(tree),
            (None, key) => key.ok_or_else(|| Error::internal("a tree without a key"))?,
        };
        let once = Key::new("tree").digest(&key.diff_id).text(&key.form).value(&key.variant).finish();
        let make = async {
            let _permit = self.runs.unpacking.acquire().await;
            let (new, reader) = match self.tree_or_reader(key.clone(), layer).await? {
                Ok(tree) => return Ok(tree),
                Err(missing) => missing,
            };
            let within = key.variant.is_some().then(|| (view.clone(), number));
            self.fill(machine, layer, new, reader, within).await
        };
        self.runs.trees.get(&once, make).await
    }

    /// A tree that is there, or what is needed to make it.
    async fn tree_or_reader(
        &self,
        key: TreeKey,
        layer: &Layer,
    ) -> Result<std::result::Result<Tree, (NewTree, Reader)>> {
        let (store, cancel) = (self.store.clone(), self.job.cancel.clone());
        match blocking(move || store.tree_or_new(&key, &cancel)).await? {
            TreeState::Ready(tree) => Ok(Ok(tree)),
            TreeState::Missing(new) => Ok(Err((new, self.reader(layer).await?))),
        }
    }

    /// The bytes of a layer: they are kept as well if an output of this build needs them.
    async fn reader(&self, layer: &Layer) -> Result<Reader> {
        if let Some(blob) = self.stored(layer.descriptor.digest).await? {
            return Ok(Reader { from: Box::new(blob.open()?), copy: None });
        }
        let from = self.open(layer).await?;
        let copy = if self.keeps_blobs() {
            let store = self.store.clone();
            Some(blocking(move || store.writer()).await?)
        } else {
            None
        };
        Ok(Reader { from, copy })
    }

    /// Whether layers of bases go somewhere else than to a registry, which may have them.
    fn keeps_blobs(&self) -> bool {
        let needs = |output: &Output| !matches!(output, Output::Store);
        let outputs = &self.request.outputs;
        outputs.iter().any(needs) || (outputs.is_empty() && !self.request.push)
    }

    /// Unpacks a layer into a new tree. `within` is the view, and the number in it, of one that cannot be unpacked alone.
    async fn fill(
        &self,
        machine: &Arc<Machine>,
        layer: &Layer,
        new: NewTree,
        reader: Reader,
        within: Option<(View, usize)>,
    ) -> Result<Tree> {
        let job = Unpacking::of(self, machine, layer);
        let spool = self.store.path().to_owned();
        let (tree, told) = blocking(move || {
            let unpacked = job.unpack(&new, reader, false, within.as_ref(), &spool)?;
            if unpacked.leads_elsewhere && within.is_none() {
                return Err(Error::internal("a layer that has paths below links was unpacked alone"));
            }
            let told = job.finish(&new, unpacked)?;
            Ok((new.finish()?, told))
        })
        .await?;
        self.tell_left_out(layer, told).await;
        Ok(tree)
    }

    /// What is in a layer of which nothing is known yet. As all of it has to be read for that, it is unpacked as well.
    ///
    /// `None` if it is unpacked already.
    pub(in super::super) async fn index_by_unpacking(
        &self,
        machine: &Arc<Machine>,
        layer: &Layer,
    ) -> Result<Option<Arc<LayerIndex>>> {
        let _permit = self.runs.unpacking.acquire().await;
        let key = TreeKey { diff_id: layer.diff_id, form: machine.form.key(), variant: None };
        let Err((new, reader)) = self.tree_or_reader(key, layer).await? else { return Ok(None) };
        let job = Unpacking::of(self, machine, layer);
        let spool = self.store.path().to_owned();
        let (index, told) = blocking(move || {
            let mut unpacked = job.unpack(&new, reader, true, None, &spool)?;
            let index = unpacked.index.take().ok_or_else(|| Error::internal("a layer without an index"))?;
            if unpacked.leads_elsewhere {
                // It is of no use alone; the index is.
                return Ok((index, Vec::new()));
            }
            let told = job.finish(&new, unpacked)?;
            new.finish()?;
            Ok((index, told))
        })
        .await?;
        self.tell_left_out(layer, told).await;
        Ok(Some(Arc::new(index)))
    }

    async fn tell_left_out(&self, layer: &Layer, told: Vec<String>) {
        let name = &layer.diff_id.hex()[..12];
        // Commands have a `/dev` of their own.
        for line in told.into_iter().filter(|line| !line.starts_with("`dev/")) {
            let message = format!("the layer {name} was not unpacked as it is: {line}");
            self.job.events.send(Event::Notice { message }).await;
        }
    }
}

/// What the thread needs that unpacks a layer.
struct Unpacking {
    machine: Arc<Machine>,
    layer: Layer,
    cancel: Cancel,
}

impl Unpacking {
    fn of(shared: &Shared, machine: &Arc<Machine>, layer: &Layer) -> Self {
        Self { machine: Arc::clone(machine), layer: layer.clone(), cancel: shared.job.cancel.clone() }
    }

    fn unpack(
        &self,
        new: &NewTree,
        mut reader: Reader,
        indexed: bool,
        within: Option<&(View, usize)>,
        spool: &std::path::Path,
    ) -> Result<Unpacked> {
        let blob = &mut reader;
        let packed = Packed { blob, compression: self.layer.compression(), diff_id: &self.layer.diff_id, indexed };
        let (form, limits) = (&self.machine.form, Limits::default());
        let unpacked = match within {
            None => unpack(packed, form, &new.path(), limits, &self.cancel)?,
            Some((view, number)) => {
                let place = InView { view, number: *number, spool };
                unpack_in_view(place, packed, form, &new.path(), limits, &self.cancel)?
            }
        };
        reader.finish(&self.layer)?;
        Ok(unpacked)
    }

    /// Gives everything to its owner; what the user should know.
    fn finish(&self, new: &NewTree, unpacked: Unpacked) -> Result<Vec<String>> {
        let mut told = unpacked.left_out;
        told.extend(self.machine.own(new.path(), &unpacked.fixes, &self.cancel)?);
        Ok(told)
    }
}

/// The bytes of a layer, on the way into a tree and perhaps into the store.
struct Reader {
    from: Box<dyn Read + Send>,
    copy: Option<BlobWriter>,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

impl Reader {
    /// Keeps what was read, with what is behind the end of the archive.
    fn finish(mut self, layer: &Layer) -> Result<Option<Blob>> {
        if self.copy.is_none() {
            return Ok(None);
        }
        io::copy(&mut self, &mut io::sink()).map_err(super::super::shared::read_failed)?;
        let Some(copy) = self.copy else { return Ok(None) };
        copy.finish(Some((&layer.descriptor.digest, layer.descriptor.size))).map(Some)
    }
}
