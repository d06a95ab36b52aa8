//! What is refused in a pod that wants nothing to pass which cannot be captured.
//!
//! Everything is judged packet by packet, without asking what conntrack remembers, so that
//! it also ends what was under way before. Two kinds of answers are told by conntrack,
//! and only from where the pod may send to: from name servers that the proxy asks, and
//! from excluded destinations.

use super::{DNS_PORT, chain, from_proxy, rule};
use crate::model::{Action, AddrType, Chain, ChainName, Match, Rule, SetName};
use crate::options::{Dns, Options};

/// The chains that refuse, and the one in front of them that nothing else needs.
pub(super) fn chains(options: &Options) -> Vec<Chain> {
    vec![
        chain(ChainName::BlockIn, arriving(options)),
        chain(ChainName::BlockOut, leaving(options)),
        chain(ChainName::BlockForward, passing()),
        chain(ChainName::GuardForward, vec![jump(ChainName::BlockForward)]),
    ]
}

pub(super) fn jump(target: ChainName) -> Rule {
    rule([Match::NotTcp], [Action::Jump(target)], "what cannot be captured is blocked")
}

fn leaving(options: &Options) -> Vec<Rule> {
    let mut rules = vec![
        icmp(),
        // Not by interface: after a redirect the filter hook still sees the old one.
        rule(
            [Match::To(AddrType::Local)],
            [Action::Accept],
            "captured lookups, and the pod to itself",
        ),
        from_proxy(options),
    ];
    rules.extend(to_excluded());
    rules.push(refusal());
    rules
}

fn arriving(options: &Options) -> Vec<Rule> {
    let mut rules =
        vec![icmp(), rule([Match::FromLoopback], [Action::Accept], "the pod to itself")];
    if options.dns == Dns::On {
        rules.push(rule(
            [Match::FromUdpPort(DNS_PORT), Match::Answer],
            [Action::Accept],
            "answers to the proxy's lookups",
        ));
    }
    rules.extend(from_excluded());
    rules.push(refusal());
    rules
}

/// Of nested containers.
fn passing() -> Vec<Rule> {
    let mut rules = vec![icmp()];
    rules.extend(to_excluded());
    rules.extend(from_excluded());
    rules.push(refusal());
    rules
}

fn icmp() -> Rule {
    rule([Match::Icmp], [Action::Accept], "errors, path MTU, neighbours and echo always pass")
}

fn to_excluded() -> [Rule; 2] {
    [
        rule([Match::In(SetName::OutSkip4)], [Action::Accept], "to excluded IPv4 destinations"),
        rule([Match::In(SetName::OutSkip6)], [Action::Accept], "to excluded IPv6 destinations"),
    ]
}

fn from_excluded() -> [Rule; 2] {
    let answers =
        |set, reason| rule([Match::Answer, Match::FromAny(set)], [Action::Accept], reason);
    [
        answers(SetName::OutSkip4, "answers of excluded IPv4 destinations"),
        answers(SetName::OutSkip6, "answers of excluded IPv6 destinations"),
    ]
}

fn refusal() -> Rule {
    rule([], [Action::Refuse], "neither captured nor excluded")
}
