//! Settings of the pods' name servers.

use std::net::SocketAddr;

use super::parse::Flag;
use super::raw::Reader;
use crate::dns::{Mode, Settings};

pub(super) fn dns(reader: &mut Reader<'_>) -> Settings {
    let default = Settings::default();
    Settings {
        mode: match reader.flag("ISTIO_META_DNS_CAPTURE", Flag::On) {
            Flag::On => Mode::Serve,
            Flag::Off => Mode::Off,
        },
        domain: reader.value("CLUSTER_DOMAIN", default.domain, |text| {
            let domain = text.trim_end_matches('.').to_ascii_lowercase();
            match domain.is_empty() {
                true => Err("a domain as cluster.local expected".to_owned()),
                false => Ok(domain.into()),
            }
        }),
        port: reader.value("ISTIO_META_DNS_PROXY_ADDR", default.port, port),
        preferred_namespace: reader.text("PREFERED_SERVICE_NAMESPACE").map(Into::into),
        upstreams: default.upstreams,
    }
}

/// The agent's rules know one port, and the name server is for its own pod only.
fn port(text: &str) -> Result<u16, String> {
    let expected = zds::port::DNS;
    let mistake = || format!("only port {expected} of localhost is supported by this version");
    let address = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = address.as_deref().unwrap_or(text).parse().map_err(|_| mistake())?;
    let local = address.ip().is_loopback() && address.port() == expected;
    if local { Ok(expected) } else { Err(mistake()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Raw;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let raw = Raw::from_pairs(pairs.iter().copied());
        let mut reader = Reader::new(&raw);
        let settings = dns(&mut reader);
        (settings, reader.finish().1)
    }

    #[test]
    fn lookups_are_served_unless_told_otherwise() {
        let (settings, mistakes) = read(&[]);
        assert_eq!((settings.mode, settings.port), (Mode::Serve, 15053));
        assert_eq!(&*settings.domain, "cluster.local");
        assert!(mistakes.is_empty());
        let (settings, _) = read(&[
            ("ISTIO_META_DNS_CAPTURE", "false"),
            ("CLUSTER_DOMAIN", "Corp.Example."),
            ("ISTIO_META_DNS_PROXY_ADDR", "localhost:15053"),
        ]);
        assert_eq!(settings.mode, Mode::Off);
        assert_eq!(&*settings.domain, "corp.example");
    }

    #[test]
    fn another_listener_is_a_mistake() {
        for value in ["0.0.0.0:15053", "127.0.0.1:53", "15053", "nowhere:15053"] {
            let (_, mistakes) = read(&[("ISTIO_META_DNS_PROXY_ADDR", value)]);
            assert_eq!(mistakes.len(), 1, "{value}");
        }
        assert_eq!(read(&[("ISTIO_META_DNS_CAPTURE", "maybe")]).1.len(), 1);
        assert_eq!(read(&[("CLUSTER_DOMAIN", ".")]).1.len(), 1);
    }
}
