//! Builds on the real daemon, with both of its builders where they must agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cooper::event::Event;
use cooper::request::{BuilderChoice, DockerfileSpec, ExtraFile, SecretSource, SecretSpec};
use cooper::secret::Secret;

use crate::docker_bed::{
    Bench, Fixed, context, docker, error, fresh, on, on_podman, output, registry_digest, request, setting,
};

const BUILDERS: [BuilderChoice; 2] = [BuilderChoice::Buildkit, BuilderChoice::Classic];

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_built_tagged_and_pushed() {
    for builder in BUILDERS {
        let (first, second) = (fresh("push"), fresh("push"));
        // Its own content, so that a step of an earlier run is no cache hit.
        let dockerfile = format!("COPY a.txt /a\nRUN cat /a && echo err >&2 # {first}\nLABEL x=1\n");
        let folder = context(&dockerfile, &[("a.txt", "hello\n")]);
        let mut request = on(builder, request(folder.path(), &[&first, &second]));
        request.push = true;
        let (result, events) = Bench::new().build(&request).await;
        let outcome = result.unwrap();
        let digest = outcome.digest.unwrap().to_string();
        assert_eq!(registry_digest(&first), digest);
        assert_eq!(registry_digest(&second), digest);
        assert_eq!(outcome.image, format!("{}@{digest}", first.rsplit_once(':').unwrap().0));
        assert_eq!(docker(&["run", "--rm", &first, "cat", "/a"]), "hello");
        assert!(output(&events).contains("hello\n"), "{events:?}");
        let errors = |event: &Event| matches!(event, Event::StepLog { stream: 2, text, .. } if text.contains("err"));
        assert!(events.iter().any(errors), "{events:?}");
        let pushed = events.iter().filter(|event| matches!(event, Event::Pushed { .. })).count();
        assert_eq!(pushed, 2);
        assert!(events.iter().any(|event| matches!(event, Event::Push { .. })));
        assert!(outcome.totals.total_steps >= 3, "{:?}", outcome.totals);
        assert!(outcome.totals.sent_bytes > 0);
        let (again, _) = Bench::new().build(&request).await;
        let again = again.unwrap();
        assert_eq!(again.digest, outcome.digest);
        assert!(again.totals.cached_steps >= 2, "{:?}", again.totals);
        docker(&["rmi", "-f", &first, &second]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_run_has_a_frame_and_its_last_lines() {
    for builder in BUILDERS {
        let folder =
            context("# a comment\nRUN echo one && \\\n  for i in 1 2 3; do echo line $i; done; \\\n  exit 42\n", &[]);
        let tag = fresh("fail");
        let (result, events) = Bench::new().build(&on(builder, request(folder.path(), &[&tag]))).await;
        let failure = error(result);
        let cooper::Error::StepFailed(step) = &failure else { panic!("{failure:?}") };
        assert_eq!(step.exit_code, Some(42));
        assert_eq!(step.tail[step.tail.len() - 2..], ["line 2", "line 3"]);
        let location = step.location.as_ref().unwrap();
        assert_eq!((location.line, location.end_line), (3, 5));
        assert!(location.frame().contains("exit 42"));
        assert!(step.instruction.starts_with("RUN echo one"), "{}", step.instruction);
        let ended = |event: &Event| matches!(event, Event::StepDone { error: Some(_), .. });
        assert!(events.iter().any(ended), "{events:?}");
        assert!(docker(&["image", "inspect", &tag]).contains("No such image"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_the_daemon_and_leaves_nothing() {
    for builder in BUILDERS {
        let marker = format!("98{}", std::process::id());
        let folder = context(&format!("RUN echo started && sleep {marker}\n"), &[]);
        let tag = fresh("cancel");
        docker(&["tag", &crate::docker_bed::busybox(), &tag]);
        let before = docker(&["image", "inspect", "-f", "{{.Id}}", &tag]);
        let mut bench = Bench::new();
        let (events, mut receiver) = cooper::event::Events::channel();
        bench.job.events = events;
        let cancel = bench.cancel.clone();
        let stop = tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                if matches!(&event, Event::StepLog { text, .. } if text.contains("started")) {
                    break;
                }
            }
            let deadline = Instant::now() + Duration::from_secs(5);
            while !running(&marker) {
                assert!(Instant::now() < deadline, "the step does not run");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let at = Instant::now();
            cancel.cancel();
            (at, marker)
        });
        let (result, _) = bench.build(&on(builder, request(folder.path(), &[&tag]))).await;
        let ended = Instant::now();
        assert_eq!(error(result).code(), "interrupted");
        let (at, marker) = stop.await.unwrap();
        assert!(ended - at < Duration::from_millis(200), "{:?}", ended - at);
        let deadline = Instant::now() + Duration::from_secs(15);
        while running(&marker) || docker(&["ps", "-a", "--no-trunc"]).contains(&marker) {
            assert!(Instant::now() < deadline, "the daemon goes on: {}", docker(&["ps", "-a"]));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(docker(&["image", "inspect", "-f", "{{.Id}}", &tag]), before);
        docker(&["rmi", &tag]);
    }
}

/// Whether a process with this argument runs on this machine.
fn running(marker: &str) -> bool {
    let has = |entry: std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == marker.as_bytes()))
    };
    std::fs::read_dir("/proc").unwrap().flatten().any(has)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_outside_of_the_context_does_not_show_in_it() {
    for builder in BUILDERS {
        for ignore in [None, Some("secret.txt\n"), Some("secret.txt\n.dockerignore\nDockerfile\n")] {
            let folder = context("", &[("a.txt", "a"), ("secret.txt", "s")]);
            std::fs::remove_file(folder.path().join("Dockerfile")).unwrap();
            if let Some(text) = ignore {
                std::fs::write(folder.path().join(".dockerignore"), text).unwrap();
            }
            let base = crate::docker_bed::busybox();
            let text = format!("FROM {base}\nWORKDIR /w\nCOPY . .\nRUN ls -A /w | tr '\\n' ' '\n");
            let mut request = on(builder, request(folder.path(), &[]));
            request.options.no_cache = true;
            request.dockerfile = DockerfileSpec::Text(text);
            let (result, events) = Bench::new().build(&request).await;
            result.unwrap();
            let expected = match ignore {
                None => "a.txt secret.txt ",
                Some(text) if text.contains("Dockerfile") => "a.txt ",
                Some(_) => ".dockerignore a.txt ",
            };
            assert!(output(&events).contains(expected), "{ignore:?}: {:?}", output(&events));
            assert!(!output(&events).contains(&format!("{expected}secret")), "{}", output(&events));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_errors_of_their_own() {
    for builder in BUILDERS {
        let registry = setting("COOPER_TEST_REGISTRY");
        let cases = [
            (format!("FROM {registry}/docker-test/missing:1\n"), "base-missing"),
            ("FROM 127.0.0.1:1/nothing:1\n".to_owned(), "registry-unreachable"),
            (format!("FROM {}\nRUNN x\n", crate::docker_bed::busybox()), "dockerfile"),
            (format!("FROM {}\nCOPY missing.txt /\n", crate::docker_bed::busybox()), "step-failed"),
        ];
        for (text, code) in cases {
            let folder = context("", &[]);
            std::fs::write(folder.path().join("Dockerfile"), &text).unwrap();
            let (result, _) = Bench::new().build(&on(builder, request(folder.path(), &[]))).await;
            let failure = error(result);
            assert_eq!(failure.code(), code, "{text}: {failure:?}");
            if code != "registry-unreachable" {
                assert!(failure.location().is_some(), "{failure:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_arrive() {
    for builder in BUILDERS {
        let folder = context("ARG A=default\nRUN echo a=$A; grep cooper-host /etc/hosts\nFROM nothing-here\n", &[]);
        let text = std::fs::read_to_string(folder.path().join("Dockerfile")).unwrap().replacen('\n', " AS first\n", 1);
        std::fs::write(folder.path().join("Dockerfile"), text).unwrap();
        let tag = fresh("options");
        let mut request = on(builder, request(folder.path(), &[&tag]));
        let options = &mut request.options;
        options.build_args.insert("A".into(), Some("given 1".into()));
        options.labels.insert("l".into(), "v w".into());
        options.add_hosts.insert("cooper-host".into(), "10.1.2.3".into());
        options.target = Some("first".into());
        options.no_cache = true;
        let (result, events) = Bench::new().build(&request).await;
        result.unwrap();
        assert!(output(&events).contains("a=given 1"), "{}", output(&events));
        assert!(output(&events).contains("10.1.2.3"), "{}", output(&events));
        assert_eq!(docker(&["image", "inspect", "-f", "{{.Config.Labels.l}}", &tag]), "v w");
        docker(&["rmi", &tag]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_classic_builder_arrive() {
    let folder = context(
        "RUN df -k /dev/shm | tail -1; ulimit -n; cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max\n",
        &[],
    );
    let mut request = request(folder.path(), &[]);
    request.options.no_cache = true;
    request.options.shm_size = Some(8 << 20);
    request.options.ulimits = vec!["nofile=321:654".into()];
    request.options.memory = Some(3 << 30);
    let (result, events) = Bench::new().build(&request).await;
    assert_eq!(result.unwrap().builder, "classic");
    let text = output(&events);
    assert!(text.contains(" 8192 ") && text.contains("321\n") && text.contains("3221225472"), "{text}");
    let told = |event: &Event| matches!(event, Event::Notice { message } if message.contains("classic"));
    assert!(events.iter().any(told), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_classic_builder_cannot_do_is_refused() {
    let folder = context("RUN --mount=type=cache,target=/c true\n", &[]);
    let mut request = on(BuilderChoice::Classic, request(folder.path(), &[]));
    let (result, _) = Bench::new().build(&request).await;
    assert_eq!(error(result).code(), "unsupported");
    let source = SecretSource::Value(Secret::new(serde_bytes::ByteBuf::from(b"x".to_vec())));
    request.options.secrets.push(SecretSpec { id: "s".into(), source });
    let (result, _) = Bench::new().build(&request).await;
    let failure = error(result);
    assert_eq!(failure.code(), "unsupported");
    assert!(failure.to_string().contains("BuildKit"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_of_extra_files_alone() {
    for builder in BUILDERS {
        let mut request = on(builder, request(std::path::Path::new("/"), &[]));
        request.context.root = None;
        let file = |path: &str, content: String, mode| ExtraFile { path: path.into(), content: content.into(), mode };
        let dockerfile = format!("FROM {}\nCOPY . /w\nRUN /w/bin/run.sh && ls /w\n", crate::docker_bed::busybox());
        request.context.extra_files =
            vec![file("Dockerfile", dockerfile, 0o644), file("bin/run.sh", "#!/bin/sh\necho ran\n".into(), 0o755)];
        request.options.no_cache = true;
        let (result, events) = Bench::new().build(&request).await;
        let outcome = result.unwrap();
        assert!(outcome.image.starts_with("sha256:"), "{}", outcome.image);
        assert!(output(&events).contains("ran\n"), "{}", output(&events));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_builds_and_pushes() {
    let folder =
        context("COPY . /w\nRUN echo err >&2; ls -A /w | tr '\\n' ' '\n", &[("a.txt", "a"), (".dockerignore", "*\n")]);
    let tag = fresh("podman");
    let mut request = on_podman(request(folder.path(), &[&tag]));
    request.push = true;
    request.options.no_cache = true;
    // Excluded by the pattern, and yet there: an extra file is never excluded.
    let extra = ExtraFile { path: "extra.cfg".into(), content: "e".into(), mode: 0o644 };
    request.context.extra_files = vec![extra];
    let (result, events) = Bench::new().build(&request).await;
    let outcome = result.unwrap_or_else(|error| panic!("{error:?}\n{events:?}"));
    assert_eq!(outcome.builder, "classic");
    assert!(output(&events).contains("extra.cfg"), "{}", output(&events));
    assert!(!output(&events).contains("a.txt"), "{}", output(&events));
    assert_eq!(registry_digest(&tag), outcome.digest.unwrap().to_string());
    assert!(outcome.totals.total_steps >= 3, "{:?}", outcome.steps);
    let folder = context("RUN echo before && exit 3\n", &[]);
    let (result, _) = Bench::new().build(&on_podman(self::request(folder.path(), &[]))).await;
    let failure = error(result);
    let cooper::Error::StepFailed(step) = &failure else { panic!("{failure:?}") };
    assert_eq!((step.exit_code, step.location.as_ref().map(|place| place.line)), (Some(3), Some(2)));
    assert_eq!(step.tail.last().map(String::as_str), Some("before"));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_again_when_they_are_refused() {
    let registry = setting("COOPER_TEST_REGISTRY_TLS");
    let right = (setting("COOPER_TEST_REGISTRY_USER"), setting("COOPER_TEST_REGISTRY_PASSWORD"));
    let wrong = (right.0.clone(), "wrong-password".to_owned());
    let of = |pair: &(String, String)| BTreeMap::from([(registry.clone(), pair.clone())]);
    let folder = context("RUN true\n", &[]);
    let tag = format!("{registry}/docker-test/private:{}", std::process::id());
    let mut request = request(folder.path(), &[&tag]);
    request.push = true;
    let cases = [
        (Fixed { first: of(&right), refreshed: BTreeMap::new() }, None),
        (Fixed { first: of(&wrong), refreshed: of(&right) }, None),
        (Fixed { first: of(&wrong), refreshed: of(&wrong) }, Some(true)),
        (Fixed { first: BTreeMap::new(), refreshed: BTreeMap::new() }, Some(false)),
    ];
    for (credentials, denied) in cases {
        let (result, events) = Bench::with(Arc::new(credentials)).build(&request).await;
        let told = format!("{result:?} {events:?}");
        assert!(!told.contains("wrong-password") && !told.contains(&right.1), "a password is shown");
        match denied {
            None => assert!(result.unwrap().image.contains("@sha256:")),
            Some(expected) => {
                let failure = error(result);
                let cooper::Error::RegistryDenied { had_credentials, .. } = failure else { panic!("{failure:?}") };
                assert_eq!(had_credentials, expected);
            }
        }
    }
    docker(&["rmi", &tag]);
}
