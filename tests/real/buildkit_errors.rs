//! Failures of builds with BuildKit on a real daemon.

use bytes::Bytes;
use cooper::error::Error;
use cooper::event::Event;
use cooper::request::{CacheSpec, Credential};
use cooper::secret::Secret;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::buildkit_bed::Bed;

async fn failure(dockerfile: &str) -> Error {
    let bed = Bed::new();
    bed.write("present", "");
    bed.build(dockerfile).await.0.unwrap_err()
}

#[tokio::test]
async fn a_failing_run_shows_its_place_its_status_and_its_output() {
    let error = failure("FROM BUSYBOX\n# why\nRUN echo before; \\\n    echo the reason >&2; exit 7\n").await;
    let Error::StepFailed(step) = &error else { panic!("{error:?}") };
    assert_eq!(step.instruction, "RUN echo before; echo the reason >&2; exit 7");
    assert_eq!(step.exit_code, Some(7));
    let mut tail = step.tail.clone();
    // The two streams are not ordered against each other.
    tail.sort();
    assert_eq!(tail, ["before", "the reason"]);
    let location = step.location.as_ref().unwrap();
    assert_eq!((location.line, location.end_line), (3, 4));
    assert!(location.frame().contains("4 |     echo the reason >&2; exit 7"), "{}", location.frame());
}

#[tokio::test]
async fn a_cache_that_cannot_be_imported_is_not_the_reason() {
    let mut bed = Bed::new();
    bed.options.cache_from = vec![CacheSpec::Image("127.0.0.1:1/no/cache".parse().unwrap())];
    let (result, events) = bed.build("FROM BUSYBOX\nRUN exit 3\n").await;
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::StepFailed(step) if step.exit_code == Some(3)), "{error:?}");
    let imported =
        |event: &Event| matches!(event, Event::StepDone { name, error: Some(_), .. } if name.contains("cache"));
    assert!(events.iter().any(imported), "{events:?}");
}

#[tokio::test]
async fn the_failing_stage_is_told_from_others() {
    let error =
        failure("FROM BUSYBOX AS a\nRUN true\nFROM BUSYBOX AS b\nRUN false\nFROM a\nCOPY --from=b / /b\n").await;
    assert_eq!(error.location().unwrap().line, 4, "{error:?}");
}

#[tokio::test]
async fn mistakes_in_a_dockerfile_are_marked() {
    let cases = [
        ("FROM BUSYBOX\nRUNN x\n", 2, 4, "unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM BUSYBOX\n  COPY a\n", 2, 6, "at least two arguments"),
        ("FROM BUSYBOX\nENV a\n", 2, 5, "ENV must have two arguments"),
        ("FROM BUSYBOX\nRUN --mount=type=foo x\n", 2, 22, "unsupported mount type"),
    ];
    for (text, line, width, words) in cases {
        let error = failure(text).await;
        assert_eq!(error.code(), "dockerfile", "{text}");
        assert!(error.to_string().contains(words), "{error}");
        let location = error.location().unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!((location.line, location.width), (line, width), "{text}");
    }
    assert_eq!(failure("RUN x\n").await.code(), "dockerfile");
    assert_eq!(failure("").await.code(), "dockerfile");
}

#[tokio::test]
async fn a_missing_source_is_explained() {
    let error = failure("FROM BUSYBOX\nCOPY absent /\n").await;
    let Error::StepFailed(step) = &error else { panic!("{error:?}") };
    assert_eq!((step.instruction.as_str(), step.exit_code), ("COPY absent /", None));
    assert!(step.message.contains("`/absent` is not in the build context"), "{}", step.message);
    assert_eq!(error.location().unwrap().line, 2);
}

#[tokio::test]
async fn images_that_cannot_be_had_have_their_own_errors() {
    let registry = std::env::var("COOPER_TEST_REGISTRY").expect("scripts/testbed sets COOPER_TEST_REGISTRY");
    let error = failure(&format!("FROM BUSYBOX\nRUN true\nFROM {registry}/no/such:image\n")).await;
    assert_eq!(error.code(), "base-missing", "{error:?}");
    assert_eq!(error.location().unwrap().line, 3);
    let error = failure("FROM 127.0.0.1:1/a:b\n").await;
    assert!(matches!(&error, Error::RegistryUnreachable { registry, .. } if registry == "127.0.0.1:1"), "{error:?}");
    let error = failure("FROM BUSYBOX\nCOPY --from=127.0.0.1:1/a:b /a /b\n").await;
    assert_eq!(error.code(), "registry-unreachable", "{error:?}");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_an_option_error() {
    let mut bed = Bed::new();
    bed.options.target = Some("nowhere".into());
    let error = bed.build("FROM BUSYBOX\n").await.0.unwrap_err();
    assert!(matches!(&error, Error::InvalidOption { name, .. } if name == "target"), "{error:?}");
}

/// A registry without TLS that lets one user in, and has nothing.
async fn empty_registry(authorization: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = move |request: http::Request<Incoming>| async move {
        let known = request.headers().get("authorization").is_some_and(|given| given == authorization);
        let answer = http::Response::builder().header("www-authenticate", "Basic realm=\"test\"");
        answer.status(if known { 404 } else { 401 }).body(Empty::<Bytes>::new())
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(answer);
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

#[tokio::test]
async fn a_registry_gets_the_credentials_and_refuses_wrong_ones() {
    // "user:right"
    let registry = empty_registry("Basic dXNlcjpyaWdodA==").await;
    let credential = |password: &str| Credential {
        username: "user".into(),
        password: Secret::new(password.to_owned()),
        identity_token: None,
    };
    let dockerfile = |tag: &str| format!("FROM BUSYBOX\nCOPY --from={registry}/no/such:{tag} / /\n");
    let mut bed = Bed::new();
    for (tag, given) in [("nobody", None), ("wrong", Some(credential("wrong")))] {
        bed.credential.clone_from(&given);
        let error = bed.build(&dockerfile(tag)).await.0.unwrap_err();
        let Error::RegistryDenied { registry: denied, had_credentials, .. } = &error else { panic!("{error:?}") };
        assert_eq!((denied, *had_credentials), (&registry, given.is_some()));
    }
    // Let in, the daemon learns that there is no such image.
    bed.credential = Some(credential("right"));
    let error = bed.build(&dockerfile("right")).await.0.unwrap_err();
    assert_eq!(error.code(), "base-missing", "{error:?}");
    assert_eq!(error.location().unwrap().line, 2);
}
