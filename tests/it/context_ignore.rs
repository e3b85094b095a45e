//! Ignore files: recorded answers of Moby's code (see `tests/corpus/ignore/README.md`), and properties.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cooper::cancel::Cancel;
use cooper::context::Context;
use cooper::context::ignore::{MatchInfo, Matcher};
use cooper::request::{ContextSpec, DockerfileSpec};
use proptest::prelude::*;

use crate::context_support::{open, paths, spec, write};

const MATCHES: &str = include_str!("../corpus/ignore/matches.txt");

pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        match rest[0] {
            b'n' => bytes.push(b'\n'),
            b'x' => {
                bytes.extend(hex::decode(&rest[1..3]).unwrap());
                rest = &rest[2..];
            }
            other => bytes.push(other),
        }
        rest = &rest[1..];
    }
    bytes
}

/// Matches a path as a walk does: every part of it in turn.
fn walk_to(matcher: &Matcher, path: &[u8]) -> char {
    let mut info: Option<MatchInfo> = None;
    let mut answer = '?';
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        match matcher.matches(&path[..end], info.as_ref()) {
            Err(_) => return 'e',
            Ok(found) => {
                answer = if found.matched { '1' } else { '0' };
                info = Some(found.info);
            }
        }
    }
    answer
}

#[test]
fn patterns_match_what_moby_matches() {
    let mut checked = 0;
    for line in MATCHES.lines() {
        let mut fields = line.split(' ');
        let (ignore, expected) = (fields.next().unwrap(), fields.next().unwrap());
        let answer = match Matcher::parse(".dockerignore", &unescape(ignore)) {
            Err(_) => "error".to_owned(),
            Ok(matcher) => fields
                .flat_map(|path| {
                    let path = unescape(path);
                    let by_parent = matcher.matches_or_parent(&path).map_or('e', |is| if is { '1' } else { '0' });
                    [walk_to(&matcher, &path), by_parent]
                })
                .collect(),
        };
        assert_eq!(answer, expected, "{line}");
        checked += 1;
    }
    assert!(checked >= 3000, "{checked}");
}

/// Names of any bytes and of either case need a Linux file system.
#[cfg(target_os = "linux")]
#[test]
fn walks_find_what_buildkit_finds() {
    let walks = include_str!("../corpus/ignore/walks.txt");
    let scratch = tempfile::tempdir().unwrap();
    let ignore_file = scratch.path().join("ignore");
    let mut checked = 0;
    for tree in walks.split("tree\n").skip(1) {
        let (entries, cases) = tree.split_once("cases\n").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let entries: Vec<Vec<u8>> = entries.lines().map(|line| make(dir.path(), line)).collect();
        let spec = ContextSpec {
            root: Some(dir.path().to_owned()),
            ignore_file: Some(ignore_file.clone()),
            ..ContextSpec::default()
        };
        for case in cases.lines() {
            let (ignore, expected) = case.split_once(' ').unwrap();
            fs::write(&ignore_file, unescape(ignore)).unwrap();
            let found = Context::open(&spec, &DockerfileSpec::default(), &Cancel::new()).ok();
            let found = found.map(|context| context.entries().map(|entry| entry.path.clone()).collect());
            let expected = (expected != "error").then(|| chosen(&entries, expected));
            assert_eq!(found, expected, "{case}");
            checked += 1;
        }
    }
    assert!(checked >= 3000, "{checked}");
}

/// Makes one entry of a recorded tree and returns its path.
#[cfg(target_os = "linux")]
fn make(root: &Path, line: &str) -> Vec<u8> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let (name, target) = line.split_once(' ').map_or((line, None), |(name, target)| (name, Some(unescape(target))));
    let mut path = unescape(name);
    if path.last() == Some(&b'/') {
        path.pop();
        fs::create_dir(root.join(OsStr::from_bytes(&path))).unwrap();
    } else if let Some(target) = target {
        std::os::unix::fs::symlink(OsStr::from_bytes(&target), root.join(OsStr::from_bytes(&path))).unwrap();
    } else {
        fs::write(root.join(OsStr::from_bytes(&path)), "").unwrap();
    }
    path
}

/// The entries whose bits are set.
#[cfg(target_os = "linux")]
fn chosen(entries: &[Vec<u8>], digits: &str) -> Vec<Vec<u8>> {
    let digit = |index: usize| digits.len().checked_sub(index / 4 + 1).map_or(0, |at| hex_digit(digits.as_bytes()[at]));
    let is_set = |index: &usize| digit(*index) >> (index % 4) & 1 == 1;
    (0..entries.len()).filter(is_set).map(|index| entries[index].clone()).collect()
}

#[cfg(target_os = "linux")]
fn hex_digit(digit: u8) -> u32 {
    char::from(digit).to_digit(16).unwrap()
}

#[test]
fn a_malformed_pattern_is_shown_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "");
    let cases = [("ok\n\n  a[1.txt\n", 3, 3, 7), ("!\n", 1, 1, 1), ("é\\\n", 1, 1, 2), ("x*{3}{4}\n", 1, 1, 8)];
    for (content, line, column, width) in cases {
        write(dir.path(), ".dockerignore", content);
        write(dir.path(), "xy", "");
        let opened = Context::open(&spec(dir.path()), &DockerfileSpec::default(), &Cancel::new());
        let error = opened.unwrap_err();
        assert_eq!(error.code(), "ignore-pattern", "{content:?}");
        let location = error.location().unwrap();
        assert_eq!((location.line, location.column, location.width), (line, column, width), "{content:?}");
        assert_eq!(location.source, [content.lines().nth(line - 1).unwrap()]);
        assert!(location.frame().contains(".dockerignore:"), "{}", location.frame());
    }
}

#[test]
fn the_ignore_file_of_the_dockerfile_wins() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "root\n");
    for name in ["root", "own", "named", "docker/Dockerfile", "docker/dev.Dockerfile"] {
        write(dir.path(), name, "FROM scratch");
    }
    write(dir.path(), "docker/Dockerfile.dockerignore", "own\n");
    write(dir.path(), "docker/ignore", "named\n");
    let left_out = |spec: &ContextSpec, dockerfile: DockerfileSpec| {
        let context = Context::open(spec, &dockerfile, &Cancel::new()).unwrap();
        let found: BTreeSet<String> = paths(&context).into_iter().collect();
        ["root", "own", "named"].into_iter().filter(|name| !found.contains(*name)).collect::<Vec<_>>()
    };
    let mut spec = spec(dir.path());
    assert_eq!(left_out(&spec, DockerfileSpec::default()), ["root"]);
    assert_eq!(left_out(&spec, DockerfileSpec::InContext("docker/Dockerfile".into())), ["own"]);
    assert_eq!(left_out(&spec, DockerfileSpec::InContext("docker/dev.Dockerfile".into())), ["root"]);
    assert_eq!(left_out(&spec, DockerfileSpec::Path(dir.path().join("docker/Dockerfile"))), ["own"]);
    assert_eq!(left_out(&spec, DockerfileSpec::Text("FROM scratch".into())), ["root"]);
    spec.ignore_file = Some(dir.path().join("docker/ignore"));
    assert_eq!(left_out(&spec, DockerfileSpec::InContext("docker/Dockerfile".into())), ["named"]);
    spec.ignore_file = Some(dir.path().join("missing"));
    let error = Context::open(&spec, &DockerfileSpec::default(), &Cancel::new()).unwrap_err();
    assert_eq!(error.code(), "ignore-file");
}

#[test]
fn appended_patterns_need_an_ignore_file() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".zen/config", "");
    write(dir.path(), "a", "");
    let mut spec = spec(dir.path());
    spec.extra_patterns = vec!["a".into(), "!/.zen".into()];
    spec.omit_ignore_file = true;
    assert_eq!(paths(&open(&spec)), [".zen", ".zen/config", "a"]);
    write(dir.path(), ".dockerignore", "*\n");
    assert_eq!(paths(&open(&spec)), [".zen", ".zen/config"]);
}

/// What a walk finds that prunes nothing and has one thread: the plain meaning of the rules.
fn plain_walk(root: &Path, dir: &str, matcher: &Matcher, info: Option<&MatchInfo>, found: &mut Vec<String>) {
    let names = fs::read_dir(root.join(dir)).unwrap().map(|child| child.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = names.collect();
    for name in names {
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        let decision = matcher.matches(path.as_bytes(), info).unwrap();
        let before = found.len();
        found.push(path.clone());
        if root.join(&path).is_dir() {
            plain_walk(root, &path, matcher, Some(&decision.info), found);
        }
        if decision.matched && found.len() == before + 1 {
            found.pop();
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "ab", "x.py", "d.d"]).prop_map(str::to_owned)
}

fn tree() -> impl Strategy<Value = BTreeSet<Vec<String>>> {
    prop::collection::btree_set(prop::collection::vec(name(), 1..5), 1..30)
}

fn ignore_file() -> impl Strategy<Value = String> {
    let part =
        prop_oneof![3 => name(), 2 => Just("*".to_owned()), 1 => Just("**".to_owned()), 1 => Just("*.py".to_owned())];
    let pattern = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
    let line =
        (prop::bool::weighted(0.35), pattern).prop_map(|(not, text)| format!("{}{text}", if not { "!" } else { "" }));
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pruning_and_threads_change_nothing(tree in tree(), ignore in ignore_file()) {
        let dir = tempfile::tempdir().unwrap();
        for parts in &tree {
            let path = dir.path().join(parts.join("/"));
            // A prefix of it may be a file already, or it a directory.
            if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.exists() {
                fs::write(path, "").unwrap();
            }
        }
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("ignore");
        fs::write(&file, &ignore).unwrap();
        let mut spec = spec(dir.path());
        spec.ignore_file = Some(file);
        let matcher = Matcher::parse("", ignore.as_bytes()).unwrap();
        let mut expected = Vec::new();
        plain_walk(dir.path(), "", &matcher, None, &mut expected);
        prop_assert_eq!(paths(&open(&spec)), expected);
    }

    #[test]
    fn no_text_makes_it_panic(content in prop::collection::vec(any::<u8>(), 0..60), path in "[ab/.*é]{1,12}") {
        if let Ok(matcher) = Matcher::parse("", &content) {
            let found = matcher.matches(path.as_bytes(), None);
            prop_assert!(found.is_ok() || found.unwrap_err().code() == "ignore-pattern");
        }
    }

    #[test]
    fn no_pattern_makes_it_panic(content in "([\\[\\]\\\\^{}|*?!,ab0-9:dwsQEpPLxB/.-]{0,14}\n){0,3}", path in "[ab/.*é]{1,12}") {
        if let Ok(matcher) = Matcher::parse("", content.as_bytes()) {
            let found = matcher.matches(path.as_bytes(), None);
            prop_assert!(found.is_ok() || found.unwrap_err().code() == "ignore-pattern");
        }
    }
}
