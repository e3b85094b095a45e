//! `moby.sshforward.v1.SSH`: an SSH agent for `RUN --mount=type=ssh`, forwarded read-only.

use std::path::PathBuf;
use std::pin::Pin;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::Ssh;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::agents::{Agents, ask, next_frame, unavailable};
use super::trouble::Trouble;
use crate::error::Result;
use crate::request::SshSpec;

/// In which metadata a daemon sends the id.
const ID_KEY: &str = "buildkit.ssh.id";

/// Forwards to the build's agents.
pub struct SshService {
    agents: Agents,
    trouble: Trouble,
}

impl SshService {
    /// Finds the agents. Fails as [`Agents::find`] does.
    pub async fn new(specs: &[SshSpec], trouble: Trouble) -> Result<Self> {
        Ok(Self { agents: Agents::find(specs).await?, trouble })
    }

    fn socket(&self, id: &str) -> Result<PathBuf, Status> {
        self.agents.socket(id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

#[tonic::async_trait]
impl Ssh for SshService {
    type ForwardAgentStream = Pin<Box<ReceiverStream<Result<BytesMessage, Status>>>>;

    async fn check_agent(&self, request: Request<CheckAgentRequest>) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.get_ref().id).map(|_| Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get(ID_KEY).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        let path = self.socket(&id)?;
        let agent = UnixStream::connect(&path).await.map_err(|error| {
            self.trouble.report(unavailable(&id, format!("the agent at `{}`: {error}", path.display())))
        })?;
        let (sender, receiver) = mpsc::channel(4);
        // The task ends with the daemon's half of the stream, with ours, or with the agent.
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                result = forward(request.into_inner(), agent, &sender) => if let Err(status) = result {
                    // A receiver that is gone has no use for the reason.
                    let _ = sender.send(Err(status)).await;
                },
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

type Replies = mpsc::Sender<Result<BytesMessage, Status>>;

async fn forward(
    mut requests: Streaming<BytesMessage>,
    mut agent: UnixStream,
    replies: &Replies,
) -> Result<(), Status> {
    let mut buffer = BytesMut::new();
    loop {
        let Some(message) = requests.message().await? else { return Ok(()) };
        buffer.extend_from_slice(&message.data);
        while let Some(request) = next_frame(&mut buffer).map_err(|refused| Status::invalid_argument(refused.0))? {
            let reply = ask(&mut agent, &request).await.map_err(|refused| Status::unavailable(refused.0))?;
            if replies.send(Ok(BytesMessage { data: reply })).await.is_err() {
                return Ok(());
            }
        }
    }
}
