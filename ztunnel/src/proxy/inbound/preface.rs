//! The header of the PROXY protocol, version 2, for applications that take traffic which
//! was meant for others. Pure.

use std::net::{IpAddr, SocketAddr};

use mesh::Identity;

/// Begins every header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, on behalf of somebody.
const PROXIED: u8 = 0x21;

/// TCP over IPv4, and over IPv6.
const FAMILIES: [u8; 2] = [0x11, 0x21];

/// The client's SPIFFE id, out of the range for applications. Istio's waypoints read it.
const IDENTITY: u8 = 0xD0;

/// A header that says that `client`, which is `identity`, dials `meant`. Of two families
/// both are written as IPv6 addresses.
pub(super) fn preface(client: SocketAddr, meant: SocketAddr, identity: &Identity) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    let family = match (client.ip(), meant.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend(from.octets());
            body.extend(to.octets());
            FAMILIES[0]
        }
        (from, to) => {
            body.extend(wide(from));
            body.extend(wide(to));
            FAMILIES[1]
        }
    };
    body.extend(client.port().to_be_bytes());
    body.extend(meant.port().to_be_bytes());
    let identity = identity.to_string();
    body.push(IDENTITY);
    body.extend(length(identity.len()));
    body.extend(identity.bytes());
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
    header.extend(SIGNATURE);
    header.extend([PROXIED, family]);
    header.extend(length(body.len()));
    header.extend(body);
    header
}

fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// An identity has at most 2048 bytes (SPIFFE-ID, section 2.3).
fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).expect("identities are shorter than 64 KiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(client: &str, meant: &str) -> Vec<u8> {
        let identity = Identity::new("", "shop", "web").unwrap();
        preface(client.parse().unwrap(), meant.parse().unwrap(), &identity)
    }

    #[test]
    fn bytes_of_ipv4() {
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x33".to_vec();
        expected.extend(b"\x0a\x00\x00\x01\x0a\x00\x00\x02\x9c\x40\x00\x50");
        expected.extend(b"\xd0\x00\x24spiffe://cluster.local/ns/shop/sa/web");
        let found = header("10.0.0.1:40000", "10.0.0.2:80");
        let text = "spiffe://cluster.local/ns/shop/sa/web";
        expected[14..16].copy_from_slice(&[0, u8::try_from(12 + 3 + text.len()).unwrap()]);
        expected[29..31].copy_from_slice(&[0, u8::try_from(text.len()).unwrap()]);
        assert_eq!(found, expected);
    }

    #[test]
    fn one_ipv6_address_makes_both_wide() {
        let found = header("10.0.0.1:40000", "[fd00::2]:80");
        assert_eq!(found[13], 0x21);
        assert_eq!(found[16..32], *b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01");
        assert_eq!(found[32..34], [0xfd, 0]);
        assert_eq!(found[48..52], [0x9c, 0x40, 0, 80]);
    }
}
