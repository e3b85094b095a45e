//! What a daemon sends: streams, and files into a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as FilesClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient as StreamClient;
use cooper::buildkit::filesend::{DIFF_COPY, Receive, Target, Targets};
use cooper::buildkit::incoming::Incoming;
use cooper::buildkit::receive::Folder;
use cooper::buildkit::session::SessionSpec;
use cooper::error::{Error, Result};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status};

use crate::buildkit_fake::{Served, files, serve};

const ID: &str = "buildkit-attachable-exporter-id";

/// Keeps what comes, or says why not.
#[derive(Default)]
struct Keep {
    kept: Mutex<Vec<u8>>,
    full: bool,
}

#[async_trait]
impl Receive for Keep {
    async fn receive(&self, mut content: Incoming) -> Result<()> {
        if self.full {
            return Err(Error::NoSpace { message: "writing `x`".into() });
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map(|_| bytes)
        });
        let bytes = read.await.unwrap().map_err(|source| Error::OutputFailed { path: "x".into(), source })?;
        *self.kept.lock().unwrap() = bytes;
        Ok(())
    }
}

async fn serve_targets(targets: Targets) -> Served {
    serve(SessionSpec { targets, ..files([]) }).await
}

/// Sends a stream; `None` breaks it off.
async fn send(served: &Served, id: Option<&'static str>, parts: Vec<Option<&'static [u8]>>) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    if let Some(id) = id {
        request.metadata_mut().insert(ID, id.parse().unwrap());
    }
    let mut client = StreamClient::new(served.channel.clone());
    let call = async {
        let mut answer = client.diff_copy(request).await?.into_inner();
        match answer.message().await? {
            None => Ok(()),
            Some(message) => panic!("an answer: {message:?}"),
        }
    };
    let feed = async {
        for part in parts {
            let Some(part) = part else {
                // Its end would say that this is all.
                std::mem::forget(sender.clone());
                return std::future::pending().await;
            };
            drop(sender.send(BytesMessage { data: part.to_vec() }).await);
        }
        drop(sender);
    };
    tokio::select! {
        (result, ()) = async { tokio::join!(call, feed) } => result,
        () = tokio::time::sleep(Duration::from_millis(300)) => Err(Status::cancelled("broken off")),
    }
}

#[tokio::test]
async fn each_exporter_has_its_own_stream() {
    let (first, second) = (Arc::new(Keep::default()), Arc::new(Keep::default()));
    let targets = [(1, Target::Stream(first.clone())), (4, Target::Stream(second.clone()))];
    let served = serve_targets(targets.into()).await;
    assert!(served.session.hello().methods.iter().any(|method| method == DIFF_COPY));
    send(&served, Some("4"), vec![Some(b"four "), Some(b""), Some(b"4")]).await.unwrap();
    // A daemon that names no exporter has one.
    send(&served, None, vec![Some(b"one")]).await.unwrap();
    assert_eq!(*first.kept.lock().unwrap(), b"one");
    assert_eq!(*second.kept.lock().unwrap(), b"four 4");
    for id in ["0", "x", "-1"] {
        assert_eq!(send(&served, Some(id), vec![Some(b"x")]).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn without_a_target_nothing_is_announced() {
    let served = serve_targets(Targets::new()).await;
    assert!(!served.session.hello().methods.iter().any(|method| method.contains("FileSend")));
    assert_eq!(send(&served, None, vec![Some(b"x")]).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn an_error_of_ours_ends_the_stream_and_is_kept() {
    let served = serve_targets([(0, Target::Stream(Arc::new(Keep { full: true, ..Keep::default() })))].into()).await;
    let status = send(&served, Some("0"), vec![Some(b"x"), Some(b"y"), Some(b"z")]).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("writing `x`")), (Code::Aborted, true));
    assert_eq!(served.session.trouble().take().unwrap().code(), "no-space");
}

#[tokio::test]
async fn a_stream_that_is_broken_off_is_never_whole() {
    let keep = Arc::new(Keep::default());
    let served = serve_targets([(0, Target::Stream(keep.clone()))].into()).await;
    send(&served, Some("0"), vec![Some(b"half"), None]).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(keep.kept.lock().unwrap().is_empty());
    assert!(served.session.trouble().take().is_none());
}

const DIR: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

fn stat(path: &str, mode: u32, linkname: &str) -> Stat {
    Stat { path: path.into(), mode, linkname: linkname.into(), mod_time: 1_000_000_007, ..Stat::default() }
}

/// A file with a content.
fn file(path: &str, mode: u32, size: usize) -> Stat {
    Stat { size: size.try_into().unwrap(), ..stat(path, mode, "") }
}

/// How a daemon behaves once the list is sent.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Sends data for a file that nobody asked for.
    Unasked(u32),
    /// Sends less of each file than there should be.
    Short,
    /// Goes away in the middle of the first file.
    Gone,
    /// Says that it failed.
    Failed,
}

/// Sends a list, and files of one repeated letter: `a` for the first, and so on.
async fn send_files(served: &Served, list: Vec<Stat>, manner: Manner) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert(ID, "0".parse().unwrap());
    let sizes: Vec<usize> = list.iter().map(|stat| usize::try_from(stat.size).unwrap()).collect();
    let mut client = FilesClient::new(served.channel.clone());
    let sending = sender.clone();
    let listing = tokio::spawn(async move {
        for stat in list {
            let packet = Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() };
            if sending.send(packet).await.is_err() {
                return;
            }
        }
        let _ = sending.send(Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() }).await;
    });
    let data = |id: u32, data: Vec<u8>| Packet { r#type: PacketType::PacketData.into(), id, data, ..Packet::default() };
    let mut packets = client.diff_copy(request).await?.into_inner();
    if let Manner::Unasked(id) = manner {
        listing.await.unwrap();
        let _ = sender.send(data(id, b"x".to_vec())).await;
    }
    while let Some(packet) = packets.next().await {
        let packet = packet?;
        match packet.r#type() {
            PacketType::PacketReq => {
                let size = sizes[packet.id as usize] - usize::from(manner == Manner::Short);
                let letter = b'a' + u8::try_from(packet.id % 26).unwrap();
                if manner == Manner::Failed {
                    let data = b"input/output error".to_vec();
                    let _ =
                        sender.send(Packet { r#type: PacketType::PacketErr.into(), data, ..Packet::default() }).await;
                    continue;
                }
                for part in vec![letter; size].chunks(32 << 10) {
                    let _ = sender.send(data(packet.id, part.to_vec())).await;
                }
                if manner == Manner::Gone {
                    return Err(Status::cancelled("gone"));
                }
                let _ = sender.send(data(packet.id, Vec::new())).await;
            }
            PacketType::PacketFin => {
                let _ = sender.send(Packet { r#type: PacketType::PacketFin.into(), ..Packet::default() }).await;
            }
            PacketType::PacketErr => {}
            other => panic!("{other:?} from the receiver"),
        }
    }
    Ok(())
}

async fn serve_folder(path: &Path) -> Served {
    let folder = Folder::new(path.to_owned(), "shown".into());
    serve_targets([(0, Target::Folder(Arc::new(folder)))].into()).await
}

/// All that is in a directory, links as links.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let what = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                open.push(path.clone());
                "/".into()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), what);
        }
    }
    found
}

fn expected(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_with_all_that_is_known_of_them() {
    let out = tempfile::tempdir().unwrap();
    let served = serve_folder(out.path()).await;
    let list = vec![
        stat("d", DIR | 0o555, ""),
        stat("d/e", DIR | 1 << 20 | 0o750, ""),
        file("d/e/empty", 0o600, 0),
        file("d/f", 1 << 23 | 0o755, 100_000),
        stat("d/hard", 0o755, "d/f"),
        stat("out", LINK | 0o777, "../../etc"),
    ];
    send_files(&served, list, Manner::Good).await.unwrap();
    let big = "d".repeat(100_000);
    let entries =
        [("d", "/"), ("d/e", "/"), ("d/e/empty", ""), ("d/f", &big), ("d/hard", &big), ("out", "-> ../../etc")];
    assert_eq!(tree(out.path()), expected(&entries));
    let at = |path: &str| fs::symlink_metadata(out.path().join(path)).unwrap();
    assert_eq!(at("d").mode() & 0o7777, 0o555);
    assert_eq!(at("d/e").mode() & 0o7777, 0o1750);
    assert_eq!((at("d/f").mode() & 0o7777, at("d/f").nlink()), (0o4755, 2));
    for path in ["d", "d/e", "d/e/empty", "d/f", "out"] {
        assert_eq!((at(path).mtime(), at(path).mtime_nsec()), (1, 7), "{path}");
    }
    fs::set_permissions(out.path().join("d"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_merged_and_never_followed() {
    let out = tempfile::tempdir().unwrap();
    let (root, outside) = (out.path().join("root"), out.path().join("outside"));
    fs::create_dir_all(root.join("was-dir/full")).unwrap();
    fs::create_dir_all(root.join("kept")).unwrap();
    fs::create_dir(&outside).unwrap();
    for (path, text) in [("kept/mine", "mine"), ("replaced", "old"), ("was-file", "old")] {
        fs::write(root.join(path), text).unwrap();
    }
    fs::write(outside.join("victim"), "victim").unwrap();
    std::os::unix::fs::symlink(&outside, root.join("linked")).unwrap();
    std::os::unix::fs::symlink(outside.join("victim"), root.join("file-link")).unwrap();
    fs::hard_link(outside.join("victim"), root.join("twin")).unwrap();
    let served = serve_folder(&root).await;
    let list = vec![
        file("file-link", 0o644, 1),
        stat("kept", DIR | 0o755, ""),
        file("kept/new", 0o644, 1),
        stat("linked", DIR | 0o755, ""),
        file("linked/victim", 0o644, 1),
        file("replaced", 0o644, 1),
        file("twin", 0o644, 1),
        file("was-dir", 0o644, 1),
        stat("was-file", DIR | 0o755, ""),
    ];
    send_files(&served, list, Manner::Good).await.unwrap();
    let entries = [
        ("file-link", "a"),
        ("kept", "/"),
        ("kept/mine", "mine"),
        ("kept/new", "c"),
        ("linked", "/"),
        ("linked/victim", "e"),
        ("replaced", "f"),
        ("twin", "g"),
        ("was-dir", "h"),
        ("was-file", "/"),
    ];
    assert_eq!(tree(&root), expected(&entries));
    assert_eq!(tree(&outside), expected(&[("victim", "victim")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_list_writes_nothing() {
    let lists: [Vec<Stat>; 8] = [
        vec![file("../escaped", 0o644, 1)],
        vec![file("/tmp/escaped", 0o644, 1)],
        vec![stat("d", DIR | 0o755, ""), file("d/../../escaped", 0o644, 1)],
        vec![stat("l", LINK | 0o777, ".."), file("l/escaped", 0o644, 1)],
        vec![stat("h", 0o644, "../outside")],
        vec![stat("h", 0o644, "/etc/passwd")],
        vec![file("b", 0o644, 1), file("a", 0o644, 1)],
        vec![file("a", 0o644, 1), stat("a", LINK | 0o777, "/etc/passwd")],
    ];
    for list in lists {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("outside"), "").unwrap();
        let root = out.path().join("root");
        fs::create_dir(&root).unwrap();
        let served = serve_folder(&root).await;
        let path = list.last().unwrap().path.clone();
        let status = send_files(&served, list, Manner::Good).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{path}: {status}");
        let trouble = served.session.trouble().take().unwrap();
        assert!(trouble.to_string().contains("shown"), "{trouble}");
        assert_eq!(tree(out.path()), expected(&[("outside", ""), ("root", "/")]), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_misbehaves_leaves_nothing_half_written() {
    for (manner, is_ours) in [
        (Manner::Unasked(0), true),
        (Manner::Unasked(7), true),
        (Manner::Short, true),
        (Manner::Gone, false),
        (Manner::Failed, false),
    ] {
        let out = tempfile::tempdir().unwrap();
        let served = serve_folder(out.path()).await;
        let list = vec![stat("d", DIR | 0o700, ""), file("d/f", 0o644, 40_000)];
        let status = send_files(&served, list, manner).await.unwrap_err();
        assert_eq!(served.session.trouble().take().is_some(), is_ours, "{status}");
        if manner == Manner::Failed {
            assert!(status.message().contains("input/output error"), "{status}");
        }
        let names = || fs::read_dir(out.path().join("d")).map_or(0, Iterator::count);
        for _ in 0..100 {
            if names() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(names(), 0, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_our_error() {
    let out = tempfile::tempdir().unwrap();
    let gone = out.path().join("gone");
    let served = serve_folder(&gone).await;
    let status = send_files(&served, vec![file("f", 0o644, 1)], Manner::Good).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert_eq!(served.session.trouble().take().unwrap().code(), "output-failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_small_files_do_not_choke_the_connection() {
    let out = tempfile::tempdir().unwrap();
    let served = serve_folder(out.path()).await;
    let list: Vec<Stat> = (0..8000).map(|number| file(&format!("f{number:05}"), 0o644, 3)).collect();
    send_files(&served, list, Manner::Good).await.unwrap();
    assert_eq!(tree(out.path()).len(), 8000);
    assert_eq!(fs::read_to_string(out.path().join("f00027")).unwrap(), "bbb");
}
