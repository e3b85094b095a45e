//! Contents that have the size and the time of others, built by real daemons: an image has the new ones
//! (docs/decisions/0016-never-stale.md).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cooper::oci::Document;
use cooper::reference::Reference;
use cooper::request::{EngineKind, EngineSpec};
use flate2::read::GzDecoder;

use crate::docker_bed::{Bench, busybox, fresh, request};
use crate::registry_bed::client;

const SECOND: u64 = 1_700_000_000;

/// The Docker daemon, and the buildkitd of `BUILDKIT_HOST`, if there is one.
pub(crate) fn engines() -> Vec<EngineSpec> {
    let mut engines = vec![EngineSpec { kind: EngineKind::Docker, ..EngineSpec::default() }];
    match std::env::var("BUILDKIT_HOST") {
        Ok(host) if !host.is_empty() => {
            engines.push(EngineSpec { kind: EngineKind::Buildkit, endpoints: vec![host], ..EngineSpec::default() });
        }
        _ => eprintln!("skipped: BUILDKIT_HOST names no buildkitd"),
    }
    engines
}

fn at(nanoseconds: u32) -> SystemTime {
    UNIX_EPOCH + Duration::new(SECOND, nanoseconds)
}

fn write(path: &Path, content: &str, time: SystemTime) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Builds and pushes a folder, and reads the uppermost layer back: path -> second and content.
async fn built(engine: &EngineSpec, root: &Path) -> BTreeMap<String, (u64, String)> {
    fs::write(root.join("Dockerfile"), format!("FROM {}\nCOPY src /all/\n", busybox())).unwrap();
    let name = fresh("stale");
    let mut request = request(root, &[&name]);
    request.engine = engine.clone();
    request.push = true;
    let (result, events) = Bench::new().build(&request).await;
    result.unwrap_or_else(|error| panic!("{error}: {events:?}"));
    let home = tempfile::tempdir().unwrap();
    let (client, reference) = (client(home.path(), None), name.parse::<Reference>().unwrap());
    let found = client.manifest(&reference).await.unwrap().unwrap();
    let Document::Manifest(manifest) = Document::parse(&found.descriptor.media_type, &found.bytes).unwrap() else {
        panic!("{found:?} is no image")
    };
    let layer = client.blob_bytes(&reference, manifest.layers.last().unwrap(), 1 << 20).await.unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(layer.as_ref())).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let path = entry.path().unwrap().display().to_string();
            let (second, mut content) = (entry.header().mtime().unwrap(), String::new());
            entry.read_to_string(&mut content).unwrap();
            files.insert(path, (second, content));
        }
    }
    files
}

fn files(texts: &[(&str, &str)]) -> BTreeMap<String, (u64, String)> {
    texts.iter().map(|(path, text)| (format!("all/{path}"), (SECOND, (*text).to_owned()))).collect()
}

#[tokio::test]
async fn an_edit_that_keeps_size_and_time_is_built_and_images_keep_the_second() {
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join("src").join(name);
        // At the edges of the second, where rounding would show.
        write(&file("early"), "version 1", at(0));
        write(&file("late"), "version 1", at(999_999_999));
        assert_eq!(built(&engine, dir.path()).await, files(&[("early", "version 1"), ("late", "version 1")]));
        write(&file("late"), "version 2", at(999_999_999));
        assert_eq!(built(&engine, dir.path()).await, files(&[("early", "version 1"), ("late", "version 2")]));
        write(&file("early"), "version 3", at(0));
        assert_eq!(built(&engine, dir.path()).await, files(&[("early", "version 3"), ("late", "version 2")]));
        // And back to what it has seen before.
        write(&file("late"), "version 1", at(999_999_999));
        assert_eq!(built(&engine, dir.path()).await, files(&[("early", "version 3"), ("late", "version 1")]));
    }
}

#[tokio::test]
async fn two_folders_that_take_turns_at_one_path_are_told_apart() {
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        write(&path("one/src/main.py"), "print(1)", at(7));
        write(&path("two/src/main.py"), "print(2)", at(7));
        for (name, text) in [("one", "print(1)"), ("two", "print(2)"), ("one", "print(1)")] {
            fs::rename(path(name), path("current")).unwrap();
            assert_eq!(built(&engine, &path("current")).await, files(&[("main.py", text)]), "{name}");
            fs::rename(path("current"), path(name)).unwrap();
        }
    }
}
