//! Why a path is in or out, and what could be left out: both must agree with the walk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use cooper::cancel::Cancel;
use cooper::context::{Context, Kind, Reason, Suggestion, Why};
use proptest::prelude::*;

use crate::context_support::{extra, open, open_dir, spec, write};

fn why(context: &Context, path: &str) -> Why {
    context.why(path.as_bytes(), &Cancel::new()).unwrap()
}

fn suggest(context: &Context) -> Suggestion {
    context.suggest(&Cancel::new()).unwrap()
}

fn patterns(suggestion: &Suggestion) -> Vec<&str> {
    suggestion.lines.iter().map(|line| line.pattern.as_str()).collect()
}

#[test]
fn every_reason_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, ".dockerignore", "data\n!data/keep\n*.log\nbuild\n");
    for path in ["a", "data/gone", "data/keep/x", "x.log", "build/deep/y", "late/z"] {
        write(root, path, "12");
    }
    fs::remove_dir_all(root.join("late")).unwrap();
    symlink("data", root.join("link")).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    let mut spec = spec(root);
    spec.omit_ignore_file = true;
    spec.extra_files = vec![extra("made/up.log", "1")];
    let context = open(&spec);
    write(root, "late", "12");
    let reasons = [
        ("", true, Reason::Root),
        ("a", true, Reason::NoPattern),
        ("./data//../a", true, Reason::NoPattern),
        ("link", true, Reason::NoPattern),
        ("data", true, Reason::HoldsIncluded),
        ("data/keep/x", true, Reason::TakenBack),
        ("made/up.log", true, Reason::ExtraFile),
        ("made", true, Reason::ExtraFile),
        ("x.log", false, Reason::Excluded),
        ("data/gone", false, Reason::ParentExcluded),
        ("build", false, Reason::Excluded),
        ("build/deep", false, Reason::ParentExcluded),
        (".dockerignore", false, Reason::IgnoreFile),
        ("socket", false, Reason::Socket),
        ("nothing", false, Reason::Missing),
        ("a/b", false, Reason::Missing),
        ("link/keep", false, Reason::BehindLink),
        ("../a", false, Reason::Outside),
        ("/a", false, Reason::Outside),
        ("late", false, Reason::Appeared),
    ];
    for (path, included, reason) in reasons {
        let why = why(&context, path);
        assert_eq!((why.included, why.reason), (included, reason), "{path}: {why}");
    }
}

#[test]
fn every_pattern_that_had_a_say_is_shown_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "# text\n /data \n!data/keep\n");
    write(dir.path(), "data/keep/x", "12");
    write(dir.path(), "data/y", "123");
    let mut spec = spec(dir.path());
    spec.extra_patterns = vec!["!data/y".into()];
    let context = open(&spec);
    let kept = why(&context, "data/keep/x");
    let steps: Vec<_> = kept
        .patterns
        .iter()
        .map(|step| (step.line, step.source.as_str(), step.pattern.as_str(), step.excludes, step.matches.as_str()))
        .collect();
    assert_eq!(steps, [(2, " /data ", "data", true, "data"), (3, "!data/keep", "!data/keep", false, "data/keep")]);
    assert!(kept.to_string().ends_with(".dockerignore, line 3, takes back the directory `data/keep`"), "{kept}");
    let appended = why(&context, "data/y");
    assert_eq!(appended.patterns.last().unwrap().file, None);
    assert!(appended.to_string().contains("`!data/y`, which is always added, takes back this"), "{appended}");
    let gone = why(&open_dir(dir.path()), "data/y");
    assert!(gone.to_string().ends_with("line 2, excludes the directory `data`"), "{gone}");
}

#[test]
fn a_directory_has_its_contents_counted() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".dockerignore", "**/gone\n");
    for (path, size) in [("a/in", 1), ("a/b/in", 2), ("a/gone", 4), ("a/b/gone/x", 8), ("in", 16), ("gone/y/z", 32)] {
        write(dir.path(), path, vec![0; size]);
    }
    let context = open_dir(dir.path());
    let contents = |path: &str| {
        let contents = why(&context, path).contents.unwrap();
        (contents.files, contents.bytes, contents.excluded_files, contents.excluded_bytes)
    };
    assert_eq!(contents("a"), (2, 3, 2, 12));
    assert_eq!(contents("a/b"), (1, 2, 1, 8));
    assert_eq!(contents("gone/y"), (0, 0, 1, 32));
    assert_eq!(contents(""), (4, 19 + 8, 3, 44));
    assert_eq!(why(&context, "in").contents, None);
}

#[test]
fn a_suggestion_keeps_what_an_image_is_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, ".dockerignore", "old");
    for (path, content) in [
        ("Dockerfile", "FROM scratch"),
        ("requirements.txt", "zenml"),
        ("pyproject.toml", "[project]"),
        ("uv.lock", "x"),
        ("run.py", "print()"),
        (".env", "A=1"),
        ("tls/my [key]*.pem", "-----BEGIN PRIVATE KEY-----"),
        ("one/.env", "A=1"),
        ("two/.env", "A=1"),
        (".zen/.env", "A=1"),
        (".git/HEAD", "ref"),
        (".venv/lib/requirements.txt", "1"),
        ("src/__pycache__/run.pyc", "1"),
        ("a.pt", "1"),
        ("b.pt", "1"),
        ("c/c.pt", "1"),
        ("c/d.onnx", "1"),
        ("mlruns/0/meta.yaml", "1"),
    ] {
        write(root, path, content);
    }
    write(root, "data/train.csv", vec![0; 11_000_000]);
    write(root, "pkg/data/train.csv", vec![0; 11_000_000]);
    write(root, "pkg/data/load.py", "");
    let suggestion = suggest(&open_dir(root));
    assert_eq!(
        patterns(&suggestion),
        [
            // Not `**/.env`: that would take `.zen/.env`.
            ".env",
            "one/.env",
            "two/.env",
            r"tls/my \[key\]\*.pem",
            ".git",
            ".venv",
            "**/*.pt",
            "c/d.onnx",
            "mlruns",
            "**/__pycache__",
            "data",
        ]
    );
    let last = suggestion.lines.last().unwrap();
    assert_eq!((last.optional, last.files, last.bytes), (true, 1, 11_000_000));
    assert!(suggestion.text.starts_with("\n# From `cooper context suggest`: 12 files, "), "{}", suggestion.text);
    assert!(suggestion.text.contains("\n# data\n"));
    applied(root, &suggestion);
}

#[test]
fn nothing_is_suggested_where_nothing_is_to_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "run.py", "");
    let suggestion = suggest(&open_dir(dir.path()));
    assert_eq!((suggestion.lines.len(), suggestion.text.as_str()), (0, ""));
}

/// Files and bytes, but for the ignore file: it changes.
fn totals(context: &Context) -> (u64, u64) {
    let is_file = |kind: &Kind| matches!(kind, Kind::File { .. } | Kind::Hardlink { .. });
    let files = context.entries().filter(|entry| is_file(&entry.kind) && entry.path != b".dockerignore");
    files.fold((0, 0), |(files, bytes), entry| (files + 1, bytes + entry.size()))
}

/// Appends the text to the ignore file and compares what goes with what was said.
fn applied(root: &Path, suggestion: &Suggestion) {
    let old_context = open_dir(root);
    let before = totals(&old_context);
    let file = root.join(".dockerignore");
    let old = fs::read_to_string(&file).unwrap_or_default();
    fs::write(&file, format!("{old}{}", suggestion.text)).unwrap();
    let after = open_dir(root);
    let (files, bytes) = totals(&after);
    assert_eq!((before.0 - files, before.1 - bytes), (suggestion.files, suggestion.bytes), "{}", suggestion.text);
    for needed in ["Dockerfile", "requirements.txt", "pyproject.toml", ".zen/.env", ".zen/config.yaml"] {
        let (had, has) = (old_context.find(needed.as_bytes()), after.find(needed.as_bytes()));
        assert_eq!(had.is_some(), has.is_some(), "{needed}: {}", suggestion.text);
    }
}

/// Names that a tree is made of: some that are found, some that are hard to write down.
const NAMES: &[&str] = &[
    "a",
    "b",
    ".env",
    ".git",
    "__pycache__",
    "data",
    "requirements.txt",
    "w.pt",
    "x.key",
    "!a",
    "#b",
    " c",
    "d*",
    "[e]",
    "f|g",
    "\\h",
    "venv",
    ".zen",
    "Dockerfile",
];
/// Lines of an ignore file.
const LINES: &[&str] = &[
    "a",
    "!a/b",
    "**/b",
    "data",
    "!data/.env",
    "*",
    "!.git",
    "**/*.pt",
    "!**/w.pt",
    "b/*",
    "!b/data",
    "[!a]*",
    "\\!a",
    "!requirements.txt",
    "d\\*",
    "**/.env",
    "!a",
];

fn tree() -> impl Strategy<Value = BTreeMap<String, bool>> {
    let path = prop::collection::vec(prop::sample::select(NAMES), 1..4).prop_map(|parts| parts.join("/"));
    prop::collection::btree_map(path, any::<bool>(), 1..20)
}

fn lines() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(LINES), 0..5).prop_map(|lines| lines.join("\n"))
}

/// Makes the tree; a path that another one needs as a directory is one.
fn make(root: &Path, tree: &BTreeMap<String, bool>, ignore: &str) {
    fs::write(root.join(".dockerignore"), ignore).unwrap();
    let mut linked = None;
    for (path, hard_link) in tree {
        let full = root.join(path);
        if fs::create_dir_all(full.parent().unwrap()).is_err() || full.exists() {
            continue;
        }
        match &linked {
            Some(first) if *hard_link => fs::hard_link(first, &full).unwrap(),
            _ => fs::write(&full, "A=1\nPRIVATE KEY-----\n").unwrap(),
        }
        linked = Some(full);
    }
}

/// Everything on disk, relative to the root.
fn on_disk(root: &Path, directory: &str, found: &mut Vec<String>) {
    for item in fs::read_dir(root.join(directory)).unwrap() {
        let item = item.unwrap();
        let name = item.file_name().into_string().unwrap();
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        if item.file_type().unwrap().is_dir() {
            on_disk(root, &path, found);
        }
        found.push(path);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn why_agrees_with_the_walk(tree in tree(), ignore in lines()) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &tree, &ignore);
        let context = open_dir(dir.path());
        let mut paths = Vec::new();
        on_disk(dir.path(), "", &mut paths);
        let mut excluded = 0;
        for path in &paths {
            let why = why(&context, path);
            let included = context.find(path.as_bytes()).is_some();
            prop_assert_eq!(why.included, included);
            let decided = why.patterns.last().is_some_and(|last| last.excludes);
            let fits = match why.reason {
                Reason::NoPattern => included && why.patterns.is_empty(),
                Reason::TakenBack => included && !decided && !why.patterns.is_empty(),
                Reason::HoldsIncluded => included && decided && why.contents.is_some(),
                Reason::Excluded | Reason::ParentExcluded => !included && decided,
                _ => false,
            };
            prop_assert!(fits, "{path}: {why} ({:?})\n{ignore}", why.patterns);
            excluded += u64::from(!included && !dir.path().join(path).is_dir());
        }
        let all = why(&context, "").contents.unwrap();
        prop_assert_eq!((all.files, all.bytes), (context.summary().files, context.summary().bytes));
        prop_assert_eq!(all.excluded_files, excluded);
    }

    #[test]
    fn a_suggestion_removes_what_it_says(tree in tree(), ignore in lines()) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &tree, &ignore);
        let context = open_dir(dir.path());
        let suggestion = suggest(&context);
        for line in &suggestion.lines {
            prop_assert!(line.files > 0, "{line:?}");
        }
        let sum: u64 = suggestion.lines.iter().map(|line| line.bytes).sum();
        prop_assert_eq!(sum, suggestion.bytes);
        let needed: Vec<_> = context
            .entries()
            .filter(|entry| entry.path.starts_with(b".zen") && matches!(entry.kind, Kind::File { .. }))
            .map(|entry| entry.path)
            .collect();
        applied(dir.path(), &suggestion);
        let after = open_dir(dir.path());
        prop_assert!(needed.iter().all(|path| after.find(path).is_some()), "{}", suggestion.text);
        // What was suggested once is not suggested again.
        let again = suggest(&after);
        prop_assert!(again.lines.is_empty(), "{}", again.text);
    }
}
