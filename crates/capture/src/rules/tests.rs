use std::collections::BTreeSet;

use super::*;
use crate::options::{Mark, Ports, Probes};

/// nft keeps at most this many bytes of a comment.
const LONGEST_COMMENT: usize = 127;

fn options(dns: Dns, inbound: Inbound) -> Options {
    Options {
        ports: Ports { outbound: 15001, inbound_plain: 15006, inbound_hbone: 15008, dns: 15053 },
        packet_mark: Mark { value: 0x539, mask: 0xfff },
        connmark: Mark { value: 0x111, mask: 0xfff },
        dns,
        probes: Probes {
            sources: ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            ports: BTreeSet::new(),
        },
        in_skip: BTreeSet::new(),
        out_skip: BTreeSet::new(),
        out_skip_cidrs: BTreeSet::new(),
        inbound,
        guests: BTreeSet::from(["vnet1".to_owned()]),
        uncaptured: Uncaptured::Block,
    }
}

fn all_rulesets() -> Vec<Ruleset> {
    let mut all = Vec::new();
    for dns in [Dns::Off, Dns::On] {
        for inbound in [Inbound::Capture, Inbound::Bypass] {
            let options = options(dns, inbound);
            all.extend([Ruleset::capture(&options), Ruleset::drain(&options)]);
        }
    }
    all
}

fn rules_of(ruleset: &Ruleset, name: ChainName) -> &[Rule] {
    &ruleset.chains.iter().find(|chain| chain.name == name).unwrap().rules
}

fn redirects_to(ruleset: &Ruleset) -> BTreeSet<u16> {
    let rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
    rules
        .flat_map(|rule| &rule.then)
        .filter_map(|action| match action {
            Action::Redirect(port) => Some(*port),
            _ => None,
        })
        .collect()
}

#[test]
fn every_rule_has_a_reason_of_its_own_in_its_chain() {
    for ruleset in all_rulesets() {
        for chain in &ruleset.chains {
            let reasons: BTreeSet<_> = chain.rules.iter().map(|rule| rule.reason).collect();
            assert_eq!(reasons.len(), chain.rules.len(), "{}", chain.name);
            for reason in reasons {
                assert!((1..=LONGEST_COMMENT).contains(&reason.len()), "{reason}");
                assert!(!reason.contains(['"', '\n']), "{reason}");
            }
        }
    }
}

#[test]
fn whatever_is_named_exists() {
    for ruleset in all_rulesets() {
        for rule in ruleset.chains.iter().flat_map(|chain| &chain.rules) {
            for action in &rule.then {
                if let Action::Jump(target) = action {
                    rules_of(&ruleset, *target);
                }
            }
            for part in &rule.when {
                if let Match::In(name) = part {
                    assert!(ruleset.sets.iter().any(|set| set.name == *name), "{name:?}");
                }
            }
        }
    }
}

#[test]
fn every_redirect_has_a_guard_behind_it() {
    for inbound in [Inbound::Capture, Inbound::Bypass] {
        let ruleset = Ruleset::capture(&options(Dns::On, inbound));
        let resets = |chain| rules_of(&ruleset, chain).last().unwrap().then == [Action::Reset];
        let captures = |chain| {
            matches!(rules_of(&ruleset, chain).last().unwrap().then[..], [Action::Redirect(_)])
        };
        assert!(captures(ChainName::NatOut) && resets(ChainName::GuardOutSyn));
        assert_eq!(captures(ChainName::NatPre), inbound == Inbound::Capture);
        assert!(resets(ChainName::GuardInSyn), "at least the proxy's ports are guarded");
    }
}

#[test]
fn the_proxy_passes_before_any_redirect() {
    let ruleset = Ruleset::capture(&options(Dns::On, Inbound::Capture));
    let rules = rules_of(&ruleset, ChainName::NatOut);
    let position = |wanted: &dyn Fn(&Rule) -> bool| rules.iter().position(wanted).unwrap();
    let proxy = position(&|rule| matches!(rule.when[..], [Match::PacketMark(_)]));
    let redirect = position(&|rule| matches!(rule.then[..], [Action::Redirect(_)]));
    assert!(proxy < redirect);
}

#[test]
fn dns_off_knows_nothing_of_the_dns_port() {
    let off = Ruleset::capture(&options(Dns::Off, Inbound::Capture));
    assert_eq!(redirects_to(&off), BTreeSet::from([15001, 15006]));
    assert!(!off.to_string().contains("15053"));
    let on = Ruleset::capture(&options(Dns::On, Inbound::Capture));
    assert_eq!(redirects_to(&on), BTreeSet::from([15001, 15006, 15053]));
}

#[test]
fn a_draining_pod_redirects_nothing_and_keeps_its_hooks() {
    for dns in [Dns::Off, Dns::On] {
        let options = options(dns, Inbound::Capture);
        let (capture, drain) = (Ruleset::capture(&options), Ruleset::drain(&options));
        assert_eq!(redirects_to(&drain), BTreeSet::new());
        for chain in [ChainName::NatPre, ChainName::NatOut] {
            assert_eq!(rules_of(&drain, chain), []);
        }
        let answers = ChainName::MarkOut;
        assert_eq!(rules_of(&drain, answers), rules_of(&capture, answers));
    }
}
