//! Tests of the crate from outside: one binary, so that the crate is linked once.

mod architecture;
mod context_archive;
mod context_report;
mod context_support;
mod context_tree;
