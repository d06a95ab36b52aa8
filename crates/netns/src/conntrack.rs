//! Asking conntrack where a redirected datagram was going to.
//!
//! For TCP the socket knows it ([`crate::original_dst`]); for UDP only conntrack does, and
//! is asked over netlink (nfnetlink's conntrack subsystem, `IPCTNL_MSG_CT_GET`). The
//! kernel answers while it handles the question, so nothing here waits.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::socket::OrigDst;

/// Linux' `IPCTNL_MSG_CT_GET`, in the conntrack subsystem.
const GET: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8 | 1;
/// Linux' `IPCTNL_MSG_CT_NEW`: what the answer is.
const NEW: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
/// Length of the netlink header, and of nfnetlink's own behind it.
const HEADERS: usize = 16 + 4;
/// Marks attributes that hold attributes.
const NESTED: u16 = 0x8000;
/// Attributes of an entry, of a tuple, of its addresses and of its ports
/// (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;

/// The destination that `client` addressed with a datagram that came to `listener`, both
/// as the receiving socket sees them. Acts on the calling thread's namespace: call it
/// from a fence job.
///
/// For a datagram that was not redirected it is `listener` itself, as with
/// [`crate::original_dst`].
///
/// # Errors
/// `ENOENT` when conntrack does not know of it, `EPROTONOSUPPORT` where the kernel has no
/// conntrack netlink, `EPERM` without `CAP_NET_ADMIN`.
pub fn original_udp_dst(client: SocketAddr, listener: SocketAddr) -> io::Result<OrigDst> {
    let family = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(family, Type::RAW, Some(Protocol::from(libc::NETLINK_NETFILTER)))?;
    socket.set_nonblocking(true)?;
    socket.send(&question(client, listener))?;
    let mut answer = [0; 4096];
    let length = (&socket).read(&mut answer)?;
    parse(answer.get(..length).unwrap_or_default())
}

/// The entry is looked up by the direction of the answers: those go from the listener to
/// the client.
fn question(client: SocketAddr, listener: SocketAddr) -> Vec<u8> {
    let [src, dst] = [listener, client].map(|addr| addr.ip());
    let (family, first) = if src.is_ipv4() { (libc::AF_INET, 1) } else { (libc::AF_INET6, 3) };
    let addresses = [attribute(first, &octets(src)), attribute(first + 1, &octets(dst))].concat();
    let ports = [
        attribute(PROTO_NUM, &[libc::IPPROTO_UDP as u8]),
        attribute(PROTO_SRC_PORT, &listener.port().to_be_bytes()),
        attribute(PROTO_DST_PORT, &client.port().to_be_bytes()),
    ]
    .concat();
    let tuple = [attribute(TUPLE_IP | NESTED, &addresses), attribute(TUPLE_PROTO | NESTED, &ports)]
        .concat();
    let body = attribute(TUPLE_REPLY | NESTED, &tuple);
    let length = u32::try_from(HEADERS + body.len()).expect("some hundred bytes");
    let mut message = Vec::with_capacity(HEADERS + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(GET.to_ne_bytes());
    message.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    message.extend([0; 8]); // No sequence: one question per socket. Port 0 is the kernel.
    message.extend([family as u8, 0, 0, 0]);
    message.extend(body);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("an address, or a few of them");
    let mut bytes = Vec::with_capacity(4 + value.len() + 3);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn parse(message: &[u8]) -> io::Result<OrigDst> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = message.get(4..6).and_then(|it| it.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        Some(NEW) => destination(message.get(HEADERS..).unwrap_or_default()).ok_or_else(malformed),
        Some(kind) if i32::from(kind) == libc::NLMSG_ERROR => {
            let code = message.get(16..20).and_then(|it| it.try_into().ok());
            let code = code.map(i32::from_ne_bytes).filter(|code| *code < 0);
            Err(code.map_or_else(malformed, |code| io::Error::from_raw_os_error(-code)))
        }
        _ => Err(malformed()),
    }
}

fn destination(entry: &[u8]) -> Option<OrigDst> {
    let tuple = find(entry, TUPLE_ORIG)?;
    let addresses = find(tuple, TUPLE_IP)?;
    let ip = match (find(addresses, 2), find(addresses, 4)) {
        (Some(v4), _) => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(v4).ok()?)),
        (None, v6) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(v6?).ok()?)),
    };
    let port = find(find(tuple, TUPLE_PROTO)?, PROTO_DST_PORT)?.try_into().ok()?;
    Some(OrigDst(SocketAddr::new(ip, u16::from_be_bytes(port))))
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, rest) = attributes.split_first_chunk::<2>()?;
        let (kind, _) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes(*kind) & !(NESTED | 0x4000) == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_or_made_up_is_an_error_and_no_panic() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut message = question(addr("10.0.0.1:7"), addr("127.0.0.1:15053"));
        // Made to look like an answer whose original direction is what was asked for.
        message[4..6].copy_from_slice(&NEW.to_ne_bytes());
        message[22..24].copy_from_slice(&(TUPLE_ORIG | NESTED).to_ne_bytes());
        assert_eq!(parse(&message).unwrap().0, addr("10.0.0.1:7"));
        for length in 0..message.len() {
            // The last byte is padding or the port's second: anything shorter is broken.
            let cut = parse(&message[..length]);
            assert!(cut.is_err() || length + 2 >= message.len(), "cut at {length}: {cut:?}");
        }
        for at in HEADERS..message.len() {
            for value in [0, 1, 3, 0xff] {
                let mut broken = message.clone();
                broken[at] = value;
                let _ = parse(&broken);
            }
        }
    }

    #[test]
    fn the_kernels_refusal_is_told() {
        let mut message = vec![0; 20];
        message[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        message[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(parse(&message).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
