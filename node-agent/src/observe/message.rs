//! PURE. The few netlink messages that a light look needs, as bytes. The layouts are those of
//! the kernel's `linux/netlink.h`, `linux/rtnetlink.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
const NFT_MSG_NEWGEN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 15;
const NFT_MSG_GETGEN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 16;
const NFPROTO_INET: u8 = 1;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_GEN_ID: u16 = 1;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTA_DST: u16 = 1;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
/// Has an IPv4 answer name the table that it was found in.
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Addresses that are nobody's (documentation): only the policy route leads them anywhere
/// near.
pub(super) const STRANGERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Which process changed a ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name of its program, as the kernel keeps it: fifteen characters at most.
    pub name: String,
    /// Its number on the node.
    pub pid: u32,
}

/// Where the kernel would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a route of this type from this table.
    Route {
        /// `RTN_*`.
        kind: u8,
        /// The table.
        table: u32,
    },
    /// Nowhere, with this error.
    None(i32),
}

/// One message of the kernel's, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The ruleset's generation; with who made it, if it is news.
    Generation(u32, Option<Author>),
    /// An `inet` table of this name came.
    TableAdded(String),
    /// It went.
    TableDeleted(String),
    /// A route, or news of one.
    Route(Way),
    /// A request failed.
    Failed(i32),
    /// A policy rule came or went.
    Rule,
    /// Anything else.
    Other,
}

/// A message, to which request it belongs, and to whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) sequence: u32,
    pub(super) port: u32,
    pub(super) message: Message,
}

/// Asks for the generation of the namespace's ruleset.
pub(super) fn get_generation(sequence: u32) -> Vec<u8> {
    // Of no family, version 0, for the whole namespace.
    framed(NFT_MSG_GETGEN, sequence, &[0; 4])
}

/// Asks where a packet with this mark would go.
pub(super) fn get_route(sequence: u32, to: IpAddr, mark: u32) -> Vec<u8> {
    let (family, bits, address) = match to {
        IpAddr::V4(v4) => (AF_INET, 32, v4.octets().to_vec()),
        IpAddr::V6(v6) => (AF_INET6, 128, v6.octets().to_vec()),
    };
    let mut body = vec![family, bits, 0, 0, 0, 0, 0, 0];
    body.extend(RTM_F_LOOKUP_TABLE.to_ne_bytes());
    attribute(&mut body, RTA_DST, &address);
    attribute(&mut body, RTA_MARK, &mark.to_ne_bytes());
    framed(RTM_GETROUTE, sequence, &body)
}

/// Every message of one packet; what is cut off is left out.
pub(super) fn parse(mut packet: &[u8]) -> Vec<Received> {
    let mut all = Vec::new();
    while let Some((received, rest)) = first(packet) {
        all.push(received);
        packet = rest;
    }
    all
}

fn first(packet: &[u8]) -> Option<(Received, &[u8])> {
    let length = usize::try_from(u32_at(packet, 0)?).ok()?;
    let body = packet.get(HEADER..length)?;
    let kind = u16_at(packet, 4)?;
    let (sequence, port) = (u32_at(packet, 8)?, u32_at(packet, 12)?);
    let message = understand(kind, body).unwrap_or(Message::Other);
    let rest = packet.get(aligned(length)..).unwrap_or_default();
    Some((Received { sequence, port, message }, rest))
}

fn understand(kind: u16, body: &[u8]) -> Option<Message> {
    match kind {
        NLMSG_ERROR => Some(Message::Failed(i32::from_ne_bytes(body.get(..4)?.try_into().ok()?))),
        NFT_MSG_NEWTABLE => inet_table(body).map(Message::TableAdded),
        NFT_MSG_DELTABLE => inet_table(body).map(Message::TableDeleted),
        NFT_MSG_NEWGEN => generation(body.get(4..)?),
        RTM_NEWROUTE | RTM_DELROUTE => {
            let in_header = u32::from(*body.get(4)?);
            let named = attributes(body.get(12..)?).find(|(kind, _)| *kind == RTA_TABLE);
            let table = named.and_then(|(_, value)| u32_at(value, 0)).unwrap_or(in_header);
            Some(Message::Route(Way::Route { kind: *body.get(7)?, table }))
        }
        RTM_NEWRULE | RTM_DELRULE => Some(Message::Rule),
        _ => None,
    }
}

/// The values of netfilter's attributes are in network order.
fn generation(body: &[u8]) -> Option<Message> {
    let value = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, v)| v);
    let number = |wanted| Some(u32::from_be(u32_at(value(wanted)?, 0)?));
    let author =
        || Some(Author { name: text(value(NFTA_GEN_PROC_NAME)?), pid: number(NFTA_GEN_PROC_PID)? });
    Some(Message::Generation(number(NFTA_GEN_ID)?, author()))
}

fn inet_table(body: &[u8]) -> Option<String> {
    if *body.first()? != NFPROTO_INET {
        return None;
    }
    let name = attributes(body.get(4..)?).find(|(kind, _)| *kind == NFTA_TABLE_NAME);
    name.map(|(_, name)| text(name))
}

/// Up to the zero that ends it.
fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(body, 0)?);
        let value = body.get(4..length)?;
        // The two highest bits say how the value is stored, not what it is.
        let kind = u16_at(body, 2)? & 0x3fff;
        body = body.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn framed(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length32(HEADER + body.len()));
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    // From whom: the kernel knows.
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// Only for values whose length is a multiple of four, as all of ours are.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
}

fn length32(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes()
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = framed(kind, 7, body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn understood(kind: u16, body: &[u8]) -> Message {
        let all = parse(&message(kind, body));
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap().message
    }

    #[test]
    fn requests_are_what_the_kernel_reads() {
        let generation = get_generation(3);
        assert_eq!(generation.len(), 20);
        assert_eq!(u16_at(&generation, 4), Some(0x0a10));
        let v4 = get_route(4, STRANGERS[0], 0x111);
        assert_eq!((v4.len(), u16_at(&v4, 4)), (16 + 12 + 8 + 8, Some(26)));
        let v6 = get_route(5, STRANGERS[1], 0x111);
        assert_eq!(v6.len(), 16 + 12 + 20 + 8);
        assert_eq!(u32_at(&v6, 0), Some(56));
    }

    #[test]
    fn news_of_a_ruleset_name_the_generation_and_who_made_it() {
        let mut body = vec![0; 4];
        attribute(&mut body, NFTA_GEN_ID, &9u32.to_be_bytes());
        assert_eq!(understood(NFT_MSG_NEWGEN, &body), Message::Generation(9, None));
        attribute(&mut body, NFTA_GEN_PROC_PID, &4711u32.to_be_bytes());
        attribute(&mut body, NFTA_GEN_PROC_NAME, b"nft\0");
        let author = Author { name: "nft".into(), pid: 4711 };
        assert_eq!(understood(NFT_MSG_NEWGEN, &body), Message::Generation(9, Some(author)));
    }

    #[test]
    fn tables_come_and_go_by_name() {
        let of = |family: u8| {
            let mut body = vec![family, 0, 0, 0];
            attribute(&mut body, NFTA_TABLE_NAME, b"sluice\0\0");
            body
        };
        let ours = || "sluice".to_owned();
        assert_eq!(understood(0x0a00, &of(NFPROTO_INET)), Message::TableAdded(ours()));
        assert_eq!(understood(0x0a02, &of(NFPROTO_INET)), Message::TableDeleted(ours()));
        assert_eq!(understood(0x0a02, &of(2)), Message::Other, "of another family");
    }

    #[test]
    fn routes_name_their_table_in_the_header_or_behind_it() {
        let mut body = vec![AF_INET, 0, 0, 0, 254, 0, 0, 2, 0, 0, 0, 0];
        let local = |table| Message::Route(Way::Route { kind: 2, table });
        assert_eq!(understood(RTM_NEWROUTE, &body), local(254));
        attribute(&mut body, RTA_TABLE, &1337u32.to_ne_bytes());
        assert_eq!(understood(RTM_DELROUTE, &body), local(1337));
    }

    #[test]
    fn errors_rules_and_the_unknown() {
        let refused = (-101i32).to_ne_bytes();
        assert_eq!(understood(NLMSG_ERROR, &refused), Message::Failed(-101));
        assert_eq!(understood(RTM_DELRULE, &[]), Message::Rule);
        assert_eq!(understood(16, &[1, 2, 3]), Message::Other);
    }

    #[test]
    fn several_messages_come_in_one_packet_and_a_cut_one_is_left_out() {
        let mut packet = message(RTM_NEWRULE, &[0; 5]);
        packet.extend(message(16, &[]));
        let whole = packet.len();
        packet.extend(&message(RTM_NEWRULE, &[0; 8])[..20]);
        assert_eq!(parse(&packet).len(), 2);
        for cut in 0..whole {
            assert!(parse(&packet[..cut]).len() < 2, "{cut}");
        }
        // A length that would never move on.
        assert_eq!(parse(&[0; 16]), []);
    }
}
