//! The headers of a layer's archive: ustar, with a PAX header before it where ustar cannot hold a value (POSIX.1-2017,
//! pax, "ustar Interchange Format" and "pax Header Block").
//!
//! This is what containerd writes: names of more than 100 bytes and names that are not ASCII are PAX records (the `prefix`
//! field of ustar is not used), extended attributes are `SCHILY.xattr.NAME`, and names of owners are empty.

use tar::{EntryType, Header};

use super::entry::{LayerEntry, LayerKind};
use crate::error::{Error, Result};
use crate::mtime::Mtime;
use crate::pack::{BLOCK, pad};

/// The longest name that fits a header.
pub(super) const NAME: usize = 100;
/// The biggest number that fits 7 octal digits: owners and devices.
const MAX_SHORT: u64 = 0o7_777_777;
/// The biggest number that fits 11 octal digits: sizes and times.
const MAX_LONG: u64 = 0o77_777_777_777;
/// The name of every PAX header; nobody unpacks it.
const PAX_NAME: &[u8] = b"././@PaxHeader";

/// What begins the name of an entry that removes something (OCI image spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// The name of what removes everything in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Appends the header of an entry. Fails with `ImageInvalid` for what an archive cannot hold.
pub(super) fn push(entry: &LayerEntry, out: &mut Vec<u8>) -> Result<()> {
    if let LayerKind::Whiteout | LayerKind::Opaque = entry.kind {
        push_whiteout(entry, out);
        return Ok(());
    }
    let mut path = entry.path.clone();
    let (kind, link, size): (EntryType, &[u8], u64) = match &entry.kind {
        LayerKind::File { size, .. } => (EntryType::Regular, b"", *size),
        LayerKind::Symlink { target } => (EntryType::Symlink, target, 0),
        LayerKind::Hardlink { first, .. } => (EntryType::Link, first, 0),
        LayerKind::Fifo => (EntryType::Fifo, b"", 0),
        LayerKind::CharDevice { .. } => (EntryType::Char, b"", 0),
        LayerKind::BlockDevice { .. } => (EntryType::Block, b"", 0),
        LayerKind::Dir | LayerKind::Whiteout | LayerKind::Opaque => {
            path.push(b'/');
            (EntryType::Directory, b"", 0)
        }
    };
    let mut records = Records::default();
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(entry.mode & 0o7777);
    header.set_uid(records.number("uid", entry.uid.into(), MAX_SHORT));
    header.set_gid(records.number("gid", entry.gid.into(), MAX_SHORT));
    header.set_size(records.number("size", size, MAX_LONG));
    header.set_mtime(records.time(entry.mtime));
    set_device(&mut header, entry)?;
    records.name("path", &path);
    records.name("linkpath", link);
    for (name, value) in &entry.xattrs {
        records.xattr(entry, name, value)?;
    }
    records.push(out);
    finish(header, &path, link, out);
    Ok(())
}

/// An empty file of root's, whose name says what is removed.
fn push_whiteout(entry: &LayerEntry, out: &mut Vec<u8>) {
    let path = whiteout_path(entry);
    let mut records = Records::default();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_mtime(records.time(entry.mtime));
    records.name("path", &path);
    records.push(out);
    finish(header, &path, b"", out);
}

fn whiteout_path(entry: &LayerEntry) -> Vec<u8> {
    let path = &entry.path;
    if matches!(entry.kind, LayerKind::Opaque) {
        return if path.is_empty() { OPAQUE.to_vec() } else { [path.as_slice(), b"/", OPAQUE].concat() };
    }
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&path[..name], WHITEOUT, &path[name..]].concat()
}

/// Whether a file of this name would be read as the removal of another.
pub(super) fn is_whiteout_name(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| name.starts_with(WHITEOUT))
}

/// How much room the headers of an entry take, or a little more. The cuts of a layer depend on it.
pub(super) fn estimate(entry: &LayerEntry) -> u64 {
    let link = match &entry.kind {
        LayerKind::Symlink { target } => target.len(),
        LayerKind::Hardlink { first, .. } => first.len(),
        _ => 0,
    };
    let xattrs: usize = entry.xattrs.iter().map(|(name, value)| 32 + name.len() + value.len()).sum();
    let long = [entry.path.len(), link].into_iter().filter(|length| *length >= NAME).sum::<usize>() + xattrs;
    let pax = if long == 0 { 0 } else { BLOCK + (long + 64).next_multiple_of(BLOCK) };
    (BLOCK + pax) as u64
}

fn set_device(header: &mut Header, entry: &LayerEntry) -> Result<()> {
    let (LayerKind::CharDevice { major, minor } | LayerKind::BlockDevice { major, minor }) = entry.kind else {
        return Ok(());
    };
    if u64::from(major.max(minor)) > MAX_SHORT {
        return Err(invalid(entry, &format!("the device {major}:{minor} does not fit an archive")));
    }
    let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
    set.map_err(|error| Error::internal(error.to_string()))
}

fn invalid(entry: &LayerEntry, reason: &str) -> Error {
    let reason = format!("`{}`: {reason}", String::from_utf8_lossy(&entry.path));
    Error::ImageInvalid { what: "entry of a layer".into(), reason }
}

/// Puts the names in, as far as they fit, and the checksum.
fn finish(mut header: Header, path: &[u8], link: &[u8], out: &mut Vec<u8>) {
    let fields = header.as_old_mut();
    for (field, name) in [(&mut fields.name, path), (&mut fields.linkname, link)] {
        for (byte, value) in field.iter_mut().zip(name) {
            *byte = if value.is_ascii() { *value } else { b'_' };
        }
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
}

/// The records of a PAX header, in the order of their keys.
#[derive(Default)]
struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0.push((key.to_vec(), value.to_vec()));
    }

    /// What the header itself gets.
    fn number(&mut self, key: &str, value: u64, most: u64) -> u64 {
        if value <= most {
            return value;
        }
        self.add(key.as_bytes(), value.to_string().as_bytes());
        0
    }

    fn time(&mut self, time: Mtime) -> u64 {
        if let Ok(seconds) = u64::try_from(time.seconds) {
            return self.number("mtime", seconds, MAX_LONG);
        }
        self.add(b"mtime", time.seconds.to_string().as_bytes());
        0
    }

    fn name(&mut self, key: &str, name: &[u8]) {
        if name.len() > NAME || !name.is_ascii() {
            self.add(key.as_bytes(), name);
        }
    }

    /// Fails with `ImageInvalid` where the name would not be read back.
    fn xattr(&mut self, entry: &LayerEntry, name: &[u8], value: &[u8]) -> Result<()> {
        if name.is_empty() || name.contains(&b'=') {
            let name = String::from_utf8_lossy(name);
            return Err(invalid(entry, &format!("the attribute `{name}` does not fit an archive")));
        }
        self.add(&[b"SCHILY.xattr.", name].concat(), value);
        Ok(())
    }

    /// Appends the header, if there is something in it.
    fn push(mut self, out: &mut Vec<u8>) {
        if self.0.is_empty() {
            return;
        }
        self.0.sort();
        let mut content = Vec::new();
        for (key, value) in &self.0 {
            push_record(key, value, &mut content);
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        finish(header, PAX_NAME, b"", out);
        out.extend_from_slice(&content);
        pad(out, content.len());
    }
}

/// A record begins with its own length in decimal digits, these included.
fn push_record(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    loop {
        let whole = rest + length.to_string().len();
        if whole == length {
            break;
        }
        length = whole;
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for length in [0, 1, 80, 88, 89, 90, 91, 92, 985, 986, 987, 988, 9_990] {
            let mut out = Vec::new();
            push_record(b"path", &vec![b'x'; length], &mut out);
            let (digits, rest) = out.split_at(out.iter().position(|byte| *byte == b' ').unwrap());
            let said: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
            assert_eq!(said, out.len());
            assert_eq!(rest.len(), " path=\n".len() + length);
        }
    }
}
