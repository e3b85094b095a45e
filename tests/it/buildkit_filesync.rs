//! File synchronisation, as a daemon sees it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use cooper::error::Error;
use tonic::Code;

use crate::buildkit_fake::{Receiver, receive, serve_root, serve_texts};

fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_requests_at_once_are_served_while_health_answers() {
    const FILES: usize = 8000;
    let dir = tempfile::tempdir().unwrap();
    for number in 0..FILES {
        write(dir.path(), &format!("d{}/f{number}", number % 40), format!("content of {number}"));
    }
    // Some that take many packets, between the small ones.
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    for number in 0..4 {
        write(dir.path(), &format!("d{number}/large"), &large);
    }
    let served = serve_root(dir.path()).await;
    let mut health = HealthClient::new(served.channel.clone());
    let checks = tokio::spawn(async move {
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let start = std::time::Instant::now();
            assert_eq!(health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status, 1);
            slowest = slowest.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slowest
    });
    let received = receive(&served, &[]).await.unwrap();
    assert_eq!(received.content.len(), FILES + 4);
    for number in 0..FILES {
        let path = format!("d{}/f{number}", number % 40);
        assert_eq!(received.content[&path], format!("content of {number}").as_bytes(), "{path}");
    }
    assert!((0..4).all(|number| received.content[&format!("d{number}/large")] == large));
    let sent = served.session.sent();
    assert_eq!(sent.files.load(std::sync::atomic::Ordering::Relaxed), (FILES + 4) as u64);
    let bytes: usize = received.content.values().map(Vec::len).sum();
    assert_eq!(sent.bytes.load(std::sync::atomic::Ordering::Relaxed), bytes as u64);
    // A daemon gives a session fifteen seconds.
    assert!(checks.await.unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn entries_are_described_as_go_does() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "bin/tool", "#!/bin/sh\n");
    fs::set_permissions(dir.path().join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::set_permissions(dir.path().join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../nowhere", dir.path().join("bin/link")).unwrap();
    let time = std::time::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    fs::File::open(dir.path().join("bin/tool")).unwrap().set_modified(time).unwrap();

    let received = receive(&serve_root(dir.path()).await, &[]).await.unwrap();
    assert_eq!(received.paths(), ["bin", "bin/link", "bin/tool", "empty"]);
    let tool = received.stat("bin/tool");
    assert_eq!((tool.mode, tool.size), (1 << 23 | 0o755, 10));
    // Its nanoseconds are its content's: see `buildkit_stale`.
    assert_eq!(tool.mod_time.div_euclid(1_000_000_000), 1_700_000_000);
    let link = received.stat("bin/link");
    assert_eq!((link.mode, link.linkname.as_str(), link.size), (1 << 27 | 0o777, "../nowhere", 10));
    let empty = received.stat("empty");
    assert_eq!((empty.mode, empty.size), (1 << 31 | 1 << 20 | 0o777, 0));
}

#[tokio::test]
async fn hard_links_point_to_the_first_name_that_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a", "shared");
    for name in ["b", "c"] {
        fs::hard_link(dir.path().join("a"), dir.path().join(name)).unwrap();
    }
    let served = serve_root(dir.path()).await;
    let received = receive(&served, &[]).await.unwrap();
    let links: Vec<_> = received.stats.iter().map(|stat| (stat.linkname.as_str(), stat.size)).collect();
    assert_eq!(links, [("", 6), ("a", 0), ("a", 0)]);
    assert_eq!(received.content.len(), 1);

    let received = receive(&served, &[("exclude-patterns", "a")]).await.unwrap();
    let links: Vec<_> = received.stats.iter().map(|stat| (stat.linkname.as_str(), stat.size)).collect();
    assert_eq!(links, [("", 6), ("b", 0)]);
    assert_eq!(received.content["b"], b"shared");
}

#[tokio::test]
async fn only_followed_paths_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    for path in ["app/main.py", "app/deep/er.py", "data/big", "requirements.txt", "\u{e4} b/c"] {
        write(dir.path(), path, path);
    }
    symlink("data", dir.path().join("current")).unwrap();
    let served = serve_root(dir.path()).await;
    let paths =
        |received: crate::buildkit_fake::Received| received.stats.into_iter().map(|stat| stat.path).collect::<Vec<_>>();

    let one = receive(&served, &[("followpaths", "requirements.txt")]).await.unwrap();
    assert_eq!(paths(one), ["requirements.txt"]);
    let linked = receive(&served, &[("followpaths", "current/big"), ("followpaths", "app/deep")]).await.unwrap();
    assert_eq!(paths(linked), ["app", "app/deep", "app/deep/er.py", "current", "data", "data/big"]);
    let encoded = [("followpaths", "%C3%A4+b"), ("followpaths-encoded", "1")];
    assert_eq!(paths(receive(&served, &encoded).await.unwrap()), ["\u{e4} b", "\u{e4} b/c"]);
    let both = [("include-patterns", "**/*.py"), ("exclude-patterns", "app/deep")];
    assert_eq!(paths(receive(&served, &both).await.unwrap()), ["app", "app/main.py"]);
}

#[tokio::test]
async fn names_need_not_be_text() {
    let dir = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"caf\xe9");
    if fs::write(dir.path().join(name), "x").is_err() {
        // Some file systems (APFS) take UTF-8 only.
        return;
    }
    // The generated client cannot read such a name, so look at the bytes on the wire.
    let served = serve_root(dir.path()).await;
    let error = receive(&served, &[]).await.unwrap_err();
    assert!(error.message().contains("invalid string value"), "{error}");
}

#[tokio::test]
async fn an_unknown_directory_is_not_found_and_a_bad_pattern_is_named() {
    let served = serve_texts(&[("a", "")]).await;
    let status = Receiver::open(&served.channel, "secret", &[]).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "no access allowed to dir \"secret\""));
    let status = Receiver::open(&served.channel, "context", &[("exclude-patterns", "a[")]).await.err().unwrap();
    assert!(status.message().contains("pattern"), "{status}");
}

#[tokio::test]
async fn a_text_has_a_time_that_depends_on_it() {
    let time = async |text: &str| {
        receive(&serve_texts(&[("Dockerfile", text)]).await, &[]).await.unwrap().stat("Dockerfile").mod_time
    };
    assert_eq!(time("FROM a").await, time("FROM a").await);
    assert_ne!(time("FROM a").await, time("FROM b").await);
}

#[tokio::test]
async fn requests_that_make_no_sense_end_the_transfer() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "d/f", "x");
    let served = serve_root(dir.path()).await;
    // Out of range; a directory; the same file twice.
    for ids in [&[7][..], &[0], &[1, 1]] {
        let mut receiver = Receiver::open(&served.channel, "context", &[]).await.unwrap();
        receiver.list().await.unwrap();
        for id in ids {
            receiver.send(PacketType::PacketReq, *id);
        }
        let status = loop {
            match receiver.next().await {
                Ok(packet) => assert_eq!(packet.r#type(), PacketType::PacketData),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{ids:?}");
    }
    assert!(served.session.trouble().take().is_none(), "it is the daemon's mistake");
}

#[tokio::test]
async fn a_file_that_changes_ends_the_build_with_its_name() {
    for change in ["gone", "shorter", "longer"] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "data/file", vec![b'x'; 100_000]);
        let served = serve_root(dir.path()).await;
        let mut receiver = Receiver::open(&served.channel, "context", &[]).await.unwrap();
        receiver.list().await.unwrap();
        match change {
            "gone" => fs::remove_file(dir.path().join("data/file")).unwrap(),
            "shorter" => write(dir.path(), "data/file", "short"),
            _ => write(dir.path(), "data/file", vec![b'x'; 200_000]),
        }
        receiver.send(PacketType::PacketReq, 1);
        let message = loop {
            let packet = receiver.next().await.unwrap();
            if packet.r#type() == PacketType::PacketErr {
                break String::from_utf8(packet.data).unwrap();
            }
            assert!(!packet.data.is_empty(), "{change}: the file must not look whole");
        };
        assert!(message.contains("data/file"), "{message}");
        assert!(receiver.next().await.is_err());
        let trouble = served.session.trouble().take();
        assert!(matches!(trouble, Some(Error::ContextChanged { .. })), "{change}: {trouble:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_gives_up_ends_the_transfer() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..500 {
        write(dir.path(), &format!("f{number}"), vec![b'x'; 10_000]);
    }
    let served = serve_root(dir.path()).await;
    let mut receiver = Receiver::open(&served.channel, "context", &[]).await.unwrap();
    receiver.list().await.unwrap();
    receiver.send(PacketType::PacketErr, 0);
    let status = receiver.next().await.unwrap_err();
    assert!(status.message().contains("error from receiver"), "{status}");
    // One that just goes away leaves the session usable.
    let mut receiver = Receiver::open(&served.channel, "context", &[]).await.unwrap();
    receiver.list().await.unwrap();
    for id in 0..500 {
        receiver.send(PacketType::PacketReq, id);
    }
    drop(receiver);
    assert_eq!(receive(&served, &[]).await.unwrap().content.len(), 500);
}

#[tokio::test]
async fn dropping_the_session_ends_every_transfer() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "f", vec![b'x'; 50_000_000]);
    let served = serve_root(dir.path()).await;
    let mut receiver = Receiver::open(&served.channel, "context", &[]).await.unwrap();
    receiver.list().await.unwrap();
    receiver.send(PacketType::PacketReq, 0);
    receiver.next().await.unwrap();
    drop(served);
    let end = async { while receiver.next().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(2), end).await.expect("the stream ends with its session");
}
