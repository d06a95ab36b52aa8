//! Rulesets that the tests share.

use std::collections::BTreeSet;

use capture::{Dns, Inbound, Mark, Options, Ports, Probes, Ruleset};

/// A pod with nothing special about it. The rules are the same for IPv4 and IPv6.
pub fn plain() -> Options {
    Options {
        ports: Ports { outbound: 15001, inbound_plain: 15006, inbound_hbone: 15008, dns: 15053 },
        packet_mark: Mark { value: 0x539, mask: 0xfff },
        connmark: Mark { value: 0x111, mask: 0xfff },
        dns: Dns::Off,
        probes: Probes {
            sources: ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            ports: BTreeSet::new(),
        },
        in_skip: BTreeSet::new(),
        out_skip: BTreeSet::new(),
        out_skip_cidrs: BTreeSet::new(),
        inbound: Inbound::Capture,
    }
}

fn out_skip_cidrs(networks: &[&str]) -> Options {
    let out_skip_cidrs = networks.iter().map(|text| text.parse().unwrap()).collect();
    Options { out_skip_cidrs, ..plain() }
}

/// Every golden ruleset by the name of its file.
pub fn golden() -> Vec<(&'static str, Ruleset)> {
    let dns = Options { dns: Dns::On, ..plain() };
    let mut probes = plain();
    probes.probes.ports = [8080, 9090].into();
    let ports =
        Options { in_skip: [22, 9100].into(), out_skip: [25, 5432, 5433].into(), ..plain() };
    let bypass = Options { inbound: Inbound::Bypass, ..plain() };
    let v4 = out_skip_cidrs(&["10.96.0.1/32", "192.168.0.0/16", "192.168.7.0/24"]);
    let v6 = out_skip_cidrs(&["fd00:96::1/128", "fd12::/16"]);
    let everything = out_skip_cidrs(&["0.0.0.0/0", "::/0"]);
    vec![
        ("plain", Ruleset::capture(&plain())),
        ("dns-on", Ruleset::capture(&dns)),
        ("probes", Ruleset::capture(&probes)),
        ("excluded-ports", Ruleset::capture(&ports)),
        ("excluded-networks-v4", Ruleset::capture(&v4)),
        ("excluded-networks-v6", Ruleset::capture(&v6)),
        ("excluded-everything", Ruleset::capture(&everything)),
        ("inbound-bypass", Ruleset::capture(&bypass)),
        ("drain", Ruleset::drain(&plain())),
        ("drain-dns-on", Ruleset::drain(&dns)),
    ]
}
