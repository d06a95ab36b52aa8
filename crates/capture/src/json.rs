//! The ruleset as nft's JSON.

pub(crate) mod expr;

use std::collections::HashSet;

use nftables::batch::Batch;
use nftables::expr::{BinaryOperation, Expression, MetaKey, NamedExpression};
use nftables::schema::{
    Chain as NfChain, NfListObject, Nftables, Rule as NfRule, Set as NfSet, SetFlag, SetType,
    SetTypeValue, Table,
};
use nftables::stmt::{
    JumpTarget, Mangle, Match as NfMatch, NAT, Operator, Reject, RejectType, Statement,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook, RejectCode};

use self::expr::{
    address, and, any_of, binary, ct, ct_of_opener, deciding_flags, destination_type, dnat_bit,
    link_local_6, looked_up, meta, number, one_of, payload, prefix, range, reference, source_of,
    word,
};
use crate::TABLE;
use crate::model::{
    Action, ChainName, Element, Hook, HookKind, HookPoint, Match, OWN_ZONE, Rule, Ruleset, Set,
    SetName,
};

/// Input for `nft -j -f -` that puts `ruleset` in the place of whatever our table held,
/// in one transaction: no packet sees a state in between, and a refused ruleset leaves
/// the old one as it was.
///
/// Success of nft is not enough: version 1.0.6 takes a batch that was cut off for an
/// empty one. List the table afterwards and [`compare`](crate::compare()).
#[must_use]
pub fn replace(ruleset: &Ruleset) -> String {
    let mut batch = removal_batch();
    batch.add(table());
    // Everything that a rule may name comes before the first rule.
    for set in &ruleset.sets {
        batch.add(NfListObject::Set(Box::new(set_object(set))));
    }
    for chain in &ruleset.chains {
        batch.add(NfListObject::Chain(chain_object(chain.name)));
    }
    for chain in &ruleset.chains {
        for rule in &chain.rules {
            batch.add(NfListObject::Rule(rule_object(chain.name, rule)));
        }
    }
    print(batch)
}

/// Input for `nft -j -f -` that removes our table, whether it is there or not.
#[must_use]
pub fn removal() -> String {
    print(removal_batch())
}

/// Deleting what is absent is an error, so it is added first.
fn removal_batch() -> Batch<'static> {
    let mut batch = Batch::new();
    batch.add(table());
    batch.delete(table());
    batch
}

pub(crate) fn print(batch: Batch<'static>) -> String {
    let document: Nftables<'static> = batch.to_nftables();
    serde_json::to_string(&document).expect("the schema's keys are all strings")
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None })
}

fn set_object(set: &Set) -> NfSet<'static> {
    let elements: Vec<_> = set.elements.iter().map(element).collect();
    NfSet {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: set.name.as_str().into(),
        set_type: set_type(set.name),
        flags: set.name.has_intervals().then(|| HashSet::from([SetFlag::Interval])),
        // An empty list is a syntax error; no list is an empty set.
        elem: (!elements.is_empty()).then(|| elements.into()),
        ..NfSet::default()
    }
}

fn set_type(name: SetName) -> SetTypeValue<'static> {
    let with_port = |addr| SetTypeValue::Concatenated(vec![addr, SetType::InetService].into());
    match name {
        SetName::Probe4 => with_port(SetType::Ipv4Addr),
        SetName::Probe6 => with_port(SetType::Ipv6Addr),
        SetName::InSkip | SetName::OutSkip => SetTypeValue::Single(SetType::InetService),
        SetName::OutSkip4 => SetTypeValue::Single(SetType::Ipv4Addr),
        SetName::OutSkip6 => SetTypeValue::Single(SetType::Ipv6Addr),
    }
}

fn element(element: &Element) -> Expression<'static> {
    match *element {
        Element::Port(port) => number(port),
        Element::Ports(ports) => range(ports),
        Element::Network(network) => prefix(network),
        Element::Probe(source, port) => {
            Expression::Named(NamedExpression::Concat(vec![address(source), number(port)]))
        }
    }
}

fn chain_object(name: ChainName) -> NfChain<'static> {
    let hook = name.hook();
    NfChain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.as_str().into(),
        _type: hook.map(chain_type),
        hook: hook.map(hook_point),
        prio: hook.map(|hook| hook.priority),
        policy: hook.map(|_| NfChainPolicy::Accept),
        ..NfChain::default()
    }
}

fn chain_type(hook: Hook) -> NfChainType {
    match hook.kind {
        HookKind::Filter => NfChainType::Filter,
        HookKind::Nat => NfChainType::NAT,
        HookKind::Route => NfChainType::Route,
    }
}

fn hook_point(hook: Hook) -> NfHook {
    match hook.point {
        HookPoint::Prerouting => NfHook::Prerouting,
        HookPoint::Input => NfHook::Input,
        HookPoint::Forward => NfHook::Forward,
        HookPoint::Output => NfHook::Output,
    }
}

fn rule_object(chain: ChainName, rule: &Rule) -> NfRule<'static> {
    let matches = rule.when.iter().map(condition).map(Statement::Match);
    let actions = rule.then.iter().map(statement);
    NfRule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.as_str().into(),
        expr: matches.chain(actions).collect::<Vec<_>>().into(),
        comment: Some(rule.reason.into()),
        ..NfRule::default()
    }
}

fn condition(part: &Match) -> NfMatch<'static> {
    use Operator::{EQ, IN, NEQ};
    let (left, op, right) = match part {
        Match::Tcp => (meta(MetaKey::L4proto), EQ, word("tcp")),
        Match::NotTcp => (meta(MetaKey::L4proto), NEQ, word("tcp")),
        Match::Open => (deciding_flags(), EQ, word("syn")),
        Match::NotOpen => (deciding_flags(), NEQ, word("syn")),
        Match::FromLoopback => (meta(MetaKey::Iifname), EQ, word("lo")),
        Match::ToLoopback => (meta(MetaKey::Oifname), EQ, word("lo")),
        Match::FromInterfaces(names) => (meta(MetaKey::Iifname), EQ, any_of(names)),
        Match::Icmp => (meta(MetaKey::L4proto), EQ, any_of(&["icmp", "ipv6-icmp"])),
        Match::PacketMark(mark) => {
            (and(meta(MetaKey::Mark), mark.mask), EQ, Expression::Number(mark.value))
        }
        Match::ConnMark(mark) => (and(ct("mark"), mark.mask), EQ, Expression::Number(mark.value)),
        Match::New => (ct("state"), IN, word("new")),
        Match::Answer => (ct("direction"), EQ, word("reply")),
        Match::TcpPort(port) => (payload("tcp", "dport"), EQ, number(*port)),
        Match::TcpPorts(ports) => (payload("tcp", "dport"), EQ, one_of(ports)),
        Match::UdpPort(port) => (payload("udp", "dport"), EQ, number(*port)),
        Match::FromUdpPort(port) => (payload("udp", "sport"), EQ, number(*port)),
        Match::FromAny(set) => (source_of(*set), EQ, reference(*set)),
        Match::In(set) => (looked_up(*set), EQ, reference(*set)),
        Match::ToLinkLocal6 => (payload("ip6", "daddr"), EQ, link_local_6()),
        Match::To(kind) => (destination_type(), EQ, word(kind.as_str())),
        Match::NotTo(kind) => (destination_type(), NEQ, word(kind.as_str())),
        Match::NotRedirected => (dnat_bit(), EQ, Expression::Number(0)),
    };
    NfMatch { left, right, op }
}

fn statement(action: &Action) -> Statement<'static> {
    match action {
        Action::Accept => Statement::Accept(None),
        Action::Return => Statement::Return(None),
        Action::Refuse => {
            let code = Some(RejectCode::AdminProhibited);
            Statement::Reject(Some(Reject::new(Some(RejectType::ICMPX), code)))
        }
        Action::Reset => Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None))),
        Action::Redirect(port) => {
            let port = Some(number(*port));
            Statement::Redirect(Some(NAT { addr: None, family: None, port, flags: None }))
        }
        Action::Jump(chain) => Statement::Jump(JumpTarget { target: chain.as_str().into() }),
        Action::OwnZone => {
            Statement::Mangle(Mangle { key: ct_of_opener("zone"), value: number(OWN_ZONE) })
        }
        Action::MarkConnection(mark) => set_bits(ct("mark"), mark.mask, mark.value),
        Action::MarkPacket(mark) => set_bits(meta(MetaKey::Mark), mark.mask, mark.value),
    }
}

fn set_bits(key: Expression<'static>, mask: u32, value: u32) -> Statement<'static> {
    let kept = and(key.clone(), !mask);
    let value = binary(BinaryOperation::OR(vec![kept, Expression::Number(value)]));
    Statement::Mangle(Mangle { key, value })
}
