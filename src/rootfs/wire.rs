//! Numbers and texts as bytes, for lists that go from a process inside a user namespace to one outside.

use crate::error::{Error, Result};

/// A list that is being written. A number is little-endian base 128, a text is its length and its bytes.
#[derive(Debug, Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn number(&mut self, number: impl Into<u64>) {
        let mut number = number.into();
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    pub(super) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }
}

/// A list that is being read. Whatever is cut off or malformed is an error of ours: nobody else writes these.
#[derive(Debug)]
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Result<T> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or_else(damaged)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return T::try_from(number).map_err(|_| damaged());
            }
        }
        Err(damaged())
    }

    pub(super) fn signed(&mut self) -> Result<i64> {
        let folded: u64 = self.number()?;
        Ok((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(text)
    }
}

fn damaged() -> Error {
    Error::internal("a list from the sandbox is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Encoder::default();
        for number in [0, 127, 128, u64::MAX] {
            out.number(number);
        }
        for number in [0, -1, 63, -64, i64::MIN, i64::MAX] {
            out.signed(number);
        }
        out.text(b"a/b");
        let mut list = Decoder(&out.0);
        for number in [0, 127, 128, u64::MAX] {
            assert_eq!(list.number::<u64>().unwrap(), number);
        }
        for number in [0, -1, 63, -64, i64::MIN, i64::MAX] {
            assert_eq!(list.signed().unwrap(), number);
        }
        assert_eq!(list.text().unwrap(), b"a/b");
        assert!(list.is_empty());
        assert!(list.text().is_err());
        assert!(Decoder(&out.0[..3]).number::<u64>().is_ok());
        assert!(Decoder(&[0x80]).number::<u64>().is_err());
        assert!(Decoder(&[9, b'a']).text().is_err());
    }
}
