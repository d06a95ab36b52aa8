//! The two sets, and how their elements are written.

use nftables::expr::Expression;
use nftables::schema::{Element, SetType};
use nftables::types::NfFamily;

use super::{Exemption, HOST_TABLE, PROBE4, PROBE6, pair};
use crate::json::expr::{address, number, payload};

/// A set of one address family.
pub(super) struct Kind {
    pub name: &'static str,
    /// nft's name of the protocol whose header has the address.
    pub protocol: &'static str,
    pub address_type: SetType,
    is_v4: bool,
}

pub(super) const PROBES4: Kind =
    Kind { name: PROBE4, protocol: "ip", address_type: SetType::Ipv4Addr, is_v4: true };
pub(super) const PROBES6: Kind =
    Kind { name: PROBE6, protocol: "ip6", address_type: SetType::Ipv6Addr, is_v4: false };

impl Kind {
    /// The part of a packet that is looked up in the set.
    pub(super) fn destination(&self) -> Expression<'static> {
        pair(payload(self.protocol, "daddr"), payload("tcp", "dport"))
    }

    /// Those of `exemptions` that belong into this set.
    pub(super) fn expressions(&self, exemptions: &[Exemption]) -> Vec<Expression<'static>> {
        let ours = exemptions.iter().filter(|(addr, _)| addr.is_ipv4() == self.is_v4);
        ours.map(|&(addr, port)| pair(address(addr), number(port))).collect()
    }

    /// The same as an object to add or delete; `None` when none belongs here.
    pub(super) fn element_object(&self, exemptions: &[Exemption]) -> Option<Element<'static>> {
        let elements = self.expressions(exemptions);
        (!elements.is_empty()).then(|| Element {
            family: NfFamily::INet,
            table: HOST_TABLE.into(),
            name: self.name.into(),
            elem: elements.into(),
        })
    }
}
