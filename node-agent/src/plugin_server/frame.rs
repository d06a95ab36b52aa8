//! Frames of the plugin's socket, with the descriptor on the first byte.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use netns::{NetnsError, PodNetns};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use plugin_api::{Call, FrameError, Reply};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a plugin may take to send its request, or to take the reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel passes at most this many descriptors at once, so none are ever cut off.
const MOST_FDS: usize = 253;
/// How often a waiting plugin is looked after.
const HANG_UP_LOOK: Duration = Duration::from_millis(200);

/// How a request broke the contract.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The system.
    #[error("receive the request: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("the plugin did not send a whole request within {PATIENCE:?}")]
    TooSlow,
    /// The connection ended first.
    #[error("the plugin hung up in the middle of its request")]
    Partial,
    /// Length or JSON.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Descriptors.
    #[error("{0} descriptors came with the request, at most one belongs to it")]
    Descriptors(usize),
    /// Bytes after the request.
    #[error("{0} bytes came after the request")]
    Surplus(usize),
    /// The descriptor is something else.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Receives one request and its descriptor.
pub(super) async fn receive(stream: &UnixStream) -> Result<(Call, Option<PodNetns>), ReceiveError> {
    let mut received = Received::default();
    timeout(PATIENCE, received.fill(stream)).await.map_err(|_| ReceiveError::TooSlow)??;
    let call = plugin_api::decode_call(&received.bytes[4..])?;
    let netns = match received.fds.as_slice() {
        [] => None,
        [fd] => Some(fd.open()?),
        more => return Err(ReceiveError::Descriptors(more.len())),
    };
    Ok((call, netns))
}

/// Sends the reply; `Err` when nobody took it.
pub(super) async fn reply(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    let frame = plugin_api::encode(reply).map_err(io::Error::other)?;
    timeout(PATIENCE, stream.write_all(&frame)).await?
}

/// Ends when the plugin has closed its end: nobody waits for the reply any more. A plugin
/// that only says that it has no more to send goes on waiting, so reading tells nothing;
/// sending nothing does.
pub(super) async fn hung_up(stream: &UnixStream) {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    while !matches!(send(stream.as_raw_fd(), &[], flags), Err(Errno::EPIPE | Errno::ECONNRESET)) {
        tokio::time::sleep(HANG_UP_LOOK).await;
    }
}

#[derive(Default)]
struct Received {
    bytes: Vec<u8>,
    fds: Vec<ReceivedFd>,
}

impl Received {
    async fn fill(&mut self, stream: &UnixStream) -> Result<(), ReceiveError> {
        while self.missing()? > 0 {
            stream.readable().await?;
            match stream.try_io(Interest::READABLE, || self.read_some(stream)) {
                Ok(0) => return Err(ReceiveError::Partial),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn missing(&self) -> Result<usize, ReceiveError> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else {
            return Ok(4 - self.bytes.len());
        };
        let whole = 4 + plugin_api::decode_length(*prefix)?;
        match self.bytes.len().checked_sub(whole) {
            Some(surplus) if surplus > 0 => Err(ReceiveError::Surplus(surplus)),
            Some(_) => Ok(0),
            None => Ok(whole - self.bytes.len()),
        }
    }

    fn read_some(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let mut chunk = [0u8; 4096];
        let mut space = nix::cmsg_space!([RawFd; MOST_FDS]);
        let (count, fds) = {
            let mut slices = [IoSliceMut::new(&mut chunk)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
            let mut fds = Vec::new();
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(received) = control {
                    fds.extend(received.into_iter().map(ReceivedFd));
                }
            }
            (message.bytes, fds)
        };
        self.fds.extend(fds);
        self.bytes.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// A descriptor that this process received and owns. `nix` hands out bare numbers, and
/// without unsafe code a number becomes an owned descriptor only by opening it again.
struct ReceivedFd(RawFd);

impl ReceivedFd {
    fn open(&self) -> Result<PodNetns, NetnsError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.0));
        let found = std::fs::metadata(&path)
            .map_err(|source| NetnsError::Io { step: "look at the descriptor", source })?;
        // Opening some other things, a pipe for one, waits for somebody else.
        if !found.is_file() {
            return Err(NetnsError::NotNetns { found: format!("{:?}", found.file_type()) });
        }
        PodNetns::open(&path)
    }
}

impl Drop for ReceivedFd {
    fn drop(&mut self) {
        // Closing a descriptor that is ours can only report a lost write; there was none.
        let _ = nix::unistd::close(self.0);
    }
}
