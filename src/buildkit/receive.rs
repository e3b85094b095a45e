//! The receiving side of file synchronisation: the list, then the files in it, into a directory.
//!
//! Nothing is asked for before the list is whole. The list is then off the wire however slow the disk is, and what else
//! comes is only what was asked for: h2 ends a connection on which too many small frames wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::landing;
use super::packet::{FileType, Packet, PacketKind, Stat};
use super::trouble::Trouble;
use crate::error::{Error, Result};
use crate::paths::compare_paths;

/// Packets that may wait, in either direction; the daemon's have 32 KiB of a file at most.
const QUEUE: usize = 128;
/// Linux takes no longer paths.
const MAX_PATH: usize = 4096;

/// A directory that files are received into. What is there stays, unless something of the same name comes: as in BuildKit's
/// own client, directories are merged and all else is replaced.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    shown: PathBuf,
    left_out: Mutex<Vec<String>>,
}

impl Folder {
    /// The directory `path`, which is there; in errors it is called `shown`.
    pub fn new(path: PathBuf, shown: PathBuf) -> Self {
        Self { path, shown, left_out: Mutex::default() }
    }

    /// What could not be made by this user, to be told to them.
    pub fn left_out(&self) -> Vec<String> {
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn leave_out(&self, path: &[u8], reason: &str) {
        let line = format!("`{}`: {reason}", String::from_utf8_lossy(path));
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// What an error at a path in the directory is.
    pub(super) fn failed(&self, path: &[u8], source: io::Error) -> Error {
        use std::os::unix::ffi::OsStrExt as _;
        Error::unwritten(&self.shown.join(std::ffi::OsStr::from_bytes(path)), source)
    }

    /// An error for what no honest daemon sends.
    pub(super) fn refused(&self, path: &[u8], reason: &str) -> Error {
        let text = format!("the daemon sent `{}`: {reason}", String::from_utf8_lossy(path));
        self.failed(b"", io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

/// Why a transfer stopped early.
enum Stop {
    /// We cannot go on.
    Ours(Error),
    /// The daemon does not go on.
    Theirs(Status),
}

/// What goes to the daemon.
pub(super) type Outgoing = mpsc::Sender<std::result::Result<Packet, Status>>;

/// Answers one call of `DiffCopy`. The work ends when the stream that is returned is dropped.
pub(super) fn start(
    folder: Arc<Folder>,
    packets: Streaming<Packet>,
    trouble: Trouble,
) -> ReceiverStream<std::result::Result<Packet, Status>> {
    let (outgoing, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let stop = tokio::select! {
            () = outgoing.closed() => return,
            result = transfer(folder, packets, &outgoing) => match result {
                Ok(()) => return,
                Err(stop) => stop,
            },
        };
        let status = match stop {
            Stop::Ours(error) => {
                // The packet carries the text into the daemon's own error, the status ends the call.
                let message = error.to_string();
                let status = trouble.report(error);
                let _ = outgoing.send(Ok(Packet::err(&message))).await;
                status
            }
            Stop::Theirs(status) => status,
        };
        // A daemon that is gone needs no end.
        let _ = outgoing.send(Err(status)).await;
    });
    ReceiverStream::new(receiver)
}

async fn transfer(
    folder: Arc<Folder>,
    mut packets: Streaming<Packet>,
    outgoing: &Outgoing,
) -> std::result::Result<(), Stop> {
    let list = take_list(&folder, &mut packets).await?;
    let (data, content) = mpsc::channel(QUEUE);
    let wire = Wire { requests: outgoing.clone(), content };
    let mut writing = tokio::task::spawn_blocking(move || landing::write(&folder, &list, wire));
    let written = loop {
        tokio::select! {
            written = &mut writing => break written,
            packet = next(&mut packets) => {
                let Packet { id, data: bytes, .. } = expect(packet?, PacketKind::Data)?;
                // Where the writer has ended, its result is next.
                let _ = data.send((id, bytes)).await;
            }
        }
    };
    written.unwrap_or_else(|error| Err(Error::internal(error.to_string()))).map_err(Stop::Ours)?;
    // A daemon that is gone by now has sent everything.
    let _ = outgoing.send(Ok(Packet::fin())).await;
    match packets.message().await {
        Ok(Some(packet)) => expect(packet, PacketKind::Fin).map(drop),
        Ok(None) => Ok(()),
        Err(status) => Err(Stop::Theirs(status)),
    }
}

async fn next(packets: &mut Streaming<Packet>) -> std::result::Result<Packet, Stop> {
    let packet = packets.message().await.map_err(Stop::Theirs)?;
    packet.ok_or_else(|| Stop::Theirs(Status::cancelled("the daemon closed the transfer")))
}

fn expect(packet: Packet, kind: PacketKind) -> std::result::Result<Packet, Stop> {
    match packet.kind() {
        found if found == kind => Ok(packet),
        PacketKind::Err => {
            let text = format!("error from sender: {}", String::from_utf8_lossy(&packet.data));
            Err(Stop::Theirs(Status::aborted(text)))
        }
        _ => Err(Stop::Theirs(Status::invalid_argument("unexpected packet from the sender"))),
    }
}

/// Takes the whole list, and believes none of it.
async fn take_list(folder: &Folder, packets: &mut Streaming<Packet>) -> std::result::Result<Vec<Stat>, Stop> {
    let mut list = List::default();
    loop {
        let packet = expect(next(packets).await?, PacketKind::Stat)?;
        let Some(stat) = packet.stat else { return Ok(list.entries) };
        if let Err(reason) = list.check(&stat) {
            return Err(Stop::Ours(folder.refused(&stat.path, reason)));
        }
        list.entries.push(stat);
    }
}

#[derive(Default)]
struct List {
    entries: Vec<Stat>,
    /// The directories on the way to the last entry.
    parents: Vec<usize>,
}

impl List {
    /// Whether an entry may be the next: depth first, parents first, everything once, and nothing that leads out.
    fn check(&mut self, stat: &Stat) -> std::result::Result<(), &'static str> {
        let path = stat.path.as_slice();
        let is_name = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
        if path.len() >= MAX_PATH {
            return Err("the path is too long");
        }
        if path.contains(&0) || !path.split(|byte| *byte == b'/').all(is_name) {
            return Err("this is no path within a directory");
        }
        if self.entries.last().is_some_and(|last| compare_paths(&last.path, path).is_ge()) {
            return Err("the list is out of order");
        }
        let parent = path.iter().rposition(|byte| *byte == b'/').map(|slash| &path[..slash]);
        while self.parents.last().is_some_and(|last| Some(self.entries[*last].path.as_slice()) != parent) {
            self.parents.pop();
        }
        if parent.is_some() && self.parents.is_empty() {
            return Err("its directory was not sent before it");
        }
        match stat.file_type() {
            Some(FileType::Dir) => self.parents.push(self.entries.len()),
            Some(FileType::File) if !stat.linkname.is_empty() => {
                let first = self.entries.binary_search_by(|entry| compare_paths(&entry.path, &stat.linkname));
                let is_file = |entry: &Stat| entry.file_type() == Some(FileType::File) && entry.linkname.is_empty();
                if !first.is_ok_and(|first| is_file(&self.entries[first])) {
                    return Err("it is a link to what is no file before it");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The daemon, as the thread that writes sees it.
pub(super) struct Wire {
    requests: Outgoing,
    content: mpsc::Receiver<(u32, Bytes)>,
}

impl Wire {
    /// Asks for a file.
    pub(super) fn ask(&self, id: u32) -> Result<()> {
        self.requests.blocking_send(Ok(Packet::request(id))).map_err(|_| cut_off())
    }

    /// The next part of a file, by its place in the list; nothing ends the file.
    pub(super) fn next(&mut self) -> Result<(u32, Bytes)> {
        self.content.blocking_recv().ok_or_else(cut_off)
    }
}

/// Nobody gets to see it: whoever cut the transfer off knows why.
fn cut_off() -> Error {
    Error::internal("the transfer was cut off")
}

#[cfg(test)]
mod tests {
    use super::super::packet::go_mode;
    use super::*;

    fn check(entries: &[(&str, FileType, &str)]) -> std::result::Result<(), &'static str> {
        let mut list = List::default();
        for (path, kind, linkname) in entries {
            let stat = Stat {
                path: path.as_bytes().to_vec(),
                mode: go_mode(*kind, 0o755),
                linkname: linkname.as_bytes().to_vec(),
                ..Stat::default()
            };
            list.check(&stat)?;
            list.entries.push(stat);
        }
        Ok(())
    }

    #[test]
    fn honest_lists_pass() {
        use FileType::{Dir, File, Symlink};
        let list = [
            ("a", Dir, ""),
            ("a/b", Dir, ""),
            ("a/b/c", File, ""),
            ("a/d", File, "a/b/c"),
            ("a-b", File, ""),
            ("e", Symlink, "../../x"),
            ("f..", Dir, ""),
            ("f../g", File, "a/b/c"),
        ];
        assert_eq!(check(&list), Ok(()));
    }

    #[test]
    fn what_would_lead_out_is_refused() {
        use FileType::{Dir, File, Symlink};
        for path in ["", "/a", "a/", "..", "../a", "a/../b", "./a", "a//b", "a\0b", &"a".repeat(MAX_PATH)] {
            let deep = [("a", Dir, ""), (path, File, "")];
            let list = if path.starts_with("a/") { &deep[..] } else { &deep[1..] };
            assert!(check(list).is_err(), "{path}");
        }
        assert!(check(&[("a/b", File, "")]).unwrap_err().contains("directory"));
        assert!(check(&[("a", Symlink, "/"), ("a/b", File, "")]).unwrap_err().contains("directory"));
        assert!(check(&[("b", File, ""), ("a", File, "")]).unwrap_err().contains("order"));
        assert!(check(&[("a", File, ""), ("a", File, "")]).unwrap_err().contains("order"));
        for target in ["../a", "/etc/passwd", "b", "l", "d", "s"] {
            let list = [("d", Dir, ""), ("f", File, ""), ("l", File, "f"), ("s", Symlink, "f"), ("t", File, target)];
            assert!(check(&list).unwrap_err().contains("link"), "{target}");
        }
    }
}
