//! The messages of file synchronisation (tonistiigi/fsutil, `types/*.proto`).
//!
//! Paths are bytes here, where the published `.proto` says `string`: both look the same on the wire, file systems do not insist
//! on UTF-8, and neither does BuildKit before 0.17.

use std::collections::BTreeMap;

use bytes::Bytes;

/// One message in either direction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    /// What it is.
    #[prost(enumeration = "PacketKind", tag = "1")]
    pub kind: i32,
    /// The entry of a `Stat`; a `Stat` without one ends the list.
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    /// Which entry, for `Req` and `Data`: its position in the list.
    #[prost(uint32, tag = "3")]
    pub id: u32,
    /// Part of a file's content; nothing ends the file. The text of an `Err`.
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// What a [`Packet`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PacketKind {
    /// An entry of the list.
    Stat = 0,
    /// The receiver asks for a file.
    Req = 1,
    /// A part of a file.
    Data = 2,
    /// The receiver has all it wants; the sender says it back.
    Fin = 3,
    /// Something went wrong.
    Err = 4,
}

/// An entry of the list.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    /// Relative, clean, `/` between parts.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Go's `os.FileMode`.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    /// Owner; always 0 where we send, as in Docker's own client: ownership of the sender must not reach the image.
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    /// Group; always 0 where we send.
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    /// Bytes of a file's content.
    #[prost(int64, tag = "5")]
    pub size: i64,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "6")]
    pub mod_time: i64,
    /// Target of a symbolic link; of a hard link, the path that was sent first.
    #[prost(bytes = "vec", tag = "7")]
    pub linkname: Vec<u8>,
    /// Major number of a device.
    #[prost(int64, tag = "8")]
    pub devmajor: i64,
    /// Minor number of a device.
    #[prost(int64, tag = "9")]
    pub devminor: i64,
    /// Extended attributes. Received only: those of a context must not reach the image.
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Stat {
    /// What it is; `None` for a socket, and for what no Unix has.
    pub fn file_type(&self) -> Option<FileType> {
        const TYPES: u32 = GO_DIR | GO_SYMLINK | GO_DEVICE | GO_FIFO | GO_SOCKET | GO_CHAR_DEVICE | GO_IRREGULAR;
        const CHAR_DEVICE: u32 = GO_DEVICE | GO_CHAR_DEVICE;
        match self.mode & TYPES {
            0 => Some(FileType::File),
            GO_DIR => Some(FileType::Dir),
            GO_SYMLINK => Some(FileType::Symlink),
            GO_FIFO => Some(FileType::Fifo),
            CHAR_DEVICE => Some(FileType::CharDevice),
            GO_DEVICE => Some(FileType::BlockDevice),
            _ => None,
        }
    }

    /// The mode as Unix has it, without the type.
    pub const fn unix_mode(&self) -> u32 {
        let mut mode = self.mode & 0o777;
        if self.mode & GO_SETUID != 0 {
            mode |= 0o4000;
        }
        if self.mode & GO_SETGID != 0 {
            mode |= 0o2000;
        }
        if self.mode & GO_STICKY != 0 {
            mode |= 0o1000;
        }
        mode
    }
}

impl Packet {
    /// An entry of the list.
    pub fn stat(stat: Stat) -> Self {
        Self { kind: PacketKind::Stat.into(), stat: Some(stat), ..Self::default() }
    }

    /// The end of the list.
    pub fn end_of_list() -> Self {
        Self { kind: PacketKind::Stat.into(), ..Self::default() }
    }

    /// Asks for a file.
    pub fn request(id: u32) -> Self {
        Self { kind: PacketKind::Req.into(), id, ..Self::default() }
    }

    /// A part of a file; nothing ends it.
    pub fn data(id: u32, data: Bytes) -> Self {
        Self { kind: PacketKind::Data.into(), id, data, ..Self::default() }
    }

    /// The receiver has everything; also the answer to that.
    pub fn fin() -> Self {
        Self { kind: PacketKind::Fin.into(), ..Self::default() }
    }

    /// Something went wrong.
    pub fn err(message: &str) -> Self {
        Self { kind: PacketKind::Err.into(), data: Bytes::copy_from_slice(message.as_bytes()), ..Self::default() }
    }
}

/// Bits of Go's `os.FileMode`, where they differ from Unix.
const GO_DIR: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;
const GO_DEVICE: u32 = 1 << 26;
const GO_FIFO: u32 = 1 << 25;
const GO_SOCKET: u32 = 1 << 24;
const GO_SETUID: u32 = 1 << 23;
const GO_SETGID: u32 = 1 << 22;
const GO_CHAR_DEVICE: u32 = 1 << 21;
const GO_STICKY: u32 = 1 << 20;
const GO_IRREGULAR: u32 = 1 << 19;

/// The types of entries that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file, hard links included.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Go's `os.FileMode` of a Unix mode.
pub const fn go_mode(kind: FileType, unix: u32) -> u32 {
    let mut mode = unix & 0o777;
    mode |= match kind {
        FileType::File => 0,
        FileType::Dir => GO_DIR,
        FileType::Symlink => GO_SYMLINK,
        FileType::Fifo => GO_FIFO,
        FileType::CharDevice => GO_DEVICE | GO_CHAR_DEVICE,
        FileType::BlockDevice => GO_DEVICE,
    };
    if unix & 0o4000 != 0 {
        mode |= GO_SETUID;
    }
    if unix & 0o2000 != 0 {
        mode |= GO_SETGID;
    }
    if unix & 0o1000 != 0 {
        mode |= GO_STICKY;
    }
    mode
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn the_wire_format_is_that_of_the_published_messages() {
        use bollard_buildkit_proto::fsutil::types;
        let ours = Packet::stat(Stat {
            path: b"a/b".to_vec(),
            mode: go_mode(FileType::Dir, 0o1755),
            size: 3,
            mod_time: 5,
            linkname: b"x".to_vec(),
            devmajor: 1,
            devminor: 2,
            uid: 3,
            gid: 4,
            xattrs: [("user.a".to_owned(), b"b".to_vec())].into(),
        });
        let theirs = types::Packet::decode(ours.encode_to_vec().as_slice()).unwrap();
        let stat = theirs.stat.unwrap();
        assert_eq!((stat.path.as_str(), stat.mode, stat.uid, stat.gid), ("a/b", 1 << 31 | 1 << 20 | 0o755, 3, 4));
        assert_eq!((stat.size, stat.mod_time, stat.linkname.as_str()), (3, 5, "x"));
        assert_eq!((stat.devmajor, stat.devminor, stat.xattrs["user.a"].as_slice()), (1, 2, &b"b"[..]));
        let data =
            types::Packet::decode(Packet::data(7, Bytes::from_static(b"abc")).encode_to_vec().as_slice()).unwrap();
        assert_eq!(
            (data.r#type, data.id, data.data.as_slice()),
            (types::packet::PacketType::PacketData.into(), 7, &b"abc"[..])
        );
    }

    #[test]
    fn special_bits_move_to_where_go_has_them() {
        assert_eq!(go_mode(FileType::File, 0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(FileType::File, 0o2644), 1 << 22 | 0o644);
        assert_eq!(go_mode(FileType::Symlink, 0o120_777), 1 << 27 | 0o777);
        let types = [FileType::File, FileType::Dir, FileType::Symlink, FileType::Fifo];
        for kind in types.into_iter().chain([FileType::CharDevice, FileType::BlockDevice]) {
            let stat = Stat { mode: go_mode(kind, 0o7654), ..Stat::default() };
            assert_eq!((stat.file_type(), stat.unix_mode()), (Some(kind), 0o7654));
        }
        assert_eq!(Stat { mode: GO_SOCKET | GO_DIR, ..Stat::default() }.file_type(), None);
    }
}
