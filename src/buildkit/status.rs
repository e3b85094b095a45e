//! What a daemon tells about a running build, as events and as a record of its steps.

use std::collections::HashMap;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};

use super::output::{Tail, Utf8Decoder};
use crate::event::{Event, Events};
use crate::outcome::StepOutcome;

/// The record of a build's steps. Each is a vertex of BuildKit's graph; its id is the vertex's digest.
pub struct Steps {
    events: Events,
    /// Names the build in each step, where others run beside it.
    part: Option<String>,
    by_id: HashMap<String, Step>,
    /// In the order in which they ended.
    done: Vec<String>,
    first_start: Option<f64>,
    last_end: Option<f64>,
}

#[derive(Default)]
struct Step {
    name: String,
    running: bool,
    started: Option<f64>,
    seconds: f64,
    cached: bool,
    printed: bool,
    error: Option<String>,
    decoders: [Utf8Decoder; 2],
    tail: Tail,
}

/// A step that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailedStep {
    /// Digest of the vertex.
    pub id: String,
    /// E.g. `[2/5] RUN make`.
    pub name: String,
    /// What the daemon says about it.
    pub error: String,
}

impl Steps {
    /// Sends to `events`. Where several builds do, `part` tells their steps apart, which may be the same ones.
    pub fn new(events: Events, part: Option<&str>) -> Self {
        let part = part.map(str::to_owned);
        Self { events, part, by_id: HashMap::new(), done: Vec::new(), first_start: None, last_end: None }
    }

    /// Takes in one message.
    pub async fn apply(&mut self, status: StatusResponse) {
        // A step's first message comes before its logs, and its last after them; both may be in one response.
        let (ended, begun): (Vec<_>, Vec<_>) =
            status.vertexes.into_iter().partition(|vertex| vertex.completed.is_some());
        for vertex in begun.iter().chain(&ended) {
            self.begin(vertex).await;
        }
        for log in &status.logs {
            self.log(log).await;
        }
        for progress in &status.statuses {
            self.progress(progress).await;
        }
        for warning in &status.warnings {
            self.events.send(warning_event(warning)).await;
        }
        for vertex in &ended {
            self.end(vertex).await;
        }
    }

    async fn begin(&mut self, vertex: &Vertex) {
        let step = self.by_id.entry(vertex.digest.clone()).or_default();
        step.name.clone_from(&vertex.name);
        let Some(started) = vertex.started.as_ref().map(seconds) else { return };
        self.first_start = Some(self.first_start.map_or(started, |first| first.min(started)));
        // The same message may come again, and a step may run again after it ended.
        if step.running || (step.started == Some(started)) {
            return;
        }
        step.running = true;
        step.started = Some(started);
        let (id, name) = (self.event_id(&vertex.digest), self.event_name(&vertex.name));
        self.events.send(Event::StepStarted { id, name }).await;
    }

    async fn end(&mut self, vertex: &Vertex) {
        self.flush(&vertex.digest).await;
        let Some(step) = self.by_id.get_mut(&vertex.digest) else { return };
        let Some(completed) = vertex.completed.as_ref().map(seconds) else { return };
        if !step.running {
            return;
        }
        step.running = false;
        step.seconds += (completed - step.started.unwrap_or(completed)).max(0.0);
        // A result from elsewhere is found first and fetched later, as if that were the step. A step that prints has run.
        step.cached = vertex.cached || (step.cached && !step.printed);
        step.error = (!vertex.error.is_empty()).then(|| vertex.error.clone());
        self.last_end = Some(self.last_end.map_or(completed, |last| last.max(completed)));
        self.done.retain(|id| *id != vertex.digest);
        self.done.push(vertex.digest.clone());
        let (seconds, cached, error) = (step.seconds, step.cached, step.error.clone());
        let (id, name) = (self.event_id(&vertex.digest), self.event_name(&vertex.name));
        self.events.send(Event::StepDone { id, name, seconds, cached, error }).await;
    }

    /// Ends the steps that were running: nothing more will be told of them.
    pub async fn abandon(&mut self, reason: &str) {
        let running: Vec<String> =
            self.by_id.iter().filter(|(_, step)| step.running).map(|(id, _)| id.clone()).collect();
        for id in running {
            self.flush(&id).await;
            let Some(step) = self.by_id.get_mut(&id) else { continue };
            step.running = false;
            step.error = Some(reason.to_owned());
            let (name, seconds, error) = (step.name.clone(), step.seconds, step.error.clone());
            let (id, name) = (self.event_id(&id), self.event_name(&name));
            self.events.send(Event::StepDone { id, name, seconds, cached: false, error }).await;
        }
    }

    async fn log(&mut self, log: &VertexLog) {
        let step = self.by_id.entry(log.vertex.clone()).or_default();
        let stream: u8 = if log.stream == 2 { 2 } else { 1 };
        let text = step.decoders[usize::from(stream) - 1].decode(&log.msg);
        self.send_text(&log.vertex, stream, text).await;
    }

    async fn send_text(&mut self, id: &str, stream: u8, text: String) {
        if text.is_empty() {
            return;
        }
        if let Some(step) = self.by_id.get_mut(id) {
            step.printed = true;
            step.tail.push(&text);
        }
        self.events.send(Event::StepLog { id: self.event_id(id), stream, text }).await;
    }

    /// Sends what is left of a character that was never completed.
    async fn flush(&mut self, id: &str) {
        for stream in [1_u8, 2] {
            let rest = self.by_id.get_mut(id).map(|step| step.decoders[usize::from(stream) - 1].finish());
            self.send_text(id, stream, rest.unwrap_or_default()).await;
        }
    }

    async fn progress(&self, status: &VertexStatus) {
        let name = match (status.id.as_str(), status.name.as_str()) {
            (id, "") => id.to_owned(),
            ("", name) => name.to_owned(),
            (id, name) if id.starts_with(name) => id.to_owned(),
            (id, name) => format!("{name} {id}"),
        };
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        let (current, total) = (count(status.current), count(status.total));
        self.events.send(Event::StepProgress { id: self.event_id(&status.vertex), name, current, total }).await;
    }

    /// A step's id in events.
    fn event_id(&self, id: &str) -> String {
        self.part.as_ref().map_or_else(|| id.to_owned(), |part| format!("{part} {id}"))
    }

    /// A step's name in events: `[linux/arm64 2/5] RUN x`, as BuildKit writes it where it builds for several platforms itself.
    fn event_name(&self, name: &str) -> String {
        match (&self.part, name.strip_prefix('[')) {
            (Some(part), Some(rest)) => format!("[{part} {rest}"),
            (Some(part), None) => format!("[{part}] {name}"),
            (None, _) => name.to_owned(),
        }
    }

    /// The steps that ended, in that order.
    pub fn outcomes(&self) -> Vec<StepOutcome> {
        let outcome =
            |step: &Step| StepOutcome { name: self.event_name(&step.name), seconds: step.seconds, cached: step.cached };
        self.done.iter().filter_map(|id| self.by_id.get(id)).map(outcome).collect()
    }

    /// Of the Dockerfile's own steps: how many there are, and how many came out of the cache.
    pub fn counts(&self) -> (u64, u64) {
        let own = self.done.iter().filter_map(|id| self.by_id.get(id)).filter(|step| is_own_step(&step.name));
        own.fold((0, 0), |(total, cached), step| (total + 1, cached + u64::from(step.cached)))
    }

    /// Seconds from the first step's start to the last one's end, by the daemon's clock.
    pub fn seconds(&self) -> f64 {
        match (self.first_start, self.last_end) {
            (Some(first), Some(last)) => (last - first).max(0.0),
            _ => 0.0,
        }
    }

    /// The step that made the build fail with `message`.
    ///
    /// Others may have failed too: those that were cancelled because of it, and those that a build can do without, such
    /// as the import of a cache.
    pub fn failed(&self, message: &str) -> Option<FailedStep> {
        let failed = self.done.iter().filter_map(|id| {
            let step = self.by_id.get(id)?;
            let error = step.error.clone()?;
            Some(FailedStep { id: id.clone(), name: step.name.clone(), error })
        });
        let rank = |step: &FailedStep| {
            let quoted = message.contains(&step.error);
            (step.error.contains("context canceled"), !quoted, !is_own_step(&step.name))
        };
        // Of equals the first.
        failed.min_by_key(rank)
    }

    /// A step's name.
    pub fn name(&self, id: &str) -> Option<&str> {
        self.by_id.get(id).map(|step| step.name.as_str())
    }

    /// The last lines that a step printed.
    pub fn tail(&self, id: &str) -> Vec<String> {
        self.by_id.get(id).map(|step| step.tail.lines()).unwrap_or_default()
    }
}

/// Whether a vertex stands for an instruction: `[2/5] RUN ...`, `[build 1/3] FROM ...`, not `[internal] ...`.
pub(super) fn is_own_step(name: &str) -> bool {
    let inside = name.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("", |(inside, _)| inside);
    let number = inside.rsplit(' ').next().unwrap_or_default();
    number.split_once('/').is_some_and(|(n, m)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits(n) && digits(m)
    })
}

fn warning_event(warning: &VertexWarning) -> Event {
    let mut message = String::from_utf8_lossy(&warning.short).into_owned();
    let line = warning.ranges.first().and_then(|range| range.start).map(|start| start.line);
    if let (Some(info), Some(line)) = (&warning.info, line) {
        message = format!("{message} ({}:{line})", info.filename);
    }
    Event::Warning { code: "dockerfile".into(), message }
}

#[allow(clippy::cast_precision_loss, reason = "times of this century have room for microseconds")]
fn seconds(time: &Timestamp) -> f64 {
    time.seconds as f64 + f64::from(time.nanos) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(digest: &str, name: &str, started: i64, completed: Option<i64>) -> Vertex {
        let time = |seconds: i64| Timestamp { seconds, nanos: 0 };
        let (started, completed) = (Some(time(started)), completed.map(time));
        Vertex { digest: digest.into(), name: name.into(), started, completed, ..Vertex::default() }
    }

    fn log(digest: &str, text: &[u8]) -> VertexLog {
        VertexLog { vertex: digest.into(), stream: 1, msg: text.to_vec(), timestamp: None }
    }

    fn drain(receiver: &mut tokio::sync::mpsc::Receiver<Event>) -> Vec<Event> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn a_step_starts_once_prints_and_ends() {
        let (events, mut receiver) = Events::channel();
        let mut steps = Steps::new(events, None);
        let running = vertex("d", "[1/2] RUN x", 10, None);
        steps.apply(StatusResponse { vertexes: vec![running.clone(), running], ..Default::default() }).await;
        steps.apply(StatusResponse { logs: vec![log("d", b"gr\xc3")], ..Default::default() }).await;
        let ended = vec![vertex("d", "[1/2] RUN x", 10, Some(12))];
        steps
            .apply(StatusResponse {
                logs: vec![log("d", b"\xbc\xc3\x9fe\n")],
                vertexes: ended.clone(),
                ..Default::default()
            })
            .await;
        steps.apply(StatusResponse { vertexes: ended, ..Default::default() }).await;
        let (id, name) = ("d".to_owned(), "[1/2] RUN x".to_owned());
        let text = |text: &str| Event::StepLog { id: id.clone(), stream: 1, text: text.into() };
        let expected = [
            Event::StepStarted { id: id.clone(), name: name.clone() },
            text("gr"),
            text("\u{fc}\u{df}e\n"),
            Event::StepDone { id: id.clone(), name: name.clone(), seconds: 2.0, cached: false, error: None },
        ];
        assert_eq!(drain(&mut receiver), expected);
        assert_eq!(steps.outcomes(), [StepOutcome { name, seconds: 2.0, cached: false }]);
        assert_eq!((steps.counts(), steps.tail("d")), ((1, 0), vec!["gr\u{fc}\u{df}e".to_owned()]));
    }

    #[tokio::test]
    async fn a_cached_step_stays_cached_unless_it_runs() {
        let mut steps = Steps::new(Events::none(), None);
        let ended = |cached, number| Vertex { cached, ..vertex("d", "[1/1] RUN x", number, Some(number + 1)) };
        for (cached, number) in [(true, 1), (false, 3)] {
            steps.apply(StatusResponse { vertexes: vec![ended(cached, number)], ..Default::default() }).await;
            assert_eq!(steps.counts(), (1, 1));
        }
        steps.apply(StatusResponse { vertexes: vec![vertex("d", "[1/1] RUN x", 5, None)], ..Default::default() }).await;
        let (logs, vertexes) = (vec![log("d", b"it runs\n")], vec![ended(false, 5)]);
        steps.apply(StatusResponse { logs, vertexes, ..Default::default() }).await;
        assert_eq!(steps.counts(), (1, 0));
    }

    #[tokio::test]
    async fn steps_of_a_lost_build_end() {
        let (events, mut receiver) = Events::channel();
        let mut steps = Steps::new(events, None);
        let vertexes = vec![vertex("a", "[1/2] RUN a", 1, Some(2)), vertex("b", "[2/2] RUN b", 1, None)];
        steps.apply(StatusResponse { vertexes, ..Default::default() }).await;
        drain(&mut receiver);
        steps.abandon("gone").await;
        steps.abandon("gone").await;
        let error = Some("gone".to_owned());
        let expected =
            Event::StepDone { id: "b".into(), name: "[2/2] RUN b".into(), seconds: 0.0, cached: false, error };
        assert_eq!(drain(&mut receiver), [expected]);
    }

    #[tokio::test]
    async fn the_failure_is_the_step_that_was_not_cancelled() {
        let mut steps = Steps::new(Events::none(), None);
        let failing = |digest: &str, error: &str| Vertex { error: error.into(), ..vertex(digest, digest, 1, Some(2)) };
        let vertexes = vec![
            failing("importing cache manifest from x", "x: not found"),
            failing("[1/3] RUN a", "rpc error: context canceled"),
            failing("[2/3] RUN b", "exit code: 1"),
        ];
        steps.apply(StatusResponse { vertexes, ..Default::default() }).await;
        assert_eq!(steps.failed("process failed: exit code: 1").unwrap().id, "[2/3] RUN b");
        assert_eq!(steps.failed("something else").unwrap().id, "[2/3] RUN b");
    }

    #[test]
    fn own_steps_are_numbered() {
        for name in ["[1/2] FROM x", "[build 2/13] RUN y", "[linux/amd64 build 2/3] RUN y"] {
            assert!(is_own_step(name), "{name}");
        }
        for name in
            ["[internal] load metadata for docker.io/a/b", "exporting to image", "[auth] x/y", "[context a/b] x"]
        {
            assert!(!is_own_step(name), "{name}");
        }
    }
}
