//! Following symbolic links inside of a tree: no link leads out of it.

use super::{join, parent};

/// As many links as `BuildKit` follows before it gives up (`fs.RootPath` of containerd's `continuity`).
const MAX_LINKS: usize = 255;

/// Links that lead to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::native) struct TooManyLinks;

/// The path with every symbolic link in it followed, also the last one. What is not there is no link.
///
/// `target` says where a link at a path leads to, if there is one. Links and `..` stay below `root`.
pub(in crate::engine::native) fn resolve(
    root: &[u8],
    path: &[u8],
    target: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, TooManyLinks> {
    let mut at = root.to_vec();
    let mut rest: Vec<Vec<u8>> = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == b".." {
            if at.len() > root.len() {
                at.truncate(parent(&at).len());
            }
            continue;
        }
        let next = join(&at, &part);
        let Some(target) = target(&next) else {
            at = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(TooManyLinks);
        }
        if target.first() == Some(&b'/') {
            at = root.to_vec();
        }
        rest.extend(parts(&target));
    }
    Ok(at)
}

/// The parts of a path that mean something, the first one last.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').rev();
    parts.filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(root: &str, path: &str) -> Result<String, TooManyLinks> {
        let links = [
            ("bin", "usr/bin"),
            ("usr/bin/up", "../../etc"),
            ("abs", "/usr/./bin//x"),
            ("out", "../../../.."),
            ("a", "b"),
            ("b", "/a"),
            ("d/abs", "/e"),
            ("d/out", "../../x"),
        ];
        let target = |path: &[u8]| {
            let found = links.iter().find(|(link, _)| link.as_bytes() == path);
            found.map(|(_, target)| target.as_bytes().to_vec())
        };
        resolve(root.as_bytes(), path.as_bytes(), target).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn links_are_followed_and_stay_inside() {
        let cases = [
            ("", "", ""),
            ("", "usr/bin/x", "usr/bin/x"),
            ("", "bin", "usr/bin"),
            ("", "bin/up/passwd", "etc/passwd"),
            ("", "abs/y", "usr/bin/x/y"),
            ("", "out/etc", "etc"),
            ("", "nothing/../x", "x"),
            ("d", "abs/f", "d/e/f"),
            ("d", "out", "d/x"),
        ];
        for (root, path, expected) in cases {
            assert_eq!(follow(root, path).as_deref(), Ok(expected), "{path} below {root}");
        }
    }

    #[test]
    fn links_in_a_circle_are_refused() {
        assert_eq!(follow("", "a/x"), Err(TooManyLinks));
    }
}
