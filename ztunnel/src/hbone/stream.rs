//! One tunnelled byte stream.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::tunnel::Claim;

/// Both directions of an accepted CONNECT. Dropped before its end it is reset, so that
/// the peer does not take a torn stream for a finished one.
#[derive(Debug)]
pub struct TunnelStream {
    pub(super) send: SendStream<Bytes>,
    pub(super) recv: RecvStream,
    pub(super) ended: bool,
    /// The client's place in its connection.
    _claim: Option<Claim>,
}

impl TunnelStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, claim: Option<Claim>) -> Self {
        Self { send, recv, ended: false, _claim: claim }
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
