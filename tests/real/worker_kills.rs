//! Workers that are killed at random instants.
//!
//! `COOPER_TEST_KILLS` says how often, `COOPER_TEST_SEED` repeats a run.

use std::time::Duration;

use rustix::process::Signal;

use crate::worker_bed::{Backend, Case, Held};
use crate::worker_daemon::Throwaway;

/// Enough for the tier to see that the test works.
const FEW: usize = 2;
/// Builds here take one to three seconds, the longer the busier the machine: most instants are before the end, some after it.
const SPAN: Duration = Duration::from_secs(3);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Marsaglia's xorshift: instants need no better one.
struct Random(u64);

impl Random {
    fn below(&mut self, end: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_micros(self.0 % u64::try_from(end.as_micros()).unwrap())
    }
}

fn build(endpoints: &[&str]) -> Case {
    Case::new(0.3).with_files(40, 100_000).on(endpoints)
}

/// Builds on one that is killed; and on two, of which the first is.
async fn are_killed(start: impl Fn() -> Option<Throwaway>, other: &str) {
    let held = Held::now();
    let rounds = number("COOPER_TEST_KILLS").map_or(FEW, |rounds| rounds.try_into().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("COOPER_TEST_SEED").unwrap_or(now.as_secs()).max(1);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).max(1));
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    for round in 0..rounds {
        let Some(killed) = start() else { return };
        let alone = round % 2 == 0;
        let endpoint = killed.backend.endpoint.clone();
        let case = if alone { build(&[&endpoint]) } else { build(&[&endpoint, other]) };
        let instant = random.below(SPAN);
        let kill = killed.killer(Signal::KILL);
        let later = async {
            tokio::time::sleep(instant).await;
            kill();
        };
        let (ended, ()) = tokio::join!(case.run(), later);
        let context = format!("seed {seed}, round {round}, killed after {instant:?}\n{}", ended.told());
        let lost = ended.warnings("worker-lost").len();
        let end = match &ended.result {
            Ok(_) => {
                case.is_right(&ended).await;
                format!("built after {lost} losses")
            }
            Err(error) => {
                assert!(alone, "{context}");
                assert!(["worker-lost", "worker-unreachable"].contains(&error.code()), "{context}");
                assert!(error.to_string().contains(&endpoint) && error.hint().is_some(), "{context}");
                error.code().to_owned()
            }
        };
        *ends.entry(format!("{} {end}", if alone { "alone:" } else { "one of two:" })).or_default() += 1;
        drop(killed);
        held.is_all().await;
    }
    println!("{rounds} rounds, seed {seed}: {ends:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_daemon_is_killed_at_any_instant() {
    are_killed(|| Some(Throwaway::docker()), &Backend::second().endpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buildkitd_is_killed_at_any_instant() {
    let Some(other) = Backend::buildkitd("BUILDKIT_HOST") else { return };
    are_killed(Throwaway::buildkitd, &other.endpoint).await;
}
