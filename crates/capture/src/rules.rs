//! The table of rules: which there are, in which order, and why.
//!
//! Two ideas carry all of it. *Only opens are redirected* (a SYN alone): connections that
//! are older than the rules have no redirect in conntrack and would be reset. And since
//! conntrack can be tricked into believing in a connection that was never redirected,
//! *guards* without any state reset every open that reaches an application or the wire
//! without a redirect or an exemption.

mod block;

use crate::model::{Action, AddrType, Chain, ChainName, Match, Rule, Ruleset, SetName};
use crate::options::{Dns, Inbound, Options, Uncaptured};
use crate::sets::sets;

/// Where name servers listen.
const DNS_PORT: u16 = 53;

impl Ruleset {
    /// The rules of a captured pod.
    #[must_use]
    pub fn capture(options: &Options) -> Self {
        let mut chains = zone_out(options);
        chains.extend([
            chain(ChainName::InExempt, in_exempt(options)),
            chain(ChainName::OutExempt, out_exempt(options)),
            chain(ChainName::MarkOut, mark_out(options)),
            chain(ChainName::NatPre, nat_pre(options)),
            chain(ChainName::NatOut, nat_out(options)),
            chain(ChainName::GuardInSyn, guard_in_syn(options)),
            chain(ChainName::GuardOutSyn, guard_out_syn()),
        ]);
        let (mut guard_in, mut guard_out) =
            (vec![guard(ChainName::GuardInSyn)], vec![guard(ChainName::GuardOutSyn)]);
        if options.uncaptured == Uncaptured::Block {
            chains.extend(block::chains(options));
            guard_in.push(block::jump(ChainName::BlockIn));
            guard_out.push(block::jump(ChainName::BlockOut));
        }
        chains.extend([chain(ChainName::GuardIn, guard_in), chain(ChainName::GuardOut, guard_out)]);
        Self { sets: sets(options), chains }
    }

    /// The rules of a pod that is being released: new connections are direct, redirected
    /// ones live on until they end or are ended.
    ///
    /// The NAT chains are empty but present, because the kernel translates established
    /// connections only while somebody hooks NAT; and conntrack stays because rules that
    /// ask it stay, above all [`ChainName::MarkOut`], which still leads answers back to
    /// the proxy. Of the guards only the one in front of the proxy's ports is left: its
    /// listeners are open until the very end.
    #[must_use]
    pub fn drain(options: &Options) -> Self {
        let mut chains = zone_out(options);
        chains.extend([
            chain(ChainName::MarkOut, mark_out(options)),
            chain(ChainName::NatPre, Vec::new()),
            chain(ChainName::NatOut, Vec::new()),
            chain(ChainName::GuardInSyn, vec![guard_proxy_ports(options)]),
            chain(ChainName::GuardIn, vec![guard(ChainName::GuardInSyn)]),
        ]);
        Self { sets: Vec::new(), chains }
    }
}

fn in_exempt(options: &Options) -> Vec<Rule> {
    vec![
        rule(
            [Match::TcpPort(options.ports.inbound_hbone)],
            [Action::Accept],
            "tunnels are for the proxy already",
        ),
        rule(
            [Match::In(SetName::Probe4)],
            [Action::Accept],
            "IPv4 probes of the host, on declared ports only",
        ),
        rule(
            [Match::In(SetName::Probe6)],
            [Action::Accept],
            "IPv6 probes of the host, on declared ports only",
        ),
        rule([Match::In(SetName::InSkip)], [Action::Accept], "excluded inbound ports"),
    ]
}

fn out_exempt(options: &Options) -> Vec<Rule> {
    vec![
        from_proxy(options),
        rule([Match::In(SetName::OutSkip)], [Action::Accept], "excluded outbound ports"),
        rule([Match::In(SetName::OutSkip4)], [Action::Accept], "excluded IPv4 destinations"),
        rule([Match::In(SetName::OutSkip6)], [Action::Accept], "excluded IPv6 destinations"),
    ]
}

/// Proxy and application ask the same resolvers from the same range of ports, one after the
/// other. For half a minute after a lookup conntrack would treat the next one with equal
/// addresses and ports alike: send the proxy's to itself, or the application's past it.
fn zone_out(options: &Options) -> Vec<Chain> {
    let rule = rule(
        [Match::PacketMark(options.packet_mark), Match::UdpPort(DNS_PORT)],
        [Action::OwnZone],
        "the proxy's lookups are not the application's",
    );
    match options.dns {
        Dns::Off => Vec::new(),
        Dns::On => vec![chain(ChainName::ZoneOut, vec![rule])],
    }
}

fn mark_out(options: &Options) -> Vec<Rule> {
    vec![
        rule([Match::NotTcp], [Action::Accept], "only TCP is routed by mark"),
        rule(
            [Match::ToLoopback, Match::PacketMark(options.packet_mark), Match::New],
            [Action::MarkConnection(options.connmark), Action::Accept],
            "remember connections from proxy to application",
        ),
        rule(
            [Match::Answer, Match::ConnMark(options.connmark)],
            [Action::MarkPacket(options.connmark)],
            "the application's answers go back to the proxy",
        ),
    ]
}

fn nat_pre(options: &Options) -> Vec<Rule> {
    let mut rules = vec![
        rule([Match::FromLoopback], [Action::Accept], "the pod to itself, the proxy to it"),
        rule([Match::NotTcp], [Action::Accept], "only TCP is captured on arrival"),
        only_opens(),
    ];
    if !options.guests.is_empty() {
        rules.extend([
            rule(
                [from_guests(options)],
                [Action::Jump(ChainName::OutExempt)],
                "exemptions of what guests open",
            ),
            rule(
                [Match::Tcp, from_guests(options)],
                [Action::Redirect(options.ports.outbound)],
                "what guests open is outbound",
            ),
        ]);
    }
    rules.extend([
        rule(
            [Match::Tcp, Match::NotTo(AddrType::Local)],
            [Action::Jump(ChainName::OutExempt)],
            "exemptions of what nested containers open",
        ),
        rule(
            [Match::Tcp, Match::NotTo(AddrType::Local)],
            [Action::Redirect(options.ports.outbound)],
            "what nested containers open is outbound",
        ),
        rule(
            [Match::TcpPorts(guarded_ports(options))],
            [Action::Accept],
            "dialled at the proxy itself: left for the guard to reset",
        ),
    ]);
    if options.inbound == Inbound::Capture {
        rules.extend([
            jump(ChainName::InExempt),
            rule(
                [Match::Tcp],
                [Action::Redirect(options.ports.inbound_plain)],
                "capture what arrives",
            ),
        ]);
    }
    rules
}

fn nat_out(options: &Options) -> Vec<Rule> {
    let mut rules = vec![
        rule([Match::ToLoopback], [Action::Accept], "loopback and the pod's own addresses"),
        // Also in out_exempt, but lookups of the proxy must pass before the DNS redirects.
        from_proxy(options),
    ];
    if options.dns == Dns::On {
        // A redirect leads to loopback, and such a lookup is bound to another interface.
        rules.push(rule(
            [Match::UdpPort(DNS_PORT), Match::ToLinkLocal6],
            [Action::Accept],
            "lookups at link-local IPv6 addresses cannot be redirected",
        ));
        rules.push(rule(
            [Match::UdpPort(DNS_PORT), Match::To(AddrType::Unicast)],
            [Action::Redirect(options.ports.dns)],
            "lookups over UDP; multicast names stay direct",
        ));
    }
    rules.push(rule([Match::NotTcp], [Action::Accept], "only TCP is captured on its way out"));
    rules.push(only_opens());
    if options.dns == Dns::On {
        rules.push(rule(
            [Match::TcpPort(DNS_PORT)],
            [Action::Redirect(options.ports.dns)],
            "lookups over TCP",
        ));
    }
    rules.push(jump(ChainName::OutExempt));
    rules.push(rule(
        [Match::Tcp],
        [Action::Redirect(options.ports.outbound)],
        "capture what the pod opens",
    ));
    rules
}

fn guard_in_syn(options: &Options) -> Vec<Rule> {
    let mut rules = vec![guard_proxy_ports(options)];
    if options.inbound == Inbound::Capture {
        rules.extend([
            rule([Match::FromLoopback], [Action::Return], "the pod to itself, the proxy to it"),
            rule(
                [Match::TcpPorts(vec![options.ports.outbound, options.ports.inbound_plain])],
                [Action::Return],
                "captured",
            ),
        ]);
        if !options.guests.is_empty() {
            rules.push(rule(
                [from_guests(options)],
                [Action::Jump(ChainName::OutExempt)],
                "exemptions of what guests open",
            ));
        }
        rules.extend([
            jump(ChainName::InExempt),
            rule([Match::Tcp], [Action::Reset], "an arriving open that escaped the redirect"),
        ]);
    }
    rules
}

fn guard_out_syn() -> Vec<Rule> {
    vec![
        // Not by interface: after a redirect the filter hook still sees the old one.
        rule([Match::To(AddrType::Local)], [Action::Return], "captured, or the pod to itself"),
        jump(ChainName::OutExempt),
        rule([Match::Tcp], [Action::Reset], "a leaving open that escaped the redirect"),
    ]
}

fn guard_proxy_ports(options: &Options) -> Rule {
    rule(
        [Match::TcpPorts(guarded_ports(options)), Match::NotRedirected],
        [Action::Reset],
        "nobody dials the proxy's ports",
    )
}

/// Ports of ours that only redirected connections may reach. The tunnel port is not among
/// them, and the DNS port only while it is ours.
fn guarded_ports(options: &Options) -> Vec<u16> {
    let ports = options.ports;
    match options.dns {
        Dns::Off => vec![ports.outbound, ports.inbound_plain],
        Dns::On => vec![ports.outbound, ports.inbound_plain, ports.dns],
    }
}

fn guard(target: ChainName) -> Rule {
    rule([Match::Open], [Action::Jump(target)], "only opens are guarded")
}

fn only_opens() -> Rule {
    rule([Match::NotOpen], [Action::Accept], "connections older than these rules stay direct")
}

fn from_proxy(options: &Options) -> Rule {
    rule([Match::PacketMark(options.packet_mark)], [Action::Accept], "the proxy's own sockets")
}

fn from_guests(options: &Options) -> Match {
    Match::FromInterfaces(options.guests.iter().cloned().collect())
}

fn jump(target: ChainName) -> Rule {
    rule([], [Action::Jump(target)], "exemptions")
}

fn rule<const M: usize, const A: usize>(
    when: [Match; M],
    then: [Action; A],
    reason: &'static str,
) -> Rule {
    Rule { when: when.into(), then: then.into(), reason }
}

fn chain(name: ChainName, rules: Vec<Rule>) -> Chain {
    Chain { name, rules }
}

#[cfg(test)]
mod tests;
