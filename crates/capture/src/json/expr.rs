//! The parts of a packet, and values, as nft's JSON expressions.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use nftables::expr::{
    BinaryOperation, CT, CTDir, Expression, Fib, FibFlag, FibResult, Meta, MetaKey,
    NamedExpression, Payload, PayloadField, Prefix, Range, SetItem,
};

use crate::model::SetName;
use crate::options::PortRange;

/// The flags that tell an open from everything else. PSH, URG and the ECN bits may be set
/// on either.
pub(crate) fn deciding_flags() -> Expression<'static> {
    let flags = ["fin", "syn", "rst", "ack"].map(word).into();
    binary(BinaryOperation::AND(payload("tcp", "flags"), Expression::List(flags)))
}

/// Not `ct original proto-dst`, which nft 1.0.6 lists in a form that it cannot load.
pub(crate) fn dnat_bit() -> Expression<'static> {
    binary(BinaryOperation::AND(ct("status"), word("dnat")))
}

pub(crate) fn destination_type() -> Expression<'static> {
    let fib = Fib { result: FibResult::Type, flags: HashSet::from([FibFlag::Daddr]) };
    Expression::Named(NamedExpression::Fib(fib))
}

pub(crate) fn looked_up(set: SetName) -> Expression<'static> {
    let with_port =
        |source| Expression::Named(NamedExpression::Concat(vec![source, payload("tcp", "dport")]));
    match set {
        SetName::Probe4 => with_port(payload("ip", "saddr")),
        SetName::Probe6 => with_port(payload("ip6", "saddr")),
        SetName::InSkip | SetName::OutSkip => payload("tcp", "dport"),
        SetName::OutSkip4 => payload("ip", "daddr"),
        SetName::OutSkip6 => payload("ip6", "daddr"),
    }
}

/// Where the answers of a set of destinations come from.
pub(crate) fn source_of(set: SetName) -> Expression<'static> {
    let family = if set == SetName::OutSkip4 { "ip" } else { "ip6" };
    payload(family, "saddr")
}

pub(crate) fn reference(set: SetName) -> Expression<'static> {
    Expression::String(format!("@{}", set.as_str()).into())
}

pub(crate) fn one_of(ports: &[u16]) -> Expression<'static> {
    let items = ports.iter().map(|&port| SetItem::Element(number(port))).collect();
    Expression::Named(NamedExpression::Set(items))
}

pub(crate) fn any_of(words: &[impl ToString]) -> Expression<'static> {
    let item = |word: String| SetItem::Element(Expression::String(word.into()));
    let items = words.iter().map(ToString::to_string).map(item).collect();
    Expression::Named(NamedExpression::Set(items))
}

pub(crate) fn range(ports: PortRange) -> Expression<'static> {
    Expression::Range(Box::new(Range { range: [number(ports.first), number(ports.last)] }))
}

pub(crate) fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

pub(crate) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(crate) fn ct(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir: None }))
}

/// As it is looked up for packets in the direction of whoever opened the connection.
pub(crate) fn ct_of_opener(key: &'static str) -> Expression<'static> {
    let dir = Some(CTDir::Original);
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir }))
}

pub(crate) fn and(left: Expression<'static>, mask: u32) -> Expression<'static> {
    binary(BinaryOperation::AND(left, Expression::Number(mask)))
}

pub(crate) fn binary(operation: BinaryOperation<'static>) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(operation))
}

pub(crate) fn word(text: &'static str) -> Expression<'static> {
    Expression::String(text.into())
}

pub(crate) fn number(port: u16) -> Expression<'static> {
    Expression::Number(port.into())
}

pub(crate) fn address(addr: IpAddr) -> Expression<'static> {
    Expression::String(addr.to_string().into())
}

/// `fe80::/10`.
pub(crate) fn link_local_6() -> Expression<'static> {
    let addr = Box::new(word("fe80::"));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len: 10 }))
}

pub(crate) fn prefix(network: IpNetwork) -> Expression<'static> {
    let (addr, len) = (Box::new(address(network.ip())), u32::from(network.prefix()));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len }))
}
