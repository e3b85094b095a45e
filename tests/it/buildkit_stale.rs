//! Contents that have the size and the time of others: a daemon must never take them for those
//! (docs/decisions/0016-never-stale.md).

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use cooper::context::Index;
use cooper::error::Error;
use cooper::request::{ContextSpec, ExtraFile};

use crate::buildkit_fake::{Receiver, Served, receive, serve_context, serve_root};

const SECOND: i64 = 1_000_000_000;

fn time() -> SystemTime {
    UNIX_EPOCH + Duration::new(1_700_000_000, 987_654_321)
}

/// Writes a file whose time says nothing.
fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(time()).unwrap();
}

/// The time that is sent for each path.
async fn times(served: &Served) -> Vec<(String, i64)> {
    let received = receive(served, &[]).await.unwrap();
    received.stats.iter().map(|stat| (stat.path.clone(), stat.mod_time)).collect()
}

async fn time_of(root: &Path, path: &str) -> i64 {
    receive(&serve_root(root).await, &[]).await.unwrap().stat(path).mod_time
}

#[tokio::test]
async fn an_edit_that_keeps_size_and_time_changes_the_time_that_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a/model.bin");
    write(&file, "version 1");
    let first = time_of(dir.path(), "a/model.bin").await;
    assert_eq!(first.div_euclid(SECOND), 1_700_000_000);
    write(&file, "version 2");
    let second = time_of(dir.path(), "a/model.bin").await;
    assert_ne!(first, second);
    assert_eq!(second.div_euclid(SECOND), 1_700_000_000, "the second is the file's own");
    write(&file, "version 1");
    assert_eq!(time_of(dir.path(), "a/model.bin").await, first, "what it was, it is again");
}

#[tokio::test]
async fn an_index_finds_the_edit_too() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spec = ContextSpec { root: Some(dir.path().to_owned()), ..ContextSpec::default() };
    let mut seen = Vec::new();
    for content in ["version 1", "version 2", "version 2", "version 1"] {
        if seen.len() != 2 {
            write(&dir.path().join("file"), content);
            // Older than what may still be written to.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        seen.extend(times(&serve_context(spec.clone(), Some(Index::at(kept.path()))).await).await);
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!((&seen[1], &seen[0]), (&seen[2], &seen[3]));
    let without = times(&serve_context(spec, None).await).await;
    assert_eq!(without[0], seen[3]);
}

#[tokio::test]
async fn two_folders_that_take_turns_at_one_path_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(&path("one/src/main.py"), "print(1)");
    write(&path("two/src/main.py"), "print(2)");
    let spec = ContextSpec { root: Some(path("current")), ..ContextSpec::default() };
    let mut seen = Vec::new();
    for name in ["one", "two", "one"] {
        fs::rename(path(name), path("current")).unwrap();
        let served = serve_context(spec.clone(), Some(Index::at(kept.path()))).await;
        seen.push(receive(&served, &[]).await.unwrap().stat("src/main.py").mod_time);
        fs::rename(path("current"), path(name)).unwrap();
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
}

#[tokio::test]
async fn all_names_of_a_file_have_one_time_and_what_is_no_file_its_own() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a"), "shared");
    fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("dir")).unwrap();
    File::open(dir.path().join("dir")).unwrap().set_modified(time()).unwrap();
    let extra = ExtraFile { path: "extra".into(), content: "text".into(), mode: 0o644 };
    let spec = ContextSpec { root: Some(dir.path().to_owned()), extra_files: vec![extra], ..ContextSpec::default() };
    let served = serve_context(spec, None).await;
    let received = receive(&served, &[]).await.unwrap();
    assert_eq!(received.stat("a").mod_time, received.stat("b").mod_time);
    assert_eq!(received.stat("b").linkname, "a");
    assert_eq!(received.stat("dir").mod_time, 1_700_000_000_987_654_321);
    assert_eq!(received.stat("extra").mod_time.div_euclid(SECOND), 946_684_800);
    // Where the first name is not sent, the second stands for the content.
    let received = receive(&served, &[("exclude-patterns", "a")]).await.unwrap();
    assert_eq!(received.content["b"], b"shared");
    assert_eq!(received.stat("b").mod_time, time_of(dir.path(), "a").await);
}

#[tokio::test]
async fn only_what_is_listed_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("wanted"), "wanted");
    write(&dir.path().join("other"), "gone by then");
    let served = serve_root(dir.path()).await;
    fs::remove_file(dir.path().join("other")).unwrap();
    let received = receive(&served, &[("followpaths", "wanted")]).await.unwrap();
    assert_eq!(received.paths(), ["wanted"]);
    let status = receive(&served, &[]).await.unwrap_err();
    assert!(status.message().contains("other"), "{status}");
    assert!(matches!(served.session.trouble().take(), Some(Error::ContextChanged { .. })));
}

#[tokio::test]
async fn a_file_that_is_another_by_the_time_it_is_sent_never_looks_whole() {
    // Shorter than a packet, and longer than many.
    for size in [10, 200_000] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data");
        write(&file, &"x".repeat(size));
        let served = serve_root(dir.path()).await;
        let mut receiver = Receiver::open(&served.channel, "context", &[]).await.unwrap();
        receiver.list().await.unwrap();
        write(&file, &format!("{}y", "x".repeat(size - 1)));
        receiver.send(PacketType::PacketReq, 0);
        let message = loop {
            let packet = receiver.next().await.unwrap();
            if packet.r#type() == PacketType::PacketErr {
                break String::from_utf8(packet.data).unwrap();
            }
            assert!(!packet.data.is_empty(), "the file must not look whole");
        };
        let expected = format!("`data` changed while it was read: it had {size} bytes, then {size} other bytes");
        assert_eq!(message, expected);
        assert!(receiver.next().await.is_err());
        let trouble = served.session.trouble().take();
        assert!(matches!(trouble, Some(Error::ContextChanged { .. })), "{trouble:?}");
    }
}

#[test]
fn a_receiver_that_goes_away_ends_the_hashing() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..8 {
        let file = File::create(dir.path().join(format!("{number}"))).unwrap();
        // A hole: it costs no space, and takes long to hash.
        file.set_len(8 << 30).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let served = serve_root(dir.path()).await;
        let opening = Receiver::open(&served.channel, "context", &[]);
        assert!(tokio::time::timeout(Duration::from_millis(200), opening).await.is_err(), "64 GiB take longer");
    });
    // It waits for its threads.
    let started = Instant::now();
    drop(runtime);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
