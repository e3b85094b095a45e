//! The Docker engine against a daemon that lies, stalls and breaks off.

use std::time::{Duration, Instant};

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::event::Event;
use cooper::request::ExtraFile;

use crate::docker_fake::{Answer, DIGEST, End, Fake, IMAGE, build_with, error, good_build, good_push, request};

fn pieces(text: &str, end: End) -> Answer {
    Answer::Pieces(vec![text.to_owned()], end)
}

fn on(method: &'static str, part: &'static str, answer: Answer) -> Fake {
    Fake::start(move |asked, path| (asked == method && path.contains(part)).then(|| answer.clone()))
}

#[tokio::test]
async fn a_good_build_is_read_byte_by_byte() {
    let single: Vec<String> = good_build().chars().map(String::from).collect();
    let fake = on("POST", "/build", Answer::Pieces(single, End::Proper));
    let (result, events) = fake.build(&request(&["localhost:1/x:1"])).await;
    let outcome = result.unwrap();
    assert_eq!(outcome.image, "localhost:1/x:1");
    assert_eq!(outcome.steps.len(), 2);
    let hello = |event: &Event| matches!(event, Event::StepLog { text, .. } if text == "hello\n");
    assert!(events.iter().any(hello), "{events:?}");
    let chatter = |event: &Event| matches!(event, Event::StepLog { text, .. } if text.contains("--->"));
    assert!(!events.iter().any(chatter), "{events:?}");
    assert!(
        fake.seen().contains(&format!("POST /images/{IMAGE}/tag?repo=localhost%3A1%2Fx&tag=1")),
        "{:?}",
        fake.seen()
    );
}

#[tokio::test]
async fn broken_streams_are_no_success() {
    let good = good_build();
    let cut = &good[..good.len() - 10];
    let without_image = &good[..good.find("{\"aux\"").unwrap()];
    let cases = [
        (pieces(cut, End::Proper), "daemon-protocol"),
        (pieces(cut, End::Cut), "daemon-protocol"),
        (pieces(without_image, End::Proper), "daemon-protocol"),
        (pieces("<html>proxy</html>", End::Proper), "daemon-protocol"),
        (Answer::Raw(""), "daemon-protocol"),
        (Answer::Raw("SSH-2.0-OpenSSH\r\n"), "daemon-protocol"),
        (Answer::Json(500, r#"{"message":"write /x: no space left on device"}"#.into()), "no-space"),
        (Answer::Json(400, r#"{"message":"dockerfile parse error line 3: bad"}"#.into()), "dockerfile"),
        (Answer::Json(500, "not even JSON".into()), "daemon-refused"),
        (pieces("{\"error\":\"\",\"errorDetail\":{}}", End::Proper), "build-failed"),
    ];
    for (answer, code) in cases {
        let name = format!("{answer:?}");
        let fake = on("POST", "/build", answer);
        let failure = error(fake.build(&request(&["localhost:1/x:1"])).await);
        assert_eq!(failure.code(), code, "{name}: {failure:?}");
        assert!(!fake.seen().iter().any(|line| line.contains("/tag")), "{name}: a tag moved");
    }
}

#[tokio::test]
async fn what_is_no_daemon_is_said_to_be_none() {
    let cases = [
        (Answer::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"), "daemon-protocol"),
        (Answer::Raw("garbage\r\n\r\n"), "daemon-protocol"),
        (Answer::Json(403, r#"{"message":"forbidden"}"#.into()), "daemon-refused"),
    ];
    for (answer, code) in cases {
        let fake = on("GET", "/_ping", answer);
        assert_eq!(error(fake.build(&request(&[])).await).code(), code);
    }
}

#[tokio::test]
async fn names_move_all_or_none() {
    let before = "sha256:9999999999999999999999999999999999999999999999999999999999999999";
    let fake = Fake::start(move |method, path| match (method, path) {
        ("GET", path) if path.contains("old:1/json") => Some(Answer::Json(200, format!("{{\"Id\":\"{before}\"}}"))),
        ("POST", path) if path.contains("tag=third") => Some(Answer::Json(500, r#"{"message":"broken"}"#.into())),
        _ => None,
    });
    let tags = ["localhost:1/old:1", "localhost:1/new:2", "localhost:1/x:third"];
    let failure = error(fake.build(&request(&tags)).await);
    assert_eq!(failure.code(), "daemon-refused");
    let seen = fake.seen();
    let position = |text: &str| seen.iter().position(|line| line.contains(text));
    let back = position(&format!("POST /images/{before}/tag?repo=localhost%3A1%2Fold&tag=1"));
    assert!(back > position("tag=third"), "{seen:?}");
    assert!(position("DELETE /images/localhost:1/new:2?") > position("tag=third"), "{seen:?}");
}

#[tokio::test]
async fn pushes_that_fail_have_errors_of_their_own() {
    let told = |text: &str| {
        pieces(&format!("{{\"errorDetail\":{{\"message\":\"{text}\"}},\"error\":\"{text}\"}}"), End::Proper)
    };
    let cases = [
        (told("denied: requested access to the resource is denied"), "registry-denied"),
        (told("unauthorized: authentication required"), "registry-denied"),
        (told("dial tcp 127.0.0.1:1: connect: connection refused"), "registry-unreachable"),
        (told("blob upload unknown"), "push-failed"),
        (pieces("{\"status\":\"Pushing\"", End::Cut), "daemon-protocol"),
        (pieces("{\"status\":\"Pushed\",\"id\":\"l\"}", End::Proper), "daemon-protocol"),
        (pieces("{\"status\":\"Pushing\",\"id\":\"l\"}", End::Never), "timed-out"),
        (Answer::Silence, "timed-out"),
        // What the daemon files the image under is not what was pushed.
        (pieces(&good_push(), End::Proper), "digest-mismatch"),
    ];
    for (answer, code) in cases {
        let name = format!("{answer:?}");
        let fake = Fake::start(move |method, path| match method {
            "POST" if path.contains("/push") => Some(answer.clone()),
            "GET" if path.contains("/x:1/json") => {
                Some(Answer::Json(200, format!("{{\"Id\":\"{IMAGE}\",\"RepoDigests\":[\"localhost:1/x@{IMAGE}\"]}}")))
            }
            _ => None,
        });
        let mut request = request(&["localhost:1/x:1"]);
        request.push = true;
        let engine = fake.engine().with_push_silence(Duration::from_millis(300));
        let failure = error(build_with(&engine, &request, Cancel::new()).await);
        assert_eq!(failure.code(), code, "{name}: {failure:?}");
        if let Error::RegistryDenied { had_credentials, .. } = failure {
            assert!(!had_credentials);
        }
    }
}

/// A daemon that files a pushed image under the right digest.
fn pushing(refuse: bool) -> Fake {
    Fake::start(move |method, path| match method {
        "POST" if path.contains("/push") && refuse => {
            Some(pieces("{\"error\":\"no basic auth credentials\"}", End::Proper))
        }
        "GET" if path.contains("/x:1/json") => {
            Some(Answer::Json(200, format!("{{\"Id\":\"{IMAGE}\",\"RepoDigests\":[\"localhost:1/x@{DIGEST}\"]}}")))
        }
        _ => None,
    })
}

#[tokio::test]
async fn a_failing_helper_is_an_error_only_when_its_answer_was_needed() {
    for refuse in [false, true] {
        let fake = pushing(refuse);
        std::fs::write(fake.path("config.json"), r#"{"credsStore": "not-there"}"#).unwrap();
        let mut request = request(&["localhost:1/x:1"]);
        request.push = true;
        let (result, _) = fake.build(&request).await;
        if refuse {
            let failure = result.unwrap_err();
            assert_eq!(failure.code(), "credentials");
            assert!(failure.to_string().contains("docker-credential-not-there"), "{failure}");
        } else {
            assert_eq!(result.unwrap().image, format!("localhost:1/x@{DIGEST}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_every_phase_at_once() {
    let phases: [(&str, &str, Answer); 7] = [
        ("GET", "/_ping", Answer::Silence),
        ("GET", "/version", Answer::Silence),
        ("POST", "/build", Answer::Deaf),
        ("POST", "/build", Answer::Silence),
        ("POST", "/build", pieces("{\"stream\":\"Step 1/2 : FROM scratch\\n\"}", End::Never)),
        ("POST", "/tag", Answer::Silence),
        ("POST", "/push", Answer::Silence),
    ];
    for (method, part, answer) in phases {
        let name = format!("{part} {answer:?}");
        let fake = on(method, part, answer);
        let mut request = request(&["localhost:1/x:1"]);
        request.push = true;
        // More than the sockets' buffers take, so that a deaf daemon blocks the upload.
        let content = vec![7; 8 << 20].into();
        request.context.extra_files.push(ExtraFile { path: "big".into(), content, mode: 0o644 });
        let cancel = Cancel::new();
        let (engine, flag) = (fake.engine(), cancel.clone());
        let build = tokio::spawn(async move { build_with(&engine, &request, flag).await });
        let deadline = Instant::now() + Duration::from_secs(5);
        while !fake.seen().iter().any(|line| line.contains(part)) {
            assert!(Instant::now() < deadline, "{name}: {:?}", fake.seen());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        cancel.cancel();
        let failure = error(build.await.unwrap());
        assert_eq!(failure.code(), "interrupted", "{name}");
        assert!(started.elapsed() < Duration::from_millis(200), "{name}: {:?}", started.elapsed());
        fake.hung_up_on(part).await;
    }
}

#[tokio::test]
async fn a_context_that_changes_is_the_error_and_not_what_the_daemon_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, vec![1; 4 << 20]).unwrap();
    // Between the listing and the upload, when the daemon is asked for the base image, the file goes away.
    let vanishing = file.clone();
    let fake = Fake::start(move |_, path| {
        if path == "/images/busybox/json" {
            std::fs::remove_file(&vanishing).unwrap();
        }
        None
    });
    let mut request = request(&["localhost:1/x:1"]);
    request.context.root = Some(folder.path().to_owned());
    request.context.extra_files[0].content = "FROM busybox\nCOPY . /\n".into();
    let failure = error(fake.build(&request).await);
    assert_eq!(failure.code(), "context-changed", "{failure:?}");
    assert!(!fake.seen().iter().any(|line| line.contains("/tag")));
}
