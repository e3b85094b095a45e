//! The sending side of file synchronisation: the list, then each file that is asked for.
//!
//! Three things run side by side. One sends the list. One takes requests off the wire the moment they come: a request is a
//! tiny frame, and h2 ends a connection on which too many of these wait. A few threads read files.
//!
//! The times in the list depend on the contents (docs/decisions/0016-never-stale.md), so each file is hashed again while it
//! is sent: one that is not what the list said must not look whole.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::filesync::Sent;
use super::packet::{FileType, Packet, PacketKind, Stat, go_mode};
use super::source::{Node, SyncDir, sent_time};
use super::trouble::Trouble;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Threads that read files for one transfer, as in Docker's own client.
const READERS: usize = 4;
/// Bytes of a file in one packet, as in Docker's own client.
const CHUNK: usize = 32 << 10;
/// Packets that may wait for the connection: 4 MiB at most, one stream's window.
const QUEUE: usize = 128;

type Outgoing = mpsc::Sender<Result<Packet, Status>>;

/// A directory, and which of its entries are sent: the position in `picked` is the id on the wire.
pub(super) struct Listing {
    dir: Arc<dyn SyncDir>,
    picked: Vec<usize>,
    /// What is promised of each; see [`SyncDir::digests`].
    digests: Vec<Option<Digest>>,
}

impl Listing {
    /// Hashes what is going to be listed. Blocks, and fails as [`SyncDir::digests`] does.
    pub(super) fn new(dir: Arc<dyn SyncDir>, picked: Vec<usize>, cancel: &Cancel) -> Result<Self> {
        let digests = dir.digests(&picked, cancel)?;
        Ok(Self { dir, picked, digests })
    }

    fn node(&self, id: usize) -> Node<'_> {
        self.dir.node(self.picked[id])
    }

    /// Every entry, hard links pointing to the first name *that is sent*.
    fn stats(&self) -> impl Iterator<Item = Stat> + Send + '_ {
        let mut first_names: HashMap<Vec<u8>, usize> = HashMap::new();
        (0..self.picked.len()).map(move |id| {
            let node = self.node(id);
            let mut stat = stat_of(&node);
            if let Some(digest) = &self.digests[id] {
                stat.mod_time = sent_time(node.mtime, digest);
            }
            if let Some(origin) = &node.link_to {
                match first_names.get(origin.as_ref()) {
                    Some(first) => {
                        stat.linkname = self.node(*first).path.into_owned();
                        stat.size = 0;
                    }
                    None => {
                        first_names.insert(origin.to_vec(), id);
                    }
                }
            } else if node.kind == FileType::File {
                first_names.insert(node.path.into_owned(), id);
            }
            stat
        })
    }
}

fn stat_of(node: &Node<'_>) -> Stat {
    Stat {
        path: node.path.to_vec(),
        mode: go_mode(node.kind, node.mode),
        // Sizes above i64 do not exist on any file system.
        size: match node.kind {
            FileType::File => i64::try_from(node.size).unwrap_or(i64::MAX),
            FileType::Symlink => i64::try_from(node.target.len()).unwrap_or(i64::MAX),
            FileType::Dir | FileType::Fifo | FileType::CharDevice | FileType::BlockDevice => 0,
        },
        mod_time: node.mtime,
        devmajor: node.device.0.into(),
        devminor: node.device.1.into(),
        linkname: if node.kind == FileType::Symlink { node.target.to_vec() } else { Vec::new() },
        ..Stat::default()
    }
}

/// Answers one call of `DiffCopy`. The work ends when the stream that is returned is dropped.
pub(super) fn start(
    listing: Listing,
    requests: Streaming<Packet>,
    sent: Arc<Sent>,
    trouble: Trouble,
) -> ReceiverStream<Result<Packet, Status>> {
    let (outgoing, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let end = tokio::select! {
            () = outgoing.closed() => return,
            result = transfer(Arc::new(listing), requests, &outgoing, sent) => match result {
                Ok(()) => Ok(Packet::fin()),
                Err(Stop::Ours(error)) => {
                    // The packet carries the text into the daemon's own error, the status ends the call.
                    let message = error.to_string();
                    let status = trouble.report(error);
                    let _ = outgoing.send(Ok(Packet::err(&message))).await;
                    Err(status)
                }
                Err(Stop::Theirs(status)) => Err(status),
            },
        };
        // A receiver that is gone needs no end.
        let _ = outgoing.send(end).await;
    });
    ReceiverStream::new(receiver)
}

/// Why a transfer stopped early.
enum Stop {
    /// We cannot go on.
    Ours(Error),
    /// The receiver does not want to go on.
    Theirs(Status),
}

async fn transfer(
    listing: Arc<Listing>,
    requests: Streaming<Packet>,
    outgoing: &Outgoing,
    sent: Arc<Sent>,
) -> Result<(), Stop> {
    let (wanted, queue) = mpsc::unbounded_channel();
    let queue = Arc::new(Mutex::new(queue));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (listing, queue, outgoing, sent) = (listing.clone(), queue.clone(), outgoing.clone(), sent.clone());
        readers.spawn_blocking(move || read_files(&listing, &queue, &outgoing, &sent));
    }
    let list = send_list(&listing, outgoing, &sent);
    // Dropping `wanted` at its end lets the readers go.
    let receive = take_requests(&listing, requests, wanted);
    let read = async {
        while let Some(result) = readers.join_next().await {
            result.unwrap_or_else(|error| Err(Error::internal(error.to_string()))).map_err(Stop::Ours)?;
        }
        Ok(())
    };
    tokio::try_join!(list, receive, read).map(|_| ())
}

async fn send_list(listing: &Listing, outgoing: &Outgoing, sent: &Sent) -> Result<(), Stop> {
    let gone = |_| Stop::Theirs(Status::cancelled("the daemon closed the transfer"));
    for stat in listing.stats() {
        if std::str::from_utf8(&stat.path).and(std::str::from_utf8(&stat.linkname)).is_err() {
            sent.no_text.get_or_init(|| stat.path.clone());
        }
        outgoing.send(Ok(Packet::stat(stat))).await.map_err(gone)?;
    }
    outgoing.send(Ok(Packet::end_of_list())).await.map_err(gone)
}

/// Ends with the receiver's `Fin`. Never waits for anything but the next packet.
async fn take_requests(
    listing: &Listing,
    mut requests: Streaming<Packet>,
    wanted: UnboundedSender<u32>,
) -> Result<(), Stop> {
    let mut asked = vec![false; listing.picked.len()];
    let refuse = |text: String| Err(Stop::Theirs(Status::invalid_argument(text)));
    loop {
        let packet = requests.message().await.map_err(Stop::Theirs)?;
        let Some(packet) = packet else {
            return Err(Stop::Theirs(Status::cancelled("the daemon closed the transfer")));
        };
        match packet.kind() {
            PacketKind::Req => {
                let id = packet.id as usize;
                if id >= asked.len() || asked[id] || listing.node(id).kind != FileType::File {
                    return refuse(format!("invalid file id {id}"));
                }
                asked[id] = true;
                // The readers are gone after an error of theirs, which ends this loop as well.
                let _ = wanted.send(packet.id);
            }
            PacketKind::Fin => return Ok(()),
            PacketKind::Err => {
                return refuse(format!("error from receiver: {}", String::from_utf8_lossy(&packet.data)));
            }
            PacketKind::Stat | PacketKind::Data => return refuse("unexpected packet from the receiver".into()),
        }
    }
}

fn read_files(
    listing: &Listing,
    queue: &Mutex<UnboundedReceiver<u32>>,
    outgoing: &Outgoing,
    sent: &Sent,
) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(id) = next else { return Ok(()) };
        if !send_file(listing, id, outgoing, sent)? {
            return Ok(());
        }
    }
}

/// Sends one file; `false` once nobody listens.
fn send_file(listing: &Listing, id: u32, outgoing: &Outgoing, sent: &Sent) -> Result<bool> {
    let mut content = listing.dir.open(listing.picked[id as usize])?;
    let node = listing.node(id as usize);
    let read_failed = |source| Error::ContextRead { path: path_of(&node.path), source };
    let promised = listing.digests[id as usize];
    let mut hash = Sha256::new();
    let capacity = usize::try_from(node.size).unwrap_or(CHUNK).clamp(1, CHUNK);
    loop {
        let mut chunk = BytesMut::zeroed(capacity);
        // The context's own errors come through `Read` in a wrapping.
        let length = fill(&mut content, &mut chunk).map_err(|error| error.downcast().unwrap_or_else(read_failed))?;
        chunk.truncate(length);
        if promised.is_some() {
            hash.update(&chunk);
        }
        if length > 0 && outgoing.blocking_send(Ok(Packet::data(id, chunk.freeze()))).is_err() {
            return Ok(false);
        }
        sent.add(0, length as u64);
        if length < capacity {
            break;
        }
    }
    if promised.is_some_and(|promised| promised != Digest::from_bytes(hash.finalize().into())) {
        let found = format!("{} other bytes", node.size);
        return Err(Error::ContextChanged { path: path_of(&node.path), expected: node.size, found });
    }
    sent.add(1, 0);
    Ok(outgoing.blocking_send(Ok(Packet::data(id, Bytes::new()))).is_ok())
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match content.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn path_of(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
