//! How long it takes until bytes can flow.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a pod on the same node to a peer that is about to give up.
const BUCKETS: [f64; 7] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

/// A step on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// TCP to an application.
    ConnectApplication,
    /// TCP to the port 15008 of a peer.
    ConnectPeer,
    /// TLS, as the one who dialled; HTTP/2 begins without waiting.
    HandshakeClient,
    /// TLS and the beginning of HTTP/2, as the one who was dialled.
    HandshakeServer,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectLabels {
    to: Word,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    side: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        std::fmt::Write::write_str(encoder, self.0)
    }
}

#[derive(Debug)]
pub(super) struct Timing {
    connect: [Histogram; 2],
    handshake: [Histogram; 2],
}

impl Timing {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let connect = Family::new_with_constructor(histogram);
        let handshake = Family::new_with_constructor(histogram);
        let timing = Self {
            connect: ["application", "peer"]
                .map(|to| connect.get_or_create_owned(&ConnectLabels { to: Word(to) })),
            handshake: ["client", "server"]
                .map(|side| handshake.get_or_create_owned(&HandshakeLabels { side: Word(side) })),
        };
        registry.register(
            "sluice_connect_seconds",
            "Time until a TCP connection was answered",
            connect,
        );
        registry.register(
            "sluice_handshake_seconds",
            "Time of TLS and the beginning of HTTP/2 with a peer",
            handshake,
        );
        timing
    }

    pub(super) fn took(&self, step: Step, time: Duration) {
        let histogram = match step {
            Step::ConnectApplication => &self.connect[0],
            Step::ConnectPeer => &self.connect[1],
            Step::HandshakeClient => &self.handshake[0],
            Step::HandshakeServer => &self.handshake[1],
        };
        histogram.observe(time.as_secs_f64());
    }
}
