//! One thing in a tree, and the list of all of them.

use super::super::wire::{Decoder, Encoder};
use crate::error::{Error, Result};
use crate::mtime::Mtime;

/// Begins every list. The number changes with the format.
const MAGIC: &[u8] = b"cooper listing 1\n";

/// Something in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Relative to the root of the tree.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// Permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// The owner's number, as the process that listed it sees it.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was modified.
    pub mtime: Mtime,
    /// When it, or anything about it, was changed.
    pub ctime: Mtime,
    /// The number of its inode.
    pub inode: u64,
    /// How many names it has.
    pub links: u32,
    /// Its capabilities (`security.capability`), as they are in layers.
    pub capability: Option<Vec<u8>>,
    /// Whose it is meant to be ([`super::super::OWNER`]), if that is noted.
    pub owner: Option<(u32, u32)>,
    /// Whether overlayfs has copied it from a lower layer.
    pub copied_up: bool,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Where its content begins in the spool, if it is there.
        spooled: Option<u64>,
    },
    /// A directory.
    Dir {
        /// Whether it hides what lower layers have in it.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// The target as it is stored.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket, which no layer can hold.
    Socket,
    /// A character device.
    CharDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// What lower layers have here is gone.
    Whiteout,
}

/// Everything in a tree but its root, in the order of [`crate::paths::compare_paths`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(pub Vec<Item>);

impl Listing {
    /// The list as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Encoder(MAGIC.to_vec());
        let mut last: &[u8] = b"";
        for item in &self.0 {
            let same = last.iter().zip(&item.path).take_while(|(left, right)| left == right).count();
            out.number(same as u64);
            out.text(&item.path[same..]);
            item.encode(&mut out);
            last = &item.path;
        }
        out.0
    }

    /// The list of such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::internal("a list of files is damaged");
        let mut list = Decoder(bytes.strip_prefix(MAGIC).ok_or_else(damaged)?);
        let mut items: Vec<Item> = Vec::new();
        while !list.is_empty() {
            let same = list.number::<usize>()?;
            let before = items.last().map_or(&b""[..], |item| &item.path);
            let mut path = before.get(..same).ok_or_else(damaged)?.to_vec();
            path.extend_from_slice(list.text()?);
            items.push(Item::decode(path, &mut list)?.ok_or_else(damaged)?);
        }
        Ok(Self(items))
    }
}

impl Item {
    fn encode(&self, out: &mut Encoder) {
        let (tag, numbers, target): (u32, [u64; 2], &[u8]) = match &self.kind {
            // 0 says that it is not in the spool.
            ItemKind::File { size, spooled } => (0, [*size, spooled.map_or(0, |at| at + 1)], b""),
            ItemKind::Dir { opaque } => (1, [u64::from(*opaque), 0], b""),
            ItemKind::Symlink { target } => (2, [0, 0], target),
            ItemKind::Fifo => (3, [0, 0], b""),
            ItemKind::Socket => (4, [0, 0], b""),
            ItemKind::CharDevice { major, minor } => (5, [(*major).into(), (*minor).into()], b""),
            ItemKind::BlockDevice { major, minor } => (6, [(*major).into(), (*minor).into()], b""),
            ItemKind::Whiteout => (7, [0, 0], b""),
        };
        let flags = [self.capability.is_some(), self.owner.is_some(), self.copied_up];
        let flags: u32 = flags.iter().enumerate().map(|(bit, set)| u32::from(*set) << bit).sum();
        for number in [tag, flags, self.mode, self.uid, self.gid, self.links] {
            out.number(number);
        }
        for number in [numbers[0], numbers[1], self.inode] {
            out.number(number);
        }
        out.text(target);
        for time in [self.mtime, self.ctime] {
            out.signed(time.seconds);
            out.number(time.nanoseconds);
        }
        if let Some(capability) = &self.capability {
            out.text(capability);
        }
        if let Some((uid, gid)) = self.owner {
            out.number(uid);
            out.number(gid);
        }
    }

    /// `None` for what no item is.
    fn decode(path: Vec<u8>, list: &mut Decoder<'_>) -> Result<Option<Self>> {
        let mut head = [0_u32; 6];
        for number in &mut head {
            *number = list.number()?;
        }
        let [tag, flags, mode, uid, gid, links] = head;
        let [first, second, inode] = [list.number::<u64>()?, list.number::<u64>()?, list.number::<u64>()?];
        let target = list.text()?.to_owned();
        let mut time = || Ok::<_, Error>(Mtime { seconds: list.signed()?, nanoseconds: list.number()? });
        let (mtime, ctime) = (time()?, time()?);
        let device = || Some((u32::try_from(first).ok()?, u32::try_from(second).ok()?));
        let kind = match tag {
            0 => ItemKind::File { size: first, spooled: second.checked_sub(1) },
            1 => ItemKind::Dir { opaque: first != 0 },
            2 => ItemKind::Symlink { target },
            3 => ItemKind::Fifo,
            4 => ItemKind::Socket,
            5 | 6 => {
                let Some((major, minor)) = device() else { return Ok(None) };
                let is_char = tag == 5;
                if is_char { ItemKind::CharDevice { major, minor } } else { ItemKind::BlockDevice { major, minor } }
            }
            7 => ItemKind::Whiteout,
            _ => return Ok(None),
        };
        let capability = if flags & 1 == 0 { None } else { Some(list.text()?.to_owned()) };
        let owner = if flags & 2 == 0 { None } else { Some((list.number()?, list.number()?)) };
        let copied_up = flags & 4 != 0;
        Ok(Some(Self { path, kind, mode, uid, gid, mtime, ctime, inode, links, capability, owner, copied_up }))
    }
}
