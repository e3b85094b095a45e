//! One flag that every phase of a build watches.

use std::future::Future;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Error, Result};

/// A cancellation flag: cloned freely, set once, seen by synchronous and asynchronous code alike.
#[derive(Clone, Debug, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// A flag that nobody has set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that is set with this one, and that can be set alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Sets the flag. Setting it again changes nothing.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Sets the flag when what this gives is dropped: for work on other threads that ends with whoever waits for it.
    #[must_use]
    pub fn on_drop(&self) -> DropGuard {
        self.0.clone().drop_guard()
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// `Err(Interrupted)` once the flag is set: for loops that do not await.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Waits until the flag is set.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Runs `work` until it ends or the flag is set, whichever comes first; `work` is dropped at its next await point.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.0.cancelled() => Err(Error::Interrupted),
            result = work => result,
        }
    }
}
