//! Sets, chains and rules as values.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::options::{Mark, PortRange};

/// The contents of our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Named sets; empty ones too, so that exclusions come and go without touching chains.
    pub sets: Vec<Set>,
    /// Chains with their rules.
    pub chains: Vec<Chain>,
}

/// A named set and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Which set.
    pub name: SetName,
    /// Without duplicates or overlaps.
    pub elements: Vec<Element>,
}

/// The named sets; each has one fixed type and is looked up by one fixed part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetName {
    /// IPv4 probe source and probe port.
    Probe4,
    /// IPv6 probe source and probe port.
    Probe6,
    /// Excluded ports of the pod.
    InSkip,
    /// Excluded destination ports.
    OutSkip,
    /// Excluded IPv4 destinations.
    OutSkip4,
    /// Excluded IPv6 destinations.
    OutSkip6,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// A TCP port.
    Port(u16),
    /// More than one TCP port.
    Ports(PortRange),
    /// A network.
    Network(IpNetwork),
    /// A source address together with a TCP port.
    Probe(IpAddr, u16),
}

/// A chain and its rules in order. The policy of all base chains is accept: packets that
/// no rule speaks about are none of our business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Which chain.
    pub name: ChainName,
    /// Evaluated from the first to the last.
    pub rules: Vec<Rule>,
}

/// The chains; the variant decides where the kernel calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainName {
    /// Inbound connections left alone. Accepting here ends the calling base chain, so
    /// redirects and guards cannot disagree about exemptions.
    InExempt,
    /// Outbound connections left alone, in the same way.
    OutExempt,
    /// Before conntrack sees what leaves: keeps the proxy's lookups apart.
    ZoneOut,
    /// Route hook of locally made packets: marks answers to the proxy.
    MarkOut,
    /// Redirects what arrives.
    NatPre,
    /// Redirects what the pod opens.
    NatOut,
    /// Input filter: sends opens to [`ChainName::GuardInSyn`].
    GuardIn,
    /// Resets what no redirect has seen.
    GuardInSyn,
    /// Output filter: sends opens to [`ChainName::GuardOutSyn`].
    GuardOut,
    /// Resets what no redirect has seen.
    GuardOutSyn,
    /// Forward filter, for traffic of nested containers: sends what is not TCP to
    /// [`ChainName::BlockForward`].
    GuardForward,
    /// Refuses what arrives and cannot be captured.
    BlockIn,
    /// Refuses what the pod sends and cannot be captured.
    BlockOut,
    /// Refuses what nested containers send or get and cannot be captured.
    BlockForward,
}

/// One rule: when all matches hold, the actions are done in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold; none means always.
    pub when: Vec<Match>,
    /// Done in order; at most the last one is a verdict.
    pub then: Vec<Action>,
    /// Why the rule is there. It becomes the rule's comment in the kernel.
    pub reason: &'static str,
}

/// One test of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet is TCP.
    Tcp,
    /// The packet is anything but TCP.
    NotTcp,
    /// Of SYN, ACK, FIN and RST only SYN is set.
    Open,
    /// Any other combination.
    NotOpen,
    /// It came in over the loopback interface.
    FromLoopback,
    /// It leaves over the loopback interface: addressed to this pod.
    ToLoopback,
    /// It came in over one of these interfaces.
    FromInterfaces(Vec<String>),
    /// ICMP of either family.
    Icmp,
    /// The packet carries this mark.
    PacketMark(Mark),
    /// The connection carries this mark.
    ConnMark(Mark),
    /// The first packet of a connection.
    New,
    /// The packet answers the one who opened the connection.
    Answer,
    /// TCP, to this port.
    TcpPort(u16),
    /// TCP, to one of these ports.
    TcpPorts(Vec<u16>),
    /// UDP, to this port.
    UdpPort(u16),
    /// UDP, from this port.
    FromUdpPort(u16),
    /// The part that the set is about is in it; where that has a port, it is TCP.
    In(SetName),
    /// The source is in a set of destinations: it answers one of them.
    FromAny(SetName),
    /// The destination is an IPv6 address that means something on one interface only.
    ToLinkLocal6,
    /// The destination is of this kind, as routing sees it.
    To(AddrType),
    /// The destination is not of this kind.
    NotTo(AddrType),
    /// No redirect has changed the connection's destination.
    NotRedirected,
}

/// Kinds of addresses that routing tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddrType {
    /// An address of this namespace.
    Local,
    /// One host elsewhere; not broadcast, multicast or ourselves.
    Unicast,
}

/// What is done to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave the packet alone: ends this hook.
    Accept,
    /// Go back to the calling chain; in a base chain, leave the packet alone.
    Return,
    /// Answer with a TCP reset.
    Reset,
    /// Drop, and tell the sender by ICMP that it is forbidden.
    Refuse,
    /// Send the connection to this port of the pod itself.
    Redirect(u16),
    /// Continue in another chain, then here.
    Jump(ChainName),
    /// Keep the connection apart from others between the same addresses and ports: what
    /// opens it is looked up in a conntrack zone of its own. Answers are in no zone.
    OwnZone,
    /// Set the connection's mark, within its mask.
    MarkConnection(Mark),
    /// Set the packet's mark, within its mask.
    MarkPacket(Mark),
}

/// Where the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) kind: HookKind,
    pub(crate) point: HookPoint,
    pub(crate) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    Filter,
    Nat,
    Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
}

/// Five before the place where nft and iptables put the NAT of everybody else (-100), so
/// that an application's own NAT rules cannot take a connection away first.
const NAT_PRIORITY: i32 = -105;

/// The conntrack zone of the proxy's lookups, as in Istio's rules.
pub(crate) const OWN_ZONE: u16 = 1;

impl ChainName {
    /// The name in the kernel.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InExempt => "in_exempt",
            Self::OutExempt => "out_exempt",
            Self::ZoneOut => "zone_out",
            Self::MarkOut => "mark_out",
            Self::NatPre => "nat_pre",
            Self::NatOut => "nat_out",
            Self::GuardIn => "guard_in",
            Self::GuardInSyn => "guard_in_syn",
            Self::GuardOut => "guard_out",
            Self::GuardOutSyn => "guard_out_syn",
            Self::GuardForward => "guard_fwd",
            Self::BlockIn => "block_in",
            Self::BlockOut => "block_out",
            Self::BlockForward => "block_fwd",
        }
    }

    /// `None` for chains that are only jumped to.
    pub(crate) fn hook(self) -> Option<Hook> {
        let (kind, point, priority) = match self {
            // The place of the raw table: conntrack comes at -200.
            Self::ZoneOut => (HookKind::Filter, HookPoint::Output, -300),
            // The place of the mangle table: before routing is decided again.
            Self::MarkOut => (HookKind::Route, HookPoint::Output, -150),
            Self::NatPre => (HookKind::Nat, HookPoint::Prerouting, NAT_PRIORITY),
            Self::NatOut => (HookKind::Nat, HookPoint::Output, NAT_PRIORITY),
            Self::GuardIn => (HookKind::Filter, HookPoint::Input, 0),
            Self::GuardOut => (HookKind::Filter, HookPoint::Output, 0),
            Self::GuardForward => (HookKind::Filter, HookPoint::Forward, 0),
            Self::InExempt | Self::OutExempt | Self::GuardInSyn | Self::GuardOutSyn => return None,
            Self::BlockIn | Self::BlockOut | Self::BlockForward => return None,
        };
        Some(Hook { kind, point, priority })
    }
}

impl SetName {
    /// The name in the kernel.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probe4 => "probe4",
            Self::Probe6 => "probe6",
            Self::InSkip => "in_skip",
            Self::OutSkip => "out_skip",
            Self::OutSkip4 => "out_skip4",
            Self::OutSkip6 => "out_skip6",
        }
    }

    /// Sets of networks and ports hold intervals, so that a prefix is one element.
    pub(crate) fn has_intervals(self) -> bool {
        !matches!(self, Self::Probe4 | Self::Probe6)
    }
}
