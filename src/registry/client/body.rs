//! Bodies of requests and of answers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::AsyncRead;
use tokio::sync::watch;
use tokio::time::Instant;

use super::host::describe;

/// What all our requests send.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Enough for few system calls, little enough for progress that moves.
const PIECE: usize = 128 << 10;

/// A body in memory.
pub(super) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What is known of an upload while it runs.
pub(super) struct Meter {
    sent: watch::Sender<u64>,
    /// Whether the connection waits for us, not we for it.
    starved: AtomicBool,
    /// Whether nobody waits for the answer any more.
    stopped: AtomicBool,
    /// When the connection last took something.
    last: std::sync::Mutex<Instant>,
    /// Why the source could not be read.
    failure: std::sync::Mutex<Option<io::Error>>,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            sent: watch::Sender::new(0),
            starved: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            last: std::sync::Mutex::new(Instant::now()),
            failure: std::sync::Mutex::new(None),
        })
    }

    /// How many bytes the connection has taken, now and whenever that changes.
    pub(super) fn sent(&self) -> watch::Receiver<u64> {
        self.sent.subscribe()
    }

    /// Why the source could not be read, if that is what ended the upload.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failure.lock().ok()?.take()
    }

    /// Ends the upload: a registry that has refused the beginning would be sent the rest all the same.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Ends when the connection has taken nothing for `idle` though there was something to take, or, once it has all of
    /// `length`, when there is no answer for `answer`.
    pub(super) async fn stalled(&self, length: u64, idle: Duration, answer: Duration) {
        loop {
            let limit = if *self.sent.borrow() >= length { answer } else { idle };
            let last = self.last.lock().map_or_else(|_| Instant::now(), |last| *last);
            if Instant::now() < last + limit {
                tokio::time::sleep_until(last + limit).await;
            } else if self.starved.load(Ordering::Relaxed) {
                self.touch();
            } else {
                return;
            }
        }
    }

    fn touch(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = Instant::now();
        }
    }

    fn fail(&self, error: io::Error) -> io::Error {
        let told = io::Error::new(error.kind(), "the blob cannot be read");
        if let Ok(mut failure) = self.failure.lock() {
            *failure = Some(error);
        }
        told
    }
}

/// A part of a blob, read while it is sent.
pub(super) struct Upload {
    source: Box<dyn AsyncRead + Send + Unpin>,
    left: u64,
    buffer: BytesMut,
    meter: Arc<Meter>,
}

impl Upload {
    /// The next `length` bytes of a source.
    pub(super) fn body(source: Box<dyn AsyncRead + Send + Unpin>, length: u64, meter: Arc<Meter>) -> Body {
        Self { source, left: length, buffer: BytesMut::new(), meter }.boxed_unsync()
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.meter.stopped.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(io::Error::other("nobody waits for the answer"))));
        }
        this.meter.touch();
        let most = usize::try_from(this.left).unwrap_or(usize::MAX).min(PIECE);
        this.buffer.reserve(most);
        let mut room = (&mut this.buffer).limit(most);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.source), cx, &mut room);
        this.meter.starved.store(read.is_pending(), Ordering::Relaxed);
        let error = match std::task::ready!(read) {
            Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was"),
            Ok(count) => {
                this.left -= count as u64;
                this.meter.sent.send_modify(|sent| *sent += count as u64);
                return Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))));
            }
            Err(error) => error,
        };
        Poll::Ready(Some(Err(this.meter.fail(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The next piece of an answer; `None` at its end. The error is a reason.
pub(super) async fn piece(body: &mut Incoming, idle: Duration) -> Result<Option<Bytes>, String> {
    loop {
        match tokio::time::timeout(idle, body.frame()).await {
            Err(_) => return Err(format!("not a byte for {} s", idle.as_secs_f32())),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(describe(&error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A whole answer.
pub(super) enum Collected {
    Whole(Bytes),
    /// It has more bytes than were wanted: its beginning.
    TooLong(Bytes),
}

/// Reads an answer of at most `most` bytes. The error is a reason.
pub(super) async fn collect(mut body: Incoming, most: usize, idle: Duration) -> Result<Collected, String> {
    let mut all = BytesMut::new();
    while let Some(data) = piece(&mut body, idle).await? {
        if all.len() + data.len() > most {
            return Ok(Collected::TooLong(all.freeze()));
        }
        all.extend_from_slice(&data);
    }
    Ok(Collected::Whole(all.freeze()))
}
