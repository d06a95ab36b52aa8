//! PURE. Which pod is probed where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use capture::Exemption;

use crate::facts::PodUid;

/// What every captured pod says about its probes.
///
/// An address may be claimed twice for a while: it is given to a new pod while the end of
/// the old one is still being worked on. The younger claim counts, whoever speaks last, and
/// the end of either leaves the other's as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    pods: BTreeMap<PodUid, Claim>,
    /// What an earlier life of the agent left on the host, until the pods have spoken for
    /// themselves.
    inherited: BTreeSet<Exemption>,
    claimed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    age: u64,
    ips: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Claims {
    /// A pod is probed at these addresses and ports; what it said before does not count
    /// any more. A pod without probes claims its addresses all the same: an earlier pod's
    /// probes must not be found there.
    pub(super) fn claim(&mut self, uid: &PodUid, ips: &[IpAddr], ports: &BTreeSet<u16>) {
        let age = self.pods.get(uid).map_or(self.claimed, |claim| claim.age);
        self.claimed = self.claimed.max(age + 1);
        let claim = Claim { age, ips: ordered(ips), ports: ports.clone() };
        self.pods.insert(uid.clone(), claim);
    }

    /// Whether the pod has said just this.
    pub(super) fn knows(&self, uid: &PodUid, ips: &[IpAddr], ports: &BTreeSet<u16>) -> bool {
        let same = |claim: &Claim| claim.ports == *ports && claim.ips == ordered(ips);
        self.pods.get(uid).is_some_and(same)
    }

    /// The pod is captured no more.
    pub(super) fn release(&mut self, uid: &PodUid) {
        self.pods.remove(uid);
    }

    /// Keeps what is on the host for pods that have not spoken yet.
    pub(super) fn inherit(&mut self, exemptions: BTreeSet<Exemption>) {
        self.inherited = exemptions;
    }

    /// All pods have spoken: what nobody claims is nobody's.
    pub(super) fn disown(&mut self) {
        self.inherited.clear();
    }

    /// What the host must exempt.
    pub(super) fn wanted(&self) -> BTreeSet<Exemption> {
        let mut owners: BTreeMap<IpAddr, &Claim> = BTreeMap::new();
        for claim in self.pods.values() {
            for ip in &claim.ips {
                let owner = owners.entry(*ip).or_insert(claim);
                if claim.age > owner.age {
                    *owner = claim;
                }
            }
        }
        let inherited = self.inherited.iter().filter(|(ip, _)| !owners.contains_key(ip)).copied();
        let claimed =
            owners.iter().flat_map(|(ip, claim)| claim.ports.iter().map(move |port| (*ip, *port)));
        claimed.chain(inherited).collect()
    }
}

fn ordered(ips: &[IpAddr]) -> BTreeSet<IpAddr> {
    ips.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> PodUid {
        PodUid(name.into())
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn claims(all: &[(&str, u8, u16)]) -> Claims {
        let mut claims = Claims::default();
        for (name, last, port) in all {
            claims.claim(&uid(name), &[ip(*last)], &[*port].into());
        }
        claims
    }

    #[track_caller]
    fn check(claims: &Claims, expected: &[(u8, u16)]) {
        let expected = expected.iter().map(|(last, port)| (ip(*last), *port)).collect();
        assert_eq!(claims.wanted(), expected);
    }

    #[test]
    fn every_address_at_every_port() {
        let mut claims = Claims::default();
        claims.claim(&uid("a"), &[ip(1), ip(2)], &[80, 81].into());
        check(&claims, &[(1, 80), (1, 81), (2, 80), (2, 81)]);
        claims.claim(&uid("a"), &[ip(2)], &[81].into());
        check(&claims, &[(2, 81)]);
        claims.release(&uid("a"));
        claims.release(&uid("a"));
        check(&claims, &[]);
    }

    #[test]
    fn a_reused_address_neither_keeps_nor_loses_anything() {
        let mut claims = claims(&[("old", 1, 80), ("new", 1, 90)]);
        check(&claims, &[(1, 90)]);
        // The old pod is looked at once more before its end is seen.
        claims.claim(&uid("old"), &[ip(1)], &[80].into());
        check(&claims, &[(1, 90)]);
        claims.release(&uid("old"));
        check(&claims, &[(1, 90)]);
    }

    #[test]
    fn the_end_of_the_younger_gives_the_address_back() {
        let mut claims = claims(&[("old", 1, 80), ("new", 1, 90)]);
        claims.release(&uid("new"));
        check(&claims, &[(1, 80)]);
    }

    #[test]
    fn a_pod_without_probes_ends_what_was_at_its_address() {
        let mut claims = claims(&[("old", 1, 80)]);
        claims.claim(&uid("new"), &[ip(1)], &BTreeSet::new());
        check(&claims, &[]);
    }

    #[test]
    fn what_was_inherited_stands_until_the_pods_have_spoken() {
        let mut claims = Claims::default();
        claims.inherit([(ip(1), 80), (ip(2), 80)].into());
        claims.claim(&uid("a"), &[ip(1)], &[90].into());
        check(&claims, &[(1, 90), (2, 80)]);
        claims.disown();
        check(&claims, &[(1, 90)]);
    }
}
