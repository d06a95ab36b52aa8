//! What a window held, and the questions one can ask about it. PURE.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::packet::{Packet, Transport};

/// The packets of one window, in the order in which they crossed the interface.
#[derive(Clone, Debug, Default)]
pub struct Observation {
    packets: Vec<Arc<Packet>>,
}

/// One direction of one TCP connection.
type Flow = (SocketAddr, SocketAddr);

impl Observation {
    pub(crate) fn new(packets: Vec<Arc<Packet>>) -> Self {
        Self { packets }
    }

    /// The part of it that went between two sets of addresses, in either direction.
    #[must_use]
    pub fn between(&self, a: &[IpAddr], b: &[IpAddr]) -> Self {
        let joins = |packet: &&Arc<Packet>| {
            (a.contains(&packet.from) && b.contains(&packet.to))
                || (b.contains(&packet.from) && a.contains(&packet.to))
        };
        Self { packets: self.packets.iter().filter(joins).cloned().collect() }
    }

    /// The packets.
    pub fn packets(&self) -> impl ExactSizeIterator<Item = &Packet> {
        self.packets.iter().map(AsRef::as_ref)
    }

    /// How many TCP packets.
    #[must_use]
    pub fn tcp(&self) -> usize {
        self.ports_of_tcp().count()
    }

    /// How many packets of other protocols.
    #[must_use]
    pub fn non_tcp(&self) -> usize {
        self.packets.len() - self.tcp()
    }

    /// How many TCP packets from or to `port`.
    #[must_use]
    pub fn tcp_with_port(&self, port: u16) -> usize {
        self.ports_of_tcp().filter(|(from, to)| *from == port || *to == port).count()
    }

    /// How many TCP packets neither from nor to `port`.
    #[must_use]
    pub fn tcp_without_port(&self, port: u16) -> usize {
        self.tcp() - self.tcp_with_port(port)
    }

    /// How many TCP packets went to each port.
    #[must_use]
    pub fn ports(&self) -> BTreeMap<u16, usize> {
        let mut ports = BTreeMap::new();
        for (_, to) in self.ports_of_tcp() {
            *ports.entry(to).or_default() += 1;
        }
        ports
    }

    /// How often `marker` can be read in what was carried. TCP payload is put together
    /// first: a marker that spans segments counts, one that was sent again counts once.
    #[must_use]
    pub fn marker(&self, marker: &[u8]) -> usize {
        let in_streams: usize = self.runs().iter().map(|run| count(run, marker)).sum();
        let others =
            self.packets().filter(|packet| !matches!(packet.transport, Transport::Tcp { .. }));
        in_streams + others.map(|packet| count(&packet.payload, marker)).sum::<usize>()
    }

    fn ports_of_tcp(&self) -> impl Iterator<Item = (u16, u16)> {
        self.packets().filter_map(|packet| match packet.transport {
            Transport::Tcp { from, to, .. } => Some((from, to)),
            _ => None,
        })
    }

    /// All stretches of TCP payload without a gap, of all flows.
    fn runs(&self) -> Vec<Vec<u8>> {
        let mut flows: BTreeMap<Flow, Vec<(u32, &[u8])>> = BTreeMap::new();
        for packet in self.packets() {
            if let Transport::Tcp { from, to, sequence, .. } = packet.transport
                && !packet.payload.is_empty()
            {
                let flow = (SocketAddr::new(packet.from, from), SocketAddr::new(packet.to, to));
                flows.entry(flow).or_default().push((sequence, &packet.payload));
            }
        }
        flows.into_values().flat_map(join).collect()
    }
}

/// Puts segments in order and joins those that touch. Sequence numbers wrap, so they are
/// taken relative to the first segment seen, which is within 2 GiB of all others.
fn join(segments: Vec<(u32, &[u8])>) -> Vec<Vec<u8>> {
    let base = segments.first().map_or(0, |(sequence, _)| *sequence);
    let mut placed: Vec<(i64, &[u8])> = segments
        .into_iter()
        .map(|(sequence, bytes)| (i64::from(sequence.wrapping_sub(base).cast_signed()), bytes))
        .collect();
    placed.sort_by_key(|(at, _)| *at);
    let mut runs: Vec<Vec<u8>> = Vec::new();
    let mut end = i64::MIN;
    for (at, bytes) in placed {
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        if at > end {
            runs.push(bytes.to_vec());
        } else if let Some(run) = runs.last_mut() {
            let known = usize::try_from(end - at).unwrap_or(usize::MAX);
            run.extend_from_slice(bytes.get(known..).unwrap_or_default());
        }
        end = end.max(at.saturating_add(length));
    }
    runs
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    if needle.is_empty() {
        return 0;
    }
    haystack.windows(needle.len()).filter(|window| *window == needle).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(from: u16, to: u16, sequence: u32, payload: &[u8]) -> Arc<Packet> {
        Arc::new(Packet {
            from: [10, 20, 1, 2].into(),
            to: [10, 20, 2, 2].into(),
            transport: Transport::Tcp { from, to, sequence, flags: 0x18 },
            payload: payload.to_vec(),
        })
    }

    fn udp(payload: &[u8]) -> Arc<Packet> {
        Arc::new(Packet {
            from: [10, 20, 2, 2].into(),
            to: [10, 20, 1, 2].into(),
            transport: Transport::Udp { from: 1, to: 2 },
            payload: payload.to_vec(),
        })
    }

    #[test]
    fn markers_are_counted_as_a_reader_of_the_stream_would() {
        let cases: [(&str, Vec<Arc<Packet>>, usize); 8] = [
            ("none", vec![tcp(1, 80, 0, b"nothing")], 0),
            ("one", vec![tcp(1, 80, 0, b"a MARK b")], 1),
            ("twice in one", vec![tcp(1, 80, 0, b"MARKMARK")], 2),
            ("sent again", vec![tcp(1, 80, 0, b"MARK"), tcp(1, 80, 0, b"MARK")], 1),
            ("across segments", vec![tcp(1, 80, 5, b"xMA"), tcp(1, 80, 8, b"RKx")], 1),
            ("out of order, wrapped", vec![tcp(1, 80, 1, b"RK"), tcp(1, 80, u32::MAX, b"MA")], 1),
            ("a gap between", vec![tcp(1, 80, 5, b"MA"), tcp(1, 80, 9, b"RK")], 0),
            (
                "two flows, and a datagram",
                vec![tcp(1, 80, 0, b"MA"), tcp(2, 80, 2, b"RK"), udp(b"MARK")],
                1,
            ),
        ];
        for (name, packets, expected) in cases {
            assert_eq!(Observation::new(packets).marker(b"MARK"), expected, "{name}");
        }
    }

    #[test]
    fn packets_are_counted_by_address_protocol_and_port() {
        let seen = Observation::new(vec![
            tcp(40_000, 15_008, 0, b""),
            tcp(15_008, 40_000, 0, b""),
            tcp(40_001, 80, 0, b""),
            udp(b""),
        ]);
        assert_eq!((seen.tcp(), seen.non_tcp()), (3, 1));
        assert_eq!((seen.tcp_with_port(15_008), seen.tcp_without_port(15_008)), (2, 1));
        assert_eq!(seen.ports(), BTreeMap::from([(80, 1), (15_008, 1), (40_000, 1)]));
        let (a, b) = (IpAddr::from([10, 20, 1, 2]), IpAddr::from([10, 20, 2, 2]));
        assert_eq!(seen.between(&[b], &[a]).packets().len(), 4);
        assert_eq!(seen.between(&[a], &[a]).packets().len(), 0);
    }
}
