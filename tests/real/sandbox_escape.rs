//! Commands that try to get out, at each level. The level `chroot` promises none of this.

use std::fs;

use cooper::sandbox::Mount;

use crate::sandbox_bed::{Bed, Who, exists, ways};

/// What each of these prints if it gets somewhere. None may print anything.
const ATTEMPTS: [(&str, &str); 16] = [
    ("to mount", "mount -t tmpfs none /tmp 2>/dev/null && echo mounted"),
    ("to mount over /proc", "mount -t proc proc /proc 2>/dev/null && echo mounted"),
    ("to make a namespace", "unshare -Ur true 2>/dev/null && echo unshared"),
    (
        "to make a disk",
        "mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk 2>/dev/null | wc -c | grep -v '^0$'",
    ),
    ("to read the first process's environment", "cat /proc/1/environ 2>/dev/null | head -c 1"),
    (
        "to read the first process's memory",
        "cat /proc/1/mem 2>/dev/null | head -c 1; cat /proc/1/maps 2>/dev/null | head -c 1",
    ),
    (
        "to read the first process's files",
        "ls -l /proc/1/fd/ 2>/dev/null | grep -- '-> [^ ]'; ls -d /proc/1/root/bin 2>/dev/null",
    ),
    ("to change the kernel's settings", "echo 1 > /proc/sys/kernel/panic 2>/dev/null && echo changed"),
    ("to use the magic key", "echo h > /proc/sysrq-trigger 2>/dev/null && echo used"),
    ("to read the kernel's memory", "head -c 1 /proc/kcore 2>/dev/null"),
    ("to write to /sys", "echo 1 > /sys/kernel/mm/ksm/run 2>/dev/null && echo written"),
    (
        "to make a control group",
        "mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo made",
    ),
    ("to set the name of the machine", "hostname other 2>/dev/null && echo named"),
    ("to leave by another root", "mkdir -p /tmp/a; chroot /tmp/a /bin/sh -c 'echo out' 2>/dev/null"),
    ("to find a file that is open", "ls -l /proc/self/fd | grep -v -E 'null|pipe|/proc|total' | grep -- '->'"),
    ("to see what is outside", "ls /root /home /usr /etc/shadow /.dockerenv 2>/dev/null"),
];

#[test]
fn nothing_gets_out() {
    for way in ways() {
        let bed = Bed::new(way);
        for (what, script) in ATTEMPTS {
            let ran = bed.run(&bed.shell(script));
            assert_eq!(ran.out, "", "{way:?} tried {what}: {ran:?}");
        }
    }
}

#[test]
fn a_link_in_the_root_leads_to_nothing_outside() {
    for way in ways() {
        let bed = Bed::new(way);
        fs::create_dir(bed.path("outside")).unwrap();
        let lower = |name: &str| bed.path("lower").join(name);
        std::os::unix::fs::symlink(bed.path("outside"), lower("run")).unwrap();
        std::os::unix::fs::symlink("/../../../../../../tmp", lower("up")).unwrap();
        std::os::unix::fs::symlink("loop", lower("loop")).unwrap();
        way.0.give(bed.dir.path());
        let mut spec = bed.shell("cat /run/secrets/s /up/s");
        let file =
            |target: &str| Mount::File { content: b"x".into(), target: target.into(), mode: 0o444, uid: 0, gid: 0 };
        spec.mounts = vec![file("/run/secrets/s"), file("/up/s")];
        let ran = bed.run(&spec);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("xx", ""), "{way:?}");
        assert_eq!(fs::read_dir(bed.path("outside")).unwrap().count(), 0, "{way:?}: {ran:?}");
        assert!(!exists(std::path::Path::new("/tmp/s")));
        spec.mounts = vec![file("/loop/s")];
        bed.fresh();
        let error = bed.sandboxes.run(&spec, &mut |_, _| {}, &cooper::cancel::Cancel::new()).unwrap_err();
        assert!(error.to_string().contains("mount `/loop/s`"), "{error}");
    }
}

#[test]
fn secrets_are_in_no_environment_and_in_no_argument() {
    for way in ways() {
        let bed = Bed::new(way);
        let marker = format!("marker-{}", std::process::id());
        let mut spec =
            bed.shell("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; cat /run/secrets/s > /dev/null");
        spec.mounts = vec![Mount::File {
            content: marker.clone().into_bytes(),
            target: "/run/secrets/s".into(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        }];
        let ran = bed.run(&spec);
        assert!(ran.finished.exit.success(), "{ran:?}");
        assert!(!ran.out.contains(&marker), "{way:?}");
        let upper = std::process::Command::new("grep").arg("-r").arg(&marker).arg(bed.path("upper")).output().unwrap();
        assert!(upper.stdout.is_empty(), "{way:?}");
    }
}

#[test]
fn files_of_this_machine_stay_out_of_reach_for_another_user() {
    for way in ways().filter(|(who, _)| *who != Who::Me) {
        let bed = Bed::new(way);
        // A device that a layer has, or that a command makes, is of no use there.
        let ran = bed.run(&bed.shell("mknod /tmp/null c 1 3 2>/dev/null; echo x > /tmp/null && cat /tmp/null"));
        assert!(ran.out.is_empty() || ran.out == "x\n", "{way:?}: {ran:?}");
    }
}
