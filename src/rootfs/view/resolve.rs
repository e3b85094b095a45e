//! Paths with links in them.

use super::merge::{Dir, Settled};
use super::{View, join, parts};
use crate::error::{Error, Result};

/// As many links are followed on the way to one path (containerd's `fs.RootPath`).
const MAX_LINKS: usize = 255;

/// How far a path is resolved.
struct Resolving {
    /// The parts so far, without links, and the directory that each is, if it is one.
    done: Vec<(Vec<u8>, Option<Dir>)>,
    /// The parts that are left, from the last to the first.
    left: Vec<Vec<u8>>,
    links: usize,
}

impl View {
    /// Where a path leads, with every link followed on the way and at the end. Links stay within the root: an absolute
    /// target begins there, and `..` does not leave it. What does not exist stays as it is.
    ///
    /// Fails with `ImageInvalid` after 255 links.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut resolving = Resolving { done: Vec::new(), left: Vec::new(), links: 0 };
        resolving.prepend(path);
        let root = match self.root() {
            Settled::Dir(dir) => Some(dir),
            Settled::Node(..) => None,
        };
        while let Some(part) = resolving.left.pop() {
            if part == b".." {
                resolving.done.pop();
                continue;
            }
            let at = resolving.done.last().map_or(root.as_ref(), |(_, dir)| dir.as_ref());
            match at.and_then(|dir| self.step(dir, &part)) {
                Some(Settled::Dir(dir)) => resolving.done.push((part, Some(dir))),
                Some(Settled::Node(layer, id)) => match self.stack[layer].index.target(id) {
                    [] => resolving.done.push((part, None)),
                    target => resolving.follow(path, target)?,
                },
                None => resolving.done.push((part, None)),
            }
        }
        let parts: Vec<Vec<u8>> = resolving.done.into_iter().map(|(part, _)| part).collect();
        Ok(parts.join(&b'/'))
    }

    /// The same for all but the last part of a path: what a link that is there would be replaced at.
    pub fn resolve_parent(&self, path: &[u8]) -> Result<Vec<u8>> {
        let all: Vec<&[u8]> = parts(path).collect();
        match all.split_last() {
            Some((last, parent)) if *last != b".." => Ok(join(&self.resolve(&parent.join(&b'/'))?, last)),
            _ => self.resolve(path),
        }
    }
}

impl Resolving {
    fn prepend(&mut self, path: &[u8]) {
        let at = self.left.len();
        self.left.extend(parts(path).map(<[u8]>::to_owned));
        self.left[at..].reverse();
    }

    fn follow(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            let what = format!("link `{}`", String::from_utf8_lossy(path));
            return Err(Error::ImageInvalid { what, reason: "too many links on the way".into() });
        }
        if target.first() == Some(&b'/') {
            self.done.clear();
        }
        self.prepend(target);
        Ok(())
    }
}
