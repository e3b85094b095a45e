//! The same image as the Docker CLI: the same config, the same files.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use cooper::digest::Digest;
use cooper::request::BuilderChoice;
use serde_json::Value;

use crate::docker_bed::{Bench, busybox, context, docker, fresh, on, request};

/// Dockerfiles, less their FROM. None has a WORKDIR after a USER: the classic builder (the CLI's here) gives the new
/// directory to root, BuildKit to the user.
const CASES: &[&str] = &[
    "COPY . /all\n",
    "WORKDIR /app\nCOPY a.txt link dir/ ./\nCOPY --chown=1000:1000 run.sh /usr/local/bin/\nRUN chmod -R a+rw . && mkdir -p /var/x\n",
    "ENV A='1 2' B=3\nARG C=4\nENV D=$C\nLABEL l=\"v w\" m=n\nWORKDIR rel\nUSER 1000:1000\nEXPOSE 80 81/udp\nVOLUME /data\n\
     STOPSIGNAL SIGINT\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"id\"]\n",
    "ADD archive.tar /unpacked/\nADD a.txt /named.txt\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo x > /made && rm -rf /all\n",
    "RUN echo from-stage > /out\nFROM scratch\nCOPY --from=0 /out /out\nCOPY dir /dir\nONBUILD RUN true\n",
    "HEALTHCHECK --interval=5s CMD true\nCMD echo shell form\nRUN touch /one\nRUN rm /one && ln -s /two /one\n",
];

/// Fields of a config that every builder sets; the classic one adds traces of its containers.
const FIELDS: &[&str] = &[
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "StopSignal",
    "Shell",
    "OnBuild",
    "Healthcheck",
];

fn files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("a.txt", "a"),
        ("run.sh", "#!/bin/sh\n"),
        ("dir/b.txt", "b"),
        ("dir/deep/c.txt", "c"),
        ("ignored/x", "x"),
        ("ignored/kept.txt", "kept"),
        (".dockerignore", "ignored\n!ignored/kept.txt\n"),
    ]
}

/// Things that are not plain files.
fn add_oddities(root: &Path) {
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("dir/b.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("a.txt", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("a.txt"), root.join("dir/hard.txt")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let mut archive = tar::Builder::new(fs::File::create(root.join("archive.tar")).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    header.set_mode(0o640);
    archive.append_data(&mut header, "inside/file", b"i".as_slice()).unwrap();
    archive.finish().unwrap();
}

fn config(image: &str) -> BTreeMap<&'static str, Value> {
    let config: Value = serde_json::from_str(&docker(&["image", "inspect", "-f", "{{json .Config}}", image])).unwrap();
    let field = |name: &&'static str| {
        let value = config.get(*name).filter(|value| !is_empty(value)).cloned().unwrap_or(Value::Null);
        (*name, value)
    };
    FIELDS.iter().map(field).collect()
}

/// Builders differ in how they say nothing; BuildKit writes the default working directory out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || text == "/",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Path -> kind, mode, owner, size, link and content of every file of an image; times are left out.
fn tree(image: &str) -> BTreeMap<String, String> {
    let container = docker(&["create", image, "none"]);
    let mut export = Command::new("docker").args(["export", &container]).stdout(Stdio::piped()).spawn().unwrap();
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(export.stdout.take().unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header().clone();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        let path = entry.path().unwrap().display().to_string();
        let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
        let kind = header.entry_type();
        let mode = header.mode().unwrap() & 0o7777;
        let told = format!("{kind:?} {mode:o} {uid}:{gid} {} {link:?} {}", content.len(), Digest::of(&content));
        files.insert(path, told);
    }
    assert!(export.wait().unwrap().success());
    docker(&["rm", "-f", &container]);
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_those_of_the_docker_cli() {
    let mut compared = 0;
    for case in CASES {
        let folder = context(case, &files());
        add_oddities(folder.path());
        let reference = fresh("compare");
        let output = Command::new("docker")
            .env("DOCKER_BUILDKIT", "0")
            .args(["build", "-q", "--no-cache", "-t", &reference])
            .arg(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (expected_config, expected_tree) = (config(&reference), tree(&reference));
        assert!(expected_tree.len() > 3, "{expected_tree:?}");
        for builder in [BuilderChoice::Classic, BuilderChoice::Buildkit] {
            let tag = fresh("compared");
            let mut request = on(builder, request(folder.path(), &[&tag]));
            request.options.no_cache = true;
            let (result, _) = Bench::new().build(&request).await;
            result.unwrap();
            assert_eq!(config(&tag), expected_config, "{builder:?} {case}");
            let tree = tree(&tag);
            let differs: Vec<_> = expected_tree
                .keys()
                .chain(tree.keys())
                .filter(|path| tree.get(*path) != expected_tree.get(*path))
                .map(|path| (path, expected_tree.get(path), tree.get(path)))
                .collect();
            assert!(differs.is_empty(), "{builder:?} {case}{differs:#?}");
            compared += 1;
            docker(&["rmi", &tag]);
        }
        docker(&["rmi", &reference]);
    }
    assert_eq!(compared, 2 * CASES.len());
    assert!(docker(&["image", "inspect", "-f", "{{.Id}}", &busybox()]).starts_with("sha256:"));
}
