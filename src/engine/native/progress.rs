//! What is told of the steps of a stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::error::Error;
use crate::event::{Event, Events};
use crate::outcome::StepOutcome;

/// Numbers the steps of one stage: `[2/5] COPY . .`, or `[train 2/5]` where there are several.
pub(super) struct Progress {
    events: Events,
    stage: Option<String>,
    ids: Arc<AtomicU64>,
    number: u64,
    total: u64,
}

/// How a step came about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ran {
    /// It was in the cache.
    Cached,
    /// It was done.
    Done,
}

/// A step that was begun.
pub(super) struct Running {
    events: Events,
    id: String,
    name: String,
    started: Instant,
}

impl Progress {
    /// The steps of a stage, FROM among them.
    pub(super) const fn new(events: Events, stage: Option<String>, ids: Arc<AtomicU64>, total: u64) -> Self {
        Self { events, stage, ids, number: 0, total }
    }

    /// Begins the next one.
    pub(super) async fn begin(&mut self, text: &str) -> Running {
        self.number += 1;
        let stage = self.stage.as_ref().map(|stage| format!("{stage} ")).unwrap_or_default();
        let name = format!("[{stage}{}/{}] {text}", self.number, self.total);
        let id = self.ids.fetch_add(1, Ordering::Relaxed).to_string();
        self.events.send(Event::StepStarted { id: id.clone(), name: name.clone() }).await;
        Running { events: self.events.clone(), id, name, started: Instant::now() }
    }
}

/// Tells what a step prints, from a thread that may wait.
pub(super) struct Teller {
    events: Events,
    id: String,
}

impl Teller {
    /// Tells a text of one of the streams, 1 or 2.
    pub(super) fn log(&self, stream: u8, text: String) {
        self.events.send_blocking(Event::StepLog { id: self.id.clone(), stream, text });
    }
}

impl Running {
    /// What tells the output of its command.
    pub(super) fn teller(&self) -> Teller {
        Teller { events: self.events.clone(), id: self.id.clone() }
    }

    /// Says something of it.
    pub(super) async fn say(&self, text: &str) {
        let text = format!("{text}\n");
        self.events.send(Event::StepLog { id: self.id.clone(), stream: 1, text }).await;
    }

    /// Tells how far it is, from any thread.
    pub(super) fn reporter(&self) -> impl Fn(u64, u64) + Send + Sync + use<> {
        let (events, id, name) = (self.events.clone(), self.id.clone(), self.name.clone());
        move |current, total| events.offer(Event::StepProgress { id: id.clone(), name: name.clone(), current, total })
    }

    /// Ends it.
    pub(super) async fn end(self, ran: Ran) -> StepOutcome {
        let (seconds, cached) = (self.started.elapsed().as_secs_f64(), ran == Ran::Cached);
        let Self { events, id, name, .. } = self;
        events.send(Event::StepDone { id, name: name.clone(), seconds, cached, error: None }).await;
        StepOutcome { name, seconds, cached }
    }

    /// Ends it with an error.
    pub(super) async fn fail(self, error: &Error) {
        let seconds = self.started.elapsed().as_secs_f64();
        let error = Some(error.to_string());
        let done = Event::StepDone { id: self.id, name: self.name, seconds, cached: false, error };
        self.events.send(done).await;
    }
}
