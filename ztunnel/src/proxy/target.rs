//! Where a peer's request may lead: into this pod, to an application's port, and nowhere
//! else. Pure.

use std::net::{IpAddr, SocketAddr};

use super::refusal::Refusal;

/// Reads the authority of a CONNECT that came in on the address `local`.
pub(super) fn target(authority: Option<&str>, local: IpAddr) -> Result<SocketAddr, Refusal> {
    let authority = authority.ok_or(Refusal::NotConnect)?;
    // The standard parser takes numeric scopes; a scope has no business in an authority.
    let parsed: SocketAddr = authority
        .parse()
        .ok()
        .filter(|_| !authority.contains('%'))
        .ok_or_else(|| Refusal::Authority(shortened(authority)))?;
    let target = SocketAddr::new(parsed.ip().to_canonical(), parsed.port());
    if target.port() == 0 {
        return Err(Refusal::Authority(shortened(authority)));
    }
    if target.ip() != local.to_canonical() || !addressable(target.ip()) {
        return Err(Refusal::ForeignTarget(target));
    }
    own_port(target)?;
    Ok(target)
}

/// Refuses the proxy's ports: a request for one would come back to us.
pub(super) fn own_port(target: SocketAddr) -> Result<(), Refusal> {
    if zds::PROXY_PORTS.contains(&target.port()) { Err(Refusal::ProxyPort) } else { Ok(()) }
}

/// Addresses that mean the same pod from outside as from inside.
fn addressable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
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
        let v4 = "10.0.0.7";
        let v6 = "fd00::7";
        let cases = [
            (Some("10.0.0.7:80"), v4, "10.0.0.7:80"),
            (Some("10.0.0.7:80"), "::ffff:10.0.0.7", "10.0.0.7:80"),
            (Some("[::ffff:10.0.0.7]:80"), v4, "10.0.0.7:80"),
            (Some("[fd00::7]:65535"), v6, "[fd00::7]:65535"),
            (None, v4, "not_connect"),
            (Some(""), v4, "bad_authority"),
            (Some("10.0.0.7"), v4, "bad_authority"),
            (Some("10.0.0.7:"), v4, "bad_authority"),
            (Some("10.0.0.7:0"), v4, "bad_authority"),
            (Some("10.0.0.7:65536"), v4, "bad_authority"),
            (Some("user@10.0.0.7:80"), v4, "bad_authority"),
            (Some("010.0.0.7:80"), v4, "bad_authority"),
            (Some("fd00::7:80"), v6, "bad_authority"),
            (Some("[fd00::7%1]:80"), v6, "bad_authority"),
            (Some("[fe80::1%eth0]:80"), v6, "bad_authority"),
            (Some("server.shop:80"), v4, "bad_authority"),
            (Some("10.0.0.8:80"), v4, "foreign_target"),
            (Some("[fd00::7]:80"), v4, "foreign_target"),
            (Some("127.0.0.1:80"), v4, "foreign_target"),
            (Some("127.0.0.1:80"), "127.0.0.1", "foreign_target"),
            (Some("[::1]:80"), "::1", "foreign_target"),
            (Some("0.0.0.0:80"), v4, "foreign_target"),
            (Some("169.254.169.254:80"), v4, "foreign_target"),
            (Some("169.254.1.1:80"), "169.254.1.1", "foreign_target"),
            (Some("[fe80::1]:80"), "fe80::1", "foreign_target"),
            (Some("10.0.0.7:15001"), v4, "proxy_port"),
            (Some("10.0.0.7:15006"), v4, "proxy_port"),
            (Some("10.0.0.7:15008"), v4, "proxy_port"),
            (Some("[fd00::7]:15053"), v6, "proxy_port"),
        ];
        for (authority, local, expected) in cases {
            let found = match target(authority, local.parse().unwrap()) {
                Ok(target) => target.to_string(),
                Err(refusal) => refusal.name().to_owned(),
            };
            assert_eq!(found, expected, "{authority:?} at {local}");
        }
    }

    #[test]
    fn what_a_stranger_sent_is_harmless_in_a_log() {
        let text = format!("a\n\"{}", "x".repeat(500));
        assert!(shortened(&text).len() < 80);
        assert!(!shortened(&text).contains('\n'));
    }
}
