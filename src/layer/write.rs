//! The writing of a layer.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::entry::LayerEntry;
use super::plan::{Plan, Work};
use super::record::Recorder;
use super::render::{Rendered, What, render};
use super::units::{Previous, Units};
use super::{LayerOptions, WrittenLayer};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::media::Compression;
use crate::pack::{self, Buffers, Encoder, Hasher, Output, ROOM, pipeline};

/// Changes whenever the archive of the same entries may have other bytes.
const VERSION: &str = "cooper layer 1";

/// Writes a layer. The bytes depend on the entries, the compression and the level alone. Memory stays bounded but for the
/// index.
///
/// Units that are in `previous` are not compressed again. `progress` is told how many more bytes of the archive were
/// written, on the calling thread. Fails with `ContextChanged` if a file of the context has another size than its entry
/// says, or another digest; with `ContextRead`, `Store` and `StoreDamaged` if content cannot be read; with `ImageInvalid`
/// for what an archive cannot hold; with `Interrupted`. An error of `out` that holds an [`Error`] is that one, others are
/// `OutputFailed`. What was written by then is no layer.
pub fn write(
    entries: impl Iterator<Item = LayerEntry> + Send,
    options: &LayerOptions,
    previous: Option<&dyn Previous>,
    out: &mut dyn Write,
    progress: &(dyn Fn(u64) + Sync),
    cancel: &Cancel,
) -> Result<WrittenLayer> {
    cancel.check()?;
    let buffers = Buffers::new(ROOM);
    let codec = options.codec();
    let recipe = format!("{VERSION}, {}", codec.recipe());
    let maker = Maker {
        recipe: &recipe,
        compressed: options.compression != Compression::None,
        previous,
        buffers: &buffers,
        cancel,
    };
    let worker = || {
        let mut encoder = codec.encoder()?;
        Ok(move |work| maker.make(work, &mut encoder))
    };
    let plan = Plan::new(entries, options.clamp_mtime);
    let mut sum = Sum { recorder: Recorder::default(), units: Units::default(), reused: 0, uncompressed: 0, progress };
    let (written, diff_id) = std::thread::scope(|scope| {
        let hasher = maker.compressed.then(|| Hasher::start(scope, &buffers));
        let written = Output::hashed(out, &buffers, failed, |output| {
            pipeline::run(pack::threads(options.threads), plan, worker, |made| sum.add(made, hasher.as_ref(), output))
        });
        let diff_id = hasher.map(Hasher::finish).transpose()?;
        Ok::<_, Error>((written?, diff_id))
    })?;
    let (size, digest) = written;
    let (index, files) = sum.recorder.finish();
    let Sum { uncompressed, units, reused, .. } = sum;
    Ok(WrittenLayer { digest, size, diff_id: diff_id.unwrap_or(digest), uncompressed, index, files, units, reused })
}

fn failed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => Error::OutputFailed { path: PathBuf::from("layer"), source },
    }
}

/// What all threads need to make units.
#[derive(Clone, Copy)]
struct Maker<'a> {
    recipe: &'a str,
    compressed: bool,
    previous: Option<&'a dyn Previous>,
    buffers: &'a Buffers,
    cancel: &'a Cancel,
}

/// A unit that is ready to go out.
struct Unit {
    plain: Vec<u8>,
    what: What,
    /// `None` if the layer is not compressed.
    packed: Option<Packed>,
}

struct Packed {
    bytes: Vec<u8>,
    key: Digest,
    digest: Digest,
    reused: bool,
}

impl Maker<'_> {
    fn make(&self, work: Work, encoder: &mut Encoder) -> Result<Unit> {
        let Rendered { plain, key, what } = render(work, self.recipe, self.buffers.take(), self.cancel)?;
        let packed = self.compressed.then(|| self.pack(&plain, key, encoder)).transpose()?;
        Ok(Unit { plain, what, packed })
    }

    fn pack(&self, plain: &[u8], key: Digest, encoder: &mut Encoder) -> Result<Packed> {
        let mut bytes = self.buffers.take();
        let reused = self.previous.is_some_and(|previous| previous.read(&key, &mut bytes));
        if !reused {
            bytes.clear();
            encoder.compress(plain, &mut bytes)?;
        }
        let digest = Digest::of(&bytes);
        Ok(Packed { bytes, key, digest, reused })
    }
}

/// What was written so far.
struct Sum<'a> {
    recorder: Recorder,
    units: Units,
    reused: u64,
    uncompressed: u64,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Sum<'_> {
    /// Writes the next unit.
    fn add(&mut self, unit: Unit, hasher: Option<&Hasher<'_>>, output: &mut Output<'_, '_>) -> Result<()> {
        let Unit { plain, what, packed } = unit;
        let length = plain.len() as u64;
        self.recorder.add(what, &plain)?;
        self.uncompressed += length;
        match (packed, hasher) {
            (Some(Packed { bytes, key, digest, reused }), Some(hasher)) => {
                hasher.add(Arc::new(plain))?;
                self.units.push(key, bytes.len() as u64, digest);
                self.reused += u64::from(reused);
                output.write(bytes)?;
            }
            _ => output.write(plain)?,
        }
        (self.progress)(length);
        Ok(())
    }
}
