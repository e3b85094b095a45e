//! Images from nothing: the native engine without a registry.

use cooper::event::Event;
use cooper::request::{CompressionAlgorithm, CompressionSpec};

use crate::native_bed::Bed;

#[tokio::test]
async fn files_and_configuration_become_an_image() {
    let dockerfile = "FROM scratch\nENV A=1\nWORKDIR /app\nCOPY . .\nCOPY --chown=5:6 --chmod=640 a /b/\nCMD [\"x\"]\n";
    let bed = Bed::new(&[
        ("Dockerfile", dockerfile),
        ("a", "1"),
        ("d/b", "2"),
        (".dockerignore", "Dockerfile\n.dockerignore"),
    ]);
    let done = bed.build().await;
    let layers = &done.image.layers;
    assert_eq!(layers[0], ["0755 0:0 app/"]);
    assert_eq!(layers[1], ["0644 0:0 app/a: 1", "0755 0:0 app/d/", "0644 0:0 app/d/b: 2"]);
    assert_eq!(layers[2], ["0640 5:6 b/", "0640 5:6 b/a: 1"]);
    let config = &done.image.config.config;
    assert_eq!(config.working_dir, "/app");
    assert_eq!(config.cmd.as_deref(), Some(&["x".to_owned()][..]));
    assert_eq!(config.env, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1"]);
    let history: Vec<(&str, bool)> =
        done.image.config.history.iter().map(|line| (line.created_by.as_deref().unwrap(), line.empty_layer)).collect();
    let expected = [
        ("ENV A=1", true),
        ("WORKDIR /app", false),
        ("COPY . . # buildkit", false),
        ("COPY --chown=5:6 --chmod=640 a /b/ # buildkit", false),
        ("CMD [\"x\"]", true),
    ];
    assert_eq!(history, expected);
}

#[tokio::test]
async fn the_second_build_takes_everything_from_the_cache_and_is_the_same_image() {
    let bed = Bed::new(&[("Dockerfile", "FROM scratch\nWORKDIR /w\nCOPY a .\nENV X=1\n"), ("a", "1")]);
    let first = bed.build().await;
    assert_eq!(first.outcome.totals.cached_steps, 1, "{:?}", first.cached());
    let second = bed.build().await;
    assert_eq!(second.outcome.totals.cached_steps, 3, "{:?}", second.cached());
    assert_eq!(first.image.manifest, second.image.manifest);
    bed.write("a", "2");
    let third = bed.build().await;
    assert!(!third.cached()["[3/3] COPY a ."]);
    assert!(third.cached()["[2/3] WORKDIR /w"]);
    assert_ne!(first.image.manifest, third.image.manifest);
    let fresh = bed.build_with(|request| request.options.no_cache = true).await;
    assert_eq!(fresh.outcome.totals.cached_steps, 1);
    assert_eq!(fresh.image.config.rootfs, third.image.config.rootfs);
}

#[tokio::test]
async fn zstd_makes_oci_layers() {
    let bed = Bed::new(&[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "1")]);
    let spec = CompressionSpec { algorithm: CompressionAlgorithm::Zstd, level: Some(5) };
    let done = bed.build_with(|request| request.options.compression = Some(spec)).await;
    assert_eq!(done.image.manifest.layers[0].media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
    assert_eq!(done.image.layers[0], ["0644 0:0 a: 1"]);
}

#[tokio::test]
async fn stages_copy_from_each_other() {
    let text = "FROM scratch AS one\nCOPY --chown=7 a /x/a\nFROM scratch AS unused\nCOPY none /\nFROM scratch\nCOPY --from=one /x /y\n";
    let bed = Bed::new(&[("Dockerfile", text), ("a", "1")]);
    let done = bed.build().await;
    assert_eq!(done.image.layers, [["0755 0:0 y/", "0644 7:7 y/a: 1"]]);
    let names: Vec<&str> = done.outcome.steps.iter().map(|step| step.name.as_str()).collect();
    let expected = [
        "[one 1/2] FROM scratch AS one",
        "[one 2/2] COPY --chown=7 a /x/a",
        "[stage-2 1/2] FROM scratch",
        "[stage-2 2/2] COPY --from=one /x /y",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn mistakes_have_a_place() {
    let bed = Bed::new(&[("Dockerfile", "FROM scratch\nCOPY requirement.txt /\n"), ("requirements.txt", "1")]);
    let error = bed.fail_with(|_| {}).await;
    assert_eq!(error.code(), "copy-failed");
    assert_eq!(error.location().unwrap().line, 2);
    assert!(error.hint().unwrap().contains("requirements.txt"), "{:?}", error.hint());
    let bed = Bed::new(&[("Dockerfile", "FROM scratch\nRUN true\n")]);
    let error = bed.fail_with(|_| {}).await;
    assert_eq!((error.code(), error.location().unwrap().line), ("step-unsupported", 2));
    assert!(error.hint().unwrap().contains("docker"));
}

#[tokio::test]
async fn a_directory_is_no_base() {
    let bed = Bed::new(&[("Dockerfile", "FROM scratch AS one\nFROM base\nCOPY a /\n"), ("a", "1")]);
    for source in ["/nonexistent", "/usr", "https://example.com/context.git"] {
        let error = bed
            .fail_with(|request| {
                request.options.build_contexts.insert("base".into(), source.into());
            })
            .await;
        assert_eq!((error.code(), error.location().unwrap().line), ("step-unsupported", 2), "{source}");
        assert!(error.to_string().contains("`COPY --from=base . /`"), "{error}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_folded_says_why() {
    let bed = Bed::new(&[("Dockerfile", "FROM scratch\nWORKDIR /app\nCOPY a .\nRUN chmod -R a+rw .\n"), ("a", "1")]);
    let (error, events) = bed.fail_and_tell().await;
    assert_eq!(error.code(), "step-unsupported");
    let said = events.iter().any(|event| matches!(event, Event::StepLog { text, .. } if text.contains("/bin/sh")));
    assert!(said, "{events:?}");
}

#[tokio::test]
async fn what_is_copied_from_a_stage_is_found_again_and_so_is_what_follows() {
    let text = "FROM scratch AS one\nCOPY a /x/a\nFROM scratch\nCOPY --from=one /x /y\nCOPY b /b\nWORKDIR /w\n";
    let bed = Bed::new(&[("Dockerfile", text), ("a", "1"), ("b", "2")]);
    let first = bed.build().await;
    for _ in 0..2 {
        let again = bed.build().await;
        assert_eq!(again.outcome.totals.cached_steps, again.outcome.totals.total_steps, "{:?}", again.cached());
        assert_eq!(again.image.manifest, first.image.manifest);
    }
}

#[tokio::test]
async fn a_miss_says_what_has_changed() {
    let bed = Bed::new(&[("Dockerfile", "FROM scratch\nCOPY . /app/\n"), ("a", "1"), ("b", "2")]);
    let said = |events: &[Event]| -> Vec<String> {
        let text = |event: &Event| match event {
            Event::StepLog { text, .. } => Some(text.trim_end().to_owned()),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    };
    assert_eq!(said(&bed.build_and_tell().await), ["not in the cache: it was not built here before"]);
    assert_eq!(said(&bed.build_and_tell().await), [""; 0]);
    bed.write("a", "2");
    bed.write("c", "2");
    assert_eq!(said(&bed.build_and_tell().await), ["not in the cache: 1 file changed: a; 1 file added: c"]);
}
