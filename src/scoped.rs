//! Paths that the kernel resolves within a directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// How often we ask. One try takes microseconds, and renames without a pause break one of a few.
const TRIES: u32 = 10_000;

/// Opens what is at a path within a directory, which has to be there. What `how` forbids on the way, and what of it says where
/// the path may lead, is the kernel's to see to.
///
/// Behind `..`, the kernel cannot be sure to be still inside if anything was renamed or mounted meanwhile, anywhere on the
/// machine: it says `EAGAIN` and means it (`openat2(2)`). Fails with that only if it never stops.
pub(crate) fn open(root: impl AsFd, path: impl Arg + Copy, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd> {
    let mut tries = 1;
    loop {
        match openat2(&root, path, flags, Mode::empty(), how) {
            Err(Errno::AGAIN) if tries < TRIES => std::thread::yield_now(),
            result => return result,
        }
        tries += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn renames_elsewhere_stop_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let name = |name: &str| elsewhere.path().join(name);
        fs::write(name("0"), "").unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let (flags, how) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::IN_ROOT);
        let done = AtomicBool::new(false);
        let (mut refused, mut lost) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    fs::rename(name("0"), name("1")).unwrap();
                    fs::rename(name("1"), name("0")).unwrap();
                }
            });
            let path = "a/b/../b/../../../a/b/../../a/../a/b/..";
            for _ in 0..20_000 {
                let once = openat2(&root, path, flags, Mode::empty(), how);
                refused += u32::from(matches!(once, Err(Errno::AGAIN)));
                lost += u32::from(open(&root, path, flags, how).is_err());
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(lost, 0, "of 20,000, while the kernel asked {refused} times to be asked again");
        assert_eq!(open(&root, "a/b/c", flags, how).unwrap_err(), Errno::NOENT);
    }
}
