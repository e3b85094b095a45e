//! Many processes on one store, killed at any instant, and a disk that is full.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cooper::cancel::Cancel;
use cooper::digest::Digest;
use cooper::store::{Policy, Store};

use crate::context_support::{in_child, tempdir_in_memory};
use crate::store::{files, new_store, unfinished};

/// Set in a process that works on the store there.
const STORE: &str = "COOPER_TEST_STORE";
/// What a process prints before it begins.
const READY: &str = "the store is open";

/// Numbers without order, the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's multiplier (The Art of Computer Programming 2, 3.3.4); the low bits are poor.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The content that goes with a number.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let length = random.below(if number.is_multiple_of(7) { 400_000 } else { 2000 });
    let mut content = number.to_le_bytes().to_vec();
    content.extend((0..length).map(|at| (at % 251) as u8));
    content
}

fn key(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// Writes a blob, and a record that names it.
fn write(store: &Store, number: u64) -> Digest {
    let content = content(number);
    let mut writer = store.writer().unwrap();
    for piece in content.chunks(30_000) {
        writer.append(piece).unwrap();
    }
    let digest = Digest::of(&content);
    let blob = writer.finish(Some((&digest, content.len() as u64))).unwrap();
    store.put_record("number", &key(number), blob.digest().as_bytes()).unwrap();
    digest
}

/// Whether a number is kept; it is right if it is.
fn read(store: &Store, number: u64) -> bool {
    let Some(record) = store.record("number", &key(number)).unwrap() else { return false };
    let content = content(number);
    let digest = Digest::of(&content);
    assert_eq!(record, digest.as_bytes());
    let Some(blob) = store.blob(&digest).unwrap() else { return false };
    match blob.read() {
        Ok(found) => assert!(found == content, "the blob of {number} is wrong"),
        // Another process took it away after we looked: we had no lease.
        Err(error) => assert!(error.to_string().contains("it was removed"), "{error}"),
    }
    true
}

/// Starts the body of the test `name` in a process of its own, with a store.
fn start(name: &str, store: &Store) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("store_processes::{name}")]);
    command.env(STORE, store.path()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until a process has opened the store.
fn wait_ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(READY)), "the process ended early");
}

/// The store that this process should work on, if it was started by a test.
fn given_store() -> Option<Store> {
    let store = Store::open(&PathBuf::from(std::env::var_os(STORE)?)).unwrap();
    println!("{READY}");
    Some(store)
}

/// Everything that can be done, again and again.
fn work_for_ever(store: &Store) -> ! {
    let mut random = Random(u64::from(std::process::id()));
    loop {
        let number = random.below(60);
        match random.below(12) {
            0..5 => drop(write(store, number)),
            5..9 => drop(read(store, number)),
            9 => {
                let lease = store.lease().unwrap();
                let digest = write(store, number);
                assert!(store.blob(&digest).unwrap().is_some(), "pruned under a lease");
                drop(lease);
            }
            10 => drop(store.writer().unwrap().append(&content(number))),
            _ => {
                let policy = Policy { keep_bytes: Some(random.below(1_000_000)), older_than: None };
                store.prune(&policy, &Cancel::new()).unwrap();
            }
        }
    }
}

#[test]
fn a_hundred_kills_leave_nothing_wrong() {
    const AT_ONCE: u64 = 4;
    if let Some(store) = given_store() {
        work_for_ever(&store);
    }
    let (_dir, store) = new_store();
    let mut random = Random(1);
    let mut kept = 0;
    for round in 0..100 / AT_ONCE {
        let mut children: Vec<Child> =
            (0..AT_ONCE).map(|_| start("a_hundred_kills_leave_nothing_wrong", &store)).collect();
        children.iter_mut().for_each(wait_ready);
        for child in &mut children {
            let instant = Instant::now() + Duration::from_micros(random.below(3000));
            while Instant::now() < instant {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9), "a process ended by itself in round {round}");
        }
        let store = Store::open(store.path()).unwrap();
        assert_eq!(unfinished(&store), [""; 0].map(PathBuf::from), "round {round}");
        kept += (0..60).filter(|number| read(&store, *number)).count();
        all_is_sound(&store);
    }
    assert!(kept > 100, "only {kept} numbers were ever there");
}

/// Reads every file.
fn all_is_sound(store: &Store) {
    for path in files(&store.path().join("blobs")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let digest: Digest = format!("sha256:{}", &name[..64]).parse().unwrap();
        store.blob(&digest).unwrap().expect("a blob of the wrong size").verify(&Cancel::new()).unwrap();
    }
    let before = store.usage(&Cancel::new()).unwrap().total;
    (0..60).for_each(|number| drop(store.record("number", &key(number)).unwrap()));
    // A damaged record would be gone now.
    assert_eq!(store.usage(&Cancel::new()).unwrap().total, before);
}

#[test]
fn eight_processes_share_a_store() {
    if let Some(store) = given_store() {
        return share(&store);
    }
    let (_dir, store) = new_store();
    let mut children: Vec<Child> = (0..8).map(|_| start("eight_processes_share_a_store", &store)).collect();
    children.iter_mut().for_each(wait_ready);
    for mut child in children {
        std::io::copy(child.stdout.as_mut().unwrap(), &mut std::io::sink()).unwrap();
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(unfinished(&store).len(), 0);
    all_is_sound(&store);
}

/// Works under a lease, on two threads, while all prune: nothing that was written or read is lost.
fn share(store: &Store) {
    let _lease = store.lease().unwrap();
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let mut random = Random(u64::from(std::process::id()) * 2 + half);
                let numbers: Vec<u64> = (0..30).map(|_| random.below(60)).collect();
                for number in &numbers {
                    write(store, *number);
                    store.prune(&Policy { keep_bytes: Some(0), older_than: None }, &Cancel::new()).unwrap();
                    assert!(read(store, *number));
                }
                assert!(numbers.iter().all(|number| read(store, *number)));
            });
        }
    });
}

#[test]
fn only_what_nobody_writes_is_swept_up() {
    let (_dir, store) = new_store();
    let mut writer = store.writer().unwrap();
    let lease = store.lease().unwrap();
    for folder in ["tmp", "leases"] {
        std::fs::write(store.path().join(folder).join("left"), "behind").unwrap();
    }
    let again = Store::open(store.path()).unwrap();
    assert_eq!(unfinished(&again).len(), 2);
    writer.append(b"content").unwrap();
    assert_eq!(writer.finish(None).unwrap().read().unwrap(), b"content");
    drop(lease);
    assert_eq!(unfinished(&again).len(), 0);
}

/// Fills the disk of a store in `dir`.
fn fill(dir: &Path) {
    let store = Store::open(&dir.join("store")).unwrap();
    let small = store.put(&vec![1; 100_000]).unwrap();
    let large = vec![2; 1 << 20];
    for error in [store.put(&large).unwrap_err(), store.put_record("step", &key(1), &large).unwrap_err()] {
        assert_eq!(error.code(), "no-space", "{error}");
        assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    }
    // A writer that somebody goes on with has nothing to give either.
    let mut writer = store.writer().unwrap();
    assert_eq!(
        std::io::Write::write_all(&mut writer, &large).unwrap_err().downcast::<cooper::Error>().unwrap().code(),
        "no-space"
    );
    assert!(writer.finish(Some((&Digest::of(&large), 1 << 20))).is_err());
    assert_eq!(unfinished(&store).len(), 0);
    assert_eq!(store.usage(&Cancel::new()).unwrap().total.count, 1);
    assert_eq!(small.read().unwrap(), vec![1; 100_000]);
    store.put_record("step", &key(1), b"there is room for this").unwrap();
    assert!(store.record("step", &key(1)).unwrap().is_some());
}

/// Runs a program that may not make files of more than some hundred KiB. Some shells count in blocks of 512 bytes, some in KiB.
const SMALL_FILES: &str = "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\"";
/// Runs a program with a file system of 800 KiB at `$COOPER_TEST_DISK`, or where that cannot be had, with small files.
const SMALL_DISK: &str = r#"
if unshare -rm true 2> /dev/null; then
    exec unshare -rm sh -c 'mount -t tmpfs -o size=800k,mode=700 none "$COOPER_TEST_DISK" && exec "$0" "$@"' "$0" "$@"
fi
trap '' XFSZ; ulimit -f 400; exec "$0" "$@"
"#;

/// Runs the body of the test `name` on a disk that a shell script makes small.
fn on_a_small_disk(name: &str, script: &str) {
    let dir = tempdir_in_memory();
    let wrap = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program).args(arguments).env("COOPER_TEST_DISK", dir.path());
        command
    };
    in_child(name, wrap, || fill(Path::new(&std::env::var_os("COOPER_TEST_DISK").unwrap())));
}

#[test]
fn a_file_that_may_not_grow_leaves_nothing_behind() {
    on_a_small_disk("store_processes::a_file_that_may_not_grow_leaves_nothing_behind", SMALL_FILES);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    on_a_small_disk("store_processes::a_full_disk_leaves_nothing_behind", SMALL_DISK);
}
