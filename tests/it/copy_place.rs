//! COPY, ADD and WORKDIR: what an instruction makes of a base. Each table names the rule or the test of `BuildKit` (or of
//! `fsutil`, its copying) that its cases are about.

use cooper::dockerfile::Action;
use cooper::engine::native::copy::{Owner, make_directory};

use crate::copy_support::{Memory, copied, entries, step};

/// Instruction, origin, base, and all that is there in the end (or the message of the mistake).
type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

fn check(cases: &[Case]) {
    for (instruction, origin, base, expected) in cases {
        match copied(instruction, origin, base) {
            Ok(found) => assert_eq!(found, *expected, "{instruction}"),
            Err(mistake) => assert_eq!([mistake.message.as_str()], *expected, "{instruction}"),
        }
    }
}

#[test]
fn files_go_to_a_path_or_into_a_directory() {
    // TestCopySingleFile, testCopyRelative, testCopyOverrideFiles; prepareTargetDir.
    check(&[
        ("COPY a /x", "a = 1", "", &["x = 1"]),
        ("COPY a /x/", "a = 1", "", &["x/", "x/a = 1"]),
        ("COPY a /x/.", "a = 1", "", &["x/", "x/a = 1"]),
        ("COPY d/a /x/y/z", "d/a = 1", "", &["x/", "x/y/", "x/y/z = 1"]),
        ("COPY a .", "a = 1", "", &["work/", "work/a = 1"]),
        ("COPY a b", "a = 1", "", &["work/", "work/b = 1"]),
        ("COPY a ..", "a = 1", "", &["a = 1"]),
        ("COPY a /", "a = 1", "", &["a = 1"]),
        ("COPY a /x", "a = 1", "x/", &["x/", "x/a = 1"]),
        ("COPY a /x", "a = 1", "x = 2", &["x = 1"]),
        ("COPY a /x", "a = 1 0600", "x = 2 0777 5:5", &["x = 1 0600"]),
        ("COPY a b /x/", "a = 1\nb = 2", "", &["x/", "x/a = 1", "x/b = 2"]),
        // No trailing slash: the second file replaces the first.
        ("COPY a b /x", "a = 1\nb = 2", "", &["x = 2"]),
        ("COPY a /x/", "a = 1", "x = 2", &["`/x` is no directory"]),
        ("COPY a /x/y", "a = 1", "x = 2", &["`/x` is no directory"]),
        ("COPY a /x/", "a = 1", "x/a/", &["`a` cannot be put at `/x/a`: a directory is there"]),
        ("COPY a /x/", "a |", "x/a = 1", &["x/", "x/a |"]),
    ]);
}

#[test]
fn the_contents_of_directories_are_copied() {
    // TestCopyDirectory, TestCopyExistingDirDest, testCopyChownExistingDir: a destination that is there keeps its
    // attributes, one that is missing does not get those of the source; directories further down do.
    check(&[
        ("COPY d /x", "d/ 0700\nd/a = 1\nd/e/ 0710\nd/e/b = 2", "", &["x/", "x/a = 1", "x/e/ 0710", "x/e/b = 2"]),
        ("COPY d /x", "d/ 0700\nd/a = 1", "x/ 0711 3:4", &["x/ 0711 3:4", "x/a = 1"]),
        (
            "COPY d/ /x/",
            "d/e/ 0700\nd/e/a = 1",
            "x/e/ 0711 3:4\nx/e/b = 2",
            &["x/", "x/e/ 0700", "x/e/a = 1", "x/e/b = 2"],
        ),
        ("COPY . /x", "a = 1\nd/b = 2", "", &["x/", "x/a = 1", "x/d/", "x/d/b = 2"]),
        ("COPY / /", "a = 1", "", &["a = 1"]),
        ("COPY d e /x", "d/a = 1\ne/a = 2\ne/b = 3", "", &["x/", "x/a = 2", "x/b = 3"]),
        ("COPY d /x", "d/ 0700", "", &["x/"]),
        ("COPY d /x", "d/a = 1", "x = 2", &["the directory `d` cannot be put at `/x`: a file is there"]),
        ("COPY d /x", "d/a/b = 1", "x/a = 2", &["the directory `a` cannot be put at `/x/a`: a file is there"]),
        ("COPY d /x", "d/a = 1", "x/a/b = 2", &["`a` cannot be put at `/x/a`: a directory is there"]),
    ]);
}

#[test]
fn missing_directories_are_made() {
    // MkdirAll: 0755, the owner of --chown, an octal --chmod without special bits (testCopyChownCreateDest).
    check(&[
        ("COPY --chown=1:2 a /x/y/", "a = 1", "x/", &["x/", "x/y/ 0755 1:2", "x/y/a = 1 0644 1:2"]),
        ("COPY --chmod=4750 a /x/y/", "a = 1", "", &["x/ 0750", "x/y/ 0750", "x/y/a = 1 4750"]),
        ("COPY --chmod=u+s,o= a /x/", "a = 1", "", &["x/", "x/a = 1 4640"]),
        ("COPY --chown=app d /x", "d/a = 1", "", &["x/ 0755 1000:1001", "x/a = 1 0644 1000:1001"]),
    ]);
}

#[test]
fn modes_and_owners_are_kept_or_set() {
    // testCopyChmod, testChmodNonOctal, TestCopySetuid, TestCopyModeTextFormat, testCopyChown.
    check(&[
        ("COPY a /", "a = 1 6755 7:8", "", &["a = 1 6755 7:8"]),
        ("COPY --chown=app:staff a /", "a = 1 0644 7:8", "", &["a = 1 0644 1000:50"]),
        ("COPY --chown=7 a /", "a = 1", "", &["a = 1 0644 7:7"]),
        ("COPY --chown=nobody a /", "a = 1 0644 7:8", "", &["a = 1"]),
        ("COPY --chmod=600 d /x", "d/e/a = 1\nd/l -> a", "", &["x/ 0600", "x/e/ 0600", "x/e/a = 1 0600", "x/l -> a"]),
        ("COPY --chmod=go=u,+X d /x", "d/e/ 0700\nd/e/a = 1 0600", "", &["x/", "x/e/ 0777", "x/e/a = 1 0666"]),
        ("COPY --chown=1:2 d /x", "d/l -> a", "", &["x/ 0755 1:2", "x/l -> a 0777 1:2"]),
        // testCopyChownExistingDir and its reverse: the directory itself stays, what is in it changes.
        ("COPY --chown=9:9 d /x", "d/a = 1\nd/e/", "x/a = 2\nx/e/", &["x/", "x/a = 1 0644 9:9", "x/e/ 0755 9:9"]),
    ]);
}

#[test]
fn links_of_the_base_are_followed() {
    // fs.RootPath of the destination; TestCopyToWorkDir; ensureEmptyFileTarget and copyDirectoryOnly do not follow.
    check(&[
        ("COPY a /bin/", "a = 1", "bin -> usr/bin\nusr/bin/", &["bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/a = 1"]),
        ("COPY a /bin", "a = 1", "bin -> usr/bin\nusr/bin/", &["bin -> usr/bin", "usr/", "usr/bin/", "usr/bin/a = 1"]),
        ("COPY a /l", "a = 1", "l -> /d/f\nd/f = 2", &["d/", "d/f = 1", "l -> /d/f"]),
        ("COPY a /l", "a = 1", "l -> ../../new/f", &["l -> ../../new/f", "new/", "new/f = 1"]),
        ("COPY a /l/m/", "a = 1", "l -> e", &["e/", "e/m/", "e/m/a = 1", "l -> e"]),
        ("COPY a /d/", "a = 1", "d/a -> b\nd/b = 2", &["d/", "d/a = 1", "d/b = 2"]),
        ("COPY d /", "d/a/b = 1", "a -> x\nx/", &["the directory `a` cannot be put at `/a`: a file is there"]),
        ("COPY a /l/", "a = 1", "l -> m\nm -> l", &["`/l` leads through too many links"]),
        // --link: as if there was no base, but not together with --chmod.
        ("COPY --link a /bin/", "a = 1", "bin -> usr/bin\nusr/bin/", &["bin/", "bin/a = 1", "usr/", "usr/bin/"]),
        ("COPY --link a /tmp/", "a = 1", "tmp/ 1777", &["tmp/", "tmp/a = 1"]),
        ("COPY --link --chmod=600 a /x/", "a = 1", "x/ 1777", &["x/ 1777", "x/a = 1 0600"]),
    ]);
}

#[test]
fn links_that_are_sources_are_followed() {
    // testCopySymlinks, testCopyFollowAllSymlinks, testCopyThroughSymlinkContext, TestCopySymlinks.
    check(&[
        ("COPY l /x/", "l -> d/f\nd/f = 1", "", &["x/", "x/l = 1"]),
        ("COPY l /x", "l -> d\nd/ 0700\nd/f = 1", "", &["x/", "x/f = 1"]),
        ("COPY l/f /x/", "l -> d\nd/f = 1", "", &["x/", "x/f = 1"]),
        ("COPY l* /x/", "l1 -> f\nl2 -> d\nf = 1\nd/g = 2", "", &["x/", "x/g = 2", "x/l1 = 1"]),
        ("COPY l/* /x/", "l -> d\nd/f = 1", "", &["x/", "x/f = 1"]),
        ("COPY l /x/", "l -> /../../f\nf = 1", "", &["x/", "x/l = 1"]),
        ("COPY d /x", "d/l -> f\nd/f = 1\nd/out -> /etc", "", &["x/", "x/f = 1", "x/l -> f", "x/out -> /etc"]),
        ("COPY l /x", "l -> nothing", "", &["`/l` is not in the build context"]),
    ]);
}

#[test]
fn wildcards_are_those_of_go() {
    // testCopyWildcards, testEmptyWildcard, TestCopyWildcards; resolveWildcards does not look into what matches.
    check(&[
        ("COPY *.py /x/", "a.py = 1\nb.txt = 2\nd/c.py = 3", "", &["x/", "x/a.py = 1"]),
        ("COPY */*.py /x/", "a.py = 1\nd/c.py = 3\ne/f/g.py = 4", "", &["x/", "x/c.py = 3"]),
        ("COPY d* /x/", "d1/a = 1\nd2/b = 2\nd3 = 3", "", &["x/", "x/a = 1", "x/b = 2", "x/d3 = 3"]),
        ("COPY [[]x] /y/", "[x] = 1", "", &["y/", "y/[x] = 1"]),
        ("COPY no* /x/", "a = 1", "", &[]),
        ("COPY a no* /x/", "a = 1", "", &["x/", "x/a = 1"]),
        ("COPY d/no* /x/", "d/a = 1", "", &[]),
        ("COPY no/* /x/", "a = 1", "", &["`/no` is not in the build context"]),
        ("COPY a[ /x/", "a = 1", "", &["the pattern `a[` is not complete, or not valid"]),
    ]);
}

#[test]
fn parents_are_kept() {
    // testCopyParents, testCopyRelativeParents, testCopyParentsMissingDirectory.
    const TREE: &str =
        "t/a/b/c/d/foo = 1\nt/a/b/c/d/e/bay = 2\nt/a/b2/c/d/e/bar = 3\nt/a/b/c2/d/e/baz = 4\nt/a/b/ 0700";
    check(&[
        (
            "COPY --parents t/a/b2 /x/",
            TREE,
            "",
            &[
                "x/",
                "x/t/",
                "x/t/a/",
                "x/t/a/b2/",
                "x/t/a/b2/c/",
                "x/t/a/b2/c/d/",
                "x/t/a/b2/c/d/e/",
                "x/t/a/b2/c/d/e/bar = 3",
            ],
        ),
        (
            "COPY --parents /t/a/b/./c/d /x/",
            TREE,
            "",
            &["x/", "x/c/", "x/c/d/", "x/c/d/e/", "x/c/d/e/bay = 2", "x/c/d/foo = 1"],
        ),
        (
            "COPY --parents t/a/b/c/d/foo /x/",
            TREE,
            "",
            &["x/", "x/t/", "x/t/a/", "x/t/a/b/ 0700", "x/t/a/b/c/", "x/t/a/b/c/d/", "x/t/a/b/c/d/foo = 1"],
        ),
        (
            "COPY --parents /t/a/b*/./c/**/e /x/",
            TREE,
            "",
            &["x/", "x/c/", "x/c/d/", "x/c/d/e/", "x/c/d/e/bar = 3", "x/c/d/e/bay = 2"],
        ),
        (
            "COPY --parents /t/a/./*/c2 /x/",
            TREE,
            "",
            &["x/", "x/b/ 0700", "x/b/c2/", "x/b/c2/d/", "x/b/c2/d/e/", "x/b/c2/d/e/baz = 4"],
        ),
        ("COPY --parents /t/a/b/./c9* /x/", TREE, "", &["x/"]),
        ("COPY --parents t/no /x/", TREE, "", &["`/t/no` is not in the build context"]),
        ("COPY --parents --chmod=600 d/e/f /", "d/e/f = 1", "", &["d/ 0600", "d/e/ 0600", "d/e/f = 1 0600"]),
        // createParentDirs: one that is there gets the mode of the source, and nothing else.
        ("COPY --parents --chown=1:2 d/f /", "d/ 0700\nd/f = 1", "d/ 0755 3:4", &["d/ 0700 3:4", "d/f = 1 0644 1:2"]),
    ]);
}

#[test]
fn excluded_paths_stay_away() {
    // testExcludedFilesOnCopy; a source itself is never excluded (moby/buildkit#5489).
    const TREE: &str = "d1/a.png = 1\nd1/b.txt = 2\nd2/c.txt = 3\ntop.txt = 4";
    check(&[
        (
            "COPY --exclude=*/*.png . /x",
            TREE,
            "",
            &["x/", "x/d1/", "x/d1/b.txt = 2", "x/d2/", "x/d2/c.txt = 3", "x/top.txt = 4"],
        ),
        ("COPY --exclude=*.txt d* /x/", TREE, "", &["x/", "x/a.png = 1"]),
        ("COPY --exclude=* d* /x", TREE, "", &["x/"]),
        ("COPY --exclude=d1 . /x", TREE, "", &["x/", "x/d2/", "x/d2/c.txt = 3", "x/top.txt = 4"]),
        ("COPY --exclude=d* --exclude=!d1/b.txt . /x", TREE, "", &["x/", "x/d1/", "x/d1/b.txt = 2", "x/top.txt = 4"]),
        ("COPY --exclude=*.txt top.txt /x/", TREE, "", &["x/", "x/top.txt = 4"]),
        ("COPY --parents --exclude=**/*.txt d1 /x/", TREE, "", &["x/", "x/d1/", "x/d1/a.png = 1"]),
        ("COPY --exclude=[ . /x", TREE, "", &["the pattern `[` is not complete, or not valid"]),
    ]);
}

#[test]
fn hard_links_stay_links_within_a_source() {
    // getLinkSource: a name that is not copied is not linked to, and other sources have inodes of their own.
    check(&[
        ("COPY d /x", "d/a = 1\nd/b == d/a", "", &["x/", "x/a = 1", "x/b == x/a"]),
        ("COPY d /x", "a = 1\nd/b == a\nd/c == a", "", &["x/", "x/b = 1", "x/c == x/b"]),
        ("COPY d/a d/b /x/", "d/a = 1\nd/b == d/a", "", &["x/", "x/a = 1", "x/b = 1"]),
        // Another source takes the first name away.
        ("COPY d e /x", "d/a = 1\nd/b == d/a\nd/c == d/a\ne/a = 2", "", &["x/", "x/a = 2", "x/b = 1", "x/c == x/b"]),
    ]);
}

#[test]
fn here_documents_are_files_of_root() {
    // testCopyHeredoc: 0644.
    check(&[
        ("COPY <<a <<b /x/\n1\na\n2\nb\n", "", "", &["x/", "x/a = 1\n", "x/b = 2\n"]),
        ("COPY --chmod=700 --chown=1:2 <<a /x\n1\na\n", "", "", &["x = 1\n 0700 1:2"]),
    ]);
}

#[test]
fn what_is_missing_is_named_with_what_was_perhaps_meant() {
    let mistake = copied("COPY src/mian.py /x", "src/main.py = 1\nsrc/other.py = 2", "").unwrap_err();
    assert_eq!(mistake.message, "`/src/mian.py` is not in the build context");
    assert_eq!(mistake.suggestion.as_deref(), Some("src/main.py"));
    assert_eq!(mistake.near.as_deref(), Some("src/mian.py"));
    let mistake = copied("COPY scr/main.py /x", "src/main.py = 1", "").unwrap_err();
    assert_eq!(mistake.suggestion.as_deref(), Some("src/main.py"));
    let mistake = copied("COPY completely.different /x", "src/main.py = 1", "").unwrap_err();
    assert_eq!(mistake.suggestion, None);
}

#[test]
fn layers_have_no_entry_that_is_not_needed() {
    let (origin, base) = (Memory::new("d/a = 1\nd/e/b = 2"), Memory::new("opt/app/ 0700 1:2\ntmp/ 1777"));
    let paths = |instruction: &str| -> Vec<String> {
        let entries = entries(instruction, &origin, &base).unwrap();
        entries.into_iter().map(|entry| String::from_utf8(entry.path).unwrap()).collect()
    };
    assert_eq!(paths("COPY d /opt/app"), ["opt/app/a", "opt/app/e", "opt/app/e/b"]);
    assert_eq!(paths("COPY d/a /tmp/x/y"), ["tmp/x", "tmp/x/y"]);
    assert_eq!(paths("COPY d/a /"), ["a"]);
}

#[test]
fn working_directories_are_made_as_far_as_they_are_missing() {
    // dispatchWorkdir, testWorkdirUser, testWorkdirExists.
    let made = |path: &str, base: &str, owner: Owner| {
        let Action::MakeDirectory(step) = step(&format!("WORKDIR {path}")) else { panic!("{path}") };
        let base = Memory::new(base);
        make_directory(&step, &base, owner, None).map(|entries| (entries.len(), base.apply(&entries).show()))
    };
    let user = Owner { uid: 5, gid: 6 };
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(made("/a/b", "", user).unwrap(), (2, lines(&["a/ 0755 5:6", "a/b/ 0755 5:6"])));
    assert_eq!(made("/a/b", "a/ 0700 1:1", user).unwrap(), (1, lines(&["a/ 0700 1:1", "a/b/ 0755 5:6"])));
    assert_eq!(made("/a", "a/ 0700 1:1", user).unwrap(), (0, lines(&["a/ 0700 1:1"])));
    assert_eq!(made("/l/b", "l -> c", Owner::default()).unwrap(), (2, lines(&["c/", "c/b/", "l -> c"])));
    assert_eq!(made("/f/b", "f = 1", user).unwrap_err().message, "`/f` is no directory");
}
