//! What is in a directory tree on disk, as it is there: the upper directory of an overlay, or a whole root.
//!
//! Listing has to be done where everything can be looked into: inside the user namespace, if files belong to subordinate ids.
//! What comes of it goes to whoever makes a layer of it as a [`Listing`]; contents are read later ([`TreeFiles`]), but for
//! those that only the namespace can read, which are put down in a spool.

mod files;
mod item;
mod list;
mod scan;

pub use files::{Stamp, TreeFile, TreeFiles};
pub use item::{Item, ItemKind, Listing};
pub use list::{SpoolFile, list_tree};
pub use scan::{Contents, Scanned, scan};
