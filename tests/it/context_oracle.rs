//! The matcher and the walk, compared with a plain reading of the rules (`oracle`).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use cooper::cancel::Cancel;
use cooper::context::Context;
use cooper::request::{ContextSpec, DockerfileSpec};
use proptest::prelude::*;

use crate::context_support::tempdir_in_memory;
use crate::oracle::random::{Language, Tape, ignore_file, tree};
use crate::oracle::{Node, Tree, compare, patterns, walk};

/// Makes a tree.
pub(crate) fn make(root: &Path, tree: &Tree) {
    for (path, node) in tree {
        let path = root.join(OsStr::from_bytes(&path.join(&b'/')));
        match node {
            Node::Dir => fs::create_dir(path).unwrap(),
            Node::File => fs::write(path, "").unwrap(),
            // To its own directory: whoever followed it would find everything again.
            Node::Link => symlink(".", path).unwrap(),
        }
    }
}

/// What a context has of a tree on disk; `None` if the ignore file is refused. `scratch` is a place for the ignore file.
pub(crate) fn found(root: &Path, ignore: &[u8], scratch: &Path) -> Option<Vec<Vec<u8>>> {
    fs::write(scratch, ignore).unwrap();
    let (root, ignore_file) = (Some(root.to_owned()), Some(scratch.to_owned()));
    let spec = ContextSpec { root, ignore_file, ..ContextSpec::default() };
    match Context::open(&spec, &DockerfileSpec::default(), &Cancel::new()) {
        Ok(context) => {
            let mut paths = Vec::new();
            for entry in context.entries() {
                paths.push(entry.path.clone());
            }
            Some(paths)
        }
        Err(error) => {
            assert_eq!(error.code(), "ignore-pattern", "{error}");
            None
        }
    }
}

fn tapes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_matcher_says_what_the_rules_say(tape in tapes()) {
        compare::matcher(&tape);
    }
}

#[cfg(target_os = "linux")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_context_has_what_the_rules_leave_of_a_tree(tape in tapes()) {
        let mut tape = Tape(&tape);
        let tree = tree(&mut tape);
        let ignore = ignore_file(&mut tape, &tree, Language::Documented);
        let (dir, scratch) = (tempdir_in_memory(), tempdir_in_memory());
        make(dir.path(), &tree);
        let expected = patterns(&ignore).ok().map(|rules| walk(&rules, &tree));
        prop_assert_eq!(found(dir.path(), &ignore, &scratch.path().join("ignore")), expected, "{} in {:?}", ignore.escape_ascii(), tree);
    }
}

#[test]
fn random_cases_are_worth_their_time() {
    // A generator can rot: patterns that match nothing, or everything, would compare well for ever.
    let mut some = 0;
    let mut exceptions = 0;
    let mut state = 1_u64;
    for _ in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..300 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push((state >> 56) as u8);
        }
        let mut tape = Tape(&bytes);
        let tree = tree(&mut tape);
        let Ok(rules) = patterns(&ignore_file(&mut tape, &tree, Language::Documented)) else { continue };
        let kept = walk(&rules, &tree).len();
        some += usize::from(0 < kept && kept < tree.len());
        let without: Vec<_> = rules.iter().filter(|rule| !rule.exception).cloned().collect();
        exceptions += usize::from(walk(&without, &tree).len() < kept);
    }
    assert!(some > 100 && exceptions > 30, "{some} of 300 exclude some of a tree, {exceptions} take some back");
}
