//! Everything in a directory.

use super::merge::Settled;
use super::{Found, View, parts};

/// Walks over what is in a directory: depth first, siblings by their bytes, a directory before what is in it.
#[derive(Debug)]
struct Walk<'a> {
    view: &'a View,
    path: Vec<u8>,
    open: Vec<Open<'a>>,
}

/// A directory whose children are being walked over.
#[derive(Debug)]
struct Open<'a> {
    /// What is left of them, from the last to the first.
    children: Vec<(&'a [u8], Settled)>,
    /// How long its path is.
    path: usize,
}

impl View {
    /// Everything in a directory, but not the directory itself, in the order of [`crate::paths::compare_paths`].
    pub fn walk(&self, directory: &[u8]) -> impl Iterator<Item = Found> + '_ {
        let path = parts(directory).collect::<Vec<_>>().join(&b'/');
        let mut walk = Walk { view: self, path, open: Vec::new() };
        if let Some(settled) = self.settle_path(directory) {
            walk.enter(&settled);
        }
        walk
    }
}

impl Walk<'_> {
    fn enter(&mut self, settled: &Settled) {
        if let Settled::Dir(dir) = settled {
            let mut children = self.view.list(dir);
            children.reverse();
            self.open.push(Open { children, path: self.path.len() });
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let Open { children, path } = self.open.last_mut()?;
            self.path.truncate(*path);
            let Some((name, settled)) = children.pop() else {
                self.open.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            self.enter(&settled);
            return Some(self.view.found(&settled, self.path.clone()));
        }
    }
}
