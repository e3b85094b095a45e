//! The file systems of images, as far as their layers tell them: nothing is unpacked.
//!
//! A [`LayerIndex`] is what one layer says, a [`View`] is what a stack of them makes. Contents are taken out of layers when
//! they are needed ([`extract`]). Everything blocks: callers know.

mod copied;
mod decompress;
mod extract;
mod hashing;
mod index;
mod node;
mod scan;
mod spool;
mod tar;
mod unpack;
mod upper;
mod view;
mod wire;

pub use copied::copy_layers;
pub use decompress::decompress;
pub use extract::{Extracted, Wanted, extract};
pub use index::{IndexEntry, LayerIndex};
pub use node::{Node, NodeKind, Xattrs};
pub use spool::Spool;
pub use unpack::{Fix, Fixes, Form, InView, Limits, OWNER, Packed, Unpacked, own, unpack, unpack_in_view};
pub use upper::{Contents, Item, ItemKind, Listing, Scanned, SpoolFile, Stamp, TreeFile, TreeFiles, list_tree, scan};
pub use view::{ExecUser, Found, View};
