//! Networks with faults, between the engine and a BuildKit.

use std::time::{Duration, Instant};

use cooper::event::Event;

use crate::worker_bed::{AT_ONCE, Backend, Case, Ended, Held};
use crate::worker_proxy::Proxy;

/// What a build may end with whose worker goes away: these say what happened, and what to do.
const CLEAR: [&str; 2] = ["worker-lost", "worker-unreachable"];

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_network_changes_nothing() {
    let held = Held::now();
    for backend in Backend::each() {
        let proxy = Proxy::before(backend.target.clone()).await;
        proxy.control().delay(Duration::from_millis(50));
        let case = Case::new(0.1).with_files(20, 1000).on_one(&backend, &backend.at(proxy.address));
        let ended = case.run().await;
        case.is_right(&ended).await;
        assert_eq!(ended.warnings("worker-lost"), [""; 0]);
    }
    held.is_all().await;
}

/// h2 ends connections on which it sees many small frames that nobody has read yet: requests for files are such.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_files_go_through_a_slow_network() {
    let held = Held::now();
    for backend in Backend::each() {
        let proxy = Proxy::before(backend.target.clone()).await;
        proxy.control().delay(Duration::from_millis(20));
        let case = Case::new(0.0).with_files(5500, 20).on_one(&backend, &backend.at(proxy.address));
        let ended = case.run().await;
        case.is_right(&ended).await;
        assert!(ended.result.unwrap().totals.sent_bytes > 5500 * 20);
    }
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reset_the_build_starts_again_or_says_why_it_does_not() {
    let held = Held::now();
    for backend in Backend::each() {
        // How much goes through in a build without a fault.
        let proxy = Proxy::before(backend.target.clone()).await;
        let endpoint = backend.at(proxy.address);
        let ended = Case::new(0.0).on_one(&backend, &endpoint).run().await;
        let all = proxy.control().passed();
        assert!(ended.result.is_ok() && all > 1000, "{}", ended.told());
        for bytes in [1, 200, all / 4, all / 2, all * 3 / 4] {
            proxy.control().reset_after(bytes);
            let case = Case::new(0.0).on_one(&backend, &endpoint);
            let ended = case.run().await;
            is_right_or_clear(&case, &ended).await;
        }
    }
    held.is_all().await;
}

async fn is_right_or_clear(case: &Case, ended: &Ended) {
    match &ended.result {
        Ok(_) => case.is_right(ended).await,
        Err(error) => {
            assert!(CLEAR.contains(&error.code()), "{}", ended.told());
            assert!(!error.to_string().contains("source:"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reset_another_worker_goes_on() {
    let held = Held::now();
    let second = Backend::second();
    let proxy = Proxy::before(second.target.clone()).await;
    let control = proxy.control();
    let case = Case::new(1.0).on(&[&second.at(proxy.address), &second.endpoint]).once_started(move || control.reset());
    let ended = case.run().await;
    case.is_right(&ended).await;
    assert_eq!(ended.warnings("worker-lost").len(), 1, "{}", ended.told());
    assert_eq!(ended.chosen()[1].0, second.endpoint);
    drop(proxy);
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_silent_is_noticed() {
    let held = Held::now();
    for backend in Backend::each().into_iter().filter(Backend::pushes) {
        let proxy = Proxy::before(backend.target.clone()).await;
        let (control, frozen) = (proxy.control(), std::sync::Arc::new(std::sync::Mutex::new(None)));
        let since = std::sync::Arc::clone(&frozen);
        let freeze = move || {
            control.freeze();
            *since.lock().unwrap() = Some(Instant::now());
        };
        let case = Case::new(0.5).on(&[&backend.at(proxy.address), &backend.endpoint]);
        let case = case.with_patience(0.3, 0.7).once_started(freeze);
        let ended = case.run().await;
        case.is_right(&ended).await;
        let [warning] = ended.warnings("worker-lost")[..] else { panic!("{}", ended.told()) };
        assert!(warning.contains("it gave no answer for 0.7 s"), "{warning}");
        assert_eq!(ended.chosen()[1].0, backend.endpoint);
        // A second until it is noticed; the rest is the build.
        let took = ended.at - frozen.lock().unwrap().unwrap();
        assert!(took < Duration::from_secs(20), "{took:?}");
    }
    held.is_all().await;
}

/// A build on a frozen, slow or good network, and when it is cancelled.
async fn returns_at_once(case: &Case, when: impl AsyncFnOnce()) {
    let cancel = async {
        when().await;
        case.cancel.cancel();
        Instant::now()
    };
    let (ended, cancelled) = tokio::join!(case.run(), cancel);
    assert_eq!(ended.error().code(), "interrupted", "{}", ended.told());
    let took = ended.at.saturating_duration_since(cancelled);
    assert!(took < AT_ONCE, "{took:?}\n{}", ended.told());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_builds_return_at_once_whatever_the_network_does() {
    let held = Held::now();
    for backend in Backend::each() {
        // Before it has said what it is.
        let proxy = Proxy::before(backend.target.clone()).await;
        let control = proxy.control();
        control.freeze();
        let case = Case::new(0.0).on_one(&backend, &backend.at(proxy.address));
        returns_at_once(&case, async || tokio::time::sleep(Duration::from_millis(300)).await).await;
        // While it gets the context.
        let proxy = Proxy::before(backend.target.clone()).await;
        let control = proxy.control();
        control.delay(Duration::from_millis(50));
        let case = Case::new(0.0).with_files(100, 1 << 20).on_one(&backend, &backend.at(proxy.address));
        let half = async || {
            while control.passed() < 20 << 20 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        returns_at_once(&case, half).await;
        // While a command runs; and the same when nothing gets through any more.
        for freeze in [false, true] {
            let proxy = Proxy::before(backend.target.clone()).await;
            let (started, running) = tokio::sync::oneshot::channel();
            let case = Case::new(30.0).on_one(&backend, &backend.at(proxy.address));
            let case = case.once_started(move || started.send(()).unwrap());
            let when = async || {
                running.await.unwrap();
                if freeze {
                    proxy.control().freeze();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            returns_at_once(&case, when).await;
        }
    }
    held.is_all().await;
}

/// That events come while a build runs is what the tests above rely on.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_prints_comes_at_once() {
    let second = Backend::second();
    let case = Case::new(2.0).on(&[&second.endpoint]);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(None));
    let noted = std::sync::Arc::clone(&seen);
    let case = case.watching(move |event| {
        if matches!(event, Event::StepLog { text, .. } if text.contains("started")) {
            noted.lock().unwrap().get_or_insert_with(Instant::now);
        }
    });
    let ended = case.run().await;
    case.is_right(&ended).await;
    let before = ended.at - seen.lock().unwrap().unwrap();
    assert!(before > Duration::from_millis(1500), "{before:?}");
}
