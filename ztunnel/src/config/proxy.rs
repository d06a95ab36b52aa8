//! Settings of the pods' listeners, sockets and limits.
//!
//! ```text
//! KEEPALIVE_ENABLED (true)       probe idle connections
//! KEEPALIVE_TIME (180s), KEEPALIVE_INTERVAL (180s), KEEPALIVE_RETRIES (9)
//! USER_TIMEOUT_ENABLED (false)   end connections whose other end acknowledges nothing for
//!                                as long as keep-alive has patience with idle ones
//! LOCALHOST_APP_TUNNEL (true)    waypoints that want a PROXY header listen on loopback
//! UNKNOWN_POLICY (deny)          a policy that a workload lists and that has not arrived in
//!                                5 s denies; `skip`, as Istio does: it means nothing
//! MAX_INBOUND_CONNECTIONS (65536), MAX_OUTBOUND_CONNECTIONS (65536)
//!                                open connections of one pod, each way
//! MAX_INBOUND_TUNNELS (8192)     established tunnels toward one pod
//! MAX_HANDSHAKES (1024), MAX_HANDSHAKES_PER_PEER (64)
//!                                unfinished handshakes with one pod, and from one address
//! ```

use std::time::Duration;

use mesh::{Identity, UnknownPolicy};

use super::mode::Mode;
use super::parse::{self, Flag};
use super::raw::Reader;
use crate::proxy::{
    AppTunnel, Ipv6, Keepalive, Limits, ResponseBaggage, Settings, TcpSettings, UserTimeout,
};

pub(super) fn proxy(reader: &mut Reader<'_>, mode: &Mode) -> Settings {
    let default = Settings::default();
    Settings {
        home: super::node::home(reader),
        role: super::mode::role(reader),
        network: reader.text("NETWORK").unwrap_or_default().into(),
        trust_domain: reader.value("TRUST_DOMAIN", default.trust_domain, |text| {
            Identity::new(text, "x", "x").map(|_| Some(text.to_owned())).map_err(|e| e.to_string())
        }),
        packet_mark: mode.packet_mark(reader),
        ipv6: match reader.flag("IPV6_ENABLED", Flag::On) {
            Flag::On => Ipv6::Enabled,
            Flag::Off => Ipv6::Disabled,
        },
        port_use: mode.port_use(reader),
        response_baggage: match reader.flag("ENABLE_RESPONSE_BAGGAGE", Flag::On) {
            Flag::On => ResponseBaggage::Sent,
            Flag::Off => ResponseBaggage::Withheld,
        },
        unknown_policy: reader.value("UNKNOWN_POLICY", default.unknown_policy, unknown_policy),
        hbone: super::hbone(reader, &default.hbone),
        dns: super::dns::dns(reader),
        tcp: tcp(reader),
        source_address: mode.source_address(reader),
        app_tunnel: match reader.flag("LOCALHOST_APP_TUNNEL", Flag::On) {
            Flag::On => AppTunnel::Loopback,
            Flag::Off => AppTunnel::PodAddress,
        },
        limits: limits(reader, &default.limits),
        drain_deadline: default.drain_deadline,
        clock: default.clock,
    }
}

fn unknown_policy(text: &str) -> Result<UnknownPolicy, String> {
    match text {
        "deny" => Ok(UnknownPolicy::Deny),
        "skip" => Ok(UnknownPolicy::Skip),
        _ => Err("deny or skip expected".to_owned()),
    }
}

/// The rules in the pods are the agent's and know one mark.
pub(super) fn packet_mark(text: &str) -> Result<u32, String> {
    let expected = zds::PACKET_MARK.value;
    match parse::number::<u32>(text)? {
        mark if mark == expected => Ok(mark),
        _ => Err(format!("only {expected} is supported by this version")),
    }
}

fn tcp(reader: &mut Reader<'_>) -> TcpSettings {
    let default = Keepalive::default();
    let keepalive = Keepalive {
        time: reader.value("KEEPALIVE_TIME", default.time, keepalive_time),
        interval: reader.value("KEEPALIVE_INTERVAL", default.interval, keepalive_time),
        retries: reader.value("KEEPALIVE_RETRIES", default.retries, keepalive_retries),
    };
    let enabled = reader.flag("KEEPALIVE_ENABLED", Flag::On);
    let user_timeout = match reader.flag("USER_TIMEOUT_ENABLED", Flag::Off) {
        Flag::On => UserTimeout::AsKeepalive,
        Flag::Off => UserTimeout::Kernel,
    };
    if enabled == Flag::Off && user_timeout == UserTimeout::AsKeepalive {
        reader.mistake("USER_TIMEOUT_ENABLED", "its time is that of keep-alive, which is off");
    }
    TcpSettings { keepalive: (enabled == Flag::On).then_some(keepalive), user_timeout }
}

/// What Linux takes: whole seconds up to 32767 (tcp(7)).
fn keepalive_time(text: &str) -> Result<Duration, String> {
    match parse::positive_duration(text)? {
        time if (1..=32_767).contains(&time.as_secs()) && time.subsec_nanos() == 0 => Ok(time),
        _ => Err("whole seconds from 1s to 32767s expected".to_owned()),
    }
}

/// What Linux takes.
fn keepalive_retries(text: &str) -> Result<u32, String> {
    match parse::number(text)? {
        retries @ 1..=127 => Ok(retries),
        _ => Err("a number from 1 to 127 expected".to_owned()),
    }
}

fn limits(reader: &mut Reader<'_>, default: &Limits) -> Limits {
    let mut limit = |name, default| reader.value(name, default, parse::positive);
    Limits {
        inbound_connections: limit("MAX_INBOUND_CONNECTIONS", default.inbound_connections),
        outbound_connections: limit("MAX_OUTBOUND_CONNECTIONS", default.outbound_connections),
        tunnels: limit("MAX_INBOUND_TUNNELS", default.tunnels),
        handshakes: limit("MAX_HANDSHAKES", default.handshakes),
        handshakes_per_peer: limit("MAX_HANDSHAKES_PER_PEER", default.handshakes_per_peer),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Raw};
    use super::*;
    use crate::proxy::SourceAddress;

    fn parse_with(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let all = [("NODE_NAME", "n1")].into_iter().chain(pairs.iter().copied());
        Config::parse(&Raw::from_pairs(all)).map(|c| c.proxy).map_err(|e| e.to_string())
    }

    #[test]
    fn sockets_are_tuned_as_the_environment_says() {
        let settings = parse_with(&[
            ("KEEPALIVE_TIME", "10s"),
            ("KEEPALIVE_INTERVAL", "1m"),
            ("KEEPALIVE_RETRIES", "3"),
            ("USER_TIMEOUT_ENABLED", "true"),
            ("ENABLE_ORIG_SRC", "false"),
        ])
        .unwrap();
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { time: seconds(10), interval: seconds(60), retries: 3 };
        assert_eq!(settings.tcp.keepalive, Some(keepalive));
        assert_eq!(settings.tcp.user_timeout, UserTimeout::AsKeepalive);
        assert_eq!(settings.source_address, SourceAddress::Pod);
        let off = parse_with(&[("KEEPALIVE_ENABLED", "false")]).unwrap();
        assert_eq!(off.tcp.keepalive, None);
        assert_eq!(parse_with(&[]).unwrap().tcp, TcpSettings::default());
    }

    #[test]
    fn what_the_kernel_would_refuse_is_a_mistake() {
        for (name, value) in [
            ("KEEPALIVE_TIME", "500ms"),
            ("KEEPALIVE_INTERVAL", "24h"),
            ("KEEPALIVE_RETRIES", "128"),
            ("MAX_HANDSHAKES", "0"),
        ] {
            let error = parse_with(&[(name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        let both = [("KEEPALIVE_ENABLED", "false"), ("USER_TIMEOUT_ENABLED", "true")];
        assert!(parse_with(&both).unwrap_err().contains("USER_TIMEOUT_ENABLED"));
    }

    #[test]
    fn what_unknown_policies_mean_is_read() {
        assert_eq!(parse_with(&[]).unwrap().unknown_policy, UnknownPolicy::Deny);
        let skip = parse_with(&[("UNKNOWN_POLICY", "skip")]).unwrap();
        assert_eq!(skip.unknown_policy, UnknownPolicy::Skip);
        assert!(parse_with(&[("UNKNOWN_POLICY", "allow")]).unwrap_err().contains("UNKNOWN_POLICY"));
    }

    #[test]
    fn limits_are_read() {
        let settings = parse_with(&[("MAX_INBOUND_TUNNELS", "7")]).unwrap();
        assert_eq!(settings.limits, Limits { tunnels: 7, ..Limits::default() });
    }
}
