//! The host's rules: which connections of the node itself are probes, and nobody else's.
//!
//! A pod cannot tell the kubelet from other traffic of its node: the address is the same
//! for a process of the node and for a client that came in by a NodePort. So the host puts
//! an address on probes that nobody else has, and drops what comes from elsewhere and bears
//! it:
//!
//! ```text
//! kubelet ─► nat_post: a socket of this host, not led here by NAT, to a declared
//!            (pod address, probe port)  ─► source := the marker ─► pod: @probe4, @probe6
//! anybody else ─► guard: from outside, source = the marker ─► dropped
//! whoever sends to the marker, and is not answering ─► strays ─► dropped
//! ```
//!
//! Two tables of one name: `inet` for what the host routes, `bridge` for what it only
//! switches from one pod to another.

mod elements;
mod listing;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nftables::batch::Batch;
use nftables::expr::{Expression, MetaKey, NamedExpression};
use nftables::schema::{Chain, NfListObject, Rule, Set, SetType, SetTypeValue, Table};
use nftables::stmt::{Match, NAT, NATFamily, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use crate::json::expr::{address, dnat_bit, meta, payload, word};
use crate::json::print;

pub use listing::{HostDrift, HostListing};

/// Name of our tables on the host, in the families `inet` and `bridge`.
pub const HOST_TABLE: &str = "sluice_host";

const PROBE4: &str = "probe4";
const PROBE6: &str = "probe6";
const NAT_POST: &str = "nat_post";
const GUARD: &str = "guard";
const STRAYS: &str = "strays";

/// Before everybody's masquerade (100), which would leave no choice of source.
const SNAT_PRIORITY: i32 = 90;
/// The place of the raw table: before conntrack remembers anything about a forgery.
const GUARD_PRIORITY: i32 = -300;
/// Answers have their true destination back before any input chain.
const STRAYS_PRIORITY: i32 = -300;

/// Where one pod is probed: its address, and a port that it declares for probes.
pub type Exemption = (IpAddr, u16);

/// Everything that decides the host's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRules {
    /// The source that IPv4 probes are given.
    pub v4: Ipv4Addr,
    /// The source that IPv6 probes are given.
    pub v6: Ipv6Addr,
    /// What is probed.
    pub exemptions: BTreeSet<Exemption>,
}

impl HostRules {
    /// Input for `nft -j -f -` that puts these rules in the place of whatever our tables
    /// held, in one transaction.
    #[must_use]
    pub fn replace(&self) -> String {
        let mut batch = removal();
        for family in FAMILIES {
            batch.add(table(family));
        }
        for set in [elements::PROBES4, elements::PROBES6] {
            batch.add(NfListObject::Set(Box::new(self.set(&set))));
        }
        for chain in chains() {
            batch.add(NfListObject::Chain(chain));
        }
        for rule in self.rules() {
            batch.add(NfListObject::Rule(rule));
        }
        print(batch)
    }

    /// Input that brings the sets from what `before` says to what this says, in one
    /// transaction. It is refused as a whole where the kernel does not hold `before`.
    /// `None` when there is nothing to do.
    #[must_use]
    pub fn change(&self, before: &BTreeSet<Exemption>) -> Option<String> {
        if self.exemptions == *before {
            return None;
        }
        let mut batch = Batch::new();
        let gone: Vec<_> = before.difference(&self.exemptions).copied().collect();
        let come: Vec<_> = self.exemptions.difference(before).copied().collect();
        for set in [elements::PROBES4, elements::PROBES6] {
            if let Some(gone) = set.element_object(&gone) {
                batch.delete(NfListObject::Element(gone));
            }
            if let Some(come) = set.element_object(&come) {
                batch.add(NfListObject::Element(come));
            }
        }
        Some(print(batch))
    }

    /// Input that removes both tables, whether they are there or not.
    #[must_use]
    pub fn removal() -> String {
        print(removal())
    }

    fn set(&self, kind: &elements::Kind) -> Set<'static> {
        let all: Vec<_> = self.exemptions.iter().copied().collect();
        let elements = kind.expressions(&all);
        Set {
            family: NfFamily::INet,
            table: HOST_TABLE.into(),
            name: kind.name.into(),
            set_type: SetTypeValue::Concatenated(
                vec![kind.address_type, SetType::InetService].into(),
            ),
            elem: (!elements.is_empty()).then(|| elements.into()),
            ..Set::default()
        }
    }

    fn rules(&self) -> Vec<Rule<'static>> {
        let mut rules = Vec::new();
        for (family, marker, set) in [
            (NATFamily::IP, IpAddr::V4(self.v4), elements::PROBES4),
            (NATFamily::IP6, IpAddr::V6(self.v6), elements::PROBES6),
        ] {
            let probe = vec![
                is(meta(MetaKey::Skuid), Operator::GEQ, Expression::Number(0)),
                is(dnat_bit(), Operator::EQ, Expression::Number(0)),
                is(set.destination(), Operator::EQ, word_of(format!("@{}", set.name))),
                Statement::SNAT(Some(NAT {
                    addr: Some(address(marker)),
                    family: Some(family),
                    port: None,
                    flags: None,
                })),
            ];
            let why = "probes: sockets of this host, not led there by NAT, declared ports only";
            rules.push(rule(NfFamily::INet, NAT_POST, probe, why));
            let from_marker = is(payload(set.protocol, "saddr"), Operator::EQ, address(marker));
            let from_outside = is(meta(MetaKey::Iifname), Operator::NEQ, word("lo"));
            let routed = vec![from_outside, from_marker.clone(), Statement::Drop(None)];
            let why = "the source of probes is this host's alone";
            rules.push(rule(NfFamily::INet, GUARD, routed, why));
            let switched = vec![from_marker, Statement::Drop(None)];
            rules.push(rule(NfFamily::Bridge, GUARD, switched, why));
            let to_marker = is(payload(set.protocol, "daddr"), Operator::EQ, address(marker));
            let stray = vec![to_marker, Statement::Drop(None)];
            let why = "nothing listens at the source of probes";
            rules.push(rule(NfFamily::INet, STRAYS, stray, why));
        }
        rules
    }
}

const FAMILIES: [NfFamily; 2] = [NfFamily::INet, NfFamily::Bridge];

/// Deleting what is absent is an error, so it is added first.
fn removal() -> Batch<'static> {
    let mut batch = Batch::new();
    for family in FAMILIES {
        batch.add(table(family));
        batch.delete(table(family));
    }
    batch
}

fn table(family: NfFamily) -> NfListObject<'static> {
    NfListObject::Table(Table { family, name: HOST_TABLE.into(), handle: None })
}

fn chains() -> [Chain<'static>; 4] {
    let filter = Some(NfChainType::Filter);
    [
        chain(
            NfFamily::INet,
            NAT_POST,
            (Some(NfChainType::NAT), NfHook::Postrouting, SNAT_PRIORITY),
        ),
        chain(NfFamily::INet, GUARD, (filter, NfHook::Prerouting, GUARD_PRIORITY)),
        chain(NfFamily::INet, STRAYS, (filter, NfHook::Input, STRAYS_PRIORITY)),
        chain(NfFamily::Bridge, GUARD, (filter, NfHook::Forward, GUARD_PRIORITY)),
    ]
}

fn chain(
    family: NfFamily,
    name: &'static str,
    (kind, hook, priority): (Option<NfChainType>, NfHook, i32),
) -> Chain<'static> {
    Chain {
        family,
        table: HOST_TABLE.into(),
        name: name.into(),
        _type: kind,
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    }
}

fn rule(
    family: NfFamily,
    chain: &'static str,
    expr: Vec<Statement<'static>>,
    reason: &'static str,
) -> Rule<'static> {
    Rule {
        family,
        table: HOST_TABLE.into(),
        chain: chain.into(),
        expr: expr.into(),
        comment: Some(reason.into()),
        ..Rule::default()
    }
}

fn is(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

fn word_of(text: String) -> Expression<'static> {
    Expression::String(text.into())
}

fn pair(first: Expression<'static>, second: Expression<'static>) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(vec![first, second]))
}

#[cfg(test)]
mod tests;
