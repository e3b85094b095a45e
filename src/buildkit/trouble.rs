//! Errors that happen on our side of a session while the daemon only learns that something failed.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use crate::error::Error;

/// Keeps the first error of a session's services: it says more than what the daemon makes of it.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    /// Keeps an error, unless there is one already, and makes the status that the daemon gets.
    pub fn report(&self, error: Error) -> Status {
        let status = match &error {
            Error::SecretUnavailable { .. } | Error::SshUnavailable { .. } => Status::not_found(error.to_string()),
            Error::Interrupted => Status::cancelled(error.to_string()),
            other => Status::aborted(other.to_string()),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        status
    }

    /// The error that was kept, if there is one.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
