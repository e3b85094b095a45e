//! What the doctor says of the real daemon and the real registries.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use cooper::Error;
use cooper::daemon::Attempt;
use cooper::daemon::Product;
use cooper::daemon::dial::Dialer;
use cooper::daemon::endpoint::resolve;
use cooper::engine::docker::doctor::examine;
use cooper::engine::doctor::{Report, Status};
use cooper::environment::Environment;
use cooper::request::{Credentials, EngineSpec, Pem, TlsSpec};

use crate::docker_bed::{Bench, Fixed, setting};

async fn look(
    spec: &EngineSpec,
    registry: &str,
    environment: Environment,
    credentials: Arc<dyn Credentials>,
) -> Report {
    let reference = format!("{registry}/docker-test/x:1").parse().unwrap();
    examine(spec, Some(&reference), environment, &Bench::with(credentials).job).await.unwrap()
}

fn finding<'a>(report: &'a Report, check: &str) -> (&'a str, Status) {
    let found = report.findings.iter().find(|finding| finding.check == check);
    found.map_or_else(|| panic!("no {check} in {report:?}"), |finding| (finding.text.as_str(), finding.status))
}

fn knows(registry: &str, password: &str) -> Arc<dyn Credentials> {
    let user = setting("COOPER_TEST_REGISTRY_USER");
    let first = BTreeMap::from([(registry.to_owned(), (user, password.to_owned()))]);
    Arc::new(Fixed { first, refreshed: BTreeMap::new() })
}

#[tokio::test]
async fn daemons_and_registries_are_described() {
    let none: Arc<dyn Credentials> = Arc::new(Fixed { first: BTreeMap::new(), refreshed: BTreeMap::new() });
    let plain = setting("COOPER_TEST_REGISTRY");
    let secure = setting("COOPER_TEST_REGISTRY_TLS");
    let docker = EngineSpec::default();
    let environment = Environment::of_process;

    let report = look(&docker, &plain, environment(), Arc::clone(&none)).await;
    assert_eq!(report.status(), Status::Ok, "{report:?}");
    assert!(finding(&report, "daemon").0.starts_with("Docker Engine "), "{report:?}");
    assert!(finding(&report, "builder").0.starts_with("BuildKit"), "{report:?}");
    assert!(finding(&report, "disk").0.contains("GiB free"), "{report:?}");
    assert_eq!(finding(&report, "registry").1, Status::Ok);
    assert!(matches!(report.attempts.last(), Some(Attempt { error: None, .. })));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["findings"][0]["status"], "ok");

    let report = look(&docker, &secure, environment(), knows(&secure, &setting("COOPER_TEST_REGISTRY_PASSWORD"))).await;
    assert!(finding(&report, "registry").0.contains("takes the credentials"), "{report:?}");
    let report = look(&docker, &secure, environment(), knows(&secure, "wrong-password")).await;
    assert_eq!(finding(&report, "registry").1, Status::Fail, "{report:?}");
    assert!(!format!("{report:?}").contains("wrong-password"));
    let report = look(&docker, &secure, environment(), Arc::clone(&none)).await;
    assert_eq!(finding(&report, "registry").1, Status::Fail, "{report:?}");
    let report = look(&docker, "127.0.0.1:1", environment(), Arc::clone(&none)).await;
    assert!(finding(&report, "registry").0.contains("does not answer"), "{report:?}");

    let podman =
        EngineSpec { endpoints: vec![format!("unix://{}", setting("COOPER_TEST_PODMAN"))], ..EngineSpec::default() };
    let report = look(&podman, &plain, environment(), Arc::clone(&none)).await;
    assert!(finding(&report, "daemon").0.starts_with(Product::Podman.name()), "{report:?}");
    assert_eq!(finding(&report, "builder").1, Status::Warn);

    let empty = tempfile::tempdir().unwrap();
    let nothing = Environment::with(empty.path(), [("HOME", empty.path())]);
    let report = look(&docker, &plain, nothing, none).await;
    assert_eq!(report.status(), Status::Fail);
    assert!(report.engine.is_none() && report.attempts.len() >= 3, "{report:?}");
    assert!(report.findings[0].advice.is_some());
}

/// A port with TLS that wants no Docker client: enough to see whom a dialer trusts.
#[tokio::test]
async fn a_dialer_trusts_whom_it_is_told_to() {
    let address = format!("tcp://{}", setting("COOPER_TEST_REGISTRY_TLS"));
    let authority = setting("COOPER_TEST_REGISTRY_CA");
    let environment = Arc::new(Environment::of_process());
    let dial = async |tls: TlsSpec| {
        let spec = EngineSpec { endpoints: vec![address.clone()], tls: Some(tls), ..EngineSpec::default() };
        let endpoint = resolve(&spec, &environment).unwrap().remove(0);
        match Dialer::new(&endpoint, &environment) {
            Ok(dialer) => dialer.dial().await.map(|_| ()),
            Err(error) => Err(error),
        }
    };
    let code = |result: Result<(), Error>| result.map_err(|error| error.code());
    let with_authority = TlsSpec { ca_cert: Some(Pem::File(authority.clone().into())), ..TlsSpec::default() };
    assert_eq!(code(dial(with_authority).await), Ok(()));
    assert_eq!(code(dial(TlsSpec { skip_verify: true, ..TlsSpec::default() }).await), Ok(()));
    assert_eq!(code(dial(TlsSpec::default()).await), Err("daemon-config"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    fs::write(&file, "no certificate").unwrap();
    assert_eq!(
        code(dial(TlsSpec { ca_cert: Some(Pem::File(file)), ..TlsSpec::default() }).await),
        Err("daemon-config")
    );
}
