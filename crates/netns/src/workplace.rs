//! Where a proxy makes its sockets: in the namespace of a pod that it serves, or in its own,
//! when what it serves is the machine that it runs on.

use socket2::Socket;

use crate::fence::{Fence, FenceError};
use crate::pod::PodNetns;
use crate::socket::{Dial, dial_socket};
use crate::visit::{VisitError, dial_socket_in};

/// A network namespace to make sockets in.
#[derive(Clone, Debug)]
pub enum Workplace {
    /// A pod's, which has to be entered.
    Pod(PodNetns),
    /// The process's own, in which all its threads are anyway: nothing is entered, and no
    /// privilege is needed.
    Own,
}

impl Workplace {
    /// Has `job` done here and hands the result to `done`: by a worker of `fence` where the
    /// namespace has to be entered, else by the calling thread before this returns. Neither
    /// may block.
    ///
    /// # Errors
    /// As [`Fence::submit`]; none in the process's own namespace.
    pub fn submit<T, F, D>(&self, fence: &Fence, job: F, done: D) -> Result<(), FenceError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
        D: FnOnce(Result<T, FenceError>) + Send + 'static,
    {
        match self {
            Self::Pod(netns) => fence.submit(netns, job, done),
            Self::Own => {
                done(Ok(job()));
                Ok(())
            }
        }
    }

    /// Makes a socket as [`dial_socket`] does, here, on the calling thread, which must be one
    /// that may call [`dial_socket_in`].
    ///
    /// # Errors
    /// [`VisitError`].
    pub fn dial_socket(&self, dial: &Dial) -> Result<Socket, VisitError> {
        match self {
            Self::Pod(netns) => dial_socket_in(netns, dial),
            Self::Own => dial_socket(dial).map_err(VisitError::Socket),
        }
    }

    /// The pod's namespace, if it is one.
    #[must_use]
    pub fn pod(&self) -> Option<&PodNetns> {
        match self {
            Self::Pod(netns) => Some(netns),
            Self::Own => None,
        }
    }
}

impl From<PodNetns> for Workplace {
    fn from(netns: PodNetns) -> Self {
        Self::Pod(netns)
    }
}
