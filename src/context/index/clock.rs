//! How old a file has to be before its times prove that it is unchanged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

use super::super::root::Root;
use super::super::stamp::{ctime, mtime};

/// The clocks of Linux's own file systems tick at least every 10 ms.
const TICK: Duration = Duration::from_millis(100);
/// File systems without fractions of a second keep whole seconds, or two at a time (FAT).
const COARSE_TICK: Duration = Duration::from_secs(3);
/// The clock of a server or of a virtual machine's host may be wrong.
const FOREIGN_TICK: Duration = Duration::from_secs(600);

/// Whose clock a file system has.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Clock {
    foreign: bool,
    /// Another device below the root is a mount, of which nothing is known.
    device: u64,
}

impl Clock {
    /// That of the file system of a root.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the type differs between systems")]
    pub(in super::super) fn of(root: &Root) -> Self {
        let device = rustix::fs::fstat(&root.fd).map_or(u64::MAX, |stat| stat.st_dev as u64);
        Self { foreign: is_foreign(root), device }
    }

    /// Whether a write from `now` on is certain to change the times of a file that had these.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the type differs between systems")]
    pub(in super::super) fn is_settled(self, stat: &Stat, now: SystemTime) -> bool {
        let newest = mtime(stat).max(ctime(stat));
        let tick = match newest.nanoseconds {
            _ if self.foreign || self.device != stat.st_dev as u64 => FOREIGN_TICK,
            0 => COARSE_TICK,
            _ => TICK,
        };
        let Ok(seconds) = u64::try_from(newest.seconds) else { return true };
        let newest = UNIX_EPOCH.checked_add(Duration::new(seconds, newest.nanoseconds));
        newest.and_then(|time| time.checked_add(tick)).is_some_and(|settled| settled < now)
    }
}

/// Whether the file system is a network's, or a program's that may be one.
#[cfg(target_os = "linux")]
fn is_foreign(root: &Root) -> bool {
    /// NFS, SMB 1 and 2, CIFS, 9P, FUSE and virtiofs, Ceph, AFS, Lustre, GFS2, OCFS2 (`statfs(2)`).
    const FOREIGN: [u32; 11] = [
        0x6969,
        0x517b,
        0xfe53_4d42,
        0xff53_4d42,
        0x0102_1997,
        0x6573_5546,
        0x00c3_6400,
        0x5346_414f,
        0x0bd0_0bd0,
        0x0116_1970,
        0x7461_636f,
    ];
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers have 32 bits")]
    rustix::fs::fstatfs(&root.fd).map_or(true, |found| FOREIGN.contains(&(found.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_foreign(_: &Root) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(seconds: i64, nanoseconds: u32) -> Stat {
        let file = tempfile::tempfile().unwrap();
        let mut stat = rustix::fs::fstat(&file).unwrap();
        (stat.st_dev, stat.st_mtime, stat.st_mtime_nsec) = (7, seconds, nanoseconds.into());
        (stat.st_ctime, stat.st_ctime_nsec) = (seconds, nanoseconds.into());
        stat
    }

    #[test]
    fn a_file_settles_when_its_clock_has_ticked() {
        let local = Clock { foreign: false, device: 7 };
        let now = UNIX_EPOCH + Duration::new(1_000, 500_000_000);
        assert!(local.is_settled(&stat(1_000, 300_000_000), now));
        assert!(!local.is_settled(&stat(1_000, 450_000_000), now));
        // Whole seconds: perhaps that is all that the file system keeps.
        assert!(!local.is_settled(&stat(998, 0), now));
        assert!(local.is_settled(&stat(997, 0), now));
        // Nothing is known of a time to come, and everything before 1970 is long ago.
        assert!(!local.is_settled(&stat(2_000, 1), now));
        assert!(local.is_settled(&stat(-5, 1), now));
        for foreign in [Clock { foreign: true, device: 7 }, Clock { foreign: false, device: 8 }] {
            assert!(!foreign.is_settled(&stat(401, 1), now));
            assert!(foreign.is_settled(&stat(400, 1), now));
        }
    }

    #[test]
    fn the_later_time_counts() {
        let mut changed = stat(1_000, 1);
        changed.st_mtime = 10;
        assert!(!Clock { foreign: false, device: 7 }.is_settled(&changed, UNIX_EPOCH + Duration::from_secs(1_000)));
    }
}
