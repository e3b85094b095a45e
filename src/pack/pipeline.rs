//! Work that is done in parallel and delivered in order, with a bounded number of results in memory.

use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// Results that may wait for their turn, besides one for each thread: enough to keep threads busy while the slowest one is
/// finished or the result is slow to go out.
const AHEAD: usize = 8;

/// Runs every item of `plan` through a worker and hands the results to `consume` in the order of the plan.
///
/// `worker` is called once on each thread. The first error, of whatever part, ends everything and is returned.
pub(crate) fn run<W, R, F>(
    threads: usize,
    plan: impl Iterator<Item = Result<W>> + Send,
    worker: impl Fn() -> Result<F> + Sync,
    mut consume: impl FnMut(R) -> Result<()>,
) -> Result<()>
where
    W: Send,
    R: Send,
    F: FnMut(W) -> Result<R>,
{
    let threads = threads.max(1);
    let (order, ordered) = mpsc::sync_channel(threads + AHEAD);
    let queue = Mutex::new(Queue { plan, order: Some(order) });
    // Not in the head of the loop below: a lock that is taken there is held while the loop's body runs.
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut step = worker();
                while let Some((item, reply)) = next() {
                    let done = match &mut step {
                        Ok(step) => item.and_then(step),
                        Err(_) => Err(Error::internal("a worker could not start")),
                    };
                    // Nobody waits for the result any more when another one was an error.
                    let _ = reply.send(done);
                }
            });
        }
        // Leaving this block drops the receiver, which is what stops the workers.
        for result in ordered {
            let result: mpsc::Receiver<Result<R>> = result;
            let result = result.recv().map_err(|_| Error::internal("a worker stopped"))?;
            consume(result?)?;
        }
        Ok(())
    })
}

struct Queue<P, R> {
    plan: P,
    /// Gone when the plan is at its end.
    order: Option<SyncSender<mpsc::Receiver<Result<R>>>>,
}

impl<W, P: Iterator<Item = Result<W>>, R> Queue<P, R> {
    /// The next item, and where its result goes. Waits while too many results are waiting.
    fn next(&mut self) -> Option<(Result<W>, SyncSender<Result<R>>)> {
        let order = self.order.as_ref()?;
        let item = self.plan.next();
        let (reply, result) = mpsc::sync_channel(1);
        match item {
            Some(item) if order.send(result).is_ok() => {
                if item.is_err() {
                    self.order = None;
                }
                Some((item, reply))
            }
            _ => {
                self.order = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_and_few_wait() {
        let (started, taken, most) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let mut seen = Vec::new();
        let worker = || {
            Ok(|item: usize| {
                let ahead = started.fetch_add(1, Ordering::SeqCst) - taken.load(Ordering::SeqCst).min(item);
                most.fetch_max(ahead, Ordering::SeqCst);
                Ok(item * 2)
            })
        };
        let consume = |item| {
            std::thread::sleep(std::time::Duration::from_micros(100));
            taken.fetch_add(1, Ordering::SeqCst);
            seen.push(item);
            Ok(())
        };
        run(4, (0..200).map(Ok), worker, consume).unwrap();
        assert_eq!(seen, (0..200).map(|item| item * 2).collect::<Vec<_>>());
        let most = most.into_inner();
        assert!(most <= 4 + AHEAD + 6, "{most} results were ahead");
    }

    #[test]
    fn items_are_worked_on_at_once() {
        let (ready, waiting) = mpsc::channel();
        let waiting = Mutex::new(waiting);
        let step = |item: usize| {
            if item == 1 {
                ready.send(()).unwrap();
                return Ok(true);
            }
            // The other item has to begin before this one ends.
            Ok(waiting.lock().unwrap().recv_timeout(std::time::Duration::from_secs(20)).is_ok())
        };
        let mut met = Vec::new();
        let consume = |done| {
            met.push(done);
            Ok(())
        };
        run(2, (0..2).map(Ok), || Ok(step), consume).unwrap();
        assert_eq!(met, [true, true]);
    }

    #[test]
    fn the_first_error_ends_it() {
        let fail = |at: usize| move |item: usize| if item == at { Err(Error::Interrupted) } else { Ok(item) };
        assert!(run(3, (0..1000).map(Ok), || Ok(fail(500)), |_: usize| Ok(())).is_err());
        assert!(run(3, (0..).map(Ok), || Ok(fail(5)), |_: usize| Ok(())).is_err());
        assert!(run(3, (0..).map(Ok), || Ok(Ok::<usize, Error>), |item| fail(7)(item).map(drop)).is_err());
        let plan = (0..).map(|item| if item == 3 { Err(Error::Interrupted) } else { Ok(item) });
        let mut count = 0;
        let consume = |_: usize| {
            count += 1;
            Ok(())
        };
        assert_eq!(run(2, plan, || Ok(Ok::<usize, Error>), consume).unwrap_err().code(), "interrupted");
        assert_eq!(count, 3);
    }
}
