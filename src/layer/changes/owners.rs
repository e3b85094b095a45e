//! Whose things are meant to be.

use std::collections::HashMap;

use crate::rootfs::{Item, ItemKind, Node, NodeKind};

/// How owners are found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// They are what the listing says.
    Real,
    /// There is one id. Owners that a command gave are noted, in the files or beside them; what has no note and comes from a
    /// layer is root's, as layers are unpacked so.
    Emulated {
        /// Who ran the command: whoever makes something owns it.
        command: (u32, u32),
        /// Owners of what can have no note, by its inode.
        inodes: HashMap<u64, (u32, u32)>,
    },
}

impl Owners {
    /// The owner of something, where lower layers have `lower`. `stayed` says that it was there before the command ran, here
    /// or under another name.
    pub(super) fn of(&self, item: &Item, lower: Option<&Node>, stayed: bool) -> (u32, u32) {
        let Self::Emulated { command, inodes } = self else { return (item.uid, item.gid) };
        let noted = match item.kind {
            // An inode with the same number may have been a link before.
            ItemKind::File { .. } | ItemKind::Dir { .. } => item.owner,
            _ => inodes.get(&item.inode).copied(),
        };
        if let Some(owner) = noted {
            return owner;
        }
        let lower = lower.filter(|lower| is_alike(item, lower));
        match item.kind {
            // A copy that overlayfs makes is marked.
            ItemKind::File { .. } | ItemKind::Dir { .. } => match lower {
                _ if !(item.copied_up || stayed) => *command,
                Some(lower) => (lower.uid, lower.gid),
                None => (0, 0),
            },
            // For others, being alike has to do.
            _ => lower.map_or(*command, |lower| (lower.uid, lower.gid)),
        }
    }
}

/// Whether something is of the same kind, and leads to the same place.
fn is_alike(item: &Item, lower: &Node) -> bool {
    match (&item.kind, &lower.kind) {
        (ItemKind::File { .. }, NodeKind::File { .. })
        | (ItemKind::Dir { .. }, NodeKind::Dir)
        | (ItemKind::Fifo, NodeKind::Fifo) => true,
        (ItemKind::Symlink { target }, NodeKind::Symlink { target: lower }) => target == lower,
        _ => false,
    }
}
