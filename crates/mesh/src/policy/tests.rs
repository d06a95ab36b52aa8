//! One test per row of the semantics: P01 is "which policies apply", P02 "in what order",
//! and so on; the letter-number names are those of the policy semantics that Istio's
//! users rely on.

use super::*;
use crate::proto::security as proto;
use crate::{Protocol, View, Workload};

use proto::string_match::MatchType;

fn workload(policies: &[&str]) -> Workload {
    Workload::new("u", "shop", "cart-1", Identity::new("", "shop", "cart").unwrap()).with(|it| {
        it.addresses = ["10.0.0.2".parse().unwrap()].into_iter().collect();
        it.protocol = Protocol::Hbone;
        it.policies = policies.iter().map(|key| PolicyKey::parse(key).unwrap()).collect();
    })
}

fn from(identity: &str) -> Connection {
    Connection {
        source: "10.0.0.1:40000".parse().unwrap(),
        identity: (!identity.is_empty()).then(|| identity.parse().unwrap()),
        destination: "10.0.0.2:8080".parse().unwrap(),
    }
}

const WEB: &str = "spiffe://cluster.local/ns/front/sa/web";
const PLAINTEXT: &str = "";

fn text(kind: MatchType) -> proto::StringMatch {
    proto::StringMatch { match_type: Some(kind) }
}

fn exact(value: &str) -> proto::StringMatch {
    text(MatchType::Exact(value.into()))
}

fn presence() -> proto::StringMatch {
    text(MatchType::Presence(proto::Empty {}))
}

fn account(namespace: &str, name: &str) -> proto::ServiceAccountMatch {
    proto::ServiceAccountMatch { namespace: namespace.into(), service_account: name.into() }
}

fn range(text: &str) -> proto::Address {
    let (ip, length) = text.split_once('/').unwrap();
    let address = match ip.parse::<std::net::IpAddr>().unwrap() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    proto::Address { address, length: length.parse().unwrap() }
}

/// A namespace-wide ALLOW policy `shop/p` with these rules, each a list of clauses, each
/// a list of matches.
fn rules(rules: Vec<Vec<Vec<proto::Match>>>) -> proto::Authorization {
    let clause = |matches| proto::Clause { matches };
    let rule = |clauses: Vec<_>| proto::Rule { clauses: clauses.into_iter().map(clause).collect() };
    proto::Authorization {
        name: "p".into(),
        namespace: "shop".into(),
        scope: proto::Scope::Namespace as i32,
        rules: rules.into_iter().map(rule).collect(),
        ..Default::default()
    }
}

fn only(one: proto::Match) -> proto::Authorization {
    rules(vec![vec![vec![one]]])
}

fn everything() -> proto::Authorization {
    rules(vec![vec![]])
}

fn nothing() -> proto::Authorization {
    rules(vec![])
}

fn deny(policy: proto::Authorization) -> proto::Authorization {
    proto::Authorization { action: proto::Action::Deny as i32, ..policy }
}

fn named(key: &str, policy: proto::Authorization) -> proto::Authorization {
    let (namespace, name) = key.split_once('/').unwrap();
    proto::Authorization { namespace: namespace.into(), name: name.into(), ..policy }
}

fn scoped(scope: proto::Scope, policy: proto::Authorization) -> proto::Authorization {
    proto::Authorization { scope: scope as i32, ..policy }
}

fn parse(message: proto::Authorization) -> Policy {
    message.try_into().unwrap()
}

fn decide(
    policies: Vec<proto::Authorization>,
    listed: &[&str],
    connection: &Connection,
) -> Decision {
    let mut view = View::default();
    for policy in policies {
        view.insert_policy(parse(policy));
    }
    view.authorize(&workload(listed), connection)
}

fn denied_by(key: &str) -> Decision {
    Decision::Deny(Denial::Policy(PolicyKey::parse(key).unwrap()))
}

const NOT_ALLOWED: Decision = Decision::Deny(Denial::NotAllowed);

/// Does an ALLOW policy with this single match let the connection through?
fn matches(one: &proto::Match, connection: &Connection) -> bool {
    let allowed = decide(vec![only(one.clone())], &[], connection) == Decision::Allow;
    assert_eq!(parse(only(one.clone())).matches(connection), allowed);
    allowed
}

#[test]
fn p01_global_namespace_and_listed_policies_apply() {
    use proto::Scope::{Global, Namespace, WorkloadSelector};
    let cases = [
        (Global, "root/d", &[][..], denied_by("root/d")),
        (Namespace, "shop/d", &[], denied_by("shop/d")),
        (Namespace, "other/d", &[], Decision::Allow),
        (Namespace, "shopping/d", &[], Decision::Allow),
        (WorkloadSelector, "shop/d", &[], Decision::Allow),
        (WorkloadSelector, "shop/d", &["shop/d"], denied_by("shop/d")),
        (WorkloadSelector, "root/d", &["root/d"], denied_by("root/d")),
    ];
    for (scope, key, listed, expected) in cases {
        let policy = scoped(scope, named(key, deny(everything())));
        assert_eq!(decide(vec![policy], listed, &from(WEB)), expected, "{scope:?} {key}");
    }
}

#[test]
fn p01_a_policy_that_changes_its_scope_is_found_by_the_new_one_only() {
    let mut view = View::default();
    view.insert_policy(parse(deny(everything())));
    view.insert_policy(parse(scoped(proto::Scope::WorkloadSelector, deny(everything()))));
    assert_eq!(view.authorize(&workload(&[]), &from(WEB)), Decision::Allow);
    view.insert_policy(parse(deny(everything())));
    view.remove_policy(&PolicyKey::parse("shop/p").unwrap());
    assert_eq!(view.authorize(&workload(&[]), &from(WEB)), Decision::Allow);
    assert_eq!(view.policies().count(), 0);
}

#[test]
fn p02_deny_comes_first_then_allow_then_the_default() {
    let allow_all = || named("shop/a", everything());
    let allow_none = || named("shop/n", nothing());
    let deny_all = || named("shop/d", deny(everything()));
    let deny_none = || named("shop/e", deny(nothing()));
    let cases = [
        (vec![], Decision::Allow),
        (vec![deny_none()], Decision::Allow),
        (vec![allow_all()], Decision::Allow),
        (vec![allow_none()], NOT_ALLOWED),
        (vec![allow_none(), allow_all()], Decision::Allow),
        (vec![allow_all(), deny_all()], denied_by("shop/d")),
        (vec![allow_none(), deny_all()], denied_by("shop/d")),
        (vec![deny_all(), named("shop/c", deny(everything()))], denied_by("shop/c")),
    ];
    for (policies, expected) in cases {
        assert_eq!(decide(policies.clone(), &[], &from(WEB)), expected, "{policies:?}");
    }
}

#[test]
fn p06_a_policy_without_rules_matches_nothing() {
    assert_eq!(decide(vec![nothing()], &[], &from(WEB)), NOT_ALLOWED);
    assert_eq!(decide(vec![deny(nothing())], &[], &from(WEB)), Decision::Allow);
}

#[test]
fn p07_a_rule_without_clauses_matches_everything() {
    for who in [WEB, PLAINTEXT] {
        assert_eq!(decide(vec![everything()], &[], &from(who)), Decision::Allow);
        assert_eq!(decide(vec![deny(everything())], &[], &from(who)), denied_by("shop/p"));
    }
}

#[test]
fn p08_an_empty_clause_matches_and_an_empty_match_never() {
    let empty = proto::Match::default;
    let hit = || proto::Match { destination_ports: vec![8080], ..Default::default() };
    let cases = [
        (vec![vec![]], true),
        (vec![vec![empty()]], false),
        (vec![vec![empty(), empty()]], false),
        (vec![vec![empty(), hit()]], true),
        (vec![vec![hit()], vec![empty()]], false),
        (vec![vec![hit()], vec![]], true),
    ];
    for (clauses, expected) in cases {
        let policy = parse(rules(vec![clauses.clone()]));
        assert_eq!(policy.matches(&from(WEB)), expected, "{clauses:?}");
    }
}

#[test]
fn p09_rules_or_clauses_and_matches_or_fields_and_values_or() {
    let port = |port| proto::Match { destination_ports: vec![port], ..Default::default() };
    let (yes, no) = (|| port(8080), || port(1));
    let cases = [
        (vec![vec![vec![no()]], vec![vec![yes()]]], true),
        (vec![vec![vec![no()]], vec![vec![no()]]], false),
        (vec![vec![vec![yes()], vec![yes()]]], true),
        (vec![vec![vec![yes()], vec![no()]]], false),
        (vec![vec![vec![no(), yes()]]], true),
        (vec![vec![vec![no(), no()]]], false),
    ];
    for (given, expected) in cases {
        assert_eq!(parse(rules(given.clone())).matches(&from(WEB)), expected, "{given:?}");
    }
    let both = |namespace: &str, ports: &[u32]| proto::Match {
        namespaces: vec![exact("x"), exact(namespace)],
        destination_ports: ports.to_vec(),
        ..Default::default()
    };
    assert!(matches(&both("front", &[1, 8080]), &from(WEB)));
    assert!(!matches(&both("front", &[1]), &from(WEB)));
    assert!(!matches(&both("back", &[8080]), &from(WEB)));
}

#[test]
fn p10_negated_lists_hold_when_no_value_matches() {
    let not = |ports: &[u32], not_ports: &[u32]| proto::Match {
        destination_ports: ports.to_vec(),
        not_destination_ports: not_ports.to_vec(),
        ..Default::default()
    };
    for (one, expected) in [
        (not(&[], &[1, 2]), true),
        (not(&[], &[1, 8080]), false),
        (not(&[8080], &[1]), true),
        (not(&[8080], &[8080]), false),
        (not(&[1], &[2]), false),
    ] {
        assert_eq!(matches(&one, &from(WEB)), expected, "{one:?}");
    }
    let not_here =
        proto::Match { not_destination_ips: vec![range("10.0.0.2/32")], ..Default::default() };
    assert!(!matches(&not_here, &from(WEB)));
    let not_front =
        proto::Match { not_service_accounts: vec![account("front", "web")], ..Default::default() };
    assert!(!matches(&not_front, &from(WEB)));
    assert!(matches(&not_front, &from(PLAINTEXT)));
}

#[test]
fn p11_principals_are_compared_without_the_scheme() {
    let is = |it| proto::Match { principals: vec![it], ..Default::default() };
    let is_not = |it| proto::Match { not_principals: vec![it], ..Default::default() };
    let web = || exact("cluster.local/ns/front/sa/web");
    let with_scheme = || exact(WEB);
    for (one, who, expected) in [
        (is(web()), WEB, true),
        (is(with_scheme()), WEB, false),
        (is(web()), PLAINTEXT, false),
        (is(presence()), WEB, true),
        (is(presence()), PLAINTEXT, false),
        (is(text(MatchType::Prefix(String::new()))), PLAINTEXT, false),
        (is_not(web()), WEB, false),
        (is_not(exact("cluster.local/ns/front/sa/other")), WEB, true),
        (is_not(web()), PLAINTEXT, true),
        (is_not(presence()), PLAINTEXT, true),
        (is_not(presence()), WEB, false),
    ] {
        assert_eq!(matches(&one, &from(who)), expected, "{one:?} for {who:?}");
    }
}

#[test]
fn p11_strict_mutual_tls_is_a_deny_of_what_has_no_principal() {
    let one = proto::Match { not_principals: vec![presence()], ..Default::default() };
    let strict = named("root/strict", scoped(proto::Scope::Global, deny(only(one))));
    assert_eq!(decide(vec![strict.clone()], &[], &from(PLAINTEXT)), denied_by("root/strict"));
    assert_eq!(decide(vec![strict], &[], &from(WEB)), Decision::Allow);
}

#[test]
fn p12_text_matchers() {
    let is = |kind| proto::Match { principals: vec![text(kind)], ..Default::default() };
    for (kind, expected) in [
        (MatchType::Exact("cluster.local/ns/front/sa/web".into()), true),
        (MatchType::Exact("cluster.local/ns/front/sa/we".into()), false),
        (MatchType::Exact("clusterXlocal/ns/front/sa/web".into()), false),
        (MatchType::Prefix("cluster.local/ns/front/".into()), true),
        (MatchType::Prefix("luster.local/".into()), false),
        (MatchType::Suffix("/sa/web".into()), true),
        (MatchType::Suffix("/sa/we".into()), false),
        // What `*front*` is translated to: no "contains", the star is a character.
        (MatchType::Suffix("front*".into()), false),
        (MatchType::Presence(proto::Empty {}), true),
    ] {
        assert_eq!(matches(&is(kind.clone()), &from(WEB)), expected, "{kind:?}");
    }
}

#[test]
fn p13_the_namespace_is_empty_without_identity() {
    let is = |it| proto::Match { namespaces: vec![it], ..Default::default() };
    let is_not = |it| proto::Match { not_namespaces: vec![it], ..Default::default() };
    for (one, who, expected) in [
        (is(exact("front")), WEB, true),
        (is(exact("fron")), WEB, false),
        (is(exact("front")), PLAINTEXT, false),
        (is(exact("")), PLAINTEXT, true),
        (is(presence()), PLAINTEXT, false),
        (is(presence()), WEB, true),
        (is_not(exact("front")), WEB, false),
        (is_not(exact("front")), PLAINTEXT, true),
    ] {
        assert_eq!(matches(&one, &from(who)), expected, "{one:?} for {who:?}");
    }
}

#[test]
fn p14_service_accounts_are_exact_in_any_trust_domain() {
    let is = |namespace: &str, name: &str| proto::Match {
        service_accounts: vec![account(namespace, name)],
        ..Default::default()
    };
    let elsewhere = "spiffe://td2/ns/front/sa/web";
    let own = "spiffe://cluster.local/ns/shop/sa/cart";
    for (one, who, expected) in [
        (is("front", "web"), WEB, true),
        (is("front", "web"), elsewhere, true),
        (is("front", "we"), WEB, false),
        (is("front", "*"), WEB, false),
        (is("fron", "web"), WEB, false),
        (is("front", "web"), PLAINTEXT, false),
        (is("", "cart"), own, true),
        (is("", "web"), WEB, false),
    ] {
        assert_eq!(matches(&one, &from(who)), expected, "{one:?} for {who:?}");
    }
}

#[test]
fn p15_source_ranges_see_the_peers_canonical_address() {
    let is = |it| proto::Match { source_ips: vec![range(it)], ..Default::default() };
    let mapped = Connection { source: "[::ffff:10.0.0.1]:1".parse().unwrap(), ..from(WEB) };
    for connection in [&from(WEB), &from(PLAINTEXT), &mapped] {
        assert!(matches(&is("10.0.0.0/24"), connection));
        assert!(matches(&is("10.0.0.1/32"), connection));
        assert!(!matches(&is("10.0.0.2/32"), connection));
    }
    let not = proto::Match { not_source_ips: vec![range("10.0.0.0/8")], ..Default::default() };
    assert!(!matches(&not, &mapped));
}

#[test]
fn p18_the_port_is_the_applications() {
    let is =
        |ports: &[u32]| proto::Match { destination_ports: ports.to_vec(), ..Default::default() };
    assert!(matches(&is(&[8080]), &from(WEB)));
    assert!(!matches(&is(&[15008]), &from(WEB)));
}

#[test]
fn p20_a_dry_run_is_never_enforced() {
    let dry = |policy| proto::Authorization { dry_run: true, ..policy };
    assert_eq!(decide(vec![dry(deny(everything()))], &[], &from(WEB)), Decision::Allow);
    assert_eq!(decide(vec![dry(nothing())], &[], &from(WEB)), Decision::Allow);
    let policy = parse(dry(deny(everything())));
    assert_eq!(policy.enforcement(), Enforcement::DryRun);
    assert!(policy.matches(&from(WEB)), "what it would have done can be logged");
}

#[test]
fn p23_a_listed_policy_that_is_not_known_denies_after_the_known_denies() {
    let unknown = Decision::Deny(Denial::Unknown(PolicyKey::parse("shop/later").unwrap()));
    let listed = &["shop/later"][..];
    assert_eq!(decide(vec![], listed, &from(WEB)), unknown);
    assert_eq!(decide(vec![everything()], listed, &from(WEB)), unknown);
    assert_eq!(decide(vec![deny(everything())], listed, &from(WEB)), denied_by("shop/p"));
}

#[test]
fn p23_an_operator_may_let_unknown_policies_mean_nothing() {
    let skip = |policies: Vec<proto::Authorization>, rejected: &[&str]| {
        let mut view = View::default();
        policies.into_iter().for_each(|policy| view.insert_policy(parse(policy)));
        for key in rejected {
            let message = scoped(proto::Scope::WorkloadSelector, everything());
            view.reject_policy(PolicyKey::parse(key).unwrap(), Some(&message));
        }
        view.authorize_with(UnknownPolicy::Skip, &workload(&["shop/later"]), &from(WEB))
    };
    assert_eq!(skip(vec![], &[]), Decision::Allow, "it may have been the only ALLOW");
    assert_eq!(skip(vec![nothing()], &[]), NOT_ALLOWED);
    assert_eq!(skip(vec![deny(everything())], &[]), denied_by("shop/p"));
    let rejected = Denial::Rejected(PolicyKey::parse("shop/later").unwrap());
    assert_eq!(skip(vec![], &["shop/later"]), Decision::Deny(rejected));
    assert_eq!(UnknownPolicy::default(), UnknownPolicy::Deny);
}

#[test]
fn p14_a_dot_in_a_name_is_a_dot() {
    let (dot, other) = ("cert-manager.io", "cert-managerXio");
    let connection = |name: &str| from(&format!("spiffe://cluster.local/ns/{name}/sa/{name}"));
    let principal = |name: &str| format!("cluster.local/ns/{name}/sa/{name}");
    let fields = |name: &str| {
        let suffix = text(MatchType::Suffix(format!("/sa/{name}")));
        let prefix = text(MatchType::Prefix(format!("cluster.local/ns/{name}")));
        [
            proto::Match { namespaces: vec![exact(name)], ..Default::default() },
            proto::Match { service_accounts: vec![account(name, name)], ..Default::default() },
            proto::Match { principals: vec![exact(&principal(name))], ..Default::default() },
            proto::Match { principals: vec![suffix], ..Default::default() },
            proto::Match { principals: vec![prefix], ..Default::default() },
        ]
    };
    for (asked, who) in
        [(dot, dot), (dot, other), (other, dot), (".*", dot), ("cert-manager_io", dot)]
    {
        for one in fields(asked) {
            assert_eq!(matches(&one, &connection(who)), asked == who, "{one:?} for {who}");
        }
    }
}

#[test]
fn p15_scoped_and_mapped_addresses_are_the_plain_ones() {
    let at = |source: &str, destination: &str| Connection {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ..from(WEB)
    };
    let source = |it| proto::Match { source_ips: vec![range(it)], ..Default::default() };
    let here = |it| proto::Match { destination_ips: vec![range(it)], ..Default::default() };
    let scoped = at("[fe80::1%3]:1", "[fe80::2%3]:8080");
    let mapped = at("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:8080");
    for (one, connection, expected) in [
        (source("fe80::1/128"), &scoped, true),
        (source("fe80::/10"), &scoped, true),
        (source("fe80::2/128"), &scoped, false),
        (here("fe80::2/128"), &scoped, true),
        (here("fe80::1/128"), &scoped, false),
        (source("10.0.0.1/32"), &mapped, true),
        (source("::ffff:10.0.0.1/128"), &mapped, true),
        (source("::/0"), &mapped, false),
        (here("10.0.0.0/8"), &mapped, true),
        (here("::ffff:10.0.0.2/128"), &mapped, true),
        (here("::ffff:10.0.0.2/128"), &from(WEB), true),
        (here("::/0"), &mapped, false),
        (here("0.0.0.0/0"), &mapped, true),
        (here("0.0.0.0/0"), &scoped, false),
    ] {
        assert_eq!(matches(&one, connection), expected, "{one:?} for {connection:?}");
    }
}

#[test]
fn p25_ranges_at_their_edges() {
    let v4 = from(WEB);
    let v6 = Connection { source: "[2001:db8::1]:1".parse().unwrap(), ..from(WEB) };
    for (text, hits_v4, hits_v6) in [
        ("0.0.0.0/0", true, false),
        ("::/0", false, true),
        ("10.0.0.1/32", true, false),
        ("2001:db8::1/128", false, true),
        ("2001:db8::2/128", false, false),
        ("10.0.0.77/24", true, false),
        ("2001:db8::ffff/64", false, true),
        ("::ffff:10.0.0.0/104", true, false),
        ("::ffff:10.0.0.1/128", true, false),
        ("::ffff:10.0.0.2/128", false, false),
        ("::ffff:0.0.0.0/96", true, false),
    ] {
        let one = proto::Match { source_ips: vec![range(text)], ..Default::default() };
        assert_eq!(matches(&one, &v4), hits_v4, "{text} for IPv4");
        assert_eq!(matches(&one, &v6), hits_v6, "{text} for IPv6");
    }
}

#[test]
fn p25_a_range_that_is_none_is_refused_with_policy_and_field() {
    for (address, expected) in [
        (
            range("10.0.0.0/33"),
            "policy shop/p: prefix length 33 in not_source_ips is longer than the address",
        ),
        (
            range("::/129"),
            "policy shop/p: prefix length 129 in not_source_ips is longer than the address",
        ),
        (
            range("::/300"),
            "policy shop/p: prefix length 300 in not_source_ips is longer than the address",
        ),
        (
            proto::Address { address: vec![1, 2, 3], length: 8 },
            "policy shop/p: address of 3 bytes in not_source_ips, 4 or 16 expected",
        ),
    ] {
        let one = proto::Match { not_source_ips: vec![address], ..Default::default() };
        assert_eq!(Policy::try_from(only(one)).unwrap_err().to_string(), expected);
    }
    // A range around the mapped addresses and more has no IPv4 form.
    let one = proto::Match { source_ips: vec![range("::ffff:10.0.0.0/95")], ..Default::default() };
    assert!(matches!(
        Policy::try_from(only(one)),
        Err(PolicyError::PrefixLength { field: "source_ips", length: 95, .. })
    ));
}

#[test]
fn what_is_not_known_is_refused_not_guessed() {
    let policy = || PolicyKey::parse("shop/p").unwrap();
    let port = proto::Match { destination_ports: vec![65536], ..Default::default() };
    let kind = proto::Match {
        principals: vec![proto::StringMatch { match_type: None }],
        ..Default::default()
    };
    for (message, expected) in [
        (
            proto::Authorization { scope: 3, ..everything() },
            PolicyError::Scope { policy: policy(), scope: 3 },
        ),
        (
            proto::Authorization { action: 2, ..everything() },
            PolicyError::Action { policy: policy(), action: 2 },
        ),
        (
            named("shop/", everything()),
            PolicyError::Name { namespace: "shop".into(), name: String::new() },
        ),
        (
            only(port),
            PolicyError::Port { policy: policy(), field: "destination_ports", port: 65536 },
        ),
        (only(kind), PolicyError::Matcher { policy: policy(), field: "principals" }),
    ] {
        assert_eq!(Policy::try_from(message).unwrap_err(), expected);
    }
}

#[test]
fn an_unknown_extension_makes_a_policy_stricter() {
    let with = |destination_ports| proto::Match {
        destination_ports,
        extensions: vec![proto::Extension { name: "x".into(), config: None }],
        ..Default::default()
    };
    assert_eq!(decide(vec![only(with(vec![8080]))], &[], &from(WEB)), NOT_ALLOWED);
    assert_eq!(decide(vec![deny(only(with(vec![8080])))], &[], &from(WEB)), denied_by("shop/p"));
}
