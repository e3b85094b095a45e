//! Reading a layer's archive: hostile until proven otherwise.
//!
//! The `tar` crate gives the layout of headers only. Its reader takes long names of any length into memory, takes
//! extended attributes with a line feed in them for the end of a record, and then overlooks a size that follows. What is
//! accepted is what Go's `archive/tar` accepts, as containerd and Docker read layers with it.

mod header;
mod name;
mod pax;

use std::io::{BufRead as _, BufReader, ErrorKind, Read};

use super::node::Xattrs;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::mtime::Mtime;
use header::{BLOCK, Header, Type};
pub(super) use name::Place;
use pax::Pax;

/// How much is read at once.
const BUFFER: usize = 128 << 10;
/// Long names and PAX records are never longer (Go's `maxSpecialFileSize`).
const MAX_SPECIAL: u64 = 1 << 20;
/// No path and no target of a link is longer: four times what Linux takes.
const MAX_PATH: usize = 4 * 4096;

/// One entry of an archive. Its content is read after it, from the archive.
#[derive(Debug)]
pub(super) struct Member {
    /// What it is about.
    pub(super) place: Place,
    pub(super) kind: MemberKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) xattrs: Xattrs,
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum MemberKind {
    File { size: u64 },
    Dir,
    Symlink { target: Vec<u8> },
    Hardlink { target: Vec<u8> },
    Fifo,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// An archive that is read from front to back.
#[derive(Debug)]
pub(super) struct Archive<'a, R> {
    input: BufReader<R>,
    cancel: &'a Cancel,
    /// What is left of the content of the last entry.
    content: u64,
    /// How many bytes fill its last block.
    padding: u64,
}

/// What the headers before an entry's own say of it.
#[derive(Debug, Default)]
struct Before {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

impl<'a, R: Read> Archive<'a, R> {
    pub(super) fn new(tar: R, cancel: &'a Cancel) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, tar), cancel, content: 0, padding: 0 }
    }

    /// The next entry, after passing over what is left of the one before. `None` at the end: two empty blocks, or nothing.
    pub(super) fn next(&mut self) -> Result<Option<Member>> {
        self.skip_content()?;
        let mut before = Before::default();
        while let Some(header) = self.header()? {
            self.cancel.check()?;
            match header.entry_type() {
                Type::Pax => before.pax = Some(Pax::parse(&self.special(&header)?)?),
                Type::GlobalPax => drop(self.special(&header)?),
                Type::LongName => before.name = Some(text(self.special(&header)?)),
                Type::LongLink => before.target = Some(text(self.special(&header)?)),
                kind => return self.member(&header, kind, before).map(Some),
            }
        }
        if before.pax.is_some() || before.name.is_some() || before.target.is_some() {
            return Err(invalid("it ends with a header that belongs to no entry"));
        }
        Ok(None)
    }

    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Header::new(&block).map(Some);
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(invalid("there is an empty block between two entries")),
            _ => Ok(None),
        }
    }

    /// A block; `None` where the archive ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if self.fill()?.is_empty() {
            return Ok(None);
        }
        self.input.read_exact(&mut block).map_err(failed)?;
        Ok(Some(block))
    }

    fn fill(&mut self) -> Result<&[u8]> {
        loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It is asked again, as the borrow of the first answer would last too long.
                Ok(_) => return Ok(self.input.buffer()),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The content of an entry that is about the next.
    fn special(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = header.size()?;
        if size > MAX_SPECIAL {
            return Err(invalid("a header is longer than 1 MiB"));
        }
        self.set_content(size)?;
        let mut content = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut content).map_err(failed)?;
        if content.len() as u64 != size {
            return Err(cut_off());
        }
        self.content = 0;
        self.skip_content()?;
        Ok(content)
    }

    fn member(&mut self, header: &Header, kind: Type, before: Before) -> Result<Member> {
        let Before { pax, name, target } = before;
        let pax = pax.unwrap_or_default();
        let name = name.or(pax.path).unwrap_or_else(|| header.path());
        let target = target.or(pax.target).unwrap_or_else(|| header.target());
        let size = pax.size.map_or_else(|| header.size(), Ok)?;
        let kind = match kind {
            // Before there was a type for directories, their names said so.
            Type::OldFile if name.last() == Some(&b'/') => MemberKind::Dir,
            Type::OldFile | Type::File => MemberKind::File { size },
            Type::Dir => MemberKind::Dir,
            Type::Symlink => MemberKind::Symlink { target: name::symlink_target(target)? },
            Type::Hardlink => MemberKind::Hardlink { target: name::clean(&target)? },
            Type::Fifo => MemberKind::Fifo,
            Type::CharDevice => MemberKind::CharDevice { major: header.major()?, minor: header.minor()? },
            Type::BlockDevice => MemberKind::BlockDevice { major: header.major()?, minor: header.minor()? },
            other => return Err(invalid(format!("`{}` is {}", String::from_utf8_lossy(&name), other.trouble()))),
        };
        // Of what has no content, the size means nothing.
        self.set_content(if matches!(kind, MemberKind::File { .. }) { size } else { 0 })?;
        Ok(Member {
            place: Place::of(name::clean(&name)?)?,
            kind,
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| header.mtime(), Ok)?,
            xattrs: pax.xattrs,
        })
    }

    fn set_content(&mut self, size: u64) -> Result<()> {
        // No archive is that long, and nothing added to it can run over.
        if size > i64::MAX.unsigned_abs() {
            return Err(invalid("the size of an entry is no size"));
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// Reads some of the content of the last entry; 0 at its end.
    pub(super) fn read_content(&mut self, into: &mut [u8]) -> Result<usize> {
        self.cancel.check()?;
        let most = usize::try_from(self.content).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let count = loop {
            match self.input.read(&mut into[..most]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result.map_err(failed)?,
            }
        };
        if count == 0 {
            return Err(cut_off());
        }
        self.content -= count as u64;
        Ok(count)
    }

    fn skip_content(&mut self) -> Result<()> {
        let mut left = std::mem::take(&mut self.content) + std::mem::take(&mut self.padding);
        while left > 0 {
            self.cancel.check()?;
            let count = self.fill()?.len();
            if count == 0 {
                return Err(cut_off());
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(count);
            self.input.consume(count);
            left -= count as u64;
        }
        Ok(())
    }

    /// Reads what comes after the end, so that whoever hashes the archive has seen all of it.
    pub(super) fn drain(&mut self) -> Result<()> {
        loop {
            self.cancel.check()?;
            let count = self.fill()?.len();
            if count == 0 {
                return Ok(());
            }
            self.input.consume(count);
        }
    }
}

/// A long name: up to the first NUL.
fn text(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

fn cut_off() -> Error {
    invalid("it is cut off")
}

/// What is wrong with a layer.
pub(super) fn invalid(reason: impl Into<String>) -> Error {
    Error::ImageInvalid { what: "layer".into(), reason: reason.into() }
}

/// What a reader of a layer says: an error of ours that it was wrapped in, or that the layer cannot be decompressed.
fn failed(error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::UnexpectedEof {
        return cut_off();
    }
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => invalid(error.to_string()),
    }
}
