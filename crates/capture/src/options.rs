//! What distinguishes one pod's rules from another's.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// Everything that decides a pod's rules. Equal options give equal rules, so a reference
/// listing can be kept per distinct value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Where the in-pod listeners are.
    pub ports: Ports,
    /// Carried by every packet of the proxy's own sockets.
    pub packet_mark: Mark,
    /// Given to connections that the proxy opens to the application, and to the packets
    /// that answer them. Policy routing leads those back to the proxy.
    pub connmark: Mark,
    /// Whether name lookups go to the proxy.
    pub dns: Dns,
    /// Which probes of the host reach the application directly.
    pub probes: Probes,
    /// Ports of the pod that stay direct for those who dial them.
    pub in_skip: BTreeSet<PortRange>,
    /// Ports that the pod dials directly wherever they are.
    pub out_skip: BTreeSet<PortRange>,
    /// Destinations that the pod dials directly. Bits beyond the prefix are ignored, and
    /// networks may contain each other.
    pub out_skip_cidrs: BTreeSet<IpNetwork>,
    /// What happens to plaintext connections that arrive at the pod.
    pub inbound: Inbound,
    /// Interfaces of the pod behind which guests are: what arrives there is outbound,
    /// wherever it is addressed to.
    pub guests: BTreeSet<String>,
    /// What happens to traffic that cannot be captured.
    pub uncaptured: Uncaptured,
}

/// Ports from the first to the last, both included. A first after the last is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Whether the port is among them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

/// What happens to traffic that cannot be captured: everything but TCP and redirected
/// lookups. ICMP, ICMPv6 and what stays in the pod always pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Uncaptured {
    /// It goes where the pod sends it.
    Pass,
    /// It is refused in both directions, but to excluded destinations.
    Block,
}

/// The in-pod listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    /// Receives what the pod's applications open.
    pub outbound: u16,
    /// Receives plaintext connections that arrive at the pod.
    pub inbound_plain: u16,
    /// Receives tunnels; reached directly, never by a redirect.
    pub inbound_hbone: u16,
    /// Receives name lookups, over UDP and TCP.
    pub dns: u16,
}

/// A packet or connection mark and the bits of it that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The value within the mask.
    pub value: u32,
    /// The bits that belong to us; all others stay as they are.
    pub mask: u32,
}

/// Whether name lookups go to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dns {
    /// They go where the pod sends them. The port of the DNS listener is then like any
    /// other: nothing of ours listens there, so it is neither left out of the capture
    /// nor guarded.
    Off,
    /// UDP and TCP lookups to port 53 are redirected.
    On,
}

/// Probes that the host sends, told from other traffic by their source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probes {
    /// Where probes come from, in either family: the addresses that the host puts on
    /// them, or all of its own.
    pub sources: BTreeSet<IpAddr>,
    /// The ports that the pod declares for probes; no other port is exempt.
    pub ports: BTreeSet<u16>,
}

/// What happens to plaintext connections that arrive at the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inbound {
    /// They are redirected to the proxy.
    Capture,
    /// They reach the application directly, as a gateway needs it; what the pod opens is
    /// captured all the same.
    Bypass,
}
