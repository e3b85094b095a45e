//! `RUN chmod -R` and `RUN chown -R` that become a part of a COPY's layer: compared with the real programs, and refused where
//! the outcome is not certain.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::Path;
use std::process::Command;

use cooper::dockerfile::step::Step;
use cooper::dockerfile::{Dockerfile, Inputs, Start};
use cooper::engine::native::copy::{ItemKind, Owner};
use cooper::engine::native::fold::{Folded, fold};
use proptest::prelude::*;

use crate::context_support::tempdir_in_memory;
use crate::copy_support::{Accounts, Memory, entries};

/// What a base needs for a command to run.
const TOOLS: &str =
    "bin/sh = sh 0755\nbin/chmod = chmod 0755\nusr/bin/chown = chown 0755\netc/passwd = p\netc/group = g\napp/\n";

fn steps(text: &str) -> Vec<Step> {
    let text = format!("FROM scratch\nWORKDIR /app\n{text}\n");
    let inputs = Inputs::new("linux/amd64".parse().unwrap());
    let dockerfile = Dockerfile::parse("Dockerfile", text.as_bytes()).unwrap();
    let plan = dockerfile.plan(&inputs).unwrap();
    plan.evaluate(0, Start::Empty).unwrap().steps.split_off(1)
}

/// Folds what follows `COPY . .` and says what is in `/app` then.
fn folded(origin: &str, base: &str, following: &str) -> (Folded, Vec<String>) {
    let (origin, base) = (Memory::new(origin), Memory::new(&format!("{TOOLS}{base}")));
    let entries = entries("COPY . /app", &origin, &base).unwrap();
    let folded = fold(entries, &steps(following), &base, &Accounts).unwrap();
    let mut lines = base.apply(&folded.entries).show();
    lines.retain(|line| line.starts_with("app"));
    (folded, lines)
}

#[test]
fn what_zenml_writes_is_folded() {
    // Two files of requirements are in the base, from COPYs of their own, and come again with the whole context.
    let origin = "run.py = 1\nrequirements = 2\nsrc/x.sh = 3 0755\nsrc/l -> x.sh";
    let following = "RUN chmod -R a+rw .\nENV A=b\nRUN chown -R app .\nUSER app\nRUN python";
    let (folded, lines) = folded(origin, "app/requirements = 2", following);
    assert_eq!((folded.steps, folded.refused), (3, None));
    let expected = [
        "app/ 0777 1000:0",
        "app/requirements = 2 0666 1000:0",
        "app/run.py = 1 0666 1000:0",
        "app/src/ 0777 1000:0",
        "app/src/l -> x.sh 0777 1000:0",
        "app/src/x.sh = 3 0777 1000:0",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn directories_and_links_of_the_base_change_too() {
    let (folded, lines) =
        folded("a = 1", "app/old/ 0700 5:6\napp/l -> x", "RUN chmod -R a+rw . && chown -R 7:staff /app");
    assert_eq!((folded.steps, folded.refused), (1, None));
    assert_eq!(lines, ["app/ 0777 7:50", "app/a = 1 0666 7:50", "app/l -> x 0777 7:50", "app/old/ 0766 7:50"]);
    let (folded, lines) = folded_owner("RUN chown -R :staff .");
    assert_eq!((folded.steps, lines), (1, vec!["app/ 0755 0:50".to_owned(), "app/a = 1 0644 0:50".to_owned()]));
}

fn folded_owner(following: &str) -> (Folded, Vec<String>) {
    folded("a = 1", "", following)
}

#[test]
fn files_of_the_base_that_stay_as_they_are_do_no_harm() {
    let (folded, _) = folded("a = 1", "app/b = 2 0666", "RUN chmod -R a+rw .");
    assert_eq!((folded.steps, folded.refused), (1, None));
    assert!(folded.entries.iter().all(|entry| entry.path != b"app/b"));
}

#[test]
fn whatever_is_not_certain_is_run() {
    // Origin, base, what follows, how many steps are folded, and a part of the reason.
    let cases = [
        ("a = 1", "app/b = 2", "RUN chmod -R a+rw .", 0, "`/app/b` is in the base"),
        ("a = 1", "app/d/b = 2", "RUN chown -R app .", 0, "`/app/d/b` is in the base"),
        ("a = 1", "", "RUN chmod -R a+rw .\nRUN chown -R nobody .", 1, "knows no `nobody`"),
        ("a = 1", "", "USER app\nRUN chmod -R a+rw .", 0, "run by `app`"),
        ("a = 1", "", "RUN --mount=type=tmpfs,target=/app/x chmod -R a+rw .", 0, "mounts"),
        ("a = 1", "", "RUN --security=insecure chmod -R a+rw .", 0, "privileges"),
        ("a = 1", "", "ENV LD_PRELOAD=x\nRUN chmod -R a+rw .", 0, "LD_PRELOAD"),
        ("a = 1", "", "ENV PATH=/nowhere\nRUN chmod -R a+rw .", 0, "has no `chmod`"),
        ("a = 1", "", "ENV PATH=x:/bin\nRUN chmod -R a+rw .", 0, "no absolute path"),
        ("a = 1", "", "RUN chmod -R a+rw /", 0, "files of its own"),
        ("a = 1", "", "RUN chmod -R a+rw /etc", 0, "files of its own"),
        ("a = 1", "", "RUN chmod -R a+rw /nothing", 0, "no directory"),
        ("a = 1", "l -> app", "RUN chmod -R a+rw /l", 0, "through a link"),
        ("a = 1 4755", "", "RUN chown -R app .", 0, "the kernel would clear"),
        ("d/ 2755", "", "RUN chmod -R 755 .", 0, "special bits"),
        ("d/ 1755", "", "RUN chmod -R u=rwx .", 0, "special bits"),
        (
            "l -> a",
            "bin/busybox = b 0755\nusr/bin/chown -> ../../bin/busybox",
            "RUN chown -R app .",
            0,
            "the link `/app/l`",
        ),
        ("a = 1 0755", "", "RUN chmod -R a-x,a+X .", 0, "not be certain"),
        ("a = 1", "bin/chmod = x 0644", "RUN chmod -R a+rw .", 0, "not a program"),
        ("a = 1", "bin/sh -> gone", "RUN chmod -R a+rw .", 0, "no /bin/sh"),
        // Other commands are nothing that anybody would ask about.
        ("a = 1", "", "RUN chmod a+x a", 0, ""),
        ("a = 1", "", "RUN pip install .", 0, ""),
        ("a = 1", "", "SHELL [\"/bin/bash\", \"-c\"]\nRUN chmod -R a+rw .", 0, ""),
        ("a = 1", "", "WORKDIR /x\nRUN chmod -R a+rw .", 0, ""),
        ("a = 1", "", "RUN [\"chmod\", \"-R\", \"a+rw\", \".\"]", 1, ""),
    ];
    for (origin, base, following, steps, reason) in cases {
        let (folded, _) = folded(origin, base, following);
        assert_eq!(folded.steps, steps, "{following}: {:?}", folded.refused);
        assert_eq!(folded.refused.is_some(), !reason.is_empty(), "{following}: {:?}", folded.refused);
        assert!(folded.refused.clone().unwrap_or_default().contains(reason), "{following}: {:?}", folded.refused);
    }
}

#[test]
fn programs_that_the_copy_brings_are_run() {
    let (origin, base) = (Memory::new("bin/chmod = mine 0755"), Memory::new(TOOLS));
    let entries = entries("COPY . /", &origin, &base).unwrap();
    let folded = fold(entries, &steps("RUN chmod -R a+rw ."), &base, &Accounts).unwrap();
    assert_eq!((folded.steps, folded.refused.is_some()), (0, true));
}

/// A tree of files and directories with any mode, and links.
fn tree() -> impl Strategy<Value = Vec<(String, u32, bool)>> {
    let name = prop::sample::select(vec!["a", "b", "c/", "d/"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|parts| {
        let directories: String = parts.iter().filter(|part| part.ends_with('/')).copied().collect();
        let file = parts.iter().find(|part| !part.ends_with('/')).copied().unwrap_or_default();
        format!("{directories}{file}")
    });
    prop::collection::vec((path, 0..0o1000_u32, any::<bool>()), 1..8)
}

fn command() -> impl Strategy<Value = String> {
    let mode = prop::sample::select(vec![
        "a+rw",
        "a+rwX",
        "u+rwX",
        "go-w",
        "ug+rw,o-rwx",
        "u=rw",
        "go=",
        "a=rX",
        "755",
        "0600",
        "a+X,a-x",
        "u+x-w",
        "u=rwX,go=rX",
    ]);
    let chmod = mode.prop_map(|mode| format!("chmod -R {mode} ."));
    let chown = prop::sample::select(vec!["chown -R 5 .", "chown -R 5:6 .", "chown -R :7 ."]);
    prop_oneof![3 => chmod, 1 => chown.prop_map(str::to_owned)]
}

/// Runs a command in a directory and says what it made of it.
fn real(root: &Path, list: &[(String, u32, bool)], command: &str) -> Vec<(String, u32, u32, u32)> {
    for (path, _, is_link) in list {
        let path = root.join(path);
        fs::create_dir_all(if path.to_string_lossy().ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
        if path.is_dir() || path.symlink_metadata().is_ok() {
            continue;
        }
        if *is_link { symlink("../a", &path).unwrap() } else { fs::write(&path, "").unwrap() }
    }
    // Modes come last: a directory may be closed for whoever is not root.
    for (path, mode, _) in list.iter().rev() {
        let path = root.join(path.trim_end_matches('/'));
        if !path.is_symlink() {
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        lchown(&path, Some(1), Some(2)).unwrap();
    }
    let run = Command::new("/bin/sh").args(["-c", command]).current_dir(root).status().unwrap();
    assert!(run.success(), "{command}");
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|child| child.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.push((name, metadata.mode() & 0o7777, metadata.uid(), metadata.gid()));
    }
    found.sort();
    found
}

/// The same tree in memory, as it is on disk before the command runs.
fn before(root: &Path) -> Memory {
    let mut memory = Memory::new(TOOLS);
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        let name = if name.is_empty() { "app".to_owned() } else { format!("app/{name}") };
        let line = if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|child| child.unwrap().path()));
            format!("{name}/")
        } else if metadata.is_symlink() {
            format!("{name} -> ../a")
        } else {
            format!("{name} = x")
        };
        let item = Memory::new(&line).0.remove(name.as_bytes()).unwrap();
        let owner = Owner { uid: metadata.uid(), gid: metadata.gid() };
        let mode = if metadata.is_symlink() { 0o777 } else { metadata.mode() & 0o7777 };
        memory.0.insert(name.into_bytes(), cooper::engine::native::copy::Item { mode, owner, ..item });
    }
    memory
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn folded_commands_do_what_the_real_ones_do(list in tree(), first in command(), second in command()) {
        // Owners can be given away by root alone.
        prop_assume!(rustix::process::geteuid().is_root());
        let scratch = tempdir_in_memory();
        let line = format!("{first} && {second}");
        let (untouched, root) = (scratch.path().join("before"), scratch.path().join("after"));
        fs::create_dir(&untouched).unwrap();
        fs::create_dir(&root).unwrap();
        real(&untouched, &list, "true");
        let expected = real(&root, &list, &line);

        let mut files = before(&untouched);
        let base = Memory::new(TOOLS);
        let copied: Vec<_> = files.0.iter().filter(|(path, _)| path.starts_with(b"app")).map(|(path, item)| entry(path, item)).collect();
        files.0.clear();
        let mut copied = copied;
        copied.sort_by(|left, right| cooper::context::compare_paths(&left.path, &right.path));
        let folded = fold(copied, &steps(&format!("RUN {line}")), &base, &Accounts).unwrap();
        prop_assert_eq!(folded.steps, 1, "{:?}", folded.refused);
        let mut found: Vec<_> = folded.entries.iter().map(|entry| {
            let path = String::from_utf8(entry.path.clone()).unwrap();
            let name = path.strip_prefix("app").unwrap().trim_start_matches('/').to_owned();
            (name, entry.mode, entry.uid, entry.gid)
        }).collect();
        found.sort();
        prop_assert_eq!(found, expected, "{}", line);
    }
}

fn entry(path: &[u8], item: &cooper::engine::native::copy::Item) -> cooper::layer::LayerEntry {
    use cooper::layer::LayerKind;
    let kind = match &item.kind {
        ItemKind::Dir => LayerKind::Dir,
        ItemKind::Symlink { target } => LayerKind::Symlink { target: target.clone() },
        ItemKind::File { size, content, digest, .. } => {
            LayerKind::File { size: *size, content: content.clone(), digest: *digest }
        }
        other => panic!("{other:?}"),
    };
    let (uid, gid) = (item.owner.uid, item.owner.gid);
    cooper::layer::LayerEntry {
        path: path.to_vec(),
        kind,
        mode: item.mode,
        uid,
        gid,
        mtime: item.mtime,
        xattrs: item.xattrs.clone(),
    }
}
