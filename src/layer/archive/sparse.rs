//! Files with holes: those of GNU tar's old headers, and the three ways of its PAX records (GNU tar manual, "Storing Sparse
//! Files").

use std::io;

use super::pax::{Records, decimal};
use super::reader::{Reader, malformed, unsigned, until_nul};

/// A map is no longer: more pieces than this make no sense, and would only take memory.
const MAX_PIECES: usize = 1 << 20;
const BLOCK: usize = 512;

/// Where the data belong.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// Offset and length of each piece.
    pub(super) pieces: Vec<(u64, u64)>,
    /// Of the file with its holes.
    size: u64,
    /// Its name, where the header's is a makeshift.
    pub(super) name: Option<Vec<u8>>,
}

impl Map {
    /// The file's size, if the pieces come one after the other and are what is stored.
    pub(super) fn check(&self, stored: u64) -> io::Result<u64> {
        let mut end = 0;
        let mut sum = 0_u64;
        for (offset, length) in &self.pieces {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= self.size);
            end = next.ok_or_else(bad)?;
            sum += length;
        }
        if sum == stored { Ok(self.size) } else { Err(bad()) }
    }
}

fn bad() -> io::Error {
    malformed("the holes of a file are malformed")
}

/// The old way: four pieces in the header, more in blocks that follow it.
pub(super) fn of_header(header: &[u8; BLOCK], reader: &mut Reader<'_>) -> io::Result<Map> {
    let mut map = Map { size: unsigned(&header[483..495])?, ..Map::default() };
    take_pieces(&header[386..482], &mut map)?;
    let mut more = header[482] != 0;
    while more {
        let mut block = [0; BLOCK];
        if !reader.block(&mut block)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        take_pieces(&block[..504], &mut map)?;
        more = block[504] != 0;
    }
    Ok(map)
}

fn take_pieces(fields: &[u8], map: &mut Map) -> io::Result<()> {
    for field in fields.chunks_exact(24).take_while(|field| field[0] != 0) {
        push(map, unsigned(&field[..12])?, unsigned(&field[12..])?)?;
    }
    Ok(())
}

fn push(map: &mut Map, offset: u64, length: u64) -> io::Result<()> {
    if map.pieces.len() >= MAX_PIECES {
        return Err(bad());
    }
    map.pieces.push((offset, length));
    Ok(())
}

/// The ways of PAX: 0.0 and 0.1 have the map in records, 1.0 has it before the data.
pub(super) fn of_records(records: &Records, reader: &mut Reader<'_>) -> io::Result<Option<Map>> {
    let find = |wanted: &[u8]| records.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_slice());
    let number = |value: &[u8]| decimal(value).and_then(|number| u64::try_from(number).map_err(|_| bad()));
    let version = (find(b"GNU.sparse.major"), find(b"GNU.sparse.minor"));
    let is_inline = version == (Some(b"1"), Some(b"0"));
    let is_listed = matches!(version, (Some(b"0"), Some(b"0" | b"1"))) || find(b"GNU.sparse.map").is_some();
    if !is_inline && !is_listed && find(b"GNU.sparse.numblocks").is_none() {
        return Ok(None);
    }
    let size = find(b"GNU.sparse.realsize").or_else(|| find(b"GNU.sparse.size")).ok_or_else(bad)?;
    let name = find(b"GNU.sparse.name").map(until_nul).map(<[u8]>::to_owned);
    let mut map = Map { size: number(size)?, name, pieces: Vec::new() };
    if is_inline {
        inline_pieces(reader, &mut map)?;
    } else if let Some(list) = find(b"GNU.sparse.map") {
        let numbers: Vec<u64> = list.split(|byte| *byte == b',').map(number).collect::<io::Result<_>>()?;
        for pair in numbers.chunks(2) {
            push(&mut map, pair[0], *pair.get(1).ok_or_else(bad)?)?;
        }
    } else {
        let of = |wanted: &'static [u8]| records.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value);
        for (offset, length) in of(b"GNU.sparse.offset").zip(of(b"GNU.sparse.numbytes")) {
            push(&mut map, number(offset)?, number(length)?)?;
        }
    }
    Ok(Some(map))
}

/// Numbers on lines of their own, padded to a block: how many pieces, then the offset and the length of each.
fn inline_pieces(reader: &mut Reader<'_>, map: &mut Map) -> io::Result<()> {
    let mut lines = Lines { reader, block: [0; BLOCK], at: BLOCK };
    let count = lines.number()?;
    for _ in 0..count {
        let (offset, length) = (lines.number()?, lines.number()?);
        push(map, offset, length)?;
    }
    Ok(())
}

struct Lines<'a, 'b> {
    reader: &'a mut Reader<'b>,
    block: [u8; BLOCK],
    at: usize,
}

impl Lines<'_, '_> {
    fn number(&mut self) -> io::Result<u64> {
        let mut value = 0_u64;
        loop {
            match self.byte()? {
                b'\n' => return Ok(value),
                digit @ b'0'..=b'9' => {
                    let next = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
                    value = next.ok_or_else(bad)?;
                }
                _ => return Err(bad()),
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.at == BLOCK {
            let mut filled = 0;
            while filled < BLOCK {
                match self.reader.read(&mut self.block[filled..])? {
                    0 => return Err(bad()),
                    read => filled += read,
                }
            }
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}
