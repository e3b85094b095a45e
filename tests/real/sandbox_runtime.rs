//! Commands that runc runs.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::sandbox::{Exit, Level, Mount, Network, Spec};

use crate::sandbox_bed::{Bed, Who, running, ways};

fn runc() -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = folders.iter().map(|folder| PathBuf::from(folder).join("runc")).find(|path| path.is_file());
    found.expect("the package runc")
}

fn spec(bed: &Bed, script: &str) -> Spec {
    Spec { runtime: Some(runc()), ..bed.shell(script) }
}

#[test]
fn a_runtime_gives_the_same_world() {
    for way in ways() {
        let bed = Bed::new(way);
        fs::create_dir(bed.path("data")).unwrap();
        way.0.give(&bed.path("data"));
        let script =
            "id -u; hostname; echo $$; cat /run/secrets/s; echo new > /data/new; echo x > /file; rm /bin/ls; exit 5";
        let mut spec = spec(&bed, script);
        spec.mounts = vec![
            Mount::File { content: b"hush\n".into(), target: "/run/secrets/s".into(), mode: 0o400, uid: 0, gid: 0 },
            Mount::Bind { source: bed.path("data"), target: "/data".into(), read_only: false },
            Mount::Tmpfs { target: "/scratch".into(), size: Some(1 << 20), mode: 0o1777 },
        ];
        let ran = bed.run(&spec);
        assert_eq!(
            (ran.out.as_str(), ran.finished.exit),
            ("0\nbuildkitsandbox\n1\nhush\n", Exit::Code(5)),
            "{way:?}: {ran:?}"
        );
        assert_eq!(fs::read_to_string(bed.path("data/new")).unwrap(), "new\n");
        let mut names: Vec<_> = fs::read_dir(bed.path("upper")).unwrap().flatten().map(|at| at.file_name()).collect();
        names.sort();
        assert_eq!(names, ["bin", "file"], "{way:?}");
        assert!(!bed.path("upper.bundle").exists());
    }
}

#[test]
fn a_runtime_confines_too() {
    for way in ways() {
        let bed = Bed::new(way);
        let script = "mount -t tmpfs none /tmp 2>/dev/null && echo mounted; unshare -U true 2>/dev/null && echo unshared;
            echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo changed; grep -c : /proc/net/dev; grep Seccomp: /proc/self/status";
        let mut spec = spec(&bed, script);
        spec.network = Network::None;
        assert_eq!(bed.run(&spec).out, "1\nSeccomp:\t2\n", "{way:?}");
    }
}

#[test]
fn a_runtime_ends_when_it_is_cancelled() {
    let way = (Who::Me, Level::Subordinate);
    if !ways().any(|other| other == way) {
        return;
    }
    let bed = Bed::new(way);
    let mark = format!("95{}", std::process::id());
    let (spec, cancel) = (spec(&bed, &format!("(sleep {mark} &); sleep {mark}")), Cancel::new());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| bed.sandboxes.run(&spec, &mut |_, _| {}, &cancel));
        let until = Instant::now() + Duration::from_secs(10);
        while running(&mark) < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(running(&mark), 2);
        let started = Instant::now();
        cancel.cancel();
        assert!(matches!(run.join().unwrap(), Err(Error::Interrupted)));
        assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    });
    assert_eq!(running(&mark), 0);
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let Some(way) = ways().next() else { return };
    let bed = Bed::new(way);
    let spec = Spec { runtime: Some("/no/such/runtime".into()), ..bed.shell("true") };
    bed.fresh();
    let error = bed.sandboxes.run(&spec, &mut |_, _| {}, &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("/no/such/runtime"), "{error}");
}
