//! Several workers: which one builds, and what happens when one goes away.

use std::time::Duration;

use cooper::event::Event;
use cooper::request::PoolPolicy;
use rustix::process::Signal;

use crate::docker_bed::docker;
use crate::worker_bed::{Backend, Case, Held};
use crate::worker_daemon::Throwaway;
use crate::worker_proxy::Proxy;

/// Of the images of these tests, those that the machine's daemon got: the bed does not remove them.
fn forget(case: &Case) {
    docker(&["rmi", "--force", &case.request.tags[0].to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_stays_where_its_cache_is_and_others_go_elsewhere() {
    let (first, second) = (Backend::first(), Backend::second());
    let build = async |case: &Case| {
        let ended = case.run().await;
        case.is_right(&ended).await;
        let [(endpoint, reason)] = ended.chosen()[..] else { panic!("{}", ended.told()) };
        assert_eq!(reason, "it has this project's cache");
        (endpoint.to_owned(), ended.result.unwrap().totals.sent_bytes)
    };
    let case = |name: &str| {
        let mut case = Case::named(name, 0.0).on(&[&first.endpoint, &second.endpoint]);
        case.request.engine.pool.policy = PoolPolicy::Affinity;
        // The repository is the same for all, and so the directory alone decides.
        case.request.push = false;
        case
    };
    let mut app = case("app");
    app.request.push = true;
    let (home, sent) = build(&app).await;
    assert!(sent > 0);
    // The order in which they are given changes nothing.
    app.request.engine.endpoints.reverse();
    assert_eq!(build(&app).await, (home.clone(), 0));
    // The places of workers are by chance here; that none of so many is the other one is not.
    let mut moved = false;
    for number in 0..16 {
        let other = case(&format!("app{number}"));
        moved = build(&other).await.0 != home;
        forget(&other);
        if moved {
            break;
        }
    }
    assert!(moved, "all projects meet {home}");
    forget(&app);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_preferred_one_does_not_answer_another_builds() {
    let held = Held::now();
    let second = Backend::second();
    let other = second.endpoint.as_str();
    for signal in [Signal::TERM, Signal::KILL] {
        let stopped = Throwaway::docker();
        let away = stopped.backend.endpoint.clone();
        stopped.killer(signal)();
        // After SIGTERM it may answer a moment longer, and then go: that is another test.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let case = Case::new(0.0).on(&[&away, other]);
        is_passed_over(&case, &away, other).await;
    }
    let mut proxy = Proxy::before(second.target.clone()).await;
    proxy.refuse().await;
    let away = second.at(proxy.address);
    let case = Case::new(0.0).on(&[&away, other]);
    is_passed_over(&case, &away, other).await;
    proxy.accept().await;
    let ended = case.run().await;
    assert_eq!(ended.chosen(), [(away.as_str(), "it comes first")], "{}", ended.told());
    drop(proxy);
    held.is_all().await;
}

async fn is_passed_over(case: &Case, away: &str, other: &str) {
    let ended = case.run().await;
    case.is_right(&ended).await;
    let [(endpoint, reason)] = ended.chosen()[..] else { panic!("{}", ended.told()) };
    assert_eq!((endpoint, reason), (other, format!("{away} does not serve (worker-unreachable)").as_str()));
    assert_eq!(ended.warnings("worker-lost"), [""; 0]);
}

/// Builds on two workers, the first of which goes away in the middle.
async fn is_built_by_the_other(case: &Case, away: &str, other: &str) {
    let ended = case.run().await;
    case.is_right(&ended).await;
    let chosen: Vec<&str> = ended.chosen().into_iter().map(|(endpoint, _)| endpoint).collect();
    assert_eq!(chosen, [away, other], "{}", ended.told());
    assert_eq!(ended.chosen()[1].1, format!("{away} went away"));
    let [warning] = ended.warnings("worker-lost")[..] else { panic!("{}", ended.told()) };
    assert!(warning.contains(&format!("the build starts again on {other}")), "{warning}");
    // Who went is named, and so is why.
    assert!(warning.starts_with(&format!("the BuildKit at {away} went away: ")), "{warning}");
    let reason = warning.trim_start_matches(&format!("the BuildKit at {away} went away: "));
    assert!(!reason.starts_with(';') && !reason.contains("source:") && !reason.contains("broken pipe"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_a_command_runs_is_replaced() {
    let held = Held::now();
    let killed = Throwaway::docker();
    let (away, other) = (killed.backend.endpoint.clone(), Backend::second().endpoint);
    let case = Case::new(2.0).on(&[&away, &other]).once_started(killed.killer(Signal::KILL));
    is_built_by_the_other(&case, &away, &other).await;
    drop(killed);
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_gets_the_context_is_replaced() {
    let held = Held::now();
    let killed = Throwaway::docker();
    let (away, other) = (killed.backend.endpoint.clone(), Backend::second().endpoint);
    let kill = std::sync::Mutex::new(Some(killed.killer(Signal::KILL)));
    let case = Case::new(0.0).with_files(60, 1 << 20).on(&[&away, &other]).watching(move |event| {
        if matches!(event, Event::StepProgress { name, current, .. } if name.contains("context") && *current > 1 << 20)
            && let Some(kill) = kill.lock().unwrap().take()
        {
            kill();
        }
    });
    is_built_by_the_other(&case, &away, &other).await;
    drop(killed);
    held.is_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_the_only_worker_died_is_said() {
    let held = Held::now();
    for killed in [Some(Throwaway::docker()), Throwaway::buildkitd()].into_iter().flatten() {
        let case = Case::new(5.0).on(&[&killed.backend.endpoint]).once_started(killed.killer(Signal::KILL));
        let ended = case.run().await;
        let error = ended.error();
        assert_eq!(error.code(), "worker-lost", "{}", ended.told());
        let text = error.to_string();
        assert!(text.starts_with(&format!("the BuildKit at {} went away: ", killed.backend.endpoint)), "{text}");
        assert!(text.contains("no other could go on"), "{text}");
        assert!(error.hint().is_some());
    }
    held.is_all().await;
}
