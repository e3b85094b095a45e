//! Writing an image as one tar archive: the same bytes for the same image and names.
//!
//! Entries are those of containerd's exporter, in the same order. Owners are 0:0 and times 0, so nothing but the image counts.

use std::io::{BufWriter, Write};
use std::path::Path;

use tar::{EntryType, Header};

use super::partial::{Partial, failed};
use super::plan::{Image, Plan, Watch, Written};
use super::{BLOCK, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION, MANIFEST_FILE, blob_path};
use crate::error::{Error, Result};

/// The unit of a tar archive.
const RECORD: usize = 512;

/// What an archive is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI layout (`--output type=oci`).
    Oci,
    /// `docker load` and `podman load` (`--output type=docker,dest=...`); an OCI layout as well. Layers that are compressed
    /// with Zstandard are written uncompressed, since Docker before 23 cannot load them.
    Docker,
}

/// Writes an image to a file, which appears (or replaces the old one) when it is complete, or not at all.
///
/// Fails with `OutputFailed` where it cannot be written, with `Interrupted`, and with what is wrong with the image.
pub fn write_archive(image: Image<'_>, kind: ArchiveKind, path: &Path, watch: Watch<'_>) -> Result<Written> {
    let plan = plan(image, kind, watch)?;
    let mut file = Partial::create(path)?;
    let written = write(&plan, kind, &mut file, path, watch)?;
    file.keep()?;
    Ok(written)
}

/// Writes an image to a stream. What was written when this fails is no archive.
///
/// Fails with `OutputFailed` for `-` where the stream does, with `Interrupted`, and with what is wrong with the image.
pub fn write_archive_to(image: Image<'_>, kind: ArchiveKind, out: &mut dyn Write, watch: Watch<'_>) -> Result<Written> {
    let plan = plan(image, kind, watch)?;
    write(&plan, kind, out, Path::new("-"), watch)
}

fn plan<'a>(image: Image<'a>, kind: ArchiveKind, watch: Watch<'_>) -> Result<Plan<'a>> {
    watch.cancel.check()?;
    match kind {
        ArchiveKind::Oci => Plan::for_layout(image),
        ArchiveKind::Docker => Plan::for_docker(image, watch),
    }
}

fn write(plan: &Plan<'_>, kind: ArchiveKind, out: &mut dyn Write, path: &Path, watch: Watch<'_>) -> Result<Written> {
    let mut tar = Tar { out: BufWriter::with_capacity(BLOCK, out), path };
    let mut meter = plan.meter(watch);
    tar.directory("blobs/")?;
    tar.directory("blobs/sha256/")?;
    for (digest, item) in &plan.items {
        tar.header(&blob_path(digest), EntryType::Regular, 0o444, item.size)?;
        plan.read(digest, item, &mut meter, &mut |block| tar.write(block))?;
        tar.pad(item.size)?;
    }
    tar.file(INDEX_FILE, 0o644, &plan.index())?;
    if kind == ArchiveKind::Docker {
        tar.file(MANIFEST_FILE, 0o644, &plan.docker_manifest())?;
    }
    tar.file(LAYOUT_FILE, 0o444, LAYOUT_VERSION.as_bytes())?;
    tar.finish()?;
    Ok(Written { manifest: plan.manifest.clone(), bytes: meter.total() })
}

struct Tar<'a> {
    out: BufWriter<&'a mut dyn Write>,
    /// Where it goes, for errors.
    path: &'a Path,
}

impl Tar<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|source| failed(self.path, source))
    }

    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_path(name).map_err(|error| Error::internal(error.to_string()))?;
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        self.header(name, EntryType::Directory, 0o755, 0)
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        self.header(name, EntryType::Regular, mode, size)?;
        self.write(content)?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let rest = size.next_multiple_of(RECORD as u64) - size;
        self.write(&[0; RECORD][..usize::try_from(rest).unwrap_or_default()])
    }

    fn finish(mut self) -> Result<()> {
        self.write(&[0; 2 * RECORD])?;
        self.out.flush().map_err(|source| failed(self.path, source))
    }
}
