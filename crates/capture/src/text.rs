//! The ruleset in nft's own words: for golden files, logs and people.

use std::fmt::{self, Display, Formatter};

use crate::TABLE;
use crate::model::{
    Action, AddrType, Chain, ChainName, Element, HookKind, HookPoint, Match, OWN_ZONE, Rule,
    Ruleset, Set, SetName,
};

/// Prints a table that `nft -f` loads. The JSON of [`crate::replace`] says the same.
impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {TABLE} {{")?;
        for set in &self.sets {
            set.fmt(f)?;
        }
        for chain in &self.chains {
            chain.fmt(f)?;
        }
        writeln!(f, "}}")
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "  set {} {{ type {};", self.name.as_str(), set_type(self.name))?;
        if self.name.has_intervals() {
            f.write_str(" flags interval;")?;
        }
        if !self.elements.is_empty() {
            write!(f, " elements = {{ {} }};", Joined(&self.elements, ", "))?;
        }
        writeln!(f, " }}")
    }
}

fn set_type(name: SetName) -> &'static str {
    match name {
        SetName::Probe4 => "ipv4_addr . inet_service",
        SetName::Probe6 => "ipv6_addr . inet_service",
        SetName::InSkip | SetName::OutSkip => "inet_service",
        SetName::OutSkip4 => "ipv4_addr",
        SetName::OutSkip6 => "ipv6_addr",
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => port.fmt(f),
            Self::Ports(range) => write!(f, "{}-{}", range.first, range.last),
            Self::Network(network) => network.fmt(f),
            Self::Probe(source, port) => write!(f, "{source} . {port}"),
        }
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "  chain {} {{", self.name.as_str())?;
        if let Some(hook) = self.name.hook() {
            let (kind, point) = (hook.kind.as_str(), hook.point.as_str());
            let priority = hook.priority;
            writeln!(f, "    type {kind} hook {point} priority {priority}; policy accept;")?;
        }
        for rule in &self.rules {
            writeln!(f, "    {rule}")?;
        }
        writeln!(f, "  }}")
    }
}

impl Display for ChainName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl HookKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        }
    }
}

impl HookPoint {
    fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for part in &self.when {
            write!(f, "{part} ")?;
        }
        for action in &self.then {
            write!(f, "{action} ")?;
        }
        write!(f, "comment \"{}\"", self.reason)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("meta l4proto tcp"),
            Self::NotTcp => f.write_str("meta l4proto != tcp"),
            Self::Open => f.write_str("tcp flags & (fin | syn | rst | ack) == syn"),
            Self::NotOpen => f.write_str("tcp flags & (fin | syn | rst | ack) != syn"),
            Self::FromLoopback => f.write_str("iifname \"lo\""),
            Self::ToLoopback => f.write_str("oifname \"lo\""),
            Self::FromInterfaces(names) => {
                let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
                write!(f, "iifname {{ {} }}", Joined(&quoted, ", "))
            }
            Self::Icmp => f.write_str("meta l4proto { icmp, ipv6-icmp }"),
            Self::PacketMark(mark) => {
                write!(f, "meta mark & {:#x} == {:#x}", mark.mask, mark.value)
            }
            Self::ConnMark(mark) => write!(f, "ct mark & {:#x} == {:#x}", mark.mask, mark.value),
            Self::New => f.write_str("ct state new"),
            Self::Answer => f.write_str("ct direction reply"),
            Self::TcpPort(port) => write!(f, "tcp dport {port}"),
            Self::TcpPorts(ports) => write!(f, "tcp dport {{ {} }}", Joined(ports, ", ")),
            Self::UdpPort(port) => write!(f, "udp dport {port}"),
            Self::FromUdpPort(port) => write!(f, "udp sport {port}"),
            Self::FromAny(set) => {
                write!(f, "{} @{}", looked_up(*set).replace("daddr", "saddr"), set.as_str())
            }
            Self::In(set) => write!(f, "{} @{}", looked_up(*set), set.as_str()),
            Self::ToLinkLocal6 => f.write_str("ip6 daddr fe80::/10"),
            Self::To(kind) => write!(f, "fib daddr type {}", kind.as_str()),
            Self::NotTo(kind) => write!(f, "fib daddr type != {}", kind.as_str()),
            Self::NotRedirected => f.write_str("ct status & dnat == 0"),
        }
    }
}

fn looked_up(set: SetName) -> &'static str {
    match set {
        SetName::Probe4 => "ip saddr . tcp dport",
        SetName::Probe6 => "ip6 saddr . tcp dport",
        SetName::InSkip | SetName::OutSkip => "tcp dport",
        SetName::OutSkip4 => "ip daddr",
        SetName::OutSkip6 => "ip6 daddr",
    }
}

impl AddrType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Unicast => "unicast",
        }
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Return => f.write_str("return"),
            Self::Reset => f.write_str("reject with tcp reset"),
            Self::Refuse => f.write_str("reject with icmpx type admin-prohibited"),
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::OwnZone => write!(f, "ct original zone set {OWN_ZONE}"),
            Self::MarkConnection(mark) => {
                write!(f, "ct mark set ct mark & {:#x} | {:#x}", !mark.mask, mark.value)
            }
            Self::MarkPacket(mark) => {
                write!(f, "meta mark set meta mark & {:#x} | {:#x}", !mark.mask, mark.value)
            }
        }
    }
}

/// Prints a list with something between its items.
struct Joined<'a, T>(&'a [T], &'static str);

impl<T: Display> Display for Joined<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(self.1)?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}
