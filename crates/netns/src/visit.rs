//! One socket from another namespace, without a fence worker.
//!
//! Asking a fence worker costs two wake-ups of other threads for every connection. What
//! [`dial_socket_in`] does takes a few microseconds, so the calling thread does it
//! itself, under stricter rules than a job's:
//!
//! * closed: the only thing that happens inside is [`dial_socket`]; no caller's code, no
//!   allocation that a caller sizes, nothing that waits;
//! * back for certain: the way home is a destructor, so errors and panics take it too;
//!   and where the kernel refuses it, the process is aborted. A thread that serves many
//!   pods must not go on in the namespace of one of them.
#![expect(clippy::disallowed_methods, reason = "this room is the fence")]

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use socket2::Socket;

use crate::pod::PodNetns;
use crate::socket::{Dial, dial_socket};

/// How often the way home is tried: the kernel needs a little memory for it, which may be
/// short for a moment.
const ATTEMPTS: u32 = 16;

thread_local! {
    /// The namespace of the thread, opened before it leaves it for the first time.
    static HOME: OnceCell<OwnedFd> = const { OnceCell::new() };
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// The thread's own namespace could not be opened: out of descriptors, or no /proc.
    #[error("open the thread's own network namespace: {0}")]
    Home(#[source] io::Error),
    /// The kernel did not let the thread in: `CAP_SYS_ADMIN` is missing.
    #[error("enter network namespace: {0}")]
    Enter(#[source] io::Error),
    /// As [`dial_socket`].
    #[error(transparent)]
    Socket(io::Error),
}

/// Makes a socket as [`dial_socket`] does, in `netns`, on the calling thread. The thread is
/// in its own namespace again when this returns, whatever it returns. Not for fence jobs:
/// a thread's own namespace is the one in which it calls this first.
///
/// # Errors
/// [`VisitError`].
pub fn dial_socket_in(netns: &PodNetns, dial: &Dial) -> Result<Socket, VisitError> {
    HOME.with(|home| {
        let home = match home.get() {
            Some(home) => home,
            None => {
                let opened = crate::fence::own_netns().map_err(VisitError::Home)?;
                home.get_or_init(|| opened)
            }
        };
        setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| VisitError::Enter(errno.into()))?;
        let _way_back = WayBack(home);
        dial_socket(dial).map_err(VisitError::Socket)
    })
}

/// Goes home when dropped, or ends the process.
struct WayBack<'a>(&'a OwnedFd);

impl Drop for WayBack<'_> {
    fn drop(&mut self) {
        let mut attempts = 0..ATTEMPTS;
        if !attempts.any(|_| setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).is_ok()) {
            std::process::abort();
        }
    }
}
