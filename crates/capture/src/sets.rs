//! What the named sets hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::model::{Element, Set, SetName};
use crate::options::{Options, PortRange};

/// All sets, the empty ones too.
pub(crate) fn sets(options: &Options) -> Vec<Set> {
    let probes = &options.probes;
    let (probes4, probes6): (Vec<IpAddr>, Vec<IpAddr>) =
        probes.sources.iter().partition(|source| source.is_ipv4());
    let probe = |sources: Vec<IpAddr>| -> Vec<Element> {
        let ports = |source| probes.ports.iter().map(move |&port| Element::Probe(source, port));
        sources.into_iter().flat_map(ports).collect()
    };
    let ports =
        |ranges: &BTreeSet<PortRange>| joined(ranges).into_iter().map(port_element).collect();
    let (v4, v6): (Vec<_>, Vec<_>) =
        outermost(&options.out_skip_cidrs).into_iter().partition(IpNetwork::is_ipv4);
    let networks = |list: Vec<IpNetwork>| list.into_iter().map(Element::Network).collect();
    vec![
        Set { name: SetName::Probe4, elements: probe(probes4) },
        Set { name: SetName::Probe6, elements: probe(probes6) },
        Set { name: SetName::InSkip, elements: ports(&options.in_skip) },
        Set { name: SetName::OutSkip, elements: ports(&options.out_skip) },
        Set { name: SetName::OutSkip4, elements: networks(v4) },
        Set { name: SetName::OutSkip6, elements: networks(v6) },
    ]
}

fn port_element(range: PortRange) -> Element {
    if range.first == range.last { Element::Port(range.first) } else { Element::Ports(range) }
}

/// The same ports in ranges that neither overlap nor touch: the kernel refuses the first
/// and shows the second joined.
fn joined(ranges: &BTreeSet<PortRange>) -> Vec<PortRange> {
    let mut joined: Vec<PortRange> = Vec::new();
    for &range in ranges.iter().filter(|range| range.first <= range.last) {
        match joined.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// The networks that no other one contains, without bits beyond their prefix: the kernel
/// refuses overlapping elements, and one pod's odd exclusions must not fail its capture.
fn outermost(networks: &BTreeSet<IpNetwork>) -> BTreeSet<IpNetwork> {
    let trimmed: BTreeSet<IpNetwork> = networks.iter().map(trim).collect();
    let contains = |outer: &IpNetwork, inner: &IpNetwork| {
        outer != inner && outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
    };
    trimmed
        .iter()
        .filter(|inner| !trimmed.iter().any(|outer| contains(outer, inner)))
        .copied()
        .collect()
}

fn trim(network: &IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).expect("the prefix was valid before")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[&str], kept: &[&str]) {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let (given, kept): (BTreeSet<IpNetwork>, BTreeSet<IpNetwork>) = (parse(given), parse(kept));
        assert_eq!(outermost(&given), kept, "of {given:?}");
    }

    #[test]
    fn networks_never_overlap() {
        check(&[], &[]);
        check(&["10.0.0.0/8", "192.0.2.0/24"], &["10.0.0.0/8", "192.0.2.0/24"]);
        check(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"], &["10.0.0.0/8"]);
        check(&["0.0.0.0/0", "10.0.0.0/8", "::/0"], &["0.0.0.0/0", "::/0"]);
        check(&["fd00::/8", "fd12::/16", "fe80::/10"], &["fd00::/8", "fe80::/10"]);
    }

    #[test]
    fn bits_beyond_the_prefix_do_not_count() {
        check(&["10.1.2.3/8", "10.0.0.0/8"], &["10.0.0.0/8"]);
        check(&["10.1.2.3/24", "10.1.2.200/24"], &["10.1.2.0/24"]);
        check(&["fd00::1/64"], &["fd00::/64"]);
    }

    #[test]
    fn ranges_of_ports_neither_overlap_nor_touch() {
        let range = |(first, last)| PortRange { first, last };
        for (given, kept) in [
            (vec![], vec![]),
            (vec![(22, 22), (80, 90)], vec![(22, 22), (80, 90)]),
            (vec![(80, 90), (85, 100), (82, 83)], vec![(80, 100)]),
            (vec![(80, 90), (91, 91), (93, 94)], vec![(80, 91), (93, 94)]),
            (vec![(1, 65535), (65535, 65535)], vec![(1, 65535)]),
            (vec![(9, 8)], vec![]),
        ] {
            let kept: Vec<_> = kept.into_iter().map(range).collect();
            assert_eq!(joined(&given.iter().copied().map(range).collect()), kept, "of {given:?}");
        }
    }

    #[test]
    fn one_family_does_not_contain_the_other() {
        check(&["0.0.0.0/0", "fd00::/8"], &["0.0.0.0/0", "fd00::/8"]);
        check(&["::/0", "10.0.0.0/8"], &["::/0", "10.0.0.0/8"]);
    }
}
