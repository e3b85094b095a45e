//! Paths within an image or a context: texts with `/`, of Unix.

/// A path without `.`, `..` and doubled slashes, as far as that can be said without looking (Go's `path.Clean`).
pub(crate) fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// A path that may be relative, seen from a directory.
pub(crate) fn join(directory: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("/{directory}/{path}")) }
}

/// What the working directory becomes. An absolute path stays as it is written, as BuildKit has it.
pub(super) fn working_dir(current: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { join(current, path) }
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// Whether a path has wildcards.
pub(super) fn has_wildcards(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '*' | '?' | '[' => return true,
            '\\' => {
                characters.next();
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_joined() {
        let cases =
            [("", "."), ("/", "/"), ("/../a//b/.", "/a/b"), ("a/../..", ".."), ("../../x", "../../x"), ("./a", "a")];
        for (path, expected) in cases {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(join("/a", "b/../c"), "/a/c");
        assert_eq!(join("", "b"), "/b");
        assert_eq!(join("/a", "/b/"), "/b");
        assert_eq!(working_dir("/a", "/b/../c/"), "/b/../c/");
        assert_eq!(working_dir("", ""), "/");
    }

    #[test]
    fn wildcards_may_be_escaped() {
        assert!(has_wildcards("a/*.py") && has_wildcards("\\\\[a]"));
        assert!(!has_wildcards("a/\\*.py") && !has_wildcards("a"));
    }
}
