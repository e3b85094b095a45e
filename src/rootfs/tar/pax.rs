//! PAX records (POSIX.1-2001, `pax`), as Go's `archive/tar` reads them.

use super::super::node::Xattrs;
use super::invalid;
use crate::error::{Error, Result};
use crate::mtime::Mtime;

/// Before the name of an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Before everything that sparse files have.
const SPARSE: &[u8] = b"GNU.sparse.";

/// What the records before an entry say of it.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Mtime>,
    pub(super) xattrs: Xattrs,
}

impl Pax {
    /// Reads records: a length in digits, a space, a key, `=`, a value and a line feed. The length counts all of that: a
    /// value may have anything in it. An empty value leaves what the header says.
    pub(super) fn parse(mut text: &[u8]) -> Result<Self> {
        let mut pax = Self::default();
        while !text.is_empty() {
            let (key, value, rest) = record(text).ok_or_else(|| invalid("a PAX record is malformed"))?;
            pax.set(key, value)?;
            text = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        if key.starts_with(SPARSE) {
            return Err(invalid("it has a sparse file, which containers' layers do not have"));
        }
        let wrong = || wrong(key);
        match key {
            _ if value.is_empty() => {}
            b"path" => self.path = Some(value.to_owned()),
            b"linkpath" => self.target = Some(value.to_owned()),
            b"size" => self.size = Some(integer(value).ok_or_else(wrong)?),
            b"uid" => self.uid = Some(integer(value).ok_or_else(wrong)?),
            b"gid" => self.gid = Some(integer(value).ok_or_else(wrong)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            _ => {}
        }
        Ok(())
    }
}

fn wrong(key: &[u8]) -> Error {
    invalid(format!("the PAX record `{}` is out of range", String::from_utf8_lossy(key)))
}

/// The first record of a text: its key, its value, and what follows.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = integer(&text[..space])?;
    let (record, rest) = text.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn integer<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Seconds with a fraction, of which nine digits count.
fn time(text: &[u8]) -> Option<Mtime> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[..0]),
    };
    let (negative, digits) = match whole.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, whole),
    };
    let seconds: i64 = integer(digits)?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let places = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = places.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Mtime { seconds, nanoseconds },
        (true, 0) => Mtime { seconds: -seconds, nanoseconds },
        (true, _) => Mtime { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let length = (body..body + 9).find(|length| body + length.to_string().len() == *length).unwrap();
            text.extend(format!("{length} {key}=").bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        text
    }

    #[test]
    fn values_may_hold_anything() {
        let text = records(&[("SCHILY.xattr.user.a", b"x\n9 size=1\n\0"), ("size", b"70000000000"), ("uid", b"")]);
        let pax = Pax::parse(&text).unwrap();
        assert_eq!(pax.xattrs[&b"user.a"[..]], b"x\n9 size=1\n\0");
        assert_eq!((pax.size, pax.uid), (Some(70_000_000_000), None));
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, seconds, nanoseconds) in [
            ("1", 1, 0),
            ("1.5", 1, 500_000_000),
            ("1.0000000019", 1, 1),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("-0.5", -1, 500_000_000),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Mtime { seconds, nanoseconds }), "{text}");
        }
        for text in ["", ".5", "1.x", "x", "--1", "9223372036854775808"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in
            ["4 a=\n", "6 a=b\n\n", "6 ab\n", "7 a=b\n", "x a=b\n", "6 =ab\n", " 6 a=b\n", "9999999999999999999 a=b\n"]
        {
            assert_eq!(Pax::parse(text.as_bytes()).unwrap_err().code(), "image-invalid", "{text:?}");
        }
        for (key, value) in [("size", "-1"), ("uid", "4294967296"), ("mtime", "soon"), ("GNU.sparse.major", "1")] {
            let text = records(&[(key, value.as_bytes())]);
            assert_eq!(Pax::parse(&text).unwrap_err().code(), "image-invalid", "{key}");
        }
    }
}
