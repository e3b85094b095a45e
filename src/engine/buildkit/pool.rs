//! Which worker of several: the order in which they are asked, and the first of them that answers and has room.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use sha2::{Digest as _, Sha256};

use super::worker::{Ready, Worker};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::request::{BuildRequest, PoolPolicy, PoolSpec};

/// A worker that has not answered by then is not waited for alone: the next one is asked too.
const HEDGE: Duration = Duration::from_millis(1500);

/// What a project is known by: every build of it, by anybody, has the same key, so that all meet the same cache.
///
/// That is the repository of the first name, and the name of the context's directory. Without one (ZenML builds from extra files
/// alone, and calls all images of a stack by one repository) the tag stands for it.
pub(super) fn project(request: &BuildRequest) -> String {
    let tag = request.tags.first();
    let repository = tag.map(Reference::name).unwrap_or_default();
    let root =
        request.context.root.as_deref().map(|root| std::path::absolute(root).unwrap_or_else(|_| root.to_owned()));
    let directory = root.as_deref().and_then(|root| root.file_name()).map(|name| name.to_string_lossy().into_owned());
    let directory =
        directory.or_else(|| tag.and_then(|tag| tag.tag_or_latest()).map(str::to_owned)).unwrap_or_default();
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
enum Answer {
    Ready(Box<Ready>),
    Failed(Error),
}

/// What the workers of a pool answered so far, by their place in the order.
#[derive(Default)]
struct Answers {
    ready: BTreeMap<usize, Ready>,
    failed: BTreeMap<usize, Error>,
}

impl Answers {
    fn add(&mut self, place: usize, answer: Answer) {
        match answer {
            Answer::Ready(ready) => drop(self.ready.insert(place, *ready)),
            Answer::Failed(error) => drop(self.failed.insert(place, error)),
        }
    }
}

/// Chooses among workers, given best first, one that builds for `wanted`.
///
/// Fails with the error of the only worker, with `WorkerUnreachable` where none answers, and with `Unsupported` where none of
/// those that do builds for the platform.
pub(super) async fn choose(spec: PoolSpec, workers: &[&Worker], wanted: &[Platform]) -> Result<Chosen> {
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
            Some((place, answer)) = pending.next() => answers.add(place, answer),
            () = late, if asked < workers.len() => {
                pending.push(ask(asked, workers[asked]));
                asked += 1;
                continue;
            }
            else => {}
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

/// Whether a worker builds for all of these platforms. One that does not tell for which ones is asked to try.
fn serves(ready: &Ready, wanted: &[Platform]) -> bool {
    ready.platforms().is_empty() || wanted.iter().all(|wanted| ready.platforms().contains(wanted))
}

/// Whether a worker is of a platform's architecture; others emulate it, many times slower.
fn is_native(ready: &Ready, wanted: &Platform) -> bool {
    let same = |own: &Platform| (&own.os, &own.architecture) == (&wanted.os, &wanted.architecture);
    ready.platforms().first().is_none_or(same)
}

/// A worker, and the platforms that it builds for.
pub(super) struct Share {
    pub(super) chosen: Chosen,
    pub(super) platforms: Vec<Platform>,
}

/// Shares several platforms out: each goes to a worker of its own architecture where there is one, and as few workers as
/// that takes. Fails as [`choose`].
pub(super) async fn share(spec: PoolSpec, workers: &[&Worker], wanted: &[Platform]) -> Result<Vec<Share>> {
    let asked = workers.iter().enumerate().map(|(place, worker)| ask(place, worker));
    let mut answers = Answers::default();
    for (place, answer) in join_all(asked).await {
        answers.add(place, answer);
    }
    let mut shares: BTreeMap<usize, Vec<Platform>> = BTreeMap::new();
    for platform in wanted {
        let able = answers.ready.iter().filter(|(_, ready)| serves(ready, std::slice::from_ref(platform)));
        let cost = |place: usize, ready: &Ready| {
            (!is_native(ready, platform), !has_room(spec, ready), !shares.contains_key(&place), place)
        };
        let Some(place) = able.min_by_key(|(place, ready)| cost(**place, ready)).map(|(place, _)| *place) else {
            return take(spec, answers, workers, std::slice::from_ref(platform)).map(|_| Vec::new());
        };
        shares.entry(place).or_default().push(platform.clone());
    }
    let alone = shares.len() == 1;
    let share = |(place, platforms): (usize, Vec<Platform>)| {
        let ready = answers.ready.remove(&place)?;
        let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        let reason =
            if alone { "it builds for all platforms".to_owned() } else { format!("it builds {}", names.join(", ")) };
        Some(Share { chosen: Chosen { ready, reason }, platforms })
    };
    Ok(shares.into_iter().filter_map(share).collect())
}

fn best(spec: PoolSpec, ready: &BTreeMap<usize, Ready>, wanted: &[Platform]) -> Option<usize> {
    let able = ready.iter().filter(|(_, ready)| serves(ready, wanted));
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

fn take(spec: PoolSpec, mut answers: Answers, workers: &[&Worker], wanted: &[Platform]) -> Result<Chosen> {
    if let Some(place) = best(spec, &answers.ready, wanted) {
        let reason = reason(spec, &answers, place, workers, wanted);
        if let Some(ready) = answers.ready.remove(&place) {
            return Ok(Chosen { ready, reason });
        }
    }
    if let (false, Some(ready)) = (wanted.is_empty(), answers.ready.values().next()) {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let there: Vec<String> = ready.platforms().iter().map(ToString::to_string).collect();
        return Err(Error::Unsupported {
            engine: "BuildKit".into(),
            feature: format!("build for {}", wanted.join(", ")),
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
fn reason(spec: PoolSpec, answers: &Answers, place: usize, workers: &[&Worker], wanted: &[Platform]) -> String {
    if workers.len() == 1 {
        return "the only worker".to_owned();
    }
    let passed = (0..place).map(|other| {
        let name = &workers[other].text;
        let ready = answers.ready.get(&other);
        match (ready, answers.failed.get(&other)) {
            (Some(ready), _) if !serves(ready, wanted) => {
                format!("{name} does not build for the platform")
            }
            (Some(ready), _) => {
                format!("{name} is busy with {} builds", ready.about.running.unwrap_or_default())
            }
            (None, Some(error)) => format!("{name} does not serve ({})", error.code()),
            (None, None) => format!("{name} is slow to answer"),
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
