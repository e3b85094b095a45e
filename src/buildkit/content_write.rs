//! Writing a blob by containerd's content API: each message appends, and each is answered. What is cut off leaves nothing.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::content::{Call, number};
use super::content_messages::{WriteAction, WriteRequest, WriteResponse};
use super::content_store::{Fault, Writing};
use crate::digest::Digest;

/// Answers one call of `Write`. The work ends when the stream that is returned is dropped.
pub(super) fn start(call: Call, requests: Streaming<WriteRequest>) -> ReceiverStream<Result<WriteResponse, Status>> {
    let (answers, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = answers.closed() => return,
            ended = write(&call, requests, &answers) => ended,
        };
        if let Err(status) = ended {
            // A daemon that is gone needs no end.
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn write(
    call: &Call,
    mut requests: Streaming<WriteRequest>,
    answers: &mpsc::Sender<Result<WriteResponse, Status>>,
) -> Result<(), Status> {
    let Some(mut request) = requests.message().await? else { return Ok(()) };
    if request.r#ref.is_empty() {
        return Err(Status::invalid_argument("the first message must name what is written"));
    }
    let (store, name) = (Arc::clone(&call.store), request.r#ref.clone());
    let writing = call.blocking(move || store.begin(&name)).await?;
    let mut job = WriteJob { writing: Some(writing), total: None, expected: None };
    loop {
        let store = Arc::clone(&call.store);
        let answer;
        (job, answer) = call
            .blocking(move || {
                job.announced(&request)?;
                if let Some(digest) = job.expected.filter(|_| !request.expected.is_empty())
                    && store.info(&digest).is_ok()
                {
                    return Err(Fault::Exists(digest));
                }
                let answer = job.step(&request)?;
                Ok((job, answer))
            })
            .await?;
        let is_end = job.writing.is_none();
        // A daemon that is gone has ended the stream as well.
        let _ = answers.send(Ok(answer)).await;
        if is_end {
            return Ok(());
        }
        request = match requests.message().await? {
            Some(request) => request,
            None => return Ok(()),
        };
    }
}

/// One blob, as far as it is.
struct WriteJob {
    /// `None` once it is a blob.
    writing: Option<Writing>,
    total: Option<u64>,
    expected: Option<Digest>,
}

impl WriteJob {
    /// Notes what is known of the blob.
    fn announced(&mut self, request: &WriteRequest) -> Result<(), Fault> {
        if !request.expected.is_empty() {
            let wrong = |_| Fault::Wrong(format!("`{}` is no SHA-256 digest", request.expected));
            self.expected = Some(request.expected.parse().map_err(wrong)?);
        }
        if let Some(total) = u64::try_from(request.total).ok().filter(|total| *total > 0) {
            self.total = Some(total);
        }
        Ok(())
    }

    /// Does what a message asks for.
    fn step(&mut self, request: &WriteRequest) -> Result<WriteResponse, Fault> {
        let Some(mut writing) = self.writing.take() else { return Err(Fault::Wrong("it is a blob already".into())) };
        let mut answer = WriteResponse {
            action: request.action,
            started_at: Some(writing.started.into()),
            total: number(self.total.unwrap_or_default()),
            ..WriteResponse::default()
        };
        if request.action() != WriteAction::Stat {
            let offset = u64::try_from(request.offset).unwrap_or_default();
            if offset > 0 && offset != writing.size {
                let reason = format!("write @{offset} must occur at current offset {}", writing.size);
                return Err(Fault::OutOfPlace(reason));
            }
            if offset == 0 && writing.size > 0 {
                writing.restart()?;
            }
            writing.append(&request.data)?;
        }
        answer.offset = number(writing.size);
        answer.digest = writing.digest().to_string();
        if request.action() == WriteAction::Commit {
            writing.commit(self.total, self.expected)?;
        } else {
            self.writing = Some(writing);
        }
        Ok(answer)
    }
}
