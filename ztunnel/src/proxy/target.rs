//! What a peer's request asks for. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::refusal::Refusal;

/// The longest name in DNS.
const LONGEST_HOST: usize = 253;

/// Where clouds tell secrets to whoever asks from the right machine, beside the
/// link-local addresses that most have for that.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)),
];

/// The authority of a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A pod, or a service at one of its addresses.
    Address(SocketAddr),
    /// A service by its hostname, and one of its ports.
    Name { host: String, port: u16 },
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Reads an authority. What no pod and no service can have is refused here.
pub(super) fn asked(authority: Option<&str>) -> Result<Asked, Refusal> {
    let authority = authority.ok_or(Refusal::NotConnect)?;
    let malformed = || Refusal::Authority(shortened(authority));
    // The standard parser takes numeric scopes; a scope has no business in an authority.
    if authority.contains('%') {
        return Err(malformed());
    }
    let asked = match authority.parse::<SocketAddr>() {
        Ok(addr) => Asked::Address(SocketAddr::new(addr.ip().to_canonical(), addr.port())),
        Err(_) => named(authority).ok_or_else(malformed)?,
    };
    let port = match &asked {
        Asked::Address(addr) if !addressable(addr.ip()) => {
            return Err(Refusal::ForeignTarget(*addr));
        }
        Asked::Address(addr) => addr.port(),
        Asked::Name { port, .. } => *port,
    };
    if port == 0 {
        return Err(malformed());
    }
    own_port(port)?;
    Ok(asked)
}

/// Reads `host:port`. What ends in a number is a mistaken address (WHATWG URL, 3.5).
fn named(authority: &str) -> Option<Asked> {
    let (host, port) = authority.rsplit_once(':')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain)
    };
    let numeric = host.rsplit('.').next().is_none_or(digits);
    if host.len() > LONGEST_HOST || numeric || !host.split('.').all(label) || !digits(port) {
        return None;
    }
    Some(Asked::Name { host: host.to_ascii_lowercase(), port: port.parse().ok()? })
}

/// Refuses the proxy's ports: a request for one would come back to us.
pub(super) fn own_port(port: u16) -> Result<(), Refusal> {
    if zds::PROXY_PORTS.contains(&port) { Err(Refusal::ProxyPort) } else { Ok(()) }
}

/// Addresses that mean the same from everywhere in a network.
pub(super) fn addressable(ip: IpAddr) -> bool {
    let (link_local, broadcast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), false),
    };
    let special = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || broadcast;
    !(special || link_local || METADATA.contains(&ip))
}

/// What a stranger sent goes into logs in small portions.
fn shortened(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let long = format!("{}.shop:80", "x".repeat(64));
        let cases = [
            (Some("10.0.0.7:80"), "10.0.0.7:80"),
            (Some("[::ffff:10.0.0.7]:80"), "10.0.0.7:80"),
            (Some("[fd00::7]:65535"), "[fd00::7]:65535"),
            (Some("server.shop:80"), "server.shop:80"),
            (Some("Server.Shop:80"), "server.shop:80"),
            (Some("db:5432"), "db:5432"),
            (None, "not_connect"),
            (Some(""), "bad_authority"),
            (Some("10.0.0.7"), "bad_authority"),
            (Some("10.0.0.7:"), "bad_authority"),
            (Some("10.0.0.7:0"), "bad_authority"),
            (Some("10.0.0.7:65536"), "bad_authority"),
            (Some("user@10.0.0.7:80"), "bad_authority"),
            (Some("010.0.0.7:80"), "bad_authority"),
            (Some("2130706433:80"), "bad_authority"),
            (Some("0x7f.1:80"), "bad_authority"),
            (Some("fd00::7:80"), "bad_authority"),
            (Some("[fd00::7%1]:80"), "bad_authority"),
            (Some("[fe80::1%eth0]:80"), "bad_authority"),
            (Some("server.shop"), "bad_authority"),
            (Some("server.shop:+80"), "bad_authority"),
            (Some("server.shop:0"), "bad_authority"),
            (Some("server..shop:80"), "bad_authority"),
            (Some("server.shop.:80"), "bad_authority"),
            (Some(".shop:80"), "bad_authority"),
            (Some("user@server.shop:80"), "bad_authority"),
            (Some(&long), "bad_authority"),
            (Some("127.0.0.1:80"), "foreign_target"),
            (Some("[::1]:80"), "foreign_target"),
            (Some("[::ffff:127.0.0.1]:80"), "foreign_target"),
            (Some("0.0.0.0:80"), "foreign_target"),
            (Some("169.254.169.254:80"), "foreign_target"),
            (Some("[fd00:ec2::254]:80"), "foreign_target"),
            (Some("[fe80::1]:80"), "foreign_target"),
            (Some("10.0.0.7:15001"), "proxy_port"),
            (Some("10.0.0.7:15006"), "proxy_port"),
            (Some("10.0.0.7:15008"), "proxy_port"),
            (Some("[fd00::7]:15053"), "proxy_port"),
            (Some("server.shop:15008"), "proxy_port"),
        ];
        for (authority, expected) in cases {
            let found = match asked(authority) {
                Ok(target) => target.to_string(),
                Err(refusal) => refusal.name().to_owned(),
            };
            assert_eq!(found, expected, "{authority:?}");
        }
    }

    #[test]
    fn what_a_stranger_sent_is_harmless_in_a_log() {
        let text = format!("a\n\"{}", "x".repeat(500));
        assert!(shortened(&text).len() < 80);
        assert!(!shortened(&text).contains('\n'));
    }
}
