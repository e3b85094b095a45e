//! Which worker of several: the order in which they are asked, and the first of them that answers and has room.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use sha2::{Digest as _, Sha256};

use super::worker::{Ready, Worker};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::request::{BuildRequest, PoolPolicy, PoolSpec};

/// A worker that has not answered by then is not waited for alone: the next one is asked too.
const HEDGE: Duration = Duration::from_millis(1500);

/// What a project is known by: every build of it, by anybody, has the same key, so that all meet the same cache.
///
/// That is the repository of the first name, and the name of the context's directory. Without one (ZenML builds from extra files
/// alone, and calls all images of a stack by one repository) the tag stands for it.
pub(super) fn project(request: &BuildRequest) -> String {
    let tag = request.tags.first();
    let repository = tag.map(|tag| tag.name()).unwrap_or_default();
    let root = request.context.root.as_deref().map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned()));
    let directory = root.as_deref().and_then(|root| root.file_name()).map(|name| name.to_string_lossy().into_owned());
    let directory = directory.or_else(|| tag.and_then(|tag| tag.tag_or_latest()).map(str::to_owned)).unwrap_or_default();
    format!("{repository}\0{directory}")
}

/// How well a worker suits a project (rendezvous hashing; Thaler and Ravishankar, 1998): the highest of all has it. Where a
/// worker comes or goes, only the projects move that it has.
fn score(project: &str, worker: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [project, worker] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The places of the workers in `texts`, best first.
pub(super) fn order(policy: PoolPolicy, project: &str, texts: &[&str]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    if policy != PoolPolicy::Ordered {
        order.sort_by_key(|place| std::cmp::Reverse(score(project, texts[*place])));
    }
    order
}

/// A worker that was chosen, and why.
pub(super) struct Chosen {
    pub(super) ready: Ready,
    pub(super) reason: String,
}

/// What a worker answered.
pub(super) enum Answer {
    Ready(Box<Ready>),
    Failed(Error),
}

/// What the workers of a pool answered so far, by their place in the order.
#[derive(Default)]
struct Answers {
    ready: BTreeMap<usize, Ready>,
    failed: BTreeMap<usize, Error>,
}

/// Chooses among workers, given best first, one that builds for `wanted`.
///
/// Fails with the error of the only worker, with `WorkerUnreachable` where none answers, and with `Unsupported` where none of
/// those that do builds for the platform.
pub(super) async fn choose(spec: PoolSpec, workers: &[&Worker], wanted: Option<&Platform>) -> Result<Chosen> {
    let mut asked = 0;
    let mut answers = Answers::default();
    let mut pending: FuturesUnordered<BoxFuture<'_, (usize, Answer)>> = FuturesUnordered::new();
    let all_at_once = spec.policy == PoolPolicy::LeastLoaded;
    loop {
        // The next one is asked when none that was asked has answered well.
        while asked < workers.len() && (all_at_once || pending.is_empty()) {
            pending.push(ask(asked, workers[asked]));
            asked += 1;
        }
        let late = tokio::time::sleep(HEDGE);
        tokio::select! {
            answer = pending.next() => match answer {
                Some((place, Answer::Ready(ready))) => drop(answers.ready.insert(place, *ready)),
                Some((place, Answer::Failed(error))) => drop(answers.failed.insert(place, error)),
                None => {}
            },
            () = late, if asked < workers.len() => {
                pending.push(ask(asked, workers[asked]));
                asked += 1;
                continue;
            }
        }
        if all_at_once && !pending.is_empty() {
            continue;
        }
        let room = best(spec, &answers.ready, wanted);
        if room.is_some_and(|place| all_at_once || has_room(spec, &answers.ready[&place])) {
            break;
        }
        if asked == workers.len() && pending.is_empty() {
            break;
        }
    }
    take(spec, answers, workers, wanted)
}

fn ask(place: usize, worker: &Worker) -> BoxFuture<'_, (usize, Answer)> {
    Box::pin(async move {
        let answer = match worker.connect().await {
            Ok(ready) => Answer::Ready(Box::new(ready)),
            Err(error) => Answer::Failed(error),
        };
        (place, answer)
    })
}

/// Whether a worker may get one more build. One that does not tell how many it has always may.
fn has_room(spec: PoolSpec, ready: &Ready) -> bool {
    ready.about.running.is_none_or(|running| running < spec.busy.unwrap_or(PoolSpec::BUSY))
}

/// Whether a worker builds for a platform. One that does not tell for which ones is asked to try.
pub(super) fn serves(ready: &Ready, wanted: &Platform) -> bool {
    ready.platforms().is_empty() || ready.platforms().contains(wanted)
}

fn best(spec: PoolSpec, ready: &BTreeMap<usize, Ready>, wanted: Option<&Platform>) -> Option<usize> {
    let able = ready.iter().filter(|(_, ready)| wanted.is_none_or(|wanted| serves(ready, wanted)));
    let rank = |place: usize, ready: &Ready| {
        let running = ready.about.running.unwrap_or_default();
        match spec.policy {
            PoolPolicy::LeastLoaded => (running, place),
            // Where all are busy, the one that is least so.
            _ if !has_room(spec, ready) => (1 + running, place),
            _ => (0, place),
        }
    };
    able.min_by_key(|(place, ready)| rank(**place, ready)).map(|(place, _)| *place)
}

fn take(spec: PoolSpec, mut answers: Answers, workers: &[&Worker], wanted: Option<&Platform>) -> Result<Chosen> {
    if let Some(place) = best(spec, &answers.ready, wanted) {
        let reason = reason(spec, &answers, place, workers, wanted);
        if let Some(ready) = answers.ready.remove(&place) {
            return Ok(Chosen { ready, reason });
        }
    }
    if let (Some(wanted), Some(ready)) = (wanted, answers.ready.values().next()) {
        let there: Vec<String> = ready.platforms().iter().map(ToString::to_string).collect();
        return Err(Error::Unsupported {
            engine: "BuildKit".into(),
            feature: format!("build for {wanted}"),
            reason: format!(
                "no worker that answers does; {} builds for {}. Add a worker for it, or install emulation (binfmt) there",
                ready.text,
                there.join(", ")
            ),
        });
    }
    Err(sum_up(answers.failed, workers))
}

/// Why this one, where it is not simply the only one.
fn reason(
    spec: PoolSpec,
    answers: &Answers,
    place: usize,
    workers: &[&Worker],
    wanted: Option<&Platform>,
) -> String {
    if workers.len() == 1 {
        return "the only worker".to_owned();
    }
    let passed = (0..place).filter_map(|other| {
        let name = &workers[other].text;
        let ready = answers.ready.get(&other);
        match (ready, answers.failed.get(&other)) {
            (Some(ready), _) if wanted.is_some_and(|wanted| !serves(ready, wanted)) => {
                Some(format!("{name} does not build for the platform"))
            }
            (Some(ready), _) => {
                Some(format!("{name} is busy with {} builds", ready.about.running.unwrap_or_default()))
            }
            (None, Some(error)) => Some(format!("{name} does not serve ({})", error.code())),
            (None, None) => Some(format!("{name} is slow to answer")),
        }
    });
    let passed: Vec<String> = passed.collect();
    let own = match spec.policy {
        PoolPolicy::LeastLoaded => "it has the fewest builds",
        PoolPolicy::Ordered => "it comes first",
        PoolPolicy::Affinity => "it has this project's cache",
    };
    match (spec.policy, passed.is_empty()) {
        (PoolPolicy::LeastLoaded, _) | (_, true) => own.to_owned(),
        (_, false) => passed.join("; "),
    }
}

fn sum_up(mut failed: BTreeMap<usize, Error>, workers: &[&Worker]) -> Error {
    if failed.len() == 1
        && let Some((_, error)) = failed.pop_first()
    {
        return error;
    }
    let reason = |error: &Error| match error {
        Error::WorkerUnreachable { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    let tried: Vec<String> =
        failed.iter().map(|(place, error)| format!("{}: {}", workers[*place].text, reason(error))).collect();
    Error::WorkerUnreachable { endpoint: format!("any of {} addresses", failed.len()), reason: tried.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERS: [&str; 4] = ["tcp://a:1234", "tcp://b:1234", "tcp://c:1234", "tcp://d:1234"];

    fn first(project: &str, workers: &[&str]) -> String {
        workers[order(PoolPolicy::Affinity, project, workers)[0]].to_owned()
    }

    #[test]
    fn projects_spread_over_workers_and_stay() {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for number in 0..1000 {
            let project = format!("example.com/app{number}");
            let home = first(&project, &WORKERS);
            // The order in which workers are given does not matter, and a worker that goes moves nobody else's projects.
            let mut turned = WORKERS;
            turned.reverse();
            assert_eq!(first(&project, &turned), home);
            let rest: Vec<&str> = WORKERS.into_iter().filter(|worker| *worker != "tcp://b:1234").collect();
            if home != "tcp://b:1234" {
                assert_eq!(first(&project, &rest), home);
            }
            *counts.entry(home).or_default() += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (150..350).contains(count)), "{counts:?}");
        assert_eq!(order(PoolPolicy::Ordered, "x", &WORKERS), [0, 1, 2, 3]);
    }

    #[test]
    fn a_project_is_its_repository_and_its_directory() {
        let of = |tag: &str, root: Option<&str>| {
            let mut request = BuildRequest { tags: vec![tag.parse().unwrap()], ..BuildRequest::default() };
            request.context.root = root.map(Into::into);
            project(&request)
        };
        assert_eq!(of("r.io/a:1", Some("/home/me/app")), of("r.io/a:2", Some("/src/app/")));
        assert_ne!(of("r.io/a:1", Some("/home/me/app")), of("r.io/a:1", Some("/home/me/other")));
        assert_ne!(of("r.io/zenml:train", None), of("r.io/zenml:deploy", None));
    }
}
