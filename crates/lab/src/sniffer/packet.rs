//! What a frame says. PURE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IEEE 802's local experimental EtherType 1.
pub(crate) const FLAG_ETHERTYPE: u16 = 0x88b5;
/// Tells our flags from anybody else's experiments.
pub(crate) const FLAG_MAGIC: [u8; 8] = *b"lab-flag";

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;
/// IPv6 extension headers that stand between us and the transport (RFC 8200).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// One IP packet as it crossed the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Sender.
    pub from: IpAddr,
    /// Receiver.
    pub to: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// The bytes after the transport header; after the IP header for other protocols.
    pub payload: Vec<u8>,
}

/// The transport header, as far as observations need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
        /// Sequence number of the first payload byte, or of the SYN.
        sequence: u32,
        /// The flag byte of RFC 9293: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        from: u16,
        /// Destination port.
        to: u16,
    },
    /// Another protocol, a later fragment, or a header that is cut short.
    Other(u8),
}

/// What a frame is to a sniffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Flag(u64),
    Ip(Packet),
    /// ARP and the like.
    Else,
}

pub(crate) fn parse(frame: &[u8]) -> Frame {
    let Some((header, rest)) = frame.split_at_checked(14) else {
        return Frame::Else;
    };
    let packet = match u16::from_be_bytes([header[12], header[13]]) {
        FLAG_ETHERTYPE => return flag(rest).map_or(Frame::Else, Frame::Flag),
        ethertype => ip(ethertype, rest),
    };
    packet.map_or(Frame::Else, Frame::Ip)
}

/// What follows a link header that names this EtherType, if that is IP.
pub(crate) fn ip(ethertype: u16, rest: &[u8]) -> Option<Packet> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(rest),
        ETHERTYPE_IPV6 => ipv6(rest),
        _ => None,
    }
}

fn flag(rest: &[u8]) -> Option<u64> {
    let nonce = rest.strip_prefix(&FLAG_MAGIC)?.first_chunk()?;
    Some(u64::from_be_bytes(*nonce))
}

fn ipv4(packet: &[u8]) -> Option<Packet> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Padding follows short packets; a length of 0 means "all" with segmentation offload.
    let end = if total == 0 { packet.len() } else { total };
    let body = packet.get(header_length..end.min(packet.len()))?;
    let fragment_offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let address = |at| header.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
    let protocol = header[9];
    let (transport, payload) =
        if fragment_offset == 0 { transport(protocol, body) } else { other(protocol, body) };
    Some(Packet {
        from: Ipv4Addr::from(address(12)?).into(),
        to: Ipv4Addr::from(address(16)?).into(),
        transport,
        payload: payload.to_vec(),
    })
}

fn ipv6(packet: &[u8]) -> Option<Packet> {
    let (header, rest) = packet.split_first_chunk::<40>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let end = if length == 0 { rest.len() } else { length.min(rest.len()) };
    let mut body = rest.get(..end)?;
    let mut next = header[6];
    while matches!(next, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
        let skip = (usize::from(*body.get(1)?) + 1) * 8;
        next = *body.first()?;
        body = body.get(skip..)?;
    }
    let address = |at| header.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
    let (transport, payload) =
        if next == FRAGMENT { other(next, body) } else { transport(next, body) };
    Some(Packet {
        from: Ipv6Addr::from(address(8)?).into(),
        to: Ipv6Addr::from(address(24)?).into(),
        transport,
        payload: payload.to_vec(),
    })
}

fn transport(protocol: u8, body: &[u8]) -> (Transport, &[u8]) {
    let known = match protocol {
        PROTOCOL_TCP => tcp(body),
        PROTOCOL_UDP => udp(body),
        _ => None,
    };
    known.unwrap_or_else(|| other(protocol, body))
}

fn other(protocol: u8, body: &[u8]) -> (Transport, &[u8]) {
    (Transport::Other(protocol), body)
}

fn tcp(body: &[u8]) -> Option<(Transport, &[u8])> {
    let header: &[u8; 20] = body.first_chunk()?;
    let transport = Transport::Tcp {
        from: u16::from_be_bytes([header[0], header[1]]),
        to: u16::from_be_bytes([header[2], header[3]]),
        sequence: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        flags: header[13],
    };
    Some((transport, body.get(usize::from(header[12] >> 4) * 4..)?))
}

fn udp(body: &[u8]) -> Option<(Transport, &[u8])> {
    let (header, payload) = body.split_first_chunk::<8>()?;
    let from = u16::from_be_bytes([header[0], header[1]]);
    let to = u16::from_be_bytes([header[2], header[3]]);
    Some((Transport::Udp { from, to }, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
        [&[0; 12], &kind.to_be_bytes()[..], body].concat()
    }

    fn tcp_segment(payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0; 24];
        header[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        header[4..8].copy_from_slice(&7u32.to_be_bytes());
        header[12] = 6 << 4;
        header[13] = 0x18;
        header.extend_from_slice(payload);
        header
    }

    fn ipv4_packet(protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 20, 1, 2, 10, 20, 2, 3]);
        packet.extend_from_slice(body);
        packet
    }

    fn ipv6_packet(next: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        packet.extend([next, 64]);
        packet.extend("fd00:20:1::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("fd00:20:2::3".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend_from_slice(body);
        packet
    }

    const TCP: Transport = Transport::Tcp { from: 40000, to: 80, sequence: 7, flags: 0x18 };

    fn ip_of(frame: &[u8]) -> Packet {
        match parse(frame) {
            Frame::Ip(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tcp_over_ipv4_without_options_and_padding() {
        let mut frame = ethernet(0x0800, &ipv4_packet(6, &tcp_segment(b"marker")));
        frame.extend([0; 9]);
        let packet = ip_of(&frame);
        assert_eq!(packet.transport, TCP);
        assert_eq!(packet.payload, b"marker");
        assert_eq!(packet.from.to_string(), "10.20.1.2");
        assert_eq!(packet.to.to_string(), "10.20.2.3");
    }

    #[test]
    fn tcp_over_ipv6_behind_an_extension_header() {
        let options = [6, 0, 1, 4, 0, 0, 0, 0];
        let body = [&options[..], &tcp_segment(b"marker")].concat();
        for frame in [ipv6_packet(6, &tcp_segment(b"marker")), ipv6_packet(60, &body)] {
            let packet = ip_of(&ethernet(0x86dd, &frame));
            assert_eq!(packet.transport, TCP);
            assert_eq!(packet.payload, b"marker");
            assert_eq!(packet.to.to_string(), "fd00:20:2::3");
        }
    }

    #[test]
    fn udp_and_others() {
        let udp = [0x9c, 0x40, 0, 53, 0, 12, 0, 0, b'a', b'b', b'c', b'd'];
        let packet = ip_of(&ethernet(0x0800, &ipv4_packet(17, &udp)));
        assert_eq!(packet.transport, Transport::Udp { from: 40000, to: 53 });
        assert_eq!(packet.payload, b"abcd");
        assert_eq!(
            ip_of(&ethernet(0x0800, &ipv4_packet(1, b"ping"))).transport,
            Transport::Other(1)
        );
    }

    #[test]
    fn what_is_cut_short_never_panics() {
        let frames = [
            ethernet(0x0800, &ipv4_packet(6, &tcp_segment(b"x"))),
            ethernet(0x86dd, &ipv6_packet(60, &[6, 9, 0, 0, 0, 0, 0, 0])),
            ethernet(FLAG_ETHERTYPE, &[&FLAG_MAGIC[..], &7u64.to_be_bytes()].concat()),
        ];
        assert_eq!(parse(&frames[2]), Frame::Flag(7));
        for frame in frames {
            for length in 0..frame.len() {
                parse(&frame[..length]);
            }
        }
    }
}
