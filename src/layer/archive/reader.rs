//! A tar archive, member by member, as Go's `archive/tar` reads it: ustar, PAX, GNU, star and the seventh edition.

use std::io::{self, Read};

use super::pax::{self, Records};
use super::sparse::{self, Map};
use crate::cancel::Cancel;

/// Headers and contents are padded to this.
const BLOCK: usize = 512;
/// Go's `maxSpecialFileSize`: no list of records and no name is longer.
const MAX_SPECIAL: u64 = 1 << 20;
/// Read at a time where nobody looks at it.
const BUFFER: usize = 64 << 10;

/// What a header says, with all that stands before it.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
    /// Of the content, with its holes.
    pub(super) size: u64,
    pub(super) records: Records,
    /// Where the data of the archive belong, if there are holes between them.
    pub(super) map: Option<Map>,
}

/// Reads an archive.
pub(super) struct Reader<'a> {
    stream: Box<dyn Read + 'a>,
    cancel: &'a Cancel,
    /// What is left of the data of the member, and what they are padded with.
    left: u64,
    padding: u64,
}

/// What stands before a header and belongs to it.
#[derive(Default)]
struct Before {
    records: Records,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(stream: Box<dyn Read + 'a>, cancel: &'a Cancel) -> Self {
        Self { stream, cancel, left: 0, padding: 0 }
    }

    /// The next member; `None` at the end of the archive.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut before = Before::default();
        loop {
            self.skip()?;
            let Some(block) = self.header()? else { return Ok(None) };
            let size = unsigned(&block[124..136])?;
            match block[156] {
                b'x' => {
                    let data = self.special(size)?;
                    before.records = pax::parse(&data)?;
                }
                // Global records are for nobody: go-archive ignores them.
                b'g' => self.special(size).map(drop)?,
                b'L' => before.name = Some(until_nul(&self.special(size)?).to_owned()),
                b'K' => before.link = Some(until_nul(&self.special(size)?).to_owned()),
                _ => return self.member(&block, size, before).map(Some),
            }
        }
    }

    fn member(&mut self, block: &[u8; BLOCK], size: u64, before: Before) -> io::Result<Member> {
        let Before { records, name, link } = before;
        let mut member = Member {
            name: header_name(block),
            link: until_nul(&block[157..257]).to_owned(),
            kind: block[156],
            mode: number(&block[100..108])?,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            mtime: number(&block[136..148])?,
            ..Member::default()
        };
        if is_ustar(block) || is_gnu(block) {
            member.device = (number(&block[329..337])?, number(&block[337..345])?);
        }
        let mut stored = size;
        pax::apply(&records, &mut member, &mut stored)?;
        member.name = name.unwrap_or(member.name);
        member.link = link.unwrap_or(member.link);
        if member.kind == 0 {
            member.kind = if member.name.ends_with(b"/") { b'5' } else { b'0' };
        }
        // Links, directories and devices have no data, whatever their headers say.
        if matches!(member.kind, b'1'..=b'6') {
            stored = 0;
        }
        (self.left, self.padding) = (stored, padding(stored)?);
        member.size = stored;
        if member.kind == b'S' {
            member.kind = b'0';
            member.map = Some(sparse::of_header(block, self)?);
        } else if member.kind == b'0' {
            member.map = sparse::of_records(&records, self)?;
        }
        if let Some(map) = &member.map {
            member.size = map.check(self.left)?;
        }
        member.records = records;
        Ok(member)
    }

    /// The next header. `None` at the mark of the end (two empty blocks), or where the stream ends without one.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            let more = self.block(&mut block)?;
            return if !more || block == [0; BLOCK] { Ok(None) } else { Err(malformed("its end is followed by more")) };
        }
        let sum = |signed: bool| -> i64 {
            let bytes = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
            bytes.map(|byte| if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) }).sum()
        };
        let stated = number(&block[148..156])?;
        if stated == sum(false) || stated == sum(true) {
            Ok(Some(block))
        } else {
            Err(malformed("a header is damaged"))
        }
    }

    /// Whether there was another block.
    pub(super) fn block(&mut self, block: &mut [u8; BLOCK]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(true)
    }

    /// Reads data of the member; 0 at their end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch()?;
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.stream.read(&mut buffer[..most])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }

    fn special(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_SPECIAL {
            return Err(malformed("a name or a list of records is too long"));
        }
        (self.left, self.padding) = (size, padding(size)?);
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read(&mut data[filled..])?;
        }
        Ok(data)
    }

    /// Leaves what is left of the member. Go forgives an archive whose last padding is missing.
    fn skip(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; if self.left > 0 { BUFFER } else { BLOCK }];
        while self.left > 0 {
            self.read(&mut buffer)?;
        }
        while self.padding > 0 {
            let most = usize::try_from(self.padding).unwrap_or(BLOCK).min(BLOCK);
            match self.stream.read(&mut buffer[..most])? {
                0 => break,
                read => self.padding -= read as u64,
            }
        }
        self.padding = 0;
        Ok(())
    }

    /// Reads what is left of the stream behind the archive.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            self.watch()?;
            if self.stream.read(&mut buffer)? == 0 {
                return Ok(());
            }
        }
    }

    fn watch(&self) -> io::Result<()> {
        // The kind `Interrupted` would be tried again.
        self.cancel.check().map_err(io::Error::other)
    }
}

pub(super) fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn padding(size: u64) -> io::Result<u64> {
    let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| malformed("a size is too big"))?;
    Ok(padded - size)
}

fn is_ustar(block: &[u8; BLOCK]) -> bool {
    &block[257..263] == b"ustar\0"
}

fn is_gnu(block: &[u8; BLOCK]) -> bool {
    &block[257..265] == b"ustar  \0"
}

/// The name with what ustar and star put before it.
fn header_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = match is_ustar(block) {
        true if &block[508..512] == b"tar\0" => until_nul(&block[345..476]),
        true => until_nul(&block[345..500]),
        false => b"",
    };
    if prefix.is_empty() { name.to_owned() } else { [prefix, b"/", name].concat() }
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal, or in base 256 where its first bit is set.
pub(super) fn number(field: &[u8]) -> io::Result<i64> {
    let bad = || malformed("a number is malformed");
    if field[0] & 0x80 != 0 {
        // The second bit is the sign.
        let first = i128::from(field[0] & 0x3f) - i128::from(field[0] & 0x40);
        let value = field[1..].iter().fold(first, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).map_err(|_| bad());
    }
    let text = std::str::from_utf8(until_nul(field)).map_err(|_| bad())?.trim();
    if text.is_empty() { Ok(0) } else { i64::from_str_radix(text, 8).map_err(|_| bad()) }
}

pub(super) fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| malformed("a size is negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let cases: &[(&[u8], i64)] = &[
            (b"0000644\0", 0o644),
            (b"   644 \0", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\x80\0\0\x01\0\0\0\0", 1 << 32),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", -1),
            (b"\xff\xff\xff\xff\xff\xff\xff\0", -256),
        ];
        for (field, value) in cases {
            assert_eq!(number(field).unwrap(), *value, "{field:?}");
        }
        for field in [&b"12x45678"[..], b"9999999\0", b"\x8f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert!(number(field).is_err(), "{field:?}");
        }
    }
}
