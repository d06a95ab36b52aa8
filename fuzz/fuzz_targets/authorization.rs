#![no_main]
//! Policies and connections: what one more policy may change, and what it may not.

use std::net::{IpAddr, SocketAddr};

use arbitrary::Arbitrary;
use fuzz::mesh_parts::{Authorization, Text};
use libfuzzer_sys::fuzz_target;
use mesh::{Action, Connection, Decision, Enforcement, Identity, Policy, View, Workload};

#[derive(Debug, Arbitrary)]
struct Input {
    policies: Vec<Authorization>,
    more: Authorization,
    client: Option<(Text, Text, Text)>,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    listed: Vec<Text>,
}

fuzz_target!(|input: Input| {
    let Input { policies, more, client, source, destination, listed } = input;
    let mut view = View::default();
    let parsed = policies.iter().filter_map(|it| Policy::try_from(it.message()).ok());
    parsed.for_each(|policy| view.insert_policy(policy));
    let identity = client.and_then(|(domain, namespace, account)| {
        Identity::new(&domain.string(), &namespace.string(), &account.string()).ok()
    });
    let (source, destination) = (SocketAddr::from(source), SocketAddr::from(destination));
    let connection = Connection { source, identity, destination };
    let own = Identity::new("", "shop", "cart").expect("well formed");
    let listed = listed.iter().filter_map(|text| mesh::PolicyKey::parse(&text.string()));
    let workload =
        Workload::new("u", "shop", "cart", own).with(|it| it.policies = listed.collect());
    let before = view.authorize(&workload, &connection);

    let known = |view: &View, policy: &Policy| view.policies().any(|it| it.key() == policy.key());
    let is_listed = |policy: &Policy| workload.policies.contains(policy.key());
    let Ok(policy) = Policy::try_from(more.clone().message()) else { return };
    if known(&view, &policy) {
        return;
    }
    // Not listed: else its coming ends the denial for its absence.
    if !is_listed(&policy) {
        if let Ok(dry) = Policy::try_from(more.dry().message()) {
            let mut other = view.clone();
            other.insert_policy(dry);
            assert_eq!(other.authorize(&workload, &connection), before, "a dry run decided");
        }
        let mut other = view.clone();
        let key = policy.key().clone();
        let (action, enforcement) = (policy.action(), policy.enforcement());
        let matches = policy.matches(&connection);
        other.insert_policy(policy);
        let applies = other.applicable_policies(&workload).any(|it| *it.key() == key);
        let after = other.authorize(&workload, &connection);
        match (action, enforcement) {
            _ if !applies => assert_eq!(after, before),
            (_, Enforcement::DryRun) => assert_eq!(after, before),
            (Action::Deny, _) if matches => assert_ne!(after, Decision::Allow),
            (Action::Deny, _) => assert_eq!(after, before),
            (Action::Allow, _) if !matches => {
                assert!(after != Decision::Allow || before == Decision::Allow);
            }
            (Action::Allow, _) => {}
        }
        other.remove_policy(&key);
        assert_eq!(other.authorize(&workload, &connection), before, "something was left");
    }
});
