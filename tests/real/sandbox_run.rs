//! Commands in sandboxes, at each level.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use cooper::Error;
use cooper::cancel::Cancel;
use cooper::sandbox::{Exit, Level, Mount, Network, Root, Ulimit};

use crate::sandbox_bed::{Bed, Who, exists, running, ways};

#[test]
fn levels_are_found_by_trying() {
    for (who, level) in ways() {
        let bed = Bed::new((who, level));
        let support = bed.sandboxes.probe(bed.dir.path(), &Cancel::new()).unwrap();
        let found = support.of(level).unwrap();
        assert_eq!((&found.problem, &found.overlay), (&None, &None), "{who:?} at {level}");
        let tried: Vec<Level> = support.levels.iter().map(|found| found.level).collect();
        assert_eq!(tried, Level::ALL);
        if who == Who::Nobody {
            assert_eq!(support.best(true), Level::Single, "{support:?}");
            let problem = support.of(Level::Subordinate).unwrap().problem.clone().unwrap();
            assert!(problem.reason.contains("/etc/subuid") && problem.advice.is_some(), "{problem:?}");
            assert!(support.of(Level::Root).unwrap().problem.is_some());
        }
        // Nothing of the trial is left.
        let left: Vec<_> = fs::read_dir(bed.dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("try-")), "{left:?}");
    }
}

#[test]
fn a_command_sees_a_world_of_its_own() {
    for way in ways() {
        let bed = Bed::new(way);
        let out = bed.says("id -u; id -g; hostname; pwd; echo $$; ps | wc -l; ls -d /proc/[0-9]* | wc -l; env");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..4], ["0", "0", "buildkitsandbox", "/"], "{way:?}");
        assert_eq!(lines[4], "2", "{way:?}: the command comes after the first process");
        assert!(lines[6].parse::<u32>().unwrap() < 6, "{way:?}: {out}");
        let variables: BTreeSet<&str> = lines[7..].iter().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(variables, BTreeSet::from(["PATH", "PWD", "SHLVL"]), "{way:?}");
    }
}

#[test]
fn what_is_written_is_in_the_upper_directory_and_nothing_else_is() {
    for way in ways() {
        let bed = Bed::new(way);
        bed.says("echo new > /tmp/file; rm /bin/ls; mkdir -p /a/b; exec 9>/dev/null");
        assert_eq!(fs::read_to_string(bed.path("upper/tmp/file")).unwrap(), "new\n");
        let gone = fs::symlink_metadata(bed.path("upper/bin/ls")).unwrap();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type()), "{way:?}");
        let names: BTreeSet<_> = fs::read_dir(bed.path("upper")).unwrap().flatten().map(|at| at.file_name()).collect();
        let names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(names, ["a", "bin", "tmp"], "{way:?}: mount points that the root lacked are gone");
        assert!(exists(&bed.path("lower/bin/ls")));
    }
}

#[test]
fn ends_are_told_as_they_are() {
    for way in ways() {
        let bed = Bed::new(way);
        let mut spec = bed.shell("exit 7");
        assert_eq!(bed.run(&spec).finished.exit, Exit::Code(7));
        spec = bed.shell("kill -9 $$");
        assert_eq!(bed.run(&spec).finished.exit, Exit::Signal(9));
        spec.process.argv = vec!["nothing-like-it".into()];
        let ran = bed.run(&spec);
        assert_eq!((ran.finished.exit, ran.err.contains("not found in $PATH")), (Exit::Code(127), true), "{ran:?}");
        spec.process.argv = vec!["/tmp".into()];
        assert_eq!(bed.run(&spec).finished.exit, Exit::Code(126));
    }
}

#[test]
fn output_is_complete_and_apart() {
    for way in ways() {
        let bed = Bed::new(way);
        let ran = bed.run(&bed.shell("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last >&2"));
        assert_eq!((ran.out.lines().count(), ran.err.as_str()), (20_000, "last\n"));
        assert!(ran.out.ends_with("line 19999\n"));
    }
}

#[test]
fn nothing_outlives_a_command() {
    for way in ways() {
        let bed = Bed::new(way);
        let mark = format!("98{}.{:?}", std::process::id(), way.1 as u8);
        let started = Instant::now();
        bed.says(&format!("sleep {mark} & (sleep {mark} &) ; sleep {mark} >/dev/null 2>&1 & true"));
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(running(&mark), 0, "{way:?}");
    }
}

#[test]
fn a_command_ends_when_it_is_cancelled() {
    for way in ways() {
        let bed = Bed::new(way);
        let mark = format!("97{}.{:?}", std::process::id(), way.1 as u8);
        let (spec, cancel) =
            (bed.shell(&format!("trap '' TERM INT HUP; (sleep {mark} &); sleep {mark}")), Cancel::new());
        std::thread::scope(|scope| {
            let run = scope.spawn(|| bed.sandboxes.run(&spec, &mut |_, _| {}, &cancel));
            let until = Instant::now() + Duration::from_secs(10);
            while running(&mark) < 2 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            let started = Instant::now();
            cancel.cancel();
            let ended = run.join().unwrap();
            assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
            assert!(started.elapsed() < Duration::from_millis(200), "{way:?}: {:?}", started.elapsed());
        });
        assert_eq!(running(&mark), 0, "{way:?}");
    }
}

#[test]
fn users_are_who_they_should_be() {
    for way in ways() {
        let bed = Bed::new(way);
        let mut spec =
            bed.shell("id -u; id -g; touch /tmp/mine; stat -c %u:%g /tmp/mine; touch /root-only && echo bad");
        (spec.process.uid, spec.process.gid, spec.process.groups) = (1000, 1001, vec![1002]);
        spec.process.argv[2].insert_str(0, "cat /proc/self/status | grep -E 'CapEff|CapPrm|NoNewPrivs|Seccomp:'; ");
        fs::set_permissions(bed.path("lower/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let ran = bed.run(&spec);
        assert!(ran.out.contains("\n1000\n1001\n1000:1001\n"), "{way:?}: {ran:?}");
        for line in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
            assert!(ran.out.contains(line), "{way:?}: {ran:?}");
        }
        if way.1 != Level::Single {
            assert!(!ran.out.contains("bad"), "{way:?}: {ran:?}");
        }
    }
}

#[test]
fn mounts_are_where_they_belong() {
    for way in ways() {
        let bed = Bed::new(way);
        fs::create_dir(bed.path("data")).unwrap();
        fs::write(bed.path("data/file"), "from outside").unwrap();
        way.0.give(&bed.path("data"));
        let script = "cat /run/secrets/s /mnt/ro/file; echo; echo x > /mnt/ro/file || echo read-only; echo y > /mnt/rw/new;
            stat -c '%a %u' /run/secrets/s; echo z > /run/secrets/s || echo sealed; echo t > /scratch/t; mount | grep -c ' /scratch '";
        let mut spec = bed.shell(script);
        let bind = |target: &str, read_only| Mount::Bind { source: bed.path("data"), target: target.into(), read_only };
        spec.mounts = vec![
            Mount::File { content: b"hush ".into(), target: "/run/secrets/s".into(), mode: 0o400, uid: 0, gid: 0 },
            bind("/mnt/ro", true),
            bind("/mnt/rw", false),
            Mount::Tmpfs { target: "/scratch".into(), size: Some(1 << 20), mode: 0o1777 },
        ];
        let ran = bed.run(&spec);
        assert_eq!(ran.out, "hush from outside\nread-only\n400 0\nsealed\n1\n", "{way:?}: {ran:?}");
        assert_eq!(fs::read_to_string(bed.path("data/new")).unwrap(), "y\n");
        let left: Vec<_> = fs::read_dir(bed.path("upper")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(left.is_empty(), "{way:?}: {left:?}");
    }
}

#[test]
fn without_a_network_there_is_the_loopback_alone() {
    for way in ways() {
        let bed = Bed::new(way);
        let mut spec = bed.shell("cat /proc/net/dev | grep -c :; cat /etc/hosts");
        spec.hosts = vec![("pypi.internal".into(), "10.0.0.7".into())];
        spec.network = Network::None;
        let ran = bed.run(&spec);
        assert!(ran.out.starts_with("1\n"), "{way:?}: {ran:?}");
        assert!(ran.out.contains("10.0.0.7\tpypi.internal"), "{way:?}: {ran:?}");
        spec.network = Network::Host;
        assert!(!bed.run(&spec).out.is_empty());
    }
}

#[test]
fn limits_hold() {
    for way in ways() {
        let bed = Bed::new(way);
        let mut spec = bed.shell("ulimit -n; cat /proc/mounts | grep -c 'shm.*size=1024k'");
        spec.ulimits = vec![Ulimit { name: "nofile".into(), soft: 77, hard: 99 }];
        spec.shm_size = 1 << 20;
        assert_eq!(bed.run(&spec).out, "77\n1\n", "{way:?}");
    }
}

#[test]
fn a_root_may_be_a_directory() {
    for way in ways() {
        let bed = Bed::new(way);
        let mut spec = bed.shell("echo here > /tmp/x; ls / | wc -l");
        spec.root = Root::Directory(bed.path("lower"));
        assert!(bed.run(&spec).finished.exit.success());
        assert_eq!(fs::read_to_string(bed.path("lower/tmp/x")).unwrap(), "here\n");
        assert!(!exists(&bed.path("lower/dev")) && !exists(&bed.path("lower/etc")), "{way:?}");
    }
}
