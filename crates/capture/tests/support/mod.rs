//! Rulesets that the tests share.

use std::collections::BTreeSet;

use capture::{Dns, Inbound, Mark, Options, PortRange, Ports, Probes, Ruleset, Uncaptured};

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
        guests: BTreeSet::new(),
        uncaptured: Uncaptured::Pass,
    }
}

/// Single ports as a set of ranges.
pub fn ports(ports: &[u16]) -> BTreeSet<PortRange> {
    ports.iter().map(|&port| port.into()).collect()
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
    let mut some_ports =
        Options { in_skip: ports(&[22, 9100]), out_skip: ports(&[25, 5432, 5433]), ..plain() };
    some_ports.in_skip.insert(PortRange { first: 8000, last: 8010 });
    let guests: BTreeSet<String> = ["k6t-eth0", "vnet1"].map(String::from).into();
    let guests = Options { guests, ..plain() };
    let block = Options { uncaptured: Uncaptured::Block, ..plain() };
    let block_dns = Options { dns: Dns::On, ..block.clone() };
    let bypass = Options { inbound: Inbound::Bypass, ..plain() };
    let v4 = out_skip_cidrs(&["10.96.0.1/32", "192.168.0.0/16", "192.168.7.0/24"]);
    let v6 = out_skip_cidrs(&["fd00:96::1/128", "fd12::/16"]);
    let everything = out_skip_cidrs(&["0.0.0.0/0", "::/0"]);
    vec![
        ("plain", Ruleset::capture(&plain())),
        ("dns-on", Ruleset::capture(&dns)),
        ("probes", Ruleset::capture(&probes)),
        ("excluded-ports", Ruleset::capture(&some_ports)),
        ("excluded-networks-v4", Ruleset::capture(&v4)),
        ("excluded-networks-v6", Ruleset::capture(&v6)),
        ("excluded-everything", Ruleset::capture(&everything)),
        ("inbound-bypass", Ruleset::capture(&bypass)),
        ("guests", Ruleset::capture(&guests)),
        ("block", Ruleset::capture(&block)),
        ("block-dns-on", Ruleset::capture(&block_dns)),
        ("drain", Ruleset::drain(&plain())),
        ("drain-dns-on", Ruleset::drain(&dns)),
    ]
}
