//! The gate for asyncio: a build as an awaitable.
//!
//! Each build has a thread with a runtime of its own, as in [`super::run`], so nothing here breaks in a forked child.
//! Events reach the caller's function on the event loop's thread (`call_soon_threadsafe`). The function for credentials is
//! called on a helper thread; `zenml_cooper.aio` wraps it so that the caller's own runs on the loop.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{self, ContextExt, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::run::{Ask, Asking, LAST_THREADS, joined, runtime};
use super::{convert, error};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::event::{Event, Events};
use crate::outcome::Outcome;
use crate::request::Job;

/// The caller's functions.
pub(super) struct Functions {
    pub(super) on_event: Option<Py<PyAny>>,
    pub(super) credentials: Option<Py<PyAny>>,
}

/// Starts `work` and returns a future of the running event loop for its outcome.
///
/// Cancelling that future cancels the work, without waiting for it to end; `zenml_cooper.aio.build` waits.
pub(super) fn start<F>(
    py: Python<'_>,
    functions: Functions,
    cancel: Cancel,
    work: impl FnOnce(Job) -> F + Send + 'static,
) -> PyResult<Bound<'_, PyAny>>
where
    F: Future<Output = Result<Outcome>> + Send + 'static,
{
    let locals = TaskLocals::with_running_loop(py)?.copy_context(py)?;
    let event_loop = locals.event_loop(py).unbind();
    let future = async move {
        let result = serve(functions, event_loop, cancel, work).await;
        let convert = move || {
            Python::attach(|py| match result {
                Ok(outcome) => convert::object(py, &outcome).map(Bound::unbind),
                Err(failed) => Err(error::raise(py, &failed)),
            })
        };
        tokio::task::block_in_place(convert)
    };
    generic::future_into_py_with_locals::<PerCall, _, _>(py, locals, future)
}

/// Cancels when it is dropped: the future was cancelled, or the work is over.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn serve<F>(
    functions: Functions,
    event_loop: Py<PyAny>,
    cancel: Cancel,
    work: impl FnOnce(Job) -> F + Send + 'static,
) -> Result<Outcome>
where
    F: Future<Output = Result<Outcome>> + Send + 'static,
{
    let (events, event_receiver) = Events::channel();
    let (ask_sender, asks) = mpsc::channel(1);
    let events = if functions.on_event.is_some() { events } else { Events::none() };
    let job = Job { events, cancel: cancel.clone(), credentials: Arc::new(Asking(ask_sender)) };
    let guard = CancelOnDrop(cancel);
    let (over, is_over) = oneshot::channel::<()>();
    let deliver = functions.on_event.map(|function| {
        let handle = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || handle.block_on(pump(event_receiver, is_over, &event_loop, &function)))
    });
    let answer = tokio::task::spawn_blocking(move || answer(asks, functions.credentials.as_ref()));
    let result = joined(tokio::spawn(work(job)).await);
    drop(over);
    if let Some(deliver) = deliver {
        // It cannot panic; and what it could not deliver has nobody left who would read it.
        let _ = deliver.await;
    }
    drop(guard);
    answer.abort();
    result
}

/// Delivers events to the loop until the work is over and the channel is empty.
async fn pump(
    mut events: mpsc::Receiver<Event>,
    mut is_over: oneshot::Receiver<()>,
    event_loop: &Py<PyAny>,
    function: &Py<PyAny>,
) {
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => deliver(&event, event_loop, function),
                None => return,
            },
            _ = &mut is_over => {
                while let Ok(event) = events.try_recv() {
                    deliver(&event, event_loop, function);
                }
                return;
            }
        }
    }
}

fn deliver(event: &Event, event_loop: &Py<PyAny>, function: &Py<PyAny>) {
    // Without an interpreter, or with a closed loop, nobody is left who would read the event.
    let _ = Python::try_attach(|py| -> PyResult<()> {
        let event = convert::event(py, event)?;
        event_loop.call_method1(py, "call_soon_threadsafe", (function, event)).map(drop)
    });
}

/// Answers questions until nobody can ask any more. An exception in the caller's function leaves the question without an
/// answer, which ends the build; `zenml_cooper.aio` keeps the exception and raises it.
fn answer(mut asks: mpsc::Receiver<Ask>, function: Option<&Py<PyAny>>) {
    while let Some(Ask { registry, refresh, reply }) = asks.blocking_recv() {
        let given = Python::try_attach(|py| match function {
            Some(function) => convert::ask(function.bind(py), &registry, refresh),
            None => Ok(None),
        });
        match given {
            Some(Ok(credential)) => drop(reply.send(credential)),
            Some(Err(_)) | None => return,
        }
    }
}

/// A thread and a runtime for each future that Python starts; what these start runs on the same runtime.
struct PerCall;

/// Why a spawned future has no result.
struct Ended(Option<tokio::task::JoinError>);

impl generic::JoinError for Ended {
    fn is_panic(&self) -> bool {
        self.0.as_ref().is_some_and(tokio::task::JoinError::is_panic)
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        match self.0 {
            Some(failed) if failed.is_panic() => failed.into_panic(),
            _ => Box::new("the thread of this future ended"),
        }
    }
}

/// Waits for a future on this runtime, or for a thread.
enum Handle {
    Task(tokio::task::JoinHandle<()>),
    Thread(oneshot::Receiver<()>),
}

impl Future for Handle {
    type Output = Result<(), Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Task(task) => Pin::new(task).poll(context).map_err(|failed| Ended(Some(failed))),
            Self::Thread(thread) => Pin::new(thread).poll(context).map_err(|_| Ended(None)),
        }
    }
}

fn on_thread(action: impl FnOnce() + Send + 'static) -> Handle {
    let (done, wait) = oneshot::channel();
    let run = move || {
        action();
        // Nobody has to wait.
        let _ = done.send(());
    };
    std::thread::Builder::new().name("cooper-async".into()).spawn(run).expect("a thread can be started");
    Handle::Thread(wait)
}

impl Runtime for PerCall {
    type JoinError = Ended;
    type JoinHandle = Handle;

    fn spawn<F: Future<Output = ()> + Send + 'static>(future: F) -> Handle {
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            return Handle::Task(handle.spawn(future));
        }
        let runtime = runtime().expect("threads can be started");
        on_thread(move || {
            runtime.block_on(future);
            runtime.shutdown_timeout(LAST_THREADS);
        })
    }

    // A plain thread: the runtime may end before a blocking task of its own would start, and the result would be lost.
    fn spawn_blocking<F: FnOnce() + Send + 'static>(action: F) -> Handle {
        let visit = Visit::start();
        on_thread(move || {
            action();
            drop(visit);
        })
    }
}

/// Threads that hand a result to Python at this moment: the process id in the upper half, their number in the lower. A forked
/// child has none of its parent's threads, so a count of another process is no count.
static VISITS: AtomicU64 = AtomicU64::new(0);

/// How long an exiting interpreter waits for these threads, which need it for microseconds.
const LAST_VISITS: Duration = Duration::from_secs(5);

/// Counts one such thread.
struct Visit;

impl Visit {
    fn start() -> Self {
        Self::change(|count| count + 1);
        Self
    }

    fn count(state: u64) -> u64 {
        if state >> 32 == u64::from(std::process::id()) { state & u64::from(u32::MAX) } else { 0 }
    }

    fn change(next: impl Fn(u64) -> u64) {
        let state = |old| Some(u64::from(std::process::id()) << 32 | next(Self::count(old)));
        // The closure always gives a value.
        let _ = VISITS.fetch_update(Ordering::SeqCst, Ordering::SeqCst, state);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        Self::change(|count| count.saturating_sub(1));
    }
}

/// Waits until no thread needs the interpreter any more. Called at exit: before `CPython` 3.14 a thread that wants the
/// interpreter after that is unwound through Rust, which aborts the process.
#[pyfunction]
pub(super) fn _wait_for_threads(py: Python<'_>) {
    py.detach(|| {
        let end = Instant::now() + LAST_VISITS;
        while Visit::count(VISITS.load(Ordering::SeqCst)) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

tokio::task_local! {
    static LOCALS: TaskLocals;
}

impl ContextExt for PerCall {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(Clone::clone).ok()
    }
}
