//! Owners and users where there is one id: real programs of this machine, and what the layer says of what they left.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cooper::layer::changes::Owners;
use cooper::rootfs::{OWNER, View};
use cooper::sandbox::{Level, Mount};
use rustix::fs::{XattrFlags, setxattr};

use crate::change_ops::{changed, listed};
use crate::sandbox_bed::{Bed, Ran, Who, ways};

/// Settings that the programs need.
const SETTINGS: [&str; 12] = [
    "passwd",
    "group",
    "shadow",
    "gshadow",
    "login.defs",
    "nsswitch.conf",
    "pam.conf",
    "ld.so.cache",
    "default/useradd",
    "security",
    "pam.d",
    "environment",
];

/// Sandboxes with one id, in which the programs of this machine are.
fn beds() -> impl Iterator<Item = Bed> {
    ways().filter(|(_, level)| *level == Level::Single).map(|(who, level)| bed(who, level))
}

fn bed(who: Who, level: Level) -> Bed {
    let bed = Bed::new((who, level));
    let lower = bed.path("lower");
    fs::rename(lower.join("bin"), lower.join("box")).unwrap();
    for name in ["usr", "home", "root", "proc", "srv", "var/log", "var/mail", "etc/default", "etc/skel", "theirs"] {
        fs::create_dir_all(lower.join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), lower.join(name)).unwrap();
    }
    for name in SETTINGS {
        let mut copy = std::process::Command::new("cp");
        copy.args(["-rL", "--no-preserve=ownership"]).arg(format!("/etc/{name}")).arg(lower.join("etc").join(name));
        let done = copy.output().unwrap();
        assert!(done.status.success() || !Path::new("/etc").join(name).exists(), "{name}: {done:?}");
    }
    fs::write(lower.join("theirs/f"), "x").unwrap();
    symlink("f", lower.join("theirs/l")).unwrap();
    for (name, note) in [("etc/shadow", "0:42"), ("theirs/f", "30:31"), ("theirs", "32:33")] {
        setxattr(lower.join(name), OWNER, note.as_bytes(), XattrFlags::empty()).unwrap();
    }
    // Others are not to be asked for users.
    fs::write(lower.join("etc/nsswitch.conf"), "passwd: files\ngroup: files\nshadow: files\n").unwrap();
    who.give(&lower);
    bed
}

/// Runs a script with the programs of this machine, and gives what it printed and who owns what it left.
fn run(bed: &Bed, script: &str) -> (Ran, BTreeMap<String, (u32, u32)>) {
    let mut spec = bed.shell(script);
    spec.process.argv = ["sh", "-ec", script].map(str::to_owned).into();
    spec.process.env =
        vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()), ("LC_ALL".into(), "C.UTF-8".into())];
    spec.mounts = vec![Mount::Bind { source: "/usr".into(), target: "/usr".into(), read_only: true }];
    let ran = bed.run(&spec);
    let inodes: HashMap<u64, (u32, u32)> =
        ran.finished.owners.iter().map(|owner| (owner.inode, (owner.uid, owner.gid))).collect();
    assert!(!listed(&bed.path("upper")).0.is_empty(), "{ran:?}");
    let owners = Owners::Emulated { command: (0, 0), inodes };
    let changes = changed(&bed.path("upper"), None, &View::default(), &owners);
    let name = |path: Vec<u8>| String::from_utf8(path).unwrap();
    let owners = changes.entries.into_iter().map(|entry| (name(entry.path), (entry.uid, entry.gid))).collect();
    (ran, owners)
}

/// What a script printed that succeeds, and who owns what it left.
fn owned(bed: &Bed, script: &str) -> (String, BTreeMap<String, (u32, u32)>) {
    let (ran, owners) = run(bed, script);
    assert!(ran.finished.exit.success(), "{:?}: {ran:#?}", bed.who);
    (ran.out, owners)
}

#[test]
fn owners_are_given_and_seen() {
    let script = r"
        mkdir -p /app/sub; echo x > /app/sub/f; ln -s f /app/sub/l; mkfifo /app/sub/p; ln -s nowhere /app/dangling
        chown -R 1000:1001 /app
        chown -h 5:6 /app/sub/l
        install -o 7 -g 8 -m 4755 /app/sub/f /app/i
        cp /app/sub/f /app/once; chmod 6755 /app/once; chown 9 /app/once
        chown :12 /app/sub/p
        chown -h 13:14 /theirs/l; chown --reference /theirs /theirs/f
        stat -c '%n %u:%g %a' /app /app/sub/f /app/sub/l /app/dangling /app/i /app/once /app/sub/p /theirs/l /theirs/f
        find / -xdev -uid 1000 -printf '%p ' ; echo
        if [ -O /app/sub/f ]; then echo own; else echo others; fi
        cp -a /app /srv/copy; mv /app/sub /srv/moved
        tar cf /srv/t.tar -C /srv copy; mkdir /out; tar xf /srv/t.tar -C /out
        chown 0:0 /out/copy/i; chown 0:0 /out/copy; ls -ldn /out/copy /out/copy/i | cut -d ' ' -f 3,4
    ";
    for bed in beds() {
        let (out, owners) = owned(&bed, script);
        let expected = "/app 1000:1001 755\n/app/sub/f 1000:1001 644\n/app/sub/l 5:6 777\n/app/dangling 1000:1001 777\n\
            /app/i 7:8 4755\n/app/once 9:0 755\n/app/sub/p 1000:12 644\n/theirs/l 13:14 777\n/theirs/f 32:33 644\n\
            /app /app/sub /app/sub/f /app/sub/p /app/dangling \nothers\n0 0\n0 0\n";
        let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
        let mut found: Vec<&str> = lines[9].split(' ').collect();
        found.sort_unstable();
        lines[9] = found.join(" ");
        let mut expected: Vec<String> = expected.lines().map(str::to_owned).collect();
        expected[9] = " /app /app/dangling /app/sub /app/sub/f /app/sub/p".into();
        assert_eq!(lines, expected, "{:?}", bed.who);
        for (path, owner) in [
            ("app", (1000, 1001)),
            ("app/dangling", (1000, 1001)),
            ("app/i", (7, 8)),
            ("app/once", (9, 0)),
            ("theirs/l", (13, 14)),
            ("theirs/f", (32, 33)),
            ("srv", (0, 0)),
            ("srv/copy", (1000, 1001)),
            ("srv/copy/sub/l", (5, 6)),
            ("srv/copy/sub/p", (1000, 12)),
            ("srv/moved/f", (1000, 1001)),
            ("srv/moved/l", (5, 6)),
            ("srv/t.tar", (0, 0)),
            ("out/copy", (0, 0)),
            ("out/copy/i", (0, 0)),
            ("out/copy/sub/l", (5, 6)),
            ("out/copy/sub/f", (1000, 1001)),
        ] {
            assert_eq!(owners.get(path), Some(&owner), "{path} by {:?}: {owners:#?}", bed.who);
        }
    }
}

#[test]
fn users_are_made_and_become_who_they_are() {
    let script = r"
        useradd -m -u 1234 app; groupadd -g 77 more; usermod -a -G more app
        su app -c 'id -u; id -g; id -G; cd; touch made; mkdir dir; ln -s made link; echo x > made; (sleep 0.3; : > late) & echo $$ > /dev/null'
        setpriv --reuid 55 --regid 56 --clear-groups sh -c 'id; umask 077; : > /tmp/five; mkfifo /tmp/pipe'
        sleep 0.6
        stat -c '%u:%g %a' /etc/shadow /tmp/five
        id -u; id -G
        rm /tmp/pipe; mkfifo /tmp/again; rm /home/app/link; ln -s x /tmp/fresh
    ";
    for bed in beds() {
        fs::set_permissions(bed.path("lower/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
        let (out, owners) = owned(&bed, script);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..3], ["1234", "1234", "1234 77"], "{out}");
        assert_eq!(lines[3], "uid=55 gid=56 groups=56", "{out}");
        let mode = fs::metadata("/etc/shadow").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777;
        assert_eq!(lines[4..], [&format!("0:42 {mode:o}"), "55:56 600", "0", "0"], "{out}");
        for (path, owner) in [
            ("home/app", (1234, 1234)),
            ("home/app/made", (1234, 1234)),
            ("home/app/dir", (1234, 1234)),
            ("home/app/late", (1234, 1234)),
            ("tmp/five", (55, 56)),
            ("tmp/again", (0, 0)),
            ("tmp/fresh", (0, 0)),
            ("etc/shadow", (0, 42)),
            ("etc/passwd", (0, 0)),
        ] {
            assert_eq!(owners.get(path), Some(&owner), "{path} by {:?}: {owners:#?}", bed.who);
        }
    }
}

#[test]
fn credentials_change_as_the_kernel_would_have_it() {
    let script = r"
cat > /tmp/t.py <<'END'
import os, threading
def refused(call, *args):
    try: call(*args)
    except PermissionError: return True
    raise SystemExit(f'{call} {args} was allowed')
def child(work):
    pid = os.fork()
    if pid == 0:
        try: work()
        except BaseException as error: print('FAILED', repr(error), flush=True); os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def apt():
    os.setgroups([65534]); os.setresgid(65534, 65534, 65534); os.setresuid(42, 42, 42)
    assert os.getresuid() == (42, 42, 42) and os.getresgid() == (65534,) * 3 and os.getgroups() == [65534]
    assert (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) == (42, 42, 65534, 65534)
    for call in os.setuid, os.seteuid, os.setgid, os.setegid: refused(call, 0)
    refused(os.setgroups, []); refused(os.setreuid, -1, 0); refused(os.chown, '/tmp/t.py', 42, -1)
    open('/tmp/apt', 'x').close(); os.chown('/tmp/apt', -1, 65534); refused(os.chown, '/tmp/apt', 7, -1)
    child(lambda: os.execv('/bin/sh', ['sh', '-c', 'test $(id -u) = 42 && test $(id -ru) = 42 && : > /tmp/exec']))
def saved():
    os.seteuid(33); assert os.getresuid() == (0, 33, 0)
    os.open('/tmp/tmpfile', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640); os.mkdir('/tmp/dir', 0o700)
    os.seteuid(0); os.chown('/tmp/dir', 3, -1); os.setuid(5); refused(os.seteuid, 0)
def threads():
    stop = threading.Event(); others = [threading.Thread(target=stop.wait) for _ in range(4)]
    for other in others: other.start()
    seen = []
    worker = threading.Thread(target=lambda: (os.setuid(66), open('/tmp/thread', 'w').close(), seen.append(os.getuid())))
    worker.start(); worker.join(); stop.set()
    assert seen == [66] and os.getuid() == 66, seen
for work in apt, saved, threads: child(work)
assert os.getresuid() == (0, 0, 0) and os.getgroups() == []
print('done')
END
/usr/bin/python3 /tmp/t.py
";
    for bed in beds() {
        let (out, owners) = owned(&bed, script);
        assert_eq!(out, "done\n");
        for (path, owner) in [
            ("tmp/apt", (42, 65534)),
            ("tmp/exec", (42, 65534)),
            ("tmp/tmpfile", (33, 0)),
            ("tmp/dir", (3, 0)),
            ("tmp/thread", (66, 0)),
        ] {
            assert_eq!(owners.get(path), Some(&owner), "{path} by {:?}: {owners:#?}", bed.who);
        }
    }
}

#[test]
fn paths_are_the_callers() {
    let script = r"
mkdir -p /jail/etc /jail/a; cp /box/busybox /jail; echo out > /target; echo in > /jail/target
ln -s /target /jail/link; ln -s ../../target /jail/a/up
chroot /jail /busybox chown 3:4 /link; chroot /jail /busybox chown 5:6 a/up/../up 2> /dev/null || :
chroot /jail /busybox chown 7:8 /a/up; chroot /jail /busybox stat -c %u:%g /link -L
stat -c %u:%g /target
cat > /tmp/t.py <<'END'
import os
os.makedirs('/w/deep'); os.chdir('/w')
here = os.open('deep', os.O_RDONLY)
open('deep/at', 'w').close(); os.chown('at', 10, 11, dir_fd=here); assert os.stat('at', dir_fd=here).st_uid == 10
os.chown('deep/../deep/at', -1, 12); os.chown(here, 13, 14)
file = os.open('deep/open', os.O_CREAT | os.O_RDWR); os.chown(f'/proc/self/fd/{file}', 15, 16)
assert os.fstat(file).st_gid == 16 and os.stat('deep/open').st_uid == 15
only = os.open('deep/at', os.O_PATH); assert os.fstat(only).st_gid == 12
try: os.fchown(only, 1, 1); raise SystemExit('changed')
except OSError as error: assert error.errno == 9
os.symlink('at', 'deep/ln'); os.chown('deep/ln', 17, 18, follow_symlinks=False)
assert os.lstat('deep/ln').st_uid == 17 and os.stat('deep/ln').st_uid == 10
os.unlink('deep/open'); assert os.fstat(file).st_uid == 15
long = '/w/' + './' * 2000 + 'deep/at'; os.chown(long, 20, -1); assert os.stat(long).st_uid == 20
ends = os.pipe(); os.chown(f'/proc/self/fd/{ends[1]}', 1, 2); assert os.fstat(ends[0]).st_gid == 2
print('done')
END
/usr/bin/python3 /tmp/t.py
";
    for bed in beds() {
        let (out, owners) = owned(&bed, script);
        assert_eq!(out, "7:8\n0:0\ndone\n", "{:?}", bed.who);
        for (path, owner) in [
            ("target", (0, 0)),
            ("jail/target", (7, 8)),
            ("w/deep", (13, 14)),
            ("w/deep/at", (20, 12)),
            ("w/deep/ln", (17, 18)),
        ] {
            assert_eq!(owners.get(path), Some(&owner), "{path} by {:?}: {owners:#?}", bed.who);
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let script = r"
cat > /tmp/t.py <<'END'
import ctypes, errno, os, stat
libc = ctypes.CDLL(None, use_errno=True)
def call(name, expected, *args):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*[ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in args])
    found = ctypes.get_errno() if result == -1 else 0
    assert found == expected, (name, args, errno.errorcode.get(found), errno.errorcode.get(expected))
open('/tmp/f', 'w').close(); os.chown('/tmp/f', 3, 4); os.symlink('loop', '/tmp/loop')
for bad in 0, 8, 2**47 - 1, -1: call('chown', errno.EFAULT, bad, 1, 1)
call('chown', errno.ENAMETOOLONG, b'/' + b'x/' * 2100, 1, 1)
call('chown', errno.ENOENT, b'', 1, 1); call('chown', errno.ENOENT, b'/tmp/none', 1, 1)
call('chown', errno.ENOTDIR, b'/tmp/f/', 1, 1); call('chown', errno.ELOOP, b'/tmp/loop', 1, 1)
call('lchown', 0, b'/tmp/loop', 1, 1); call('fchown', errno.EBADF, 999, 1, 1); call('fchown', errno.EBADF, -1, 1, 1)
call('fchownat', errno.EINVAL, -100, b'/tmp/f', 1, 1, 0x40000000); call('fchownat', errno.EBADF, 999, b'f', 1, 1, 0)
call('fchownat', errno.ENOTDIR, os.open('/tmp/f', os.O_RDONLY), b'f', 1, 1, 0)
call('stat', errno.EFAULT, b'/tmp/f', 8); call('fstatat', errno.EFAULT, -100, 8, 8, 0)
call('syscall', errno.EFAULT, 332, -100, b'/tmp/f', 0, 0x7ff, 8)
call('setuid', errno.EINVAL, -1); call('setgroups', errno.EINVAL, 70000, 8); call('setgroups', errno.EFAULT, 4, 8)
call('getgroups', errno.EINVAL, -1, 8); call('getresuid', errno.EFAULT, 8, 8, 8)
call('mknod', errno.EPERM, b'/tmp/w', stat.S_IFCHR | 0o600, 0); call('mknod', errno.EPERM, b'/tmp/d', stat.S_IFBLK, 0x801)
call('chown', errno.EROFS, b'/usr/bin/env', 0, 0)
assert os.stat('/tmp/f').st_uid == 3
os.setuid(9)
for bad in 0, 8, -1: call('mkdir', errno.EFAULT, bad, 0o755); call('symlink', errno.EFAULT, bad, b'/tmp/l2')
call('open', errno.EFAULT, 8, os.O_CREAT | os.O_WRONLY, 0o644); call('mkdir', errno.EEXIST, b'/tmp/f', 0o755)
call('open', errno.EEXIST, b'/tmp/f', os.O_CREAT | os.O_EXCL, 0o644); call('open', errno.ENOENT, b'/no/f', os.O_CREAT, 0o644)
call('symlink', errno.ENOENT, b'', b'/tmp/l2'); call('mknod', errno.EPERM, b'/tmp/w', stat.S_IFCHR | 0o600, 0)
print('done')
END
/usr/bin/python3 /tmp/t.py
";
    for bed in beds() {
        let (out, owners) = owned(&bed, script);
        assert_eq!(out, "done\n", "{:?}", bed.who);
        assert_eq!((owners.get("tmp/f"), owners.get("tmp/loop")), (Some(&(3, 4)), Some(&(1, 1))), "{owners:?}");
        assert!(!owners.contains_key("tmp/w") && !owners.contains_key("tmp/l2"), "{owners:?}");
    }
}

#[test]
fn groups_of_the_command_are_as_it_was_told() {
    for bed in beds() {
        let mut spec = bed.shell("echo $(id -u):$(id -G); touch /tmp/f");
        spec.process.env = vec![("PATH".into(), "/box".into())];
        (spec.process.gid, spec.process.groups) = (5, vec![6, 7]);
        let ran = bed.run(&spec);
        assert_eq!(ran.out, "0:5 6 7\n", "{ran:?}");
    }
}
