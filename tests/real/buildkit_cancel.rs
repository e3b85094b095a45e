//! Cancelling a build with BuildKit on a real daemon of this machine.

use std::time::{Duration, Instant};

use cooper::error::Error;

use crate::buildkit_bed::{Bed, unique};

/// Whether a process of this machine has `marker` in its command line.
fn runs(marker: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).contains(marker))
}

async fn wait_until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_returns_at_once_and_its_command_stops() {
    let bed = Bed::new();
    let marker = format!("sleep-{}", unique());
    let dockerfile = format!("FROM BUSYBOX\nRUN : {marker}; sleep 1000; :\n");
    let build = async {
        let (result, _) = bed.build(&dockerfile).await;
        (result, Instant::now())
    };
    let cancel = async {
        wait_until("the start of RUN", Duration::from_secs(30), || runs(&marker)).await;
        let now = Instant::now();
        bed.cancel.cancel();
        now
    };
    let ((result, returned), cancelled) = tokio::join!(build, cancel);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    let took = returned - cancelled;
    assert!(took < Duration::from_millis(200), "{took:?}");
    wait_until("the end of RUN", Duration::from_secs(10), || !runs(&marker)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_build_stops_too() {
    let bed = Bed::new();
    let marker = format!("sleep-{}", unique());
    let dockerfile = format!("FROM BUSYBOX\nRUN : {marker}; sleep 1000; :\n");
    tokio::select! {
        (result, _) = bed.build(&dockerfile) => panic!("{result:?}"),
        () = wait_until("the start of RUN", Duration::from_secs(30), || runs(&marker)) => {}
    }
    wait_until("the end of RUN", Duration::from_secs(10), || !runs(&marker)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_while_files_are_sent_returns_at_once() {
    let bed = Bed::new();
    for number in 0..200 {
        bed.write(&format!("file{number}"), &format!("{number}{}", "x".repeat(1 << 20)));
    }
    let build = async {
        let (result, _) = bed.build("FROM BUSYBOX\nCOPY . /all\n").await;
        (result, Instant::now())
    };
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        bed.cancel.cancel();
        Instant::now()
    };
    let ((result, returned), cancelled) = tokio::join!(build, cancel);
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(returned.saturating_duration_since(cancelled) < Duration::from_millis(200));
}
