//! The packet link under a ZDS session: `SOCK_SEQPACKET` with descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use crate::given::MAX_LISTENERS;
use crate::wire::{MAX_MESSAGE, Violation};

/// The namespace and every listener of a pod.
const MOST_DESCRIPTORS: usize = 1 + MAX_LISTENERS;

/// Room for some more descriptors than any packet may carry, so that surplus ones are
/// received, counted and closed instead of being cut off. A descriptor takes four bytes;
/// the header of a control message 16.
const ANCILLARY_BUFFER: usize = 16 + 4 * (MOST_DESCRIPTORS + 11);

/// One packet and the descriptors that came with it.
#[derive(Debug)]
pub struct Packet {
    /// The protobuf bytes; never empty.
    pub bytes: Vec<u8>,
    /// Received close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The operating system refused.
    #[error("{step}: {source}")]
    Io {
        /// What was attempted.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The packet broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// One end of a session.
#[derive(Debug)]
pub struct Link {
    socket: UnixSeqpacket,
}

impl Link {
    /// Connects to an agent that listens on `path`.
    ///
    /// # Errors
    /// [`LinkError::Io`] when nobody listens there.
    pub async fn connect(path: &Path) -> Result<Self, LinkError> {
        let socket = UnixSeqpacket::connect(path).await.map_err(io("connect to the agent"))?;
        Ok(Self { socket })
    }

    /// Two connected ends, for tests.
    ///
    /// # Errors
    /// [`LinkError::Io`] when out of descriptors.
    pub fn pair() -> Result<(Self, Self), LinkError> {
        let (a, b) = UnixSeqpacket::pair().map_err(io("socketpair"))?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// The user id of the peer process.
    ///
    /// # Errors
    /// [`LinkError::Io`] when the kernel does not tell.
    pub fn peer_uid(&self) -> Result<u32, LinkError> {
        Ok(self.socket.peer_cred().map_err(io("SO_PEERCRED"))?.uid())
    }

    /// Sends one packet; descriptors stay the caller's.
    ///
    /// # Errors
    /// [`LinkError::Violation`] when it is too long, [`LinkError::Io`] when the peer is gone.
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), LinkError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(Violation::TooLong(bytes.len()).into());
        }
        let mut space = [0u8; ANCILLARY_BUFFER];
        let mut ancillary = AncillaryMessageWriter::new(&mut space);
        if !fds.is_empty() {
            ancillary.add_fds(fds).map_err(|_| LinkError::Io {
                step: "attach descriptors",
                source: io::ErrorKind::InvalidInput.into(),
            })?;
        }
        self.socket
            .send_vectored_with_ancillary(&[IoSlice::new(bytes)], &mut ancillary)
            .await
            .map_err(io("send"))?;
        Ok(())
    }

    /// Receives one packet; `None` when the peer closed the connection. Safe to cancel.
    ///
    /// # Errors
    /// [`LinkError::Violation`] when the packet or its descriptors were cut off.
    pub async fn recv(&self) -> Result<Option<Packet>, LinkError> {
        let mut bytes = vec![0u8; MAX_MESSAGE];
        let mut space = [0u8; ANCILLARY_BUFFER];
        let (info, ancillary) = self
            .socket
            .recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut bytes)], &mut space)
            .await
            .map_err(io("receive"))?;
        let mut fds = Vec::new();
        for message in ancillary.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(received) = message {
                fds.extend(received);
            }
        }
        if info.truncated() {
            return Err(Violation::Truncated.into());
        }
        if info.ancillary_truncated() {
            return Err(Violation::DescriptorsTruncated.into());
        }
        if info.bytes_read() == 0 {
            return Ok(None);
        }
        bytes.truncate(info.bytes_read());
        Ok(Some(Packet { bytes, fds }))
    }
}

/// The agent's end before any ztunnel has connected.
#[derive(Debug)]
pub struct Listener {
    socket: UnixSeqpacketListener,
}

impl Listener {
    /// Listens on `path`, which must not exist: who removes a stale socket must know that
    /// no other agent lives.
    ///
    /// # Errors
    /// [`LinkError::Io`] when the path is taken or cannot be written.
    pub fn bind(path: &Path) -> Result<Self, LinkError> {
        let socket = UnixSeqpacketListener::bind(path).map_err(io("bind"))?;
        Ok(Self { socket })
    }

    /// Waits for a ztunnel.
    ///
    /// # Errors
    /// [`LinkError::Io`] when out of descriptors.
    pub async fn accept(&mut self) -> Result<Link, LinkError> {
        let socket = self.socket.accept().await.map_err(io("accept"))?;
        Ok(Link { socket })
    }
}

fn io(step: &'static str) -> impl FnOnce(io::Error) -> LinkError {
    move |source| LinkError::Io { step, source }
}
