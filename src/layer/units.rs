//! The units of a layer, and taking them out of an earlier one.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use crate::digest::Digest;

/// Begins every list. The number changes with the format.
const MAGIC: &[u8] = b"cooper layer units 1\n";
/// A key, a length and a digest.
const RECORD: usize = 32 + 8 + 32;
/// No unit is longer.
const LONGEST: u64 = 16 << 20;
/// The digest of the list, which ends it.
const SEAL: usize = 32;

/// A part of a layer that can be decompressed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Of its uncompressed bytes and of how they are compressed. Equal keys: equal compressed bytes.
    pub key: Digest,
    /// Where it begins in the blob.
    pub offset: u64,
    /// How long it is there.
    pub length: u64,
    /// The digest of its compressed bytes.
    pub digest: Digest,
}

/// The units of a layer, in their order, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units(Vec<Unit>);

impl Units {
    /// Adds the next one.
    pub(super) fn push(&mut self, key: Digest, length: u64, digest: Digest) {
        let offset = self.0.last().map_or(0, |last| last.offset.saturating_add(last.length));
        self.0.push(Unit { key, offset, length, digest });
    }

    /// All of them. There are none if the layer is not compressed.
    pub fn as_slice(&self) -> &[Unit] {
        &self.0
    }

    /// The list as a record: a line with the version, then for each unit the key (32 bytes), the length (8, little endian)
    /// and the digest (32), and at the end the SHA-256 of all that.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAGIC.len() + self.0.len() * RECORD + SEAL);
        bytes.extend_from_slice(MAGIC);
        for unit in &self.0 {
            bytes.extend_from_slice(unit.key.as_bytes());
            bytes.extend_from_slice(&unit.length.to_le_bytes());
            bytes.extend_from_slice(unit.digest.as_bytes());
        }
        let seal = Digest::of(&bytes);
        bytes.extend_from_slice(seal.as_bytes());
        bytes
    }

    /// The list of a record; `None` if it is of another version or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (list, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL)?)?;
        if Digest::of(list).as_bytes() != seal {
            return None;
        }
        let (records, rest) = list.strip_prefix(MAGIC)?.as_chunks::<RECORD>();
        let mut units = Self::default();
        for record in records {
            let (key, rest) = record.split_first_chunk()?;
            let (length, digest) = rest.split_first_chunk()?;
            let digest = digest.first_chunk()?;
            units.push(Digest::from_bytes(*key), u64::from_le_bytes(*length), Digest::from_bytes(*digest));
        }
        rest.is_empty().then_some(units)
    }
}

/// Layers that were written before.
pub trait Previous: Sync {
    /// Makes `into` the compressed bytes of the unit with this key, and says whether it did. They have to be those that were
    /// written with that key: whoever implements this checks it.
    fn read(&self, key: &Digest, into: &mut Vec<u8>) -> bool;
}

/// One such layer, by its list and its blob. What is read is compared with the digest in the list, so a blob that is damaged
/// or of another layer does no harm: its units are made anew.
#[derive(Debug)]
pub struct PreviousLayer {
    units: HashMap<Digest, Unit>,
    blob: File,
}

impl PreviousLayer {
    /// The list of a layer, and its blob.
    pub fn new(units: &Units, blob: File) -> Self {
        Self { units: units.0.iter().map(|unit| (unit.key, *unit)).collect(), blob }
    }
}

impl Previous for PreviousLayer {
    fn read(&self, key: &Digest, into: &mut Vec<u8>) -> bool {
        let Some(unit) = self.units.get(key).filter(|unit| unit.length <= LONGEST) else { return false };
        into.resize(usize::try_from(unit.length).unwrap_or_default(), 0);
        self.blob.read_exact_at(into, unit.offset).is_ok() && Digest::of(into) == unit.digest
    }
}
