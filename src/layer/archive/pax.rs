//! The records that stand before a header (POSIX.1-2001, pax interchange format).

use std::io;

use super::reader::{Member, malformed};
use crate::rootfs::Xattrs;

/// Before the name of an extended attribute.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records in their order. A later one of the same name counts, but for those that come in pairs.
pub(super) type Records = Vec<Record>;
/// A name and a value.
type Record = (Vec<u8>, Vec<u8>);

/// `LENGTH NAME=VALUE\n`, one after the other. The length counts itself.
pub(super) fn parse(mut data: &[u8]) -> io::Result<Records> {
    let mut records = Records::new();
    while !data.is_empty() {
        let (record, rest) = split(data).ok_or_else(|| malformed("a record is malformed"))?;
        records.push(record);
        data = rest;
    }
    Ok(records)
}

fn split(data: &[u8]) -> Option<(Record, &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&record[..equals], &record[equals + 1..]);
    // Go's `validPAXRecord`.
    let takes_nul = name.starts_with(XATTR);
    (!name.is_empty() && !name.contains(&0) && (takes_nul || !value.contains(&0)))
        .then(|| ((name.to_owned(), value.to_owned()), &data[length..]))
}

/// Puts what the records say in the place of what the header says. An empty value leaves the header's.
pub(super) fn apply(records: &Records, member: &mut Member, stored: &mut u64) -> io::Result<()> {
    for (name, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
        match name.as_slice() {
            b"path" => member.name.clone_from(value),
            b"linkpath" => member.link.clone_from(value),
            b"size" => *stored = u64::try_from(decimal(value)?).map_err(|_| malformed("a size is negative"))?,
            b"uid" => member.uid = decimal(value)?,
            b"gid" => member.gid = decimal(value)?,
            b"mtime" => member.mtime = seconds(value)?,
            _ => {}
        }
    }
    Ok(())
}

/// The extended attributes among the records.
pub(super) fn xattrs(records: &Records) -> Xattrs {
    let named = records.iter().filter_map(|(name, value)| Some((name.strip_prefix(XATTR)?.to_owned(), value.clone())));
    named.filter(|(name, value)| !name.is_empty() && !value.is_empty()).collect()
}

pub(super) fn decimal(value: &[u8]) -> io::Result<i64> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| malformed("a number is malformed"))
}

/// Whole seconds of `1350244992.023960108`.
fn seconds(value: &[u8]) -> io::Result<i64> {
    let (whole, part) = match value.iter().position(|byte| *byte == b'.') {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &[][..]),
    };
    let number = decimal(whole)?;
    // -1.5 is in the second that begins at -2.
    let is_negative = value.first() == Some(&b'-') && part.iter().any(|digit| *digit != b'0');
    Ok(if is_negative { number.saturating_sub(1) } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_lengths() {
        let records = parse(b"13 path=a=\n\n\n30 mtime=1350244992.023960108\n").unwrap();
        assert_eq!(records[0], (b"path".to_vec(), b"a=\n\n".to_vec()));
        assert_eq!(seconds(&records[1].1).unwrap(), 1_350_244_992);
        assert_eq!(seconds(b"-1.5").unwrap(), -2);
        for bad in [&b"13 path=a"[..], b"x path=a\n", b"4 =\n", b"99999999999999999999 a=b\n", b"3 \n", b"1 a=b\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
