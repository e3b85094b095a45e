//! The gate between Python and the core: every long call goes through [`run`].
//!
//! The work runs as a task on a runtime of its own. The thread that called waits for it without the interpreter, and takes
//! the interpreter back only to look for signals, to deliver events, to ask for credentials and to write output. So only that
//! thread ever touches the caller's objects, and nothing survives the call: a forked child can build as well.

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::{convert, error};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::event::{Event, Events};
use crate::request::{Credential, Credentials, Job};

/// How often signals are looked for: well below the 200 ms in which a build answers Ctrl-C.
const TICK: Duration = Duration::from_millis(50);

/// How long work that was cancelled may take to clean up before it is dropped where it stands. Engines answer much
/// sooner; this is for a defect in one.
const CLEANUP: Duration = Duration::from_secs(10);

/// How long threads that read files may take to notice that the call is over.
pub(super) const LAST_THREADS: Duration = Duration::from_secs(2);

/// Threads that drive sockets. Files are read on other threads, and the calling thread only waits.
const WORKERS: usize = 2;

/// How many pieces of output may wait for the caller's file.
const CHUNKS: usize = 4;

/// The size of a piece of output: large enough that writing it costs more than crossing to Python.
const CHUNK_BYTES: usize = 1 << 20;

/// What the core may call while it runs, and the flag that stops it.
#[derive(Default)]
pub(super) struct Caller<'py> {
    /// `on_event(event: dict)`.
    pub(super) on_event: Option<Bound<'py, PyAny>>,
    /// `credentials(registry: str, refresh: bool) -> dict | None`.
    pub(super) credentials: Option<Bound<'py, PyAny>>,
    /// An object with `write(bytes)`.
    pub(super) output: Option<Bound<'py, PyAny>>,
    /// A flag that other threads may set.
    pub(super) cancel: Cancel,
}

/// What the work gets.
pub(super) struct Work {
    /// Events, cancellation and credentials.
    pub(super) job: Job,
    /// Goes to the caller's `output`; for blocking threads.
    pub(super) output: ChunkWriter,
}

/// A question for the caller.
pub(super) struct Ask {
    pub(super) registry: String,
    pub(super) refresh: bool,
    pub(super) reply: oneshot::Sender<Option<Credential>>,
}

/// Credentials that the thread at the other end of a channel gives.
pub(super) struct Asking(pub(super) mpsc::Sender<Ask>);

#[async_trait::async_trait]
impl Credentials for Asking {
    async fn get(&self, registry: &str, refresh: bool) -> Result<Option<Credential>> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { registry: registry.to_owned(), refresh, reply };
        // Nobody at the other end, or no answer: an exception was raised there, and the build is being cancelled.
        self.0.send(ask).await.map_err(|_| Error::Interrupted)?;
        answer.await.map_err(|_| Error::Interrupted)
    }
}

/// Sends what is written to the calling thread, in pieces of [`CHUNK_BYTES`].
pub(super) struct ChunkWriter {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Vec<u8>>,
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + data.len() > CHUNK_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        self.sender.blocking_send(chunk).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// What the calling thread wakes up for.
enum Wake<T> {
    Event(Event),
    Ask(Ask),
    Chunk(Vec<u8>),
    Tick,
    Done(Result<Result<T>, JoinError>),
}

/// The calling thread's ends of the channels, and the task.
struct Inbox<T> {
    events: mpsc::Receiver<Event>,
    asks: mpsc::Receiver<Ask>,
    chunks: mpsc::Receiver<Vec<u8>>,
    task: JoinHandle<Result<T>>,
}

impl<T> Inbox<T> {
    async fn next(&mut self, tick: Instant) -> Wake<T> {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(tick) => Wake::Tick,
            Some(event) = self.events.recv() => Wake::Event(event),
            Some(chunk) = self.chunks.recv() => Wake::Chunk(chunk),
            Some(ask) = self.asks.recv() => Wake::Ask(ask),
            result = &mut self.task => Wake::Done(result),
        }
    }

    /// What was sent before the task ended.
    fn rest(&mut self) -> Option<Wake<T>> {
        let event = self.events.try_recv().map(Wake::Event);
        event.or_else(|_| self.chunks.try_recv().map(Wake::Chunk)).ok()
    }
}

/// Runs `work` to its end on a runtime of its own, and returns what it returned.
///
/// An exception in one of the caller's functions, or out of a signal handler (`KeyboardInterrupt`), cancels the work and is
/// raised once the work has stopped. A cancel flag that another thread set ends in `CooperCancelled`.
pub(super) fn run<T, F>(py: Python<'_>, caller: &Caller<'_>, work: impl FnOnce(Work) -> F) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let runtime = runtime().map_err(|failed| error::raise(py, &failed))?;
    let cancel = caller.cancel.clone();
    let (events, event_receiver) = Events::channel();
    let events = if caller.on_event.is_some() { events } else { Events::none() };
    let (ask_sender, asks) = mpsc::channel(1);
    let (chunk_sender, chunks) = mpsc::channel(CHUNKS);
    let job = Job { events, cancel: cancel.clone(), credentials: Arc::new(Asking(ask_sender)) };
    let output = ChunkWriter { buffer: Vec::new(), sender: chunk_sender };
    let task = runtime.spawn(work(Work { job, output }));
    let inbox = Inbox { events: event_receiver, asks, chunks, task };
    let result = attend(py, caller, &runtime, inbox, &cancel);
    py.detach(|| runtime.shutdown_timeout(LAST_THREADS));
    result
}

/// Serves the task until it ends.
fn attend<T: Send>(
    py: Python<'_>,
    caller: &Caller<'_>,
    runtime: &Runtime,
    mut inbox: Inbox<T>,
    cancel: &Cancel,
) -> PyResult<T> {
    let mut stopped: Option<(PyErr, Instant)> = None;
    let mut tick = Instant::now() + TICK;
    let result = loop {
        let wake = py.detach(|| runtime.block_on(inbox.next(tick)));
        if let Wake::Done(result) = wake {
            break result;
        }
        if Instant::now() >= tick {
            tick = Instant::now() + TICK;
        }
        let mut outcome = py.check_signals();
        if outcome.is_ok() && stopped.is_none() {
            outcome = caller.serve(py, wake);
        }
        match (outcome, &stopped) {
            (Err(exception), None) => {
                stopped = Some((exception, Instant::now() + CLEANUP));
                cancel.cancel();
            }
            // A second Ctrl-C, or a defect: do not wait any longer.
            (Err(_), Some(_)) => inbox.task.abort(),
            (Ok(()), Some((_, end))) if Instant::now() >= *end => inbox.task.abort(),
            _ => {}
        }
    };
    if let Some((exception, _)) = stopped {
        return Err(exception);
    }
    while let Some(wake) = inbox.rest() {
        caller.serve(py, wake)?;
    }
    joined(result).map_err(|failed| error::raise(py, &failed))
}

/// The result of a task; a panic in it is a defect of ours, and is told as one.
pub(super) fn joined<T>(result: Result<Result<T>, JoinError>) -> Result<T> {
    result.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Error::internal(format!("a task panicked: {}", text.unwrap_or("no message"))))
        }
        Err(_) => Err(Error::Interrupted),
    })
}

/// A runtime for one call. Making one costs about a tenth of a millisecond; one for the whole process would hang in a
/// forked child.
pub(super) fn runtime() -> Result<Runtime> {
    let built = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("cooper").enable_all().build();
    built.map_err(|failed| Error::internal(format!("no threads for a runtime: {failed}")))
}

impl Caller<'_> {
    /// Calls the function that `wake` is for.
    fn serve<T>(&self, py: Python<'_>, wake: Wake<T>) -> PyResult<()> {
        match wake {
            Wake::Event(event) => {
                let Some(on_event) = &self.on_event else { return Ok(()) };
                on_event.call1((convert::event(py, &event)?,)).map(drop)
            }
            Wake::Ask(ask) => {
                let answer = match &self.credentials {
                    Some(function) => convert::ask(function, &ask.registry, ask.refresh)?,
                    None => None,
                };
                // Nobody waits for the answer any more when the build has ended meanwhile.
                let _ = ask.reply.send(answer);
                Ok(())
            }
            Wake::Chunk(chunk) => self.output.as_ref().map_or(Ok(()), |output| write_all(py, output, &chunk)),
            Wake::Tick | Wake::Done(_) => Ok(()),
        }
    }
}

/// Writes all of `chunk`: an unbuffered file may take a part only.
fn write_all(py: Python<'_>, output: &Bound<'_, PyAny>, mut chunk: &[u8]) -> PyResult<()> {
    while !chunk.is_empty() {
        let answer = output.call_method1(intern!(py, "write"), (PyBytes::new(py, chunk),))?;
        // Not every object that has a `write` says how much it took.
        let written = answer.extract::<usize>().map_or(chunk.len(), |written| written.min(chunk.len()));
        if written == 0 {
            return Err(pyo3::exceptions::PyOSError::new_err("the output takes no more data"));
        }
        chunk = &chunk[written..];
        if !chunk.is_empty() {
            py.check_signals()?;
        }
    }
    Ok(())
}
