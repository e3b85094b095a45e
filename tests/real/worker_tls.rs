//! Workers behind TLS: who is let in, and what those are told who are not.

use cooper::request::TlsSpec;

use crate::worker_bed::{Backend, Case, Held};
use crate::worker_proxy::{Authority, Bridge, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn with_its_certificate_a_client_builds_and_pushes() {
    let held = Held::now();
    for backend in Backend::each() {
        let authority = Authority::new();
        let bridge = Bridge::before(backend.target.clone(), &authority).await;
        let mut case = Case::new(0.1).on_one(&backend, &backend.at(bridge.address));
        case.request.engine.tls = Some(authority.client());
        let ended = case.run().await;
        case.is_right(&ended).await;
    }
    held.is_all().await;
}

/// What may be wrong with a client's TLS, and what it has to be told.
fn mistakes(right: &Authority, other: &Authority) -> Vec<(&'static str, Option<TlsSpec>)> {
    let (good, foreign) = (right.client(), other.client());
    vec![
        ("is signed by nobody who is trusted here", Some(TlsSpec { ca_cert: foreign.ca_cert.clone(), ..good.clone() })),
        (
            "is for another name: give the name",
            Some(TlsSpec { server_name: Some("elsewhere.test".into()), ..good.clone() }),
        ),
        ("wants a client certificate", Some(TlsSpec { ca_cert: good.ca_cert.clone(), ..TlsSpec::default() })),
        ("does not trust who signed the client certificate", Some(TlsSpec { ca_cert: good.ca_cert, ..foreign })),
        ("speaks TLS, and was spoken to without", None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why() {
    let held = Held::now();
    let (right, other) = (Authority::new(), Authority::new());
    for backend in Backend::each() {
        let bridge = Bridge::before(backend.target.clone(), &right).await;
        for (told, tls) in mistakes(&right, &other) {
            is_told(&backend, &backend.at(bridge.address), tls, told).await;
        }
        let plain = Proxy::before(backend.target.clone()).await;
        is_told(&backend, &backend.at(plain.address), Some(right.client()), "does not speak TLS").await;
    }
    held.is_all().await;
}

/// A buildkitd or a Docker daemon started with `--tlscert`, `--tlskey` and `--tlscacert`, by hand: its alerts are those of Go.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_speaks_tls_itself_tells_the_same() {
    let Some(backend) = Backend::buildkitd("COOPER_TEST_BUILDKIT_TLS") else { return };
    let folder =
        std::env::var("COOPER_TEST_BUILDKIT_PKI").expect("COOPER_TEST_BUILDKIT_PKI is a folder of certificates");
    let (right, other) = (Authority::of(folder.as_ref()), Authority::new());
    let mut case = Case::new(0.1).on(&[&backend.endpoint]);
    case.request.engine.tls = Some(right.client());
    let ended = case.run().await;
    case.is_right(&ended).await;
    for (told, tls) in mistakes(&right, &other) {
        if tls.is_none() && backend.endpoint.starts_with("tcp://") {
            // It says nothing, and this is a guess.
            let ended = Case::new(0.1).on(&[&backend.endpoint]).run().await;
            let error = ended.error();
            assert_eq!(error.code(), "worker-unreachable", "{error}");
            assert!(error.to_string().contains("if it speaks TLS"), "{error}");
            continue;
        }
        let told = if told.contains("who signed") { "the client certificate" } else { told };
        is_told(&backend, &backend.endpoint, tls, told).await;
    }
}

async fn is_told(backend: &Backend, endpoint: &str, tls: Option<TlsSpec>, told: &str) {
    let mut case = Case::new(0.1).on_one(backend, endpoint);
    case.request.engine.tls = tls;
    let ended = case.run().await;
    let error = ended.error();
    assert_eq!(error.code(), "daemon-config", "{told}: {error}");
    assert!(error.to_string().contains(told), "{told}: {error}");
    let address = endpoint.trim_start_matches("docker+");
    assert!(error.to_string().contains(address), "{address}: {error}");
}
