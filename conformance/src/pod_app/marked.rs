//! One line over a connection with a packet mark, as whoever takes himself for the proxy.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use lab::here::MarkError;
use serde::{Deserialize, Serialize};

/// Whom to say what.
#[derive(Debug, Args)]
pub(crate) struct Marked {
    /// The mark.
    mark: u32,
    /// An app that answers lines.
    to: SocketAddr,
    /// The line.
    line: String,
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 10)]
    deadline: u64,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// The kernel does not let this process set a mark.
    Forbidden,
    /// The app answered, and saw this address.
    Answered(SocketAddr),
    /// It did not.
    Unanswered(String),
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden => write!(f, "no mark without the capability"),
            Self::Answered(peer) => write!(f, "answered, the server saw {peer}"),
            Self::Unanswered(why) => write!(f, "no answer ({why})"),
        }
    }
}

impl Marked {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let deadline = Duration::from_secs(self.deadline);
        let said = match lab::here::connect_marked(self.to, self.mark, deadline).await {
            Err(MarkError::Forbidden) => Said::Forbidden,
            Err(MarkError::App(error)) => Said::Unanswered(error.to_string()),
            Ok(mut talk) => match talk.send_line(&self.line).await {
                Ok(reply) => Said::Answered(reply.peer),
                Err(error) => Said::Unanswered(error.to_string()),
            },
        };
        super::tell(&said)
    }
}
