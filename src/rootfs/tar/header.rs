//! The header of an entry.

use tar::Header as Layout;

use super::invalid;
use crate::error::{Error, Result};
use crate::mtime::Mtime;

/// Headers are as long, and contents are filled up to a multiple of it.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
pub(super) struct Header(Layout);

/// What a header is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    File,
    /// The same in archives from before POSIX: a directory, if its name ends with a slash.
    OldFile,
    Hardlink,
    Symlink,
    CharDevice,
    BlockDevice,
    Dir,
    Fifo,
    Pax,
    GlobalPax,
    LongName,
    LongLink,
    Sparse,
    Other(u8),
}

impl Type {
    /// Why an entry of it is refused.
    pub(super) fn trouble(self) -> String {
        match self {
            Self::Sparse => "a sparse file, which containers' layers do not have".into(),
            Self::Other(byte) => format!("an entry of the unknown type `{}`", byte.escape_ascii()),
            _ => "no entry".into(),
        }
    }
}

impl Header {
    /// Fails with `ImageInvalid` unless the checksum is right. Some old programs added up the bytes as signed ones.
    pub(super) fn new(block: &[u8; BLOCK]) -> Result<Self> {
        let counted = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: i64 = counted.clone().map(i64::from).sum();
        let signed: i64 = counted.map(|byte| i64::from(byte.cast_signed())).sum();
        let found = number(&block[148..156]).ok_or_else(|| invalid("a header is no header of an archive"))?;
        if found != unsigned && found != signed {
            return Err(invalid("the checksum of a header is wrong"));
        }
        Ok(Self(Layout::from_byte_slice(block).clone()))
    }

    pub(super) fn entry_type(&self) -> Type {
        match self.0.as_old().linkflag[0] {
            b'0' => Type::File,
            0 => Type::OldFile,
            b'1' => Type::Hardlink,
            b'2' => Type::Symlink,
            b'3' => Type::CharDevice,
            b'4' => Type::BlockDevice,
            b'5' => Type::Dir,
            b'6' => Type::Fifo,
            b'x' => Type::Pax,
            b'g' => Type::GlobalPax,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            b'S' => Type::Sparse,
            other => Type::Other(other),
        }
    }

    /// The name, with the prefix that POSIX's format has for long ones.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0.as_old().name);
        let Some(ustar) = self.0.as_ustar() else { return name.to_owned() };
        // The format of star has times behind a shorter prefix.
        let is_star = &self.0.as_bytes()[508..] == b"tar\0";
        match text(if is_star { &ustar.prefix[..131] } else { &ustar.prefix }) {
            [] => name.to_owned(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn target(&self) -> Vec<u8> {
        text(&self.0.as_old().linkname).to_owned()
    }

    pub(super) fn size(&self) -> Result<u64> {
        self.field("size", &self.0.as_old().size)
    }

    pub(super) fn mode(&self) -> Result<u32> {
        let mode: u64 = self.field("mode", &self.0.as_old().mode)?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    pub(super) fn uid(&self) -> Result<u32> {
        self.field("owner", &self.0.as_old().uid)
    }

    pub(super) fn gid(&self) -> Result<u32> {
        self.field("group", &self.0.as_old().gid)
    }

    pub(super) fn mtime(&self) -> Result<Mtime> {
        Ok(Mtime { seconds: self.field("time", &self.0.as_old().mtime)?, nanoseconds: 0 })
    }

    /// The major number of a device. The oldest format has none.
    pub(super) fn major(&self) -> Result<u32> {
        match (self.0.as_ustar(), self.0.as_gnu()) {
            (Some(ustar), _) => self.field("device", &ustar.dev_major),
            (None, Some(gnu)) => self.field("device", &gnu.dev_major),
            (None, None) => Ok(0),
        }
    }

    /// And the minor one.
    pub(super) fn minor(&self) -> Result<u32> {
        match (self.0.as_ustar(), self.0.as_gnu()) {
            (Some(ustar), _) => self.field("device", &ustar.dev_minor),
            (None, Some(gnu)) => self.field("device", &gnu.dev_minor),
            (None, None) => Ok(0),
        }
    }

    fn field<T: TryFrom<i64>>(&self, what: &str, field: &[u8]) -> Result<T> {
        let fits = number(field).and_then(|number| T::try_from(number).ok());
        fits.ok_or_else(|| wrong(what, &self.path()))
    }
}

/// A field that is no number, or none that fits.
fn wrong(what: &str, path: &[u8]) -> Error {
    invalid(format!("the {what} of `{}` is out of range", String::from_utf8_lossy(path)))
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number: in octal digits, between spaces or NULs; or, where the first bit is set, in base 256, with a sign. An empty
/// field is 0.
fn number(field: &[u8]) -> Option<i64> {
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        // The second bit is the sign.
        let negative = first & 0x40 != 0;
        let first = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        let number = rest.iter().fold(first, |number, byte| number << 8 | i128::from(*byte));
        return i64::try_from(number).ok();
    }
    let pad = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !pad(byte)).unwrap_or(field.len());
    let digits = text(&field[start..]).trim_ascii_end();
    if digits.is_empty() {
        return Some(0);
    }
    digits.iter().all(|byte| (b'0'..=b'7').contains(byte)).then_some(())?;
    i64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        let cases: &[(&[u8], Option<i64>)] = &[
            (b"0000644\0", Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"644\0junk", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"+1\0", None),
        ];
        for (field, expected) in cases {
            assert_eq!(number(field), *expected, "{}", field.escape_ascii());
        }
    }
}
