//! Why a probe does not arrive, as far as the node shows it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::test_pod::Family;

/// How a test's connection ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// The test itself could not be made.
    Setup(String),
    /// It was taken for ordinary traffic, coming from this address.
    Captured(IpAddr),
    /// It reached the application from this address.
    Source(IpAddr),
    /// The node was refused.
    Dial(io::Error),
    /// Nothing came of it in time.
    Silent,
}

/// What may be in a probe's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// IPv6 is switched on.
    pub(super) v6: bool,
    /// The node drops what comes in where it would not go out.
    strict_reverse_path: bool,
    /// Cilium manages the node's pods.
    pub(super) cilium: bool,
    /// Cilium translates addresses by eBPF.
    cilium_bpf_nat: bool,
    /// Cilium translates services when a socket connects.
    cilium_socket_lb: bool,
    /// Calico's eBPF data plane is on.
    calico_bpf: bool,
}

impl Surroundings {
    /// Looks around in the calling thread's namespace. What cannot be seen is not there: the
    /// agent may lack the file system that would show it.
    pub(super) fn look() -> Self {
        let is = |file: &str, value: &str| {
            fs::read_to_string(file).is_ok_and(|text| text.trim() == value)
        };
        let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let has = |name| links.lines().any(|line| line.trim_start().starts_with(name));
        let pinned = |path| Path::new("/sys/fs/bpf").join(path).exists();
        Self {
            v6: is("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0"),
            strict_reverse_path: is("/proc/sys/net/ipv4/conf/all/rp_filter", "1"),
            cilium: has("cilium_host:"),
            cilium_bpf_nat: pinned("tc/globals/cilium_snat_v4_external"),
            cilium_socket_lb: pinned("cilium/socketlb/links/cgroup/cil_sock4_connect"),
            calico_bpf: has("bpfin.cali:"),
        }
    }

    /// What to try, most likely first.
    fn hints(&self) -> Vec<&'static str> {
        let all = [
            (
                self.cilium_bpf_nat,
                "Cilium routes and translates by eBPF: answers need the route to the probes' \
                 source (ip route show table local), and a host firewall or default-deny policy \
                 must allow it",
            ),
            (
                self.cilium && !self.cilium_bpf_nat,
                "Cilium manages this node: a host firewall or default-deny policy must allow the \
                 probes' source",
            ),
            (
                self.cilium_socket_lb,
                "Cilium balances services at connect(): set socketLB.hostNamespaceOnly=true",
            ),
            (self.calico_bpf, "Calico's eBPF data plane is on: it passes by the host's NAT rules"),
            (
                self.strict_reverse_path,
                "net.ipv4.conf.all.rp_filter=1 drops answers that come in where they would not \
                 go out: set it to 2",
            ),
        ];
        all.into_iter().filter_map(|(seen, hint)| seen.then_some(hint)).collect()
    }
}

/// Says what was seen and what probably stands behind it.
pub(super) fn explain(family: Family, failure: &Failure, surroundings: &Surroundings) -> String {
    let Family { name, marker, .. } = family;
    let (seen, likely) = match failure {
        Failure::Setup(reason) => return format!("the test could not be made: {reason}"),
        Failure::Captured(from) | Failure::Source(from) => (
            format!("an {name} probe came from {from} instead of {marker}"),
            "another NAT rule of this host translates it before ours (postrouting, priority \
             below 90)",
        ),
        Failure::Dial(error) => (
            format!("an {name} probe failed: {error}"),
            "a firewall of this host refuses connections to pods",
        ),
        Failure::Silent => (
            format!("an {name} probe was not answered"),
            "a firewall of this host drops what comes from the probes' address or goes there",
        ),
    };
    let hints = surroundings.hints();
    let likely = if hints.is_empty() { likely.to_owned() } else { hints.join("; or ") };
    format!("{seen}: {likely}")
}

#[cfg(test)]
mod tests {
    use super::super::test_pod::V4;
    use super::*;

    fn check(failure: &Failure, surroundings: &Surroundings, expected: &[&str]) {
        let text = explain(V4, failure, surroundings);
        for part in expected {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_was_seen_comes_first_then_the_likely_cause() {
        let clear = Surroundings::default();
        let from = "10.0.0.9".parse().unwrap();
        check(&Failure::Source(from), &clear, &["10.0.0.9 instead of 169.254.7.127", "NAT rule"]);
        check(&Failure::Captured(from), &clear, &["10.0.0.9", "priority"]);
        check(&Failure::Silent, &clear, &["IPv4 probe was not answered", "firewall"]);
        check(&Failure::Setup("no veth".into()), &clear, &["could not be made: no veth"]);
    }

    #[test]
    fn the_network_in_use_is_named() {
        let cilium = Surroundings {
            cilium: true,
            cilium_bpf_nat: true,
            cilium_socket_lb: true,
            ..Surroundings::default()
        };
        check(&Failure::Silent, &cilium, &["answers need the route", "socketLB.hostNamespaceOnly"]);
        let calico = Surroundings { calico_bpf: true, ..Surroundings::default() };
        check(&Failure::Silent, &calico, &["Calico's eBPF"]);
        let strict = Surroundings { strict_reverse_path: true, ..Surroundings::default() };
        check(&Failure::Silent, &strict, &["rp_filter=1"]);
    }
}
