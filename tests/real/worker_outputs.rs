//! Where the result of a build on a BuildKit goes: archives, layouts, directories, daemons, caches in directories.
//!
//! Most of it needs a buildkitd of the test bed (`BUILDKIT_HOST`); files out of the BuildKit inside Docker need none.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cooper::cancel::Cancel;
use cooper::error::Error;
use cooper::event::Event;
use cooper::image::{self, Place, Scheme, Selector};
use cooper::outcome::Outcome;
use cooper::request::{BuildRequest, CacheSpec, EngineKind, Output};

use crate::docker_bed::{Bench, context, docker, error, fresh, has_containerd_store, registry_digest, request};

/// A request for the buildkitd, if there is one.
fn on_worker(request: BuildRequest) -> Option<BuildRequest> {
    let Ok(endpoint) = std::env::var("BUILDKIT_HOST") else {
        println!("skipped: BUILDKIT_HOST names no buildkitd");
        return None;
    };
    Some(on(&endpoint, request))
}

fn on(endpoint: &str, mut request: BuildRequest) -> BuildRequest {
    request.engine.kind = EngineKind::Buildkit;
    request.engine.endpoints = vec![endpoint.to_owned()];
    request
}

async fn build(request: &BuildRequest) -> (Outcome, Vec<Event>) {
    let (result, events) = Bench::new().build(request).await;
    (result.unwrap_or_else(|error| panic!("{error}: {events:?}")), events)
}

fn notices(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Notice { message } => Some(message.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// Files of every kind, made by a command.
const FILES: &str = "COPY a /a\nRUN mkdir -p /d/deep && echo deep > /d/deep/f && ln /d/deep/f /d/hard && \
                     ln -s ../../etc /d/out && chmod 4755 /d/deep/f && mkfifo /d/pipe && chmod 555 /d/deep && \
                     touch -d '2001-02-03 04:05:06' /a\n";

/// Checks a directory with [`FILES`].
fn check_files(root: &Path) {
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "A");
    assert_eq!(fs::read_to_string(root.join("d/deep/f")).unwrap(), "deep\n");
    let file = fs::metadata(root.join("d/deep/f")).unwrap();
    assert_eq!((file.mode() & 0o7777, file.nlink()), (0o4755, 2));
    assert_eq!(file.ino(), fs::metadata(root.join("d/hard")).unwrap().ino());
    assert_eq!(fs::read_link(root.join("d/out")).unwrap(), Path::new("../../etc"));
    assert_eq!(fs::metadata(root.join("d/deep")).unwrap().permissions().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(root.join("a")).unwrap().mtime(), 981_173_106);
    assert!(root.join("bin/busybox").exists() && fs::symlink_metadata(root.join("d/pipe")).is_ok());
    let left: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".cooper")), "{left:?}");
}

/// What is in an archive or a layout.
fn opened(scheme: Scheme, path: &Path, selector: Selector) -> image::OpenedImage {
    let place = Place { scheme, path: path.to_owned(), selector };
    image::open(&place, &"linux/amd64".parse().unwrap(), &Cancel::new()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn one_build_has_every_output_and_is_pushed_too() {
    let folder = context(FILES, &[("a", "A")]);
    let tags = [fresh("outputs"), "cooper.test/other:2".to_owned()];
    let Some(mut request) = on_worker(request(folder.path(), &[&tags[0]])) else { return };
    request.push = true;
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    request.outputs = vec![
        Output::Oci { dest: at("oci.tar"), tar: None },
        Output::Oci { dest: at("layout"), tar: None },
        Output::Docker { dest: Some(at("docker.tar")) },
        Output::Local { dest: at("new/rootfs") },
        Output::Store,
    ];
    let (outcome, _) = build(&request).await;
    assert_eq!(outcome.digest.unwrap().to_string(), registry_digest(&tags[0]));
    check_files(&at("new/rootfs"));
    let config = outcome.config_digest.unwrap();
    let whole = Selector::Name(tags[0].clone());
    for (scheme, name) in
        [(Scheme::OciArchive, "oci.tar"), (Scheme::OciLayout, "layout"), (Scheme::DockerArchive, "docker.tar")]
    {
        let image = opened(scheme, &at(name), whole.clone());
        assert_eq!(image.manifest.config.digest, config, "{name}");
    }
    assert_eq!(names(out.path()), ["docker.tar", "layout", "new", "oci.tar"]);
    assert_eq!(names(&at("layout")), ["blobs", "index.json", "oci-layout"]);

    // Another image is put beside it, under both of its names.
    request.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
    request.push = false;
    request.options.labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    request.outputs = vec![Output::Oci { dest: at("layout"), tar: None }];
    let (outcome, _) = build(&request).await;
    assert_eq!((outcome.digest, outcome.image.as_str()), (None, tags[0].as_str()));
    for tag in &tags {
        let image = opened(Scheme::OciLayout, &at("layout"), Selector::Name(tag.clone()));
        assert_eq!(image.config.config.labels["a"], "b");
    }
    let index = fs::read_to_string(at("layout/index.json")).unwrap();
    assert_eq!(index.matches("\"digest\"").count(), 2, "{index}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_leaves_what_was_there() {
    let folder = context("RUN false\n", &[]);
    let Some(mut request) = on_worker(request(folder.path(), &["cooper.test/x:1"])) else { return };
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("old.tar"), "old").unwrap();
    let at = |name: &str| out.path().join(name);
    request.outputs = vec![
        Output::Oci { dest: at("old.tar"), tar: None },
        Output::Oci { dest: at("layout"), tar: None },
        Output::Local { dest: at("rootfs") },
    ];
    let (result, _) = Bench::new().build(&request).await;
    assert_eq!(error(result).code(), "step-failed");
    assert_eq!(names(out.path()), ["old.tar"]);
    assert_eq!(fs::read_to_string(at("old.tar")).unwrap(), "old");
    // What cannot be written is known before anything is built.
    request.outputs = vec![Output::Docker { dest: Some(at("missing/x.tar")) }];
    let (result, events) = Bench::new().build(&request).await;
    assert_eq!(error(result).code(), "output-failed");
    assert!(!events.iter().any(|event| matches!(event, Event::StepStarted { .. })), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_goes_nowhere_else_can_be_run() {
    let folder = context("COPY a /a\n", &[("a", "A")]);
    let tag = fresh("loaded");
    let Some(mut request) = on_worker(request(folder.path(), &[&tag])) else { return };
    for outputs in [Vec::new(), vec![Output::Docker { dest: None }]] {
        docker(&["rmi", "-f", &tag]);
        let is_notice = outputs.is_empty();
        request.outputs = outputs;
        let (outcome, events) = build(&request).await;
        assert_eq!(docker(&["run", "--rm", &tag, "cat", "/a"]), "A");
        assert_eq!(outcome.image, tag);
        if !has_containerd_store() {
            assert_eq!(docker(&["inspect", "-f", "{{.Id}}", &tag]), outcome.config_digest.unwrap().to_string());
        }
        assert_eq!(notices(&events).contains("was loaded into Docker"), is_notice, "{events:?}");
    }
    docker(&["rmi", "-f", &tag]);
    request.tags.clear();
    let (outcome, _) = build(&request).await;
    assert_eq!(docker(&["run", "--rm", &outcome.image, "cat", "/a"]), "A");
    docker(&["rmi", "-f", &outcome.image]);
    request.outputs.clear();
    let (outcome, events) = build(&request).await;
    assert_eq!(outcome.image, outcome.config_digest.unwrap().to_string());
    assert!(notices(&events).contains("no name"), "{events:?}");
    request.options.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
    request.outputs = vec![Output::Docker { dest: None }];
    let (result, _) = Bench::new().build(&request).await;
    assert!(matches!(error(result), Error::Unsupported { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_in_a_directory_is_written_and_found() {
    let folder = context("COPY a /a\nRUN cat /a > /b\n", &[("a", &fresh("x"))]);
    let Some(mut request) = on_worker(request(folder.path(), &["cooper.test/cached:1"])) else { return };
    let out = tempfile::tempdir().unwrap();
    let cache = out.path().join("c\u{e4}che");
    let local = |key: &str, more: &[(&str, &str)]| {
        let place = [(key, cache.to_str().unwrap())];
        let attrs = place.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        CacheSpec::Other("local".into(), attrs.collect())
    };
    request.outputs = vec![Output::Store];
    request.options.cache_from = vec![local("src", &[("tag", "t")])];
    request.options.cache_to = vec![local("dest", &[("mode", "max"), ("tag", "t")])];
    let (_, events) = build(&request).await;
    assert!(notices(&events).contains("there is no cache at"), "{events:?}");
    let digest = image::tagged(&cache, "t", &Cancel::new()).unwrap().expect("a cache");
    let blobs = cache.join("blobs/sha256");
    assert!(blobs.join(digest.hex()).is_file());
    assert!(names(&blobs).iter().all(|name| !name.starts_with('.')), "{:?}", names(&blobs));
    // Another worker, if the bed has one, has nothing but this cache.
    let other = std::env::var("COOPER_TEST_BUILDKIT_HOST_2");
    if let Ok(other) = &other {
        request.engine.endpoints = vec![other.clone()];
    }
    let (outcome, events) = build(&request).await;
    assert!(outcome.totals.cached_steps >= 2, "{:?}", outcome.steps);
    let imported = events.iter().find_map(|event| match event {
        Event::StepDone { name, error, .. } if name.contains("importing cache manifest") => Some(error.clone()),
        _ => None,
    });
    assert_eq!(imported, Some(None), "{events:?}");
    assert!(!notices(&events).contains("no cache"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_a_layout_is_a_base() {
    let folder = context("COPY a /a\n", &[("a", "A")]);
    let Some(mut first) = on_worker(request(folder.path(), &["cooper.test/base:1"])) else { return };
    let out = tempfile::tempdir().unwrap();
    let layout = out.path().join("layout");
    first.outputs = vec![Output::Oci { dest: layout.clone(), tar: None }];
    build(&first).await;
    let folder = context("COPY --from=given /a /copied\n", &[]);
    fs::write(folder.path().join("Dockerfile"), "FROM given\nRUN test \"$(cat /a)\" = A\nCOPY --from=given /a /b\n")
        .unwrap();
    let mut second = on_worker(request(folder.path(), &[])).unwrap();
    let source = format!("oci-layout://{}:1", layout.display());
    second.options.build_contexts = BTreeMap::from([("given".to_owned(), source)]);
    second.outputs = vec![Output::Local { dest: out.path().join("files") }];
    let (outcome, _) = build(&second).await;
    assert_eq!(fs::read_to_string(out.path().join("files/b")).unwrap(), "A");
    assert_eq!(outcome.image, out.path().join("files").display().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_out_of_the_buildkit_inside_docker() {
    let folder = context(FILES, &[("a", "A")]);
    let out = tempfile::tempdir().unwrap();
    let dest = out.path().join("rootfs");
    let mut request = on("docker://", request(folder.path(), &[]));
    request.outputs = vec![Output::Local { dest: dest.clone() }];
    build(&request).await;
    check_files(&dest);
    // What is there stays, unless the image has something of the same name.
    fs::write(dest.join("mine"), "mine").unwrap();
    fs::write(dest.join("a"), "changed").unwrap();
    fs::remove_file(dest.join("d/out")).unwrap();
    fs::create_dir_all(dest.join("d/out/of/the/way")).unwrap();
    build(&request).await;
    check_files(&dest);
    assert_eq!(fs::read_to_string(dest.join("mine")).unwrap(), "mine");
    // A link in the place of a directory is replaced, not followed.
    let elsewhere = out.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::remove_dir_all(dest.join("d")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, dest.join("d")).unwrap();
    build(&request).await;
    check_files(&dest);
    assert_eq!(names(&elsewhere), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_buildkit_inside_docker_cannot_write_is_refused() {
    let folder = context("", &[]);
    let out = tempfile::tempdir().unwrap();
    let mut request = on("docker://", request(folder.path(), &["cooper.test/x:1"]));
    let attrs = BTreeMap::from([("dest".to_owned(), "c".to_owned())]);
    for (outputs, cache, code, word) in [
        (vec![Output::Oci { dest: out.path().join("x.tar"), tar: None }], None, "unsupported", "buildkitd"),
        (vec![Output::Docker { dest: Some(out.path().join("x.tar")) }], None, "unsupported", "buildkitd"),
        (Vec::new(), Some(CacheSpec::Other("local".into(), attrs)), "invalid-option", "buildkitd"),
    ] {
        request.outputs = outputs;
        request.options.cache_to = cache.into_iter().collect();
        let (result, _) = Bench::new().build(&request).await;
        let error = error(result);
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(names(out.path()), Vec::<String>::new());
}
