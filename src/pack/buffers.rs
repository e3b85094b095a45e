//! Buffers that are used again: a new one is new memory of the kernel's, which costs a fault for every page.

use std::sync::{Mutex, PoisonError};

/// Empty buffers of one size.
#[derive(Debug)]
pub(crate) struct Buffers {
    room: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Each buffer has so much room.
    pub(crate) fn new(room: usize) -> Self {
        Self { room, free: Mutex::default() }
    }

    /// An empty buffer.
    pub(crate) fn take(&self) -> Vec<u8> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| Vec::with_capacity(self.room))
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        // One that had to grow would stay so big.
        buffer.shrink_to(self.room);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
