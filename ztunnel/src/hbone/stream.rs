//! One tunnelled byte stream.

use h2::{Reason, RecvStream, SendStream};

use super::chunk::Chunk;
use super::claim::Claim;
use super::stream_io::TunnelIo;

/// Both directions of an accepted CONNECT. Dropped before its end it is reset, so that
/// the peer does not take a torn stream for a finished one.
#[derive(Debug)]
pub struct TunnelStream {
    pub(super) send: SendStream<Chunk>,
    pub(super) recv: RecvStream,
    pub(super) ended: bool,
    /// The client's place in its connection.
    _claim: Option<Claim>,
}

impl TunnelStream {
    pub(super) fn new(send: SendStream<Chunk>, recv: RecvStream, claim: Option<Claim>) -> Self {
        Self { send, recv, ended: false, _claim: claim }
    }

    /// The stream as something to read from and write to, for another connection inside.
    #[must_use]
    pub fn into_io(self) -> TunnelIo {
        TunnelIo::new(self)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        if !self.ended {
            // RFC 9113, 8.5: a TCP error of a tunnelled connection.
            self.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}
