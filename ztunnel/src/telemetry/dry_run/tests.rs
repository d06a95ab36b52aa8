use mesh::Identity;
use mesh::proto::security as proto;
use prometheus_client::registry::Registry;

use super::super::log::Layout;
use super::super::tests::{logged, workload};
use super::super::{Settings, Telemetry};
use super::*;

/// A policy about the namespace of the client.
fn policy(name: &str, action: Action, enforcement: Enforcement, namespace: &str) -> Policy {
    let exact = proto::string_match::MatchType::Exact(namespace.to_owned());
    let message = proto::Authorization {
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        scope: proto::Scope::Namespace as i32,
        action: match action {
            Action::Allow => proto::Action::Allow as i32,
            Action::Deny => proto::Action::Deny as i32,
        },
        dry_run: enforcement == Enforcement::DryRun,
        rules: vec![proto::Rule {
            clauses: vec![proto::Clause {
                matches: vec![proto::Match {
                    namespaces: vec![proto::StringMatch { match_type: Some(exact) }],
                    ..Default::default()
                }],
            }],
        }],
        ..Default::default()
    };
    Policy::try_from(message).unwrap()
}

fn from_bank() -> Connection {
    Connection {
        source: "10.0.0.1:40000".parse().unwrap(),
        identity: Some(Identity::new("", "bank", "till").unwrap()),
        destination: "10.0.0.2:80".parse().unwrap(),
    }
}

#[test]
fn table() {
    use Action::{Allow, Deny};
    use Enforcement::{DryRun as Tried, Enforced};
    let would_deny = |name: &str| format!("WouldDeny({:?})", key(name));
    type Given<'a> = &'a [(&'a str, Action, Enforcement, &'a str)];
    let cases: [(Given<'_>, String); 9] = [
        (&[], "None".into()),
        (&[("a", Deny, Enforced, "bank")], "None".into()),
        (&[("a", Deny, Tried, "shop")], "None".into()),
        (&[("a", Deny, Tried, "bank")], would_deny("a")),
        (&[("a", Allow, Tried, "bank")], format!("WouldAllow({:?})", key("a"))),
        (&[("a", Allow, Tried, "shop")], "WouldNotAllow".into()),
        (&[("a", Allow, Tried, "shop"), ("b", Allow, Tried, "bank")], {
            format!("WouldAllow({:?})", key("b"))
        }),
        // Together with the one in force it would still be allowed.
        (&[("a", Allow, Tried, "shop"), ("b", Allow, Enforced, "bank")], "None".into()),
        (&[("a", Allow, Tried, "bank"), ("b", Deny, Tried, "bank")], would_deny("b")),
    ];
    for (policies, expected) in cases {
        let all: Vec<_> = policies.iter().map(|(n, a, e, ns)| policy(n, *a, *e, ns)).collect();
        let found = dry_run(&all.iter().collect::<Vec<_>>(), &from_bank());
        let found = found.map_or("None".to_owned(), |found| format!("{found:?}"));
        assert_eq!(found, expected, "{policies:?}");
    }
}

fn key(name: &str) -> PolicyKey {
    policy(name, Action::Deny, Enforcement::DryRun, "x").key().clone()
}

/// The lines about a judged connection, at the level `info`.
fn lines(policy_log: PolicyLog) -> Vec<String> {
    let mut view = View::default();
    view.insert_policy(policy("tried", Action::Deny, Enforcement::DryRun, "bank"));
    let destination = workload("cart-1", "cart");
    let settings = Settings { policy_log, ..Settings::default() };
    let telemetry = Telemetry::with_settings(&mut Registry::default(), settings);
    logged(Layout::Plain, || {
        let decision = view.authorize(&destination, &from_bank());
        telemetry.judged(&view, &destination, &from_bank(), &decision);
    })
}

#[test]
fn decisions_are_shown_to_everybody_only_when_wanted() {
    assert!(lines(PolicyLog::Debug).is_empty());
    let shown = lines(PolicyLog::Info);
    let [decision, tried] = &shown[..] else { panic!("{shown:#?}") };
    assert!(decision.contains("\tpolicy\tpolicies allow\t"), "{decision}");
    assert!(tried.contains("\tpolicy\tdry run would deny\t"), "{tried}");
    assert!(tried.ends_with("policy=shop/tried"), "{tried}");
    assert!(tried.contains("src.identity=spiffe://cluster.local/ns/bank/sa/till"), "{tried}");
}
