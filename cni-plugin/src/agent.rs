//! One request to the node agent, one reply, one deadline over all of it.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt,
    sendmsg, socket,
};
use plugin_api::{Code, FrameError, Outcome, VERSION};
use serde::Serialize;

/// What to do about an agent that speaks, but not as the contract says.
pub const MISMATCH: &str = "plugin and node agent are of different releases: restart the node \
    agent (DaemonSet sluice-node-agent) on this node, which puts its own plugin in place";

const AWAY: &str = "pods outside the excluded namespaces wait for the node agent; the runtime \
    tries again by itself. Look at the node agent (DaemonSet sluice-node-agent) of this node";

/// Why the agent's answer is not known. All but one are worth another try.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody listens.
    #[error("the node agent is away: connect to {}: {source} ({})", .socket.display(), .last_sign)]
    Absent {
        /// Where it should listen.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
        /// When it was last heard of.
        last_sign: String,
    },
    /// It does not answer.
    #[error("the node agent at {} did not answer within {patience:?}", .socket.display())]
    Hangs {
        /// Where it listens.
        socket: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// Somebody else sits at its place. What we would send opens a pod's network.
    #[error("{} is served by user {uid}, not by root: not asked", .socket.display())]
    Impostor {
        /// Where.
        socket: PathBuf,
        /// Whose process it is.
        uid: u32,
    },
    /// It ended, or closed the connection, before it answered.
    #[error("the node agent at {} hung up without an answer: {source}", .socket.display())]
    HungUp {
        /// Where it listened.
        socket: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// What it sent is not an answer.
    #[error("the node agent at {} sent what is no reply: {source}", .socket.display())]
    Garbage {
        /// Where it listens.
        socket: PathBuf,
        /// How it broke the contract.
        source: FrameError,
    },
    /// It speaks another version of the contract.
    #[error(
        "the node agent at {} speaks version {theirs} of the contract, this plugin {VERSION}",
        .socket.display()
    )]
    OtherVersion {
        /// Where it listens.
        socket: PathBuf,
        /// Its version.
        theirs: u32,
    },
    /// The runtime gave us more than a request can carry.
    #[error("request to the node agent: {0}")]
    Request(#[source] FrameError),
}

impl AgentError {
    /// The CNI error code.
    pub fn code(&self) -> u32 {
        match self {
            Self::OtherVersion { .. } => Code::IncompatibleVersion.cni(),
            Self::Request(_) => Code::InvalidRequest.cni(),
            _ => Code::TryAgain.cni(),
        }
    }

    /// Whether nobody was there to ask, which an agent that restarts explains.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::HungUp { .. })
    }

    /// Whether nothing was heard of the agent, who may be away or hang.
    pub fn is_silence(&self) -> bool {
        self.is_absence() || matches!(self, Self::Hangs { .. })
    }

    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Absent { .. } | Self::Hangs { .. } | Self::HungUp { .. } => AWAY,
            Self::Impostor { .. } => {
                "agentSocket in the conflist leads to a socket that others than root can make"
            }
            Self::Garbage { .. } | Self::OtherVersion { .. } => MISMATCH,
            Self::Request(_) => "the runtime's variables or lists are larger than any node's",
        }
    }
}

/// Sends `request`, with `netns` attached to its first byte, and waits for the reply.
/// Hanging up is how the agent learns that nobody waits any more.
///
/// # Errors
/// [`AgentError`] after at most `patience`.
pub fn ask(
    agent: &Path,
    patience: Duration,
    request: &impl Serialize,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Outcome, AgentError> {
    let frame = plugin_api::encode(request).map_err(AgentError::Request)?;
    let conversation = Conversation { agent, patience, deadline: Instant::now() + patience };
    let stream = conversation.connect()?;
    conversation.refuse_impostor(&stream)?;
    match conversation.send(&stream, &frame, netns) {
        // One that refuses before it has read everything has still answered.
        Err(AgentError::HungUp { .. }) | Ok(()) => conversation.receive(&stream),
        Err(error) => Err(error),
    }
}

struct Conversation<'a> {
    agent: &'a Path,
    patience: Duration,
    deadline: Instant,
}

impl Conversation<'_> {
    /// By hand, because the standard library's connect waits without end for an agent
    /// whose queue is full. The write timeout bounds it.
    fn connect(&self) -> Result<UnixStream, AgentError> {
        let absent = |errno: Errno| AgentError::Absent {
            socket: self.agent.to_owned(),
            source: errno.into(),
            last_sign: last_sign(self.agent),
        };
        let kind = (AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC);
        let stream = UnixStream::from(socket(kind.0, kind.1, kind.2, None).map_err(absent)?);
        let address = UnixAddr::new(self.agent).map_err(absent)?;
        loop {
            stream.set_write_timeout(Some(self.remaining()?)).map_err(|e| self.broken(e))?;
            match connect(stream.as_raw_fd(), &address) {
                Ok(()) => return Ok(stream),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(self.hangs()),
                Err(errno) => return Err(absent(errno)),
            }
        }
    }

    fn refuse_impostor(&self, stream: &UnixStream) -> Result<(), AgentError> {
        let peer = getsockopt(stream, PeerCredentials).map_err(|e| self.broken(e.into()))?;
        if peer.uid() == 0 {
            return Ok(());
        }
        Err(AgentError::Impostor { socket: self.agent.to_owned(), uid: peer.uid() })
    }

    fn send(
        &self,
        mut stream: &UnixStream,
        frame: &[u8],
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<(), AgentError> {
        let descriptor = netns.map(|netns| [netns.as_raw_fd()]);
        let control = descriptor.as_ref().map(|fds| ControlMessage::ScmRights(fds));
        let mut sent = 0;
        while sent < frame.len() {
            stream.set_write_timeout(Some(self.remaining()?)).map_err(|e| self.broken(e))?;
            let rest = &frame[sent..];
            sent += self.moved(|| match sent {
                0 => {
                    let (fd, flags) = (stream.as_raw_fd(), MsgFlags::MSG_NOSIGNAL);
                    let first = [IoSlice::new(rest)];
                    Ok(sendmsg::<()>(fd, &first, control.as_slice(), flags, None)?)
                }
                _ => stream.write(rest),
            })?;
        }
        Ok(())
    }

    fn receive(&self, stream: &UnixStream) -> Result<Outcome, AgentError> {
        let socket = || self.agent.to_owned();
        let garbage = |source| match source {
            FrameError::OtherVersion(theirs) => {
                AgentError::OtherVersion { socket: socket(), theirs }
            }
            source => AgentError::Garbage { socket: socket(), source },
        };
        let mut prefix = [0; 4];
        self.fill(stream, &mut prefix)?;
        let mut body = vec![0; plugin_api::decode_length(prefix).map_err(garbage)?];
        self.fill(stream, &mut body)?;
        plugin_api::decode_reply(&body).map_err(garbage)
    }

    fn fill(&self, mut stream: &UnixStream, buffer: &mut [u8]) -> Result<(), AgentError> {
        let mut filled = 0;
        while filled < buffer.len() {
            stream.set_read_timeout(Some(self.remaining()?)).map_err(|e| self.broken(e))?;
            match self.moved(|| stream.read(&mut buffer[filled..]))? {
                0 => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                read => filled += read,
            }
        }
        Ok(())
    }

    /// Does one call that moves bytes, again when a signal interrupted it.
    fn moved(&self, mut call: impl FnMut() -> io::Result<usize>) -> Result<usize, AgentError> {
        loop {
            match call() {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(self.hangs()),
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn remaining(&self) -> Result<Duration, AgentError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.hangs()) } else { Ok(left) }
    }

    fn hangs(&self) -> AgentError {
        AgentError::Hangs { socket: self.agent.to_owned(), patience: self.patience }
    }

    fn broken(&self, source: io::Error) -> AgentError {
        AgentError::HungUp { socket: self.agent.to_owned(), source }
    }
}

/// When the agent last touched its folder, as it does every few seconds.
fn last_sign(agent: &Path) -> String {
    let Some(folder) = agent.parent() else {
        return "no folder".to_owned();
    };
    let touched = std::fs::metadata(folder).and_then(|folder| folder.modified());
    match touched.map(|then| SystemTime::now().duration_since(then)) {
        Ok(Ok(age)) => format!("last sign of it {} ago", in_words(age.as_secs())),
        Ok(Err(_)) => "last sign of it in the future: the clock was moved".to_owned(),
        Err(error) => format!("its folder {}: {error}", folder.display()),
    }
}

fn in_words(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match hours {
        0 if minutes == 0 => format!("{seconds} s"),
        0 => format!("{minutes} min {} s", seconds % 60),
        1..48 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} days", hours / 24),
    }
}
