//! Archives of a context: the same bytes for the same context, on every machine and for every number of threads.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::entry::{Entry, FIXED_TIME, Kind};
use super::notice::Notice;
use super::output::TemporaryFile;
use super::tree::Tree;
use super::{Context, extra, tar, zip};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pack::{self, Codec, GZIP_LEVEL, ZSTD_LEVEL};
use crate::request::ExtraFile;

/// The kinds of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// GNU tar.
    #[serde(rename = "tar")]
    Tar,
    /// Tar in gzip (several members; every reader of gzip takes them as one).
    #[serde(rename = "tar.gz")]
    TarGz,
    /// Tar in Zstandard (several frames).
    #[serde(rename = "tar.zst")]
    TarZst,
    /// Zip with deflate. Pipes and devices are left out; hard links become files; names that are not UTF-8 are stored
    /// as they are, which a reader may take for code page 437.
    #[serde(rename = "zip")]
    Zip,
}

/// What happens to permission bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modes {
    /// As they are on disk: an image gets what `docker build` would give it.
    Keep,
    /// As in git: 755 for directories and for files that anybody may execute, 644 for other files. Then the archive does
    /// not depend on the umask of whoever checked the files out.
    #[default]
    Portable,
}

/// How to pack. `Format::Tar.into()` has the defaults for a file that is kept.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// The kind of archive.
    pub format: Format,
    /// Compression level, 1 (fast) to 12 (small) for gzip and zip, 1 to 22 for zstd; `None` is the default of the purpose.
    pub level: Option<i32>,
    /// Permission bits.
    pub modes: Modes,
    /// Modification time of every entry, in seconds since 1970: [`FIXED_TIME`], or the `SOURCE_DATE_EPOCH` of a request.
    pub mtime: u64,
    /// Further files, by the rules of extra files: what a classic builder needs besides the context, such as an
    /// excluded Dockerfile.
    pub also: Vec<ExtraFile>,
    /// How many threads read and compress; `None` is one for each processor.
    pub threads: Option<usize>,
    /// Whether the digest of the archive is wanted. It takes longer than all the rest of a plain archive.
    pub digest: bool,
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packed {
    /// Files, further names of hard linked ones among them.
    pub files: u64,
    /// All entries.
    pub entries: u64,
    /// The sum of the contents that were read.
    pub bytes_in: u64,
    /// The size of the archive.
    pub bytes_out: u64,
    /// The digest of the archive, if it was wanted.
    pub digest: Option<Digest>,
    /// What this kind of archive cannot hold.
    pub notices: Vec<Notice>,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tar, Self::TarGz, Self::TarZst, Self::Zip];

    /// `tar`, `tar.gz`, `tar.zst` or `zip`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
            Self::Zip => "zip",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Takes the names, and `tgz` and `tzst`. Fails with `InvalidOption`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tgz" => Ok(Self::TarGz),
            "tzst" => Ok(Self::TarZst),
            _ => Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| Error::InvalidOption {
                name: "type".into(),
                reason: format!("`{text}` is no kind of archive; there are tar, tar.gz, tar.zst and zip"),
            }),
        }
    }
}

impl From<Format> for PackOptions {
    fn from(format: Format) -> Self {
        Self {
            format,
            level: None,
            modes: Modes::default(),
            mtime: FIXED_TIME.unsigned_abs(),
            also: Vec::new(),
            threads: None,
            digest: true,
        }
    }
}

impl PackOptions {
    /// For an archive that is sent to a daemon and forgotten: permission bits as on disk, the fastest compression.
    pub fn sending(format: Format) -> Self {
        Self { modes: Modes::Keep, level: Some(1), digest: false, ..format.into() }
    }

    fn codec(&self) -> Codec {
        match self.format {
            Format::Tar | Format::Zip => Codec::Plain,
            Format::TarGz => Codec::gzip(self.level.unwrap_or(GZIP_LEVEL)),
            Format::TarZst => Codec::zstd(self.level.unwrap_or(ZSTD_LEVEL)),
        }
    }

    /// The level of a zip file, within what the format knows.
    pub(super) fn zip_level(&self) -> i32 {
        self.level.unwrap_or(6).clamp(1, 9)
    }

    pub(super) fn mode(&self, entry: &Entry) -> u32 {
        match self.modes {
            Modes::Keep => entry.mode,
            Modes::Portable => portable_mode(entry),
        }
    }
}

/// The mode that git would record.
pub(super) const fn portable_mode(entry: &Entry) -> u32 {
    match entry.kind {
        Kind::Symlink { .. } => 0o777,
        Kind::Dir => 0o755,
        _ if entry.mode & 0o111 != 0 => 0o755,
        _ => 0o644,
    }
}

/// What the parts of one packing share.
pub(super) struct Job<'a> {
    pub(super) context: &'a Context,
    pub(super) tree: &'a Tree,
    pub(super) options: &'a PackOptions,
    pub(super) cancel: &'a Cancel,
    pub(super) threads: usize,
    pub(super) bytes_in: AtomicU64,
}

impl Job<'_> {
    pub(super) fn count(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Context {
    /// Writes an archive. Memory stays bounded, whatever the size of the context and of its files.
    ///
    /// Every header has the size that its file had when it was opened, and exactly that many bytes follow it: a file that
    /// shrinks or goes away is a `ContextChanged`, one that grows is cut. Fails with `ContextRead` where a file cannot be
    /// read, with `ContextWrite` where `out` fails, and with `Interrupted`; what was written by then is no archive.
    pub fn pack(&self, options: impl Into<PackOptions>, out: &mut dyn Write, cancel: &Cancel) -> Result<Packed> {
        self.pack_into(&options.into(), out, None, cancel)
    }

    /// The same into a file, from where it is. Big files go into a plain archive without a detour through this process, if no
    /// digest is wanted.
    pub fn pack_to_file(&self, options: impl Into<PackOptions>, file: &File, cancel: &Cancel) -> Result<Packed> {
        let mut out = file;
        // What goes into a pipe in the kernel is the file's own memory, which may change before it is read.
        let plain = file.metadata().is_ok_and(|found| found.is_file());
        self.pack_into(&options.into(), &mut out, plain.then_some(file), cancel)
    }

    fn pack_into(
        &self,
        options: &PackOptions,
        out: &mut dyn Write,
        file: Option<&File>,
        cancel: &Cancel,
    ) -> Result<Packed> {
        let merged = self.with_further(&options.also)?;
        let tree = merged.as_ref().unwrap_or(&self.tree);
        let threads = pack::threads(options.threads);
        let job = Job { context: self, tree, options, cancel, threads, bytes_in: AtomicU64::new(0) };
        cancel.check()?;
        let mut notices = Vec::new();
        let (bytes_out, digest) = match options.format {
            Format::Zip => zip::write(&job, out, &mut notices)?,
            _ => tar::write(&job, options.codec(), out, file)?,
        };
        Ok(Packed {
            files: tree.summary().files,
            entries: tree.len() as u64,
            bytes_in: job.bytes_in.into_inner(),
            bytes_out,
            digest,
            notices,
        })
    }

    /// Writes an archive to a file, which appears (or replaces the old one) when it is complete, or not at all.
    pub fn pack_to_path(&self, options: impl Into<PackOptions>, path: &Path, cancel: &Cancel) -> Result<Packed> {
        let file = TemporaryFile::create(path)?;
        let packed = self.pack_to_file(options, file.file(), cancel)?;
        file.keep()?;
        Ok(packed)
    }

    /// The entries with some more, if there are more.
    fn with_further(&self, files: &[ExtraFile]) -> Result<Option<Tree>> {
        if files.is_empty() {
            return Ok(None);
        }
        let mut tree = self.tree.clone();
        tree.insert(&extra::entries(files)?)?;
        Ok(Some(tree))
    }
}
