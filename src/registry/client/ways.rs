//! The ways to upload a blob, and which of them a registry has refused.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// How a blob is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// One PATCH of any length without `Content-Range`, then PUT: what Docker does, and what every registry is tested with.
    Stream = 1,
    /// One PUT: a request less, but nothing to resume in some registries.
    Put = 2,
    /// A PATCH with `Content-Range` for every few megabytes.
    Chunks = 4,
}

/// Up to here a blob is sent anew rather than resumed, and a request less is worth more.
const SMALL: u64 = 1 << 20;

/// What one registry has refused so far.
#[derive(Default)]
pub(super) struct Ways {
    refused: AtomicU8,
    no_mounts: AtomicBool,
}

impl Ways {
    /// The ways for a blob of this size, the best first. All of them, if need be.
    pub(super) fn of(&self, size: u64) -> Vec<Way> {
        let all =
            if size <= SMALL { [Way::Put, Way::Stream, Way::Chunks] } else { [Way::Stream, Way::Put, Way::Chunks] };
        let refused = self.refused.load(Ordering::Relaxed);
        let (bad, good): (Vec<Way>, Vec<Way>) = all.into_iter().partition(|way| refused & *way as u8 != 0);
        good.into_iter().chain(bad).collect()
    }

    /// Notes that a way was refused where another was taken.
    pub(super) fn refuse(&self, way: Way) {
        self.refused.fetch_or(way as u8, Ordering::Relaxed);
    }

    /// Whether mounts are worth a request.
    pub(super) fn mounts(&self) -> bool {
        !self.no_mounts.load(Ordering::Relaxed)
    }

    /// Notes that the registry knows no mounts.
    pub(super) fn refuse_mounts(&self) {
        self.no_mounts.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_way_comes_last() {
        let ways = Ways::default();
        assert_eq!(ways.of(SMALL), [Way::Put, Way::Stream, Way::Chunks]);
        ways.refuse(Way::Stream);
        ways.refuse(Way::Put);
        assert_eq!(ways.of(SMALL + 1), [Way::Chunks, Way::Stream, Way::Put]);
    }
}
