//! COPY on random trees, compared with what the same steps do to directories of a disk, where the kernel follows the links.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use crate::context_support::tempdir_in_memory;
use crate::copy_support::{Memory, entries};

/// A path and what is there, as in the lists of [`Memory`].
fn line() -> impl Strategy<Value = (String, String)> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join("/"));
    let what = prop_oneof![
        2 => Just("/".to_owned()),
        1 => Just("/ 0710".to_owned()),
        4 => (0..9_u8).prop_map(|content| format!(" = {content}")),
        1 => Just(" = x 0700".to_owned()),
        // Links that stay inside wherever they are: every tree is three directories deep, and below one more.
        1 => name().prop_map(|name| format!(" -> {name}")),
        1 => name().prop_map(|name| format!(" -> ../{name}")),
    ];
    (path, what)
}

/// A list, in which nothing is below what is no directory.
fn list() -> impl Strategy<Value = String> {
    prop::collection::vec(line(), 0..10).prop_map(|lines| {
        let mut known: Vec<(String, bool)> = Vec::new();
        let mut text = String::new();
        for (path, what) in lines {
            let is_dir = what.starts_with('/');
            let below = |other: &str, path: &str| path.strip_prefix(other).is_some_and(|rest| rest.starts_with('/'));
            let clash = |(other, dir): &(String, bool)| {
                *other == path || (!dir && below(other, &path)) || (!is_dir && below(&path, other))
            };
            if known.iter().any(clash) {
                continue;
            }
            text.extend([path.as_str(), what.as_str(), "\n"]);
            known.push((path, is_dir));
        }
        text
    })
}

fn instruction() -> impl Strategy<Value = (String, String, bool)> {
    let path = prop::sample::select(vec!["a", "b", "c", "a/a", "a/b", "b/c", "a/b/c"]);
    let to = prop::sample::select(vec!["", "a", "b", "c", "d", "a/b", "b/d", "d/e"]);
    (path, to, any::<bool>()).prop_map(|(from, to, slash)| (from.to_owned(), to.to_owned(), slash))
}

/// Makes what a list says.
fn make(root: &Path, list: &str) {
    for item in Memory::new(list).show() {
        let words: Vec<&str> = item.split(' ').collect();
        let path = root.join(words[0].trim_end_matches('/'));
        let mode = match words[1..] {
            ["->", target] => {
                symlink(target, path).unwrap();
                continue;
            }
            ["=", content] => {
                fs::write(&path, content).unwrap();
                "644"
            }
            ["=", content, mode] => {
                fs::write(&path, content).unwrap();
                mode
            }
            _ => {
                fs::create_dir(&path).unwrap();
                words.get(1).unwrap_or(&"755")
            }
        };
        set_mode(&path, u32::from_str_radix(mode, 8).unwrap()).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Makes a directory and those above it, through links, also those that lead to nothing yet.
fn make_dirs(path: &Path) -> io::Result<()> {
    if fs::metadata(path).is_ok() {
        return if path.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) };
    }
    let path = &follow(path)?;
    make_dirs(path.parent().unwrap())?;
    fs::create_dir(path)?;
    set_mode(path, 0o755)
}

/// The steps of a COPY with the system's own calls.
fn copy(from: &Path, to: &Path, slash: bool) -> io::Result<()> {
    let source = fs::canonicalize(from)?;
    make_dirs(if slash { to } else { to.parent().unwrap() })?;
    let to = follow(to)?;
    if source.is_dir() {
        make_dirs(&to)?;
        return copy_inside(&source, &to);
    }
    if to.is_dir() {
        put(&source, &to.join(from.file_name().unwrap()))
    } else {
        make_dirs(to.parent().unwrap())?;
        put(&source, &to)
    }
}

/// Where a path leads, whether something is there or not.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap().join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::ErrorKind::TooManyLinks.into())
}

fn copy_inside(from: &Path, to: &Path) -> io::Result<()> {
    for child in fs::read_dir(from)? {
        let child = child?;
        let target = to.join(child.file_name());
        if !child.file_type()?.is_dir() {
            put(&child.path(), &target)?;
            continue;
        }
        match fs::symlink_metadata(&target) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(_) => fs::create_dir(&target)?,
        }
        set_mode(&target, child.metadata()?.mode() & 0o7777)?;
        copy_inside(&child.path(), &target)?;
    }
    Ok(())
}

fn put(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(there) if there.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => fs::remove_file(to)?,
        Err(_) => {}
    }
    match fs::read_link(from) {
        Ok(target) => symlink(target, to),
        Err(_) => fs::copy(from, to).map(drop),
    }
}

/// What is in a directory, as lists are written.
pub(crate) fn show(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for child in fs::read_dir(&directory).unwrap() {
            let path = child.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().display();
            let mode = metadata.mode() & 0o7777;
            lines.push(if metadata.is_symlink() {
                format!("{name} -> {}", fs::read_link(&path).unwrap().display())
            } else if metadata.is_dir() {
                if mode == 0o755 { format!("{name}/") } else { format!("{name}/ {mode:04o}") }
            } else {
                let content = fs::read_to_string(&path).unwrap();
                if mode == 0o644 { format!("{name} = {content}") } else { format!("{name} = {content} {mode:04o}") }
            });
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    lines.sort();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn copies_are_what_the_kernel_makes_of_them(
        origin in list(), base in list(), (from, to, slash) in instruction()
    ) {
        let scratch = tempdir_in_memory();
        let (source, target) = (scratch.path().join("1/2/3/origin"), scratch.path().join("1/2/3/base"));
        for (path, list) in [(&source, &origin), (&target, &base)] {
            fs::create_dir_all(path).unwrap();
            make(path, list);
        }
        // A link out of the tree leads to another place on the disk than in an image.
        let leads_out = |list: &str| list.lines().any(|line| line.split(" -> ..").next().is_some_and(|path| path.len() < line.len() && !path.contains('/')));
        prop_assume!(!leads_out(&origin) && !leads_out(&base));
        let text = format!("COPY {from} /{to}{}", if slash && !to.is_empty() { "/" } else { "" });
        let found = entries(&text, &Memory::new(&origin), &Memory::new(&base));
        let slash = slash || to.is_empty();
        match copy(&source.join(&from), &target.join(&to), slash) {
            Ok(()) => {
                let entries = found.map_err(|mistake| TestCaseError::fail(format!("{text}: {}", mistake.message)))?;
                let mut made = Memory::new(&base).apply(&entries).show();
                made.sort();
                prop_assert_eq!(made, show(&target), "{} of\n{}\nover\n{}", text, origin, base);
            }
            Err(error) => prop_assert!(found.is_err(), "{text} of\n{origin}\nover\n{base}\n{error}"),
        }
    }
}
