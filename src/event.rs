//! What a build tells while it runs.
//!
//! Engines send, one thread (the caller's) receives. The channel is bounded: when the receiver is slow, progress is
//! dropped and everything else waits.

use serde::Serialize;
use tokio::sync::mpsc;

/// How many events may wait. A terminal redraws ten times a second; this holds several seconds of a chatty build.
pub const CAPACITY: usize = 1024;

/// One thing that happened. Serialized with a `type` tag in snake case: this is also the JSON that `--progress=json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named for what they hold; each variant says what happened")]
pub enum Event {
    /// What will build, and why it was chosen.
    Engine { engine: String, endpoint: String, version: String, builder: String, reason: String },
    /// The context is known. `bytes` is the sum of the file sizes, `excluded` counts a directory as one, and `largest` is
    /// what takes up most of it.
    Context {
        root: Option<String>,
        ignore_file: Option<String>,
        files: u64,
        bytes: u64,
        excluded: u64,
        extra_files: u64,
        largest: Option<Largest>,
        seconds: f64,
    },
    /// A step begins. `id` is unique in this build; `number`/`total` are those of BuildKit's `[2/5]` where known.
    StepStarted { id: String, name: String },
    /// A step moves bytes or counts something. `total` is 0 where unknown.
    StepProgress { id: String, name: String, current: u64, total: u64 },
    /// A step printed something: one or more bytes, not always a whole line. `stream` is 1 or 2.
    StepLog { id: String, stream: u8, text: String },
    /// A step ended.
    StepDone { id: String, name: String, seconds: f64, cached: bool, error: Option<String> },
    /// A layer moves to (or is already in) the registry. `status` is the daemon's word, e.g. `Pushing`.
    Push { reference: String, layer: String, status: String, current: u64, total: u64 },
    /// The push ended. No seconds are those of a worker that pushes while it builds.
    Pushed { reference: String, digest: String, seconds: f64 },
    /// Something the user should know that is no error.
    Warning { code: String, message: String },
    /// Something worth a line.
    Notice { message: String },
}

/// The largest directory or file directly below the root of a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Largest {
    /// Its path.
    pub path: String,
    /// Whether it is a directory.
    pub directory: bool,
    /// Bytes of the file, or of the files in and below the directory.
    pub bytes: u64,
}

impl Event {
    /// Whether this may be dropped when the receiver is slow: the next one of its kind says all that it said.
    const fn is_progress(&self) -> bool {
        match self {
            Self::StepProgress { .. } => true,
            Self::Push { current, total, .. } => *total > 0 && *current < *total,
            _ => false,
        }
    }
}

/// The sending half; cloned freely. Sending never fails: a build does not stop because nobody listens.
#[derive(Clone, Debug)]
pub struct Events(Option<mpsc::Sender<Event>>);

impl Events {
    /// A channel of [`CAPACITY`].
    pub fn channel() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self(Some(sender)), receiver)
    }

    /// Events that nobody wants.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Sends from asynchronous code; waits while the channel is full, unless the event is mere progress.
    pub async fn send(&self, event: Event) {
        let Some(sender) = &self.0 else { return };
        if event.is_progress() {
            // A full or closed channel: this is only progress, the next event makes up for it.
            let _ = sender.try_send(event);
        } else {
            // A closed channel: the caller has gone, and the build is being cancelled.
            let _ = sender.send(event).await;
        }
    }

    /// Sends what may be dropped, from anywhere, without waiting: progress.
    pub fn offer(&self, event: Event) {
        if let Some(sender) = &self.0 {
            // A full or closed channel: the next one says all that this one would have.
            let _ = sender.try_send(event);
        }
    }

    /// Sends from a blocking thread (never from asynchronous code); waits while the channel is full.
    pub fn send_blocking(&self, event: Event) {
        let Some(sender) = &self.0 else { return };
        let _ = if event.is_progress() {
            sender.try_send(event).map_err(|_| ())
        } else {
            sender.blocking_send(event).map_err(|_| ())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Event {
        Event::StepProgress { id: "1".into(), name: "x".into(), current: 1, total: 2 }
    }

    #[tokio::test]
    async fn progress_is_dropped_when_the_channel_is_full_and_the_rest_waits() {
        let (events, mut receiver) = Events::channel();
        for _ in 0..CAPACITY + 10 {
            events.send(progress()).await;
        }
        let sender = events.clone();
        let waiting = tokio::spawn(async move { sender.send(Event::Notice { message: "kept".into() }).await });
        drop(events);
        let mut seen = Vec::new();
        while let Some(event) = receiver.recv().await {
            seen.push(event);
        }
        waiting.await.unwrap();
        assert_eq!(seen.len(), CAPACITY + 1);
        assert_eq!(seen.last(), Some(&Event::Notice { message: "kept".into() }));
    }

    #[test]
    fn json_has_a_type() {
        let json = serde_json::to_value(progress()).unwrap();
        assert_eq!(json["type"], "step_progress");
    }
}
