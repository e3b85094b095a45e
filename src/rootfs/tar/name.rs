//! Names in layers (OCI image spec, layer.md, "Whiteouts").

use super::{MAX_PATH, invalid};
use crate::error::Result;

/// Before the name of something that is removed.
const WHITEOUT: &[u8] = b".wh.";
/// Before names that mean something of their own.
const META: &[u8] = b".wh..wh.";
/// In a directory whose lower children are removed.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a name in a layer is about. Paths are relative to the root and clean; that of the root is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Place {
    /// What is at this path.
    Path(Vec<u8>),
    /// What lower layers have at this path.
    Whiteout(Vec<u8>),
    /// What lower layers have in this directory.
    Opaque(Vec<u8>),
    /// Nothing: it is an entry for aufs itself.
    Nothing,
}

impl Place {
    /// That of a clean path. Fails with `ImageInvalid` if a whiteout is not the last part of it, or has no name.
    pub(super) fn of(path: Vec<u8>) -> Result<Self> {
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let Some(first) = parts.iter().position(|part| part.starts_with(WHITEOUT)) else { return Ok(Self::Path(path)) };
        let last = parts.len() - 1;
        if parts[first].starts_with(META) && !(first == last && parts[last] == OPAQUE) {
            return Ok(Self::Nothing);
        }
        let name = &parts[first][WHITEOUT.len()..];
        if first < last || matches!(name, b"" | b"." | b"..") {
            let path = String::from_utf8_lossy(&path);
            return Err(invalid(format!("`{path}` is no name that a whiteout can have")));
        }
        if parts[last] == OPAQUE {
            return Ok(Self::Opaque(parts[..last].join(&b'/')));
        }
        parts[last] = name;
        Ok(Self::Whiteout(parts.join(&b'/')))
    }
}

/// A path without empty parts, `.` and `..`, and without a slash at its ends. Absolute paths begin at the root, as all do.
///
/// Fails with `ImageInvalid` if it leaves the root, is too long or has a NUL in it.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>> {
    let refused = |why: &str| invalid(format!("the path `{}` {why}", shown(path)));
    if path.len() > MAX_PATH {
        return Err(refused("is too long"));
    }
    if path.contains(&0) {
        return Err(refused("has a NUL in it"));
    }
    let mut clean: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part != b".." {
            clean.push(part);
        } else if clean.pop().is_none() {
            return Err(refused("leaves the root"));
        }
    }
    Ok(clean.join(&b'/'))
}

/// The target of a symbolic link, which may be anything that has a meaning.
pub(super) fn symlink_target(target: Vec<u8>) -> Result<Vec<u8>> {
    if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) {
        return Err(invalid(format!("a symbolic link has the target `{}`", shown(&target))));
    }
    Ok(target)
}

/// As much of a name as a message takes.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        for (path, expected) in [("./a/./b//", "a/b"), ("/a", "a"), ("a/../b", "b"), ("./", ""), ("", "")] {
            assert_eq!(clean(path.as_bytes()).unwrap(), expected.as_bytes(), "{path}");
        }
        for path in ["..", "a/../..", "/../a", "a\0b"] {
            assert_eq!(clean(path.as_bytes()).unwrap_err().code(), "image-invalid", "{path}");
        }
        assert!(clean(&vec![b'a'; MAX_PATH]).is_ok());
        assert!(clean(&vec![b'a'; MAX_PATH + 1]).is_err());
    }

    #[test]
    fn whiteouts_are_names() {
        let of = |path: &str| Place::of(path.into()).unwrap();
        assert_eq!(of("a/b"), Place::Path("a/b".into()));
        assert_eq!(of("a/.wh.b"), Place::Whiteout("a/b".into()));
        assert_eq!(of(".wh.b"), Place::Whiteout("b".into()));
        assert_eq!(of(".wh..b"), Place::Whiteout(".b".into()));
        assert_eq!(of("a/.wh..wh..opq"), Place::Opaque("a".into()));
        assert_eq!(of(".wh..wh..opq"), Place::Opaque("".into()));
        assert_eq!(of(".wh..wh.plnk"), Place::Nothing);
        assert_eq!(of(".wh..wh.plnk/1.2"), Place::Nothing);
        assert_eq!(of(".wh..wh.aufs"), Place::Nothing);
        for path in [".wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
            assert_eq!(Place::of(path.into()).unwrap_err().code(), "image-invalid", "{path}");
        }
    }
}
