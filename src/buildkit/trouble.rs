//! Errors that happen on our side of a session while the daemon only learns that something failed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use crate::error::Error;

/// As many are kept. What goes wrong after that follows from what went wrong before.
const MAX_KEPT: usize = 16;

/// Keeps the errors of a session's services: they say more than what the daemon makes of them. Not each is why a build failed:
/// some it can do without.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<VecDeque<Error>>>);

impl Trouble {
    /// Keeps an error, and makes the status that the daemon gets.
    pub fn report(&self, error: Error) -> Status {
        let status = match &error {
            Error::SecretUnavailable { .. } | Error::SshUnavailable { .. } => Status::not_found(error.to_string()),
            Error::Interrupted => Status::cancelled(error.to_string()),
            other => Status::aborted(other.to_string()),
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.push_back(error);
        }
        status
    }

    /// The oldest error that is still here.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}
