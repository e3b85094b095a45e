//! The part of a file that has come so far.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use super::{Fetched, Trouble, Validator, Wanted, failed, mismatch, mtime, number, text};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// A piece of this size is decoded at a time.
const BUFFER: usize = 64 << 10;

/// A file that grows, in a file without a name.
pub(super) struct Part {
    file: tokio::fs::File,
    size: u64,
    hashers: Hashers,
    /// How long it will be, if the server said so.
    expected: Option<u64>,
    /// The tag or date by which the rest can be asked for.
    tag: Option<String>,
    gzip: bool,
}

/// SHA-256, which names the file, and what else its checksum wants.
#[derive(Clone, Default)]
struct Hashers {
    sha256: Sha256,
    other: Option<Other>,
}

#[derive(Clone)]
enum Other {
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Part {
    pub(super) fn new(wanted: &Wanted<'_>) -> Result<Self> {
        let file = tempfile::tempfile_in(wanted.directory).map_err(|error| unwritten(wanted.url, &error))?;
        Ok(Self {
            file: tokio::fs::File::from_std(file),
            size: 0,
            hashers: Hashers::wanted_by(wanted.checksum),
            expected: None,
            tag: None,
            gzip: false,
        })
    }

    /// In bytes.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// What to ask for after a break: from which byte on, and of which state of the file.
    pub(super) fn resume(&self) -> Option<(u64, String)> {
        self.tag.clone().filter(|_| self.size > 0).map(|tag| (self.size, tag))
    }

    /// The next request is for all of it.
    pub(super) fn forget(&mut self) {
        self.tag = None;
    }

    /// The server sends all of it.
    pub(super) async fn restart(&mut self, headers: &HeaderMap) -> Result<(), Trouble> {
        let empty = async {
            self.file.rewind().await?;
            self.file.set_len(0).await
        };
        empty.await.map_err(|error| Trouble::Lasting(Error::internal(format!("a temporary file: {error}"))))?;
        self.size = 0;
        self.hashers.reset();
        self.expected = number(headers, &CONTENT_LENGTH);
        self.gzip = text(headers, &CONTENT_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        // A weak tag names files that mean the same, not files of the same bytes (RFC 9110, 13.1.5).
        let strong = text(headers, &ETAG).filter(|tag| !tag.starts_with("W/"));
        self.tag = strong.or_else(|| text(headers, &LAST_MODIFIED));
        Ok(())
    }

    /// The server sends what is missing.
    pub(super) fn continue_with(&mut self, headers: &HeaderMap) -> Result<(), Trouble> {
        let range = text(headers, &CONTENT_RANGE).and_then(|range| parse_range(&range));
        match range {
            Some((first, total))
                if first == self.size && (total.is_none() || self.expected.is_none_or(|e| total == Some(e))) =>
            {
                self.expected = self.expected.or(total);
                Ok(())
            }
            _ => {
                self.forget();
                Err(Trouble::passing("the server sent another part of the file than it was asked for"))
            }
        }
    }

    pub(super) async fn write(&mut self, url: &str, bytes: &[u8]) -> Result<(), Trouble> {
        self.file.write_all(bytes).await.map_err(|error| unwritten(url, &error))?;
        self.hashers.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Fails unless all has come.
    pub(super) fn check_length(&self) -> Result<(), Trouble> {
        match self.expected {
            Some(expected) if expected != self.size => {
                Err(Trouble::passing(format!("{} bytes came of {expected}", self.size)))
            }
            _ => Ok(()),
        }
    }

    /// The file, if it is what was wanted.
    pub(super) async fn finish(mut self, wanted: &Wanted<'_>, headers: &HeaderMap, cancel: &Cancel) -> Result<Fetched> {
        self.file.flush().await.map_err(|error| unwritten(wanted.url, &error))?;
        let file = self.file.into_std().await;
        let (file, size, hashers) = if self.gzip {
            let (directory, url, cancel) = (wanted.directory.to_owned(), wanted.url.to_owned(), cancel.clone());
            let hashers = Hashers::wanted_by(wanted.checksum);
            let decoded = tokio::task::spawn_blocking(move || {
                let out = tempfile::tempfile_in(directory).map_err(|error| unwritten(&url, &error))?;
                decode(file, out, hashers, &url, &cancel)
            });
            decoded.await.map_err(|error| Error::internal(error.to_string()))??
        } else {
            (file, self.size, self.hashers)
        };
        let digest = hashers.check(wanted)?;
        let (etag, last_modified) = (text(headers, &ETAG), text(headers, &LAST_MODIFIED));
        let validator = Validator { etag, last_modified, digest };
        Ok(Fetched { file: Arc::new(file), size, digest, mtime: mtime(headers), validator })
    }
}

/// A server that compresses although it was asked not to: what counts is what is inside, as it does for Go and BuildKit.
fn decode(
    mut file: File,
    mut out: File,
    mut hashers: Hashers,
    url: &str,
    cancel: &Cancel,
) -> Result<(File, u64, Hashers)> {
    let failed = |error: std::io::Error| unwritten(url, &error);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut decoder = MultiGzDecoder::new(file);
    let (mut buffer, mut size) = (vec![0; BUFFER], 0);
    loop {
        cancel.check()?;
        match decoder.read(&mut buffer).map_err(failed)? {
            0 => return Ok((out, size, hashers)),
            read => {
                out.write_all(&buffer[..read]).map_err(failed)?;
                hashers.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

/// `bytes 100-199/200`: where it begins, and how long the file is.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

fn unwritten(url: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { message: format!("a download: {error}") }
        }
        _ => failed(url, error.to_string()),
    }
}

impl Hashers {
    fn wanted_by(checksum: Option<&str>) -> Self {
        let other = match checksum.and_then(|checksum| checksum.split_once(':')) {
            Some(("sha384", _)) => Some(Other::Sha384(Sha384::default())),
            Some(("sha512", _)) => Some(Other::Sha512(Sha512::default())),
            _ => None,
        };
        Self { sha256: Sha256::default(), other }
    }

    fn reset(&mut self) {
        self.sha256 = Sha256::default();
        match &mut self.other {
            Some(Other::Sha384(hasher)) => *hasher = Sha384::default(),
            Some(Other::Sha512(hasher)) => *hasher = Sha512::default(),
            None => {}
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        match &mut self.other {
            Some(Other::Sha384(hasher)) => hasher.update(bytes),
            Some(Other::Sha512(hasher)) => hasher.update(bytes),
            None => {}
        }
    }

    /// The SHA-256 digest, if what was wanted is what came.
    fn check(self, wanted: &Wanted<'_>) -> Result<Digest> {
        let digest = Digest::from_bytes(self.sha256.finalize().into());
        let found = match self.other {
            Some(Other::Sha384(hasher)) => format!("sha384:{}", hex::encode(hasher.finalize())),
            Some(Other::Sha512(hasher)) => format!("sha512:{}", hex::encode(hasher.finalize())),
            None => digest.to_string(),
        };
        match wanted.checksum {
            Some(checksum) if checksum != found => Err(mismatch(wanted.url, checksum, &found)),
            _ => Ok(digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_where_they_begin() {
        assert_eq!(parse_range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(parse_range("bytes 0-1/*"), Some((0, None)));
        assert_eq!(parse_range("items 0-1/2"), None);
    }
}
