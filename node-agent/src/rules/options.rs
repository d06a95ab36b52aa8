//! The rules that the contract with ztunnel asks for.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use capture::{Dns, Inbound, Options, Ports, Probes, Uncaptured};

/// The source that the host gives to IPv4 probes, as in Istio's rules: link-local, so that
/// nobody routes it.
pub const PROBE_SOURCE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);
/// The same for IPv6, in a range of unique local addresses.
pub(super) const PROBE_SOURCE_V6: Ipv6Addr =
    Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);

/// The rules of every captured pod, as far as the contract with ztunnel decides them.
/// Name lookups stay direct: whether ztunnel answers them is a setting.
#[must_use]
pub fn contract_options() -> Options {
    let mark = |mark: zds::Mark| capture::Mark { value: mark.value, mask: mark.mask };
    Options {
        ports: Ports {
            outbound: zds::port::OUTBOUND,
            inbound_plain: zds::port::INBOUND_PLAIN,
            inbound_hbone: zds::port::INBOUND_HBONE,
            dns: zds::port::DNS,
        },
        packet_mark: mark(zds::PACKET_MARK),
        connmark: mark(zds::CONNMARK),
        dns: Dns::Off,
        probes: Probes {
            sources: [PROBE_SOURCE_V4.into(), PROBE_SOURCE_V6.into()].into(),
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
