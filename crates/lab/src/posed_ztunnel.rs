//! A ztunnel that is none: it speaks with the agent as one does, and serves nobody. What a real
//! one does only in a bad moment, it does on demand.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use zds::link::{Link, LinkError};
use zds::{
    Ack, FEATURE_LISTENERS, FEATURE_LOOKUPS, Hello, Request, Version, WorkloadResponse,
    workload_response::Payload,
};

/// A conversation that is not as agreed.
#[derive(Debug, thiserror::Error)]
pub enum PoseError {
    /// The socket, or an agent that has closed it.
    #[error("speak with the node agent as a ztunnel: {0}")]
    Link(#[from] LinkError),
    /// A message that no ztunnel would understand, or one too long.
    #[error("speak with the node agent as a ztunnel: {0}")]
    Message(#[from] zds::Violation),
    /// The agent says nothing.
    #[error("the node agent did not ask for anything within {0:?}")]
    Silence(Duration),
    /// The agent has closed the connection.
    #[error("the node agent has closed the connection")]
    Closed,
}

/// What the agent asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Serve the pod with this UID.
    Serve(String),
    /// Go on serving it.
    Keep(String),
    /// Stop serving it.
    Stop(String),
    /// That was everybody.
    ThatIsAll,
}

/// One connection; it ends when dropped, with all that was handed over.
#[derive(Debug)]
pub struct PosedZtunnel {
    link: Link,
    given: Vec<Request>,
    patience: Duration,
}

impl PosedZtunnel {
    /// Connects and says hello, as a ztunnel that takes listeners.
    ///
    /// # Errors
    /// [`PoseError::Link`]
    pub async fn connect(socket: &Path, patience: Duration) -> Result<Self, PoseError> {
        let link = Link::connect(socket).await?;
        let features = FEATURE_LISTENERS | FEATURE_LOOKUPS;
        let hello = Hello { version: Version::V1 as i32, features };
        link.send(&zds::encode(&hello)?, &[]).await?;
        Ok(Self { link, given: Vec::new(), patience })
    }

    /// The next that the agent asks for. It waits for an answer to each.
    ///
    /// # Errors
    /// Any [`PoseError`].
    pub async fn asked(&mut self) -> Result<Asked, PoseError> {
        let received = timeout(self.patience, self.link.recv()).await;
        let packet = received.map_err(|_| PoseError::Silence(self.patience))??;
        let packet = packet.ok_or(PoseError::Closed)?;
        let request = zds::decode_request(&packet.bytes, packet.fds)?;
        let asked = match &request {
            Request::Add { workload, .. } => Asked::Serve(workload.uid.clone()),
            Request::Keep(uid, _) => Asked::Keep(uid.clone()),
            Request::Del(uid) => Asked::Stop(uid.clone()),
            Request::SnapshotSent => Asked::ThatIsAll,
        };
        // With its descriptors: a ztunnel would hold them too.
        self.given.push(request);
        Ok(asked)
    }

    /// Says that what was asked for is done.
    ///
    /// # Errors
    /// [`PoseError::Link`], above all of an agent that waits no more.
    pub async fn done(&self) -> Result<(), PoseError> {
        let answer = WorkloadResponse { payload: Some(Payload::Ack(Ack::default())) };
        Ok(self.link.send(&zds::encode(&answer)?, &[]).await?)
    }

    /// Takes over everybody that there is: from then on the agent believes in it.
    ///
    /// # Errors
    /// Any [`PoseError`].
    pub async fn take_over(&mut self) -> Result<(), PoseError> {
        loop {
            let asked = self.asked().await?;
            self.done().await?;
            if asked == Asked::ThatIsAll {
                return Ok(());
            }
        }
    }
}
