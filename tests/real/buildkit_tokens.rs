//! A registry that takes tokens only: real daemons get them from us, and never the password.

use std::fs;
use std::sync::Arc;

use cooper::request::{EngineKind, EngineSpec};

use crate::buildkit_stale::engines;
use crate::docker_bed::{Bench, Fixed, busybox, docker, error, request};
use crate::registry_bed::TokenRegistry;

/// Bench with a password for this registry.
fn bench(registry: &TokenRegistry, password: &str) -> Bench {
    let pair = ("me".to_owned(), password.to_owned());
    let known = [(registry.address.clone(), pair)].into();
    Bench::with(Arc::new(Fixed { first: Clone::clone(&known), refreshed: known }))
}

fn is_buildkitd(engine: &EngineSpec) -> bool {
    engine.kind == EngineKind::Buildkit
}

#[tokio::test]
async fn daemons_pull_and_push_with_tokens_that_we_fetch() {
    for engine in engines() {
        let registry = TokenRegistry::start(300).await;
        let base = format!("{}/team/base:1", registry.address);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), format!("FROM {}\nRUN echo base > /base\n", busybox())).unwrap();
        let mut first = request(dir.path(), &[&base]);
        first.engine = engine.clone();
        first.push = true;
        let (result, events) = bench(&registry, "hunter2").build(&first).await;
        result.unwrap_or_else(|error| panic!("{error}: {events:?}"));
        let pushed = registry.given.lock().unwrap().iter().flatten().any(|scope| scope.contains("push"));
        assert!(pushed, "{:?}", registry.given.lock().unwrap());
        if !is_buildkitd(&engine) {
            // A Docker daemon pushes by itself, and would use the image that it has.
            registry.callers.lock().unwrap().clear();
            docker(&["rmi", &base]);
        }

        fs::write(dir.path().join("Dockerfile"), format!("FROM {base}\nRUN cat /base\n")).unwrap();
        let next = format!("{}/team/next:1", registry.address);
        let mut second = request(dir.path(), &[&next]);
        second.engine = engine.clone();
        second.push = is_buildkitd(&engine);
        let (result, events) = bench(&registry, "hunter2").build(&second).await;
        result.unwrap_or_else(|error| panic!("{error}: {events:?}"));
        let callers = registry.callers.lock().unwrap().clone();
        assert!(!callers.is_empty());
        assert!(callers.iter().all(|caller| caller.starts_with("cooper/")), "{callers:?}");
        docker(&["rmi", &next]);
    }
}

#[tokio::test]
async fn a_wrong_password_is_the_registrys_refusal_even_after_a_right_one() {
    for engine in engines() {
        let registry = TokenRegistry::start(300).await;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("Dockerfile"), format!("FROM {}/team/base:1\n", registry.address)).unwrap();
        let mut build = request(dir.path(), &["stale-test:1"]);
        build.engine = engine.clone();
        for (password, code, had) in [("hunter2", "base-missing", true), ("hunter3", "registry-denied", true)] {
            let (result, _) = bench(&registry, password).build(&build).await;
            let failed = error(result);
            assert_eq!(failed.code(), code, "{failed} with {engine:?}");
            assert!(!failed.to_string().contains("hunter"), "{failed}");
            if let cooper::error::Error::RegistryDenied { registry: named, had_credentials, .. } = &failed {
                assert_eq!((named, *had_credentials), (&registry.address, had));
            }
        }
    }
}
