//! Whom this process serves: the pods of a node, or one machine.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Machine, Manager};
use crate::proxy::ProxyError;

/// Either way it runs until it is told to stop, and then drains.
#[derive(Debug)]
pub enum Served {
    /// The pods that a node agent hands over.
    Pods(Box<Manager>),
    /// The machine that we run on.
    Machine(Box<Machine>),
}

impl Served {
    /// Serves until `stop`, and returns with the connections still open.
    ///
    /// # Errors
    /// [`ProxyError`] when the machine cannot be served. A pod that cannot be served is tried
    /// again.
    pub async fn run(self, stop: &CancellationToken) -> Result<Self, ProxyError> {
        Ok(match self {
            Self::Pods(manager) => Self::Pods(Box::new(manager.run(stop).await)),
            Self::Machine(machine) => Self::Machine(Box::new(machine.run(stop).await?)),
        })
    }

    /// Lets connections finish, at most for `deadline`.
    pub async fn drain(self, deadline: Duration) {
        match self {
            Self::Pods(manager) => manager.drain(deadline).await,
            Self::Machine(machine) => machine.drain(deadline).await,
        }
    }
}
