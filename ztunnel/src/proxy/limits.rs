//! What one pod, and one neighbour of it, may use up.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::per_address::{PerAddress, Share};

/// Limits of each pod. What is above is refused, with a reason of its own in the log and
/// in the counter of refusals.
///
/// Bytes need no limit of their own: a tunnel holds at most its connection window
/// (`HTTP2_CONNECTION_WINDOW_SIZE`) of what peers sent and applications have not read,
/// a stream at most the peer's stream window of what it has still to send, and a
/// connection without a tunnel one chunk each way. So a pod's bytes are bounded by these
/// numbers times the windows; whoever wants less lowers either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections toward the pod, in tunnels and without.
    pub inbound_connections: usize,
    /// Open connections away from the pod.
    pub outbound_connections: usize,
    /// Tunnels of peers, counted once both ends have proved who they are.
    pub tunnels: usize,
    /// Handshakes of peers that are not finished.
    pub handshakes: usize,
    /// The same for one address of a peer, so that one neighbour cannot take all.
    pub handshakes_per_peer: usize,
}

impl Default for Limits {
    /// Far above what a pod does in good health.
    fn default() -> Self {
        Self {
            inbound_connections: 65_536,
            outbound_connections: 65_536,
            tunnels: 8_192,
            handshakes: 1_024,
            handshakes_per_peer: 64,
        }
    }
}

/// Which limit of a pod was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    #[error("open connections toward the pod")]
    Inbound,
    #[error("open connections away from the pod")]
    Outbound,
    #[error("tunnels of peers")]
    Tunnels,
    #[error("unfinished handshakes of peers")]
    Handshakes,
    #[error("unfinished handshakes of one peer")]
    PeerHandshakes,
}

impl Full {
    /// The reason's stable name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound_connection_limit",
            Self::Outbound => "outbound_connection_limit",
            Self::Tunnels => "tunnel_limit",
            Self::Handshakes => "handshake_limit",
            Self::PeerHandshakes => "peer_handshake_limit",
        }
    }
}

/// So many and no more.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicUsize,
    most: usize,
    full: Full,
}

/// One of the [`Places`], free again when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    pub(super) fn new(most: usize, full: Full) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most, full })
    }

    pub(super) fn take(self: &Arc<Self>) -> Result<Place, Full> {
        // Taken before it is compared: two at once cannot both get the last one.
        let place = Place(Arc::clone(self));
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        if before < self.most { Ok(place) } else { Err(self.full) }
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Places for handshakes, in total and per peer.
#[derive(Debug)]
pub(super) struct Handshakes {
    all: Arc<Places>,
    per_peer: Arc<PerAddress>,
}

/// A place among the [`Handshakes`], free again when dropped.
pub(super) type HandshakePlace = (Place, Share);

impl Handshakes {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            all: Places::new(limits.handshakes, Full::Handshakes),
            per_peer: PerAddress::new(limits.handshakes_per_peer),
        }
    }

    pub(super) fn take(&self, peer: IpAddr) -> Result<HandshakePlace, Full> {
        let share = self.per_peer.take(peer).ok_or(Full::PeerHandshakes)?;
        Ok((self.all.take()?, share))
    }

    pub(super) fn taken(&self) -> usize {
        self.all.taken()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_owner_goes() {
        let places = Places::new(2, Full::Inbound);
        let first = places.take().unwrap();
        let _second = places.take().unwrap();
        assert_eq!(places.take().unwrap_err(), Full::Inbound);
        assert_eq!(places.taken(), 2, "a refused one takes nothing");
        drop(first);
        places.take().unwrap();
    }

    #[test]
    fn one_neighbour_cannot_take_the_places_of_the_others() {
        let limits = Limits { handshakes: 3, handshakes_per_peer: 2, ..Limits::default() };
        let handshakes = Handshakes::new(&limits);
        let [greedy, modest] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let first = handshakes.take(greedy).unwrap();
        let second = handshakes.take(greedy).unwrap();
        assert_eq!(handshakes.take(greedy).unwrap_err(), Full::PeerHandshakes);
        let third = handshakes.take(modest).unwrap();
        assert_eq!(handshakes.take(modest).unwrap_err(), Full::Handshakes);
        drop(first);
        handshakes.take(modest).unwrap();
        drop((second, third));
        assert_eq!(handshakes.taken(), 0);
    }
}
