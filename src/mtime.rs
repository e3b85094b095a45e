//! Times of files.

/// A time, as file systems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// And nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// 2000-01-01T00:00:00Z: the time of everything that has no time of its own. 0 would do, had zip files (and therefore
/// wheels built in a RUN) not begun in 1980.
pub const FIXED_TIME: i64 = 946_684_800;

/// In nanoseconds.
const SECOND: i64 = 1_000_000_000;

impl Mtime {
    /// The time of what has no time of its own.
    pub const FIXED: Self = Self { seconds: FIXED_TIME, nanoseconds: 0 };

    /// What does not fit is cut.
    pub(crate) fn nanoseconds_in_all(self) -> i64 {
        self.seconds.saturating_mul(SECOND).saturating_add(i64::from(self.nanoseconds))
    }

    pub(crate) fn of_nanoseconds(all: i64) -> Self {
        let nanoseconds = u32::try_from(all.rem_euclid(SECOND)).unwrap_or_default();
        Self { seconds: all.div_euclid(SECOND), nanoseconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_unless_they_are_too_far_away() {
        for (seconds, nanoseconds) in [(0, 0), (-1, 999_999_999), (1_700_000_000, 1), (-9_000_000_000, 5)] {
            let time = Mtime { seconds, nanoseconds };
            assert_eq!(Mtime::of_nanoseconds(time.nanoseconds_in_all()), time);
        }
        let far = Mtime { seconds: i64::MAX, nanoseconds: 0 };
        assert_eq!(Mtime::of_nanoseconds(far.nanoseconds_in_all()).seconds, 9_223_372_036);
    }
}
