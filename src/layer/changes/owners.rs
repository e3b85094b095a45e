//! Whose things are meant to be.

use std::collections::HashMap;

use crate::rootfs::{Item, ItemKind, Node, NodeKind};

/// How owners are found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// They are what the listing says.
    Real,
    /// There is one id. Owners that a command gave are noted, in the files or beside them.
    Emulated {
        /// Who ran the command: whoever makes something owns it.
        command: (u32, u32),
        /// Owners of what can have no note, by its inode.
        inodes: HashMap<u64, (u32, u32)>,
    },
}

impl Owners {
    /// The owner of something, where lower layers have `lower`.
    pub(super) fn of(&self, item: &Item, lower: Option<&Node>) -> (u32, u32) {
        let Self::Emulated { command, inodes } = self else { return (item.uid, item.gid) };
        if let Some(owner) = item.owner.or_else(|| inodes.get(&item.inode).copied()) {
            return owner;
        }
        match lower {
            Some(lower) if is_from_below(item, lower) => (lower.uid, lower.gid),
            _ => *command,
        }
    }
}

/// Whether something is the lower layers' own, changed or not. Files and directories that overlayfs has copied are marked so;
/// for others, being of the same kind, with the same target, has to do.
fn is_from_below(item: &Item, lower: &Node) -> bool {
    match (&item.kind, &lower.kind) {
        (ItemKind::File { .. }, NodeKind::File { .. }) => item.copied_up,
        (ItemKind::Dir { opaque }, NodeKind::Dir) => item.copied_up || !opaque,
        (ItemKind::Symlink { target }, NodeKind::Symlink { target: lower }) => target == lower,
        (ItemKind::Fifo, NodeKind::Fifo) => true,
        _ => false,
    }
}
