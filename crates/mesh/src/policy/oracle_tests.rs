//! The semantics once more, slowly and from the text of rows P01 to P25 alone, and random
//! policies and connections about which both must agree.
//!
//! The oracle reads what people write (`*` in names, ranges as text) and shares no code
//! with the matcher. Values come from small pools, so that much is nearly equal.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;

use super::*;
use crate::Workload;

use proto::string_match::MatchType;

/// Sets of policies; each is asked about several connections.
const SETS: usize = 30_000;
const CONNECTIONS: usize = 4;

const POLICY_NAMESPACES: [&str; 3] = ["shop", "root", "shopX"];
const POLICY_NAMES: [&str; 2] = ["a", "b"];
const NAMESPACES: [&str; 4] = ["shop", "shopX", "sho", "front"];
const ACCOUNTS: [&str; 3] = ["cert-manager.io", "cert-managerXio", "web"];
const DOMAINS: [&str; 2] = ["cluster.local", "clusterXlocal"];
const PRINCIPALS: [&str; 14] = [
    "*",
    "",
    "cluster.local/ns/shop/sa/web",
    "cluster.local/ns/shop/sa/cert-manager.io",
    "clusterXlocal/ns/front/sa/web",
    "spiffe://cluster.local/ns/shop/sa/web",
    "cluster.local/*",
    "cluster.local/ns/shop*",
    "*/sa/cert-manager.io",
    "*/sa/cert-manager",
    "*web",
    "*/ns/shop*",
    "*.io",
    "CLUSTER.LOCAL/*",
];
const NAMESPACE_TEXTS: [&str; 10] =
    ["*", "", "shop", "shopX", "sho*", "*X", "*shop", "*shop*", "front", "Front"];
const PEERS: [&str; 8] = [
    "10.0.0.1:1",
    "10.0.0.2:1",
    "10.1.0.1:1",
    "[::ffff:10.0.0.1]:1",
    "[2001:db8::1]:1",
    "[fe80::1%3]:1",
    "[fe80::1]:1",
    "[::1]:1",
];
const RANGES: [&str; 14] = [
    "10.0.0.1/32",
    "10.0.0.2/32",
    "10.0.0.0/31",
    "10.0.0.77/24",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "::/0",
    "::ffff:10.0.0.1/128",
    "::ffff:10.0.0.9/120",
    "::ffff:0.0.0.0/96",
    "2001:db8::/32",
    "2001:db8::1/128",
    "fe80::/10",
    "fe80::1/128",
];
const PORTS: [u16; 3] = [80, 8080, 15008];

/// A field's values and the values that it must not have.
type Lists<T> = [Vec<T>; 2];

#[derive(Clone, Debug, Default)]
struct Match {
    namespaces: Lists<&'static str>,
    principals: Lists<&'static str>,
    /// `namespace/name`, or a name in the policy's namespace.
    accounts: Lists<String>,
    sources: Lists<&'static str>,
    destinations: Lists<&'static str>,
    ports: Lists<u16>,
    /// It also asks for something that nobody here knows.
    extended: bool,
}

#[derive(Clone, Debug)]
struct Rules {
    scope: proto::Scope,
    denies: bool,
    dry_run: bool,
    rules: Vec<Vec<Vec<Match>>>,
}

/// What was heard of policies.
#[derive(Clone, Debug, Default)]
struct Heard {
    usable: BTreeMap<String, Rules>,
    rejected: BTreeMap<String, proto::Scope>,
}

#[derive(Debug)]
struct Case {
    heard: Heard,
    /// The workload's.
    namespace: &'static str,
    listed: Vec<String>,
    unknown: UnknownPolicy,
    connection: Connection,
}

/// How often each field was asked and did not hold, or did.
#[derive(Default)]
struct Seen(BTreeMap<&'static str, [usize; 2]>);

impl Seen {
    fn note(&mut self, what: &'static str, holds: bool) -> bool {
        self.0.entry(what).or_default()[usize::from(holds)] += 1;
        holds
    }
}

/// The kind of the decision, and the policies that may be named for it.
type Verdict = (&'static str, Vec<String>);

impl Case {
    fn verdict(&self, seen: &mut Seen) -> Verdict {
        let mut applicable = Vec::new();
        for (key, rules) in &self.heard.usable {
            if self.applies(key, rules.scope, self.listed.contains(key)) && !rules.dry_run {
                applicable.push((key, rules, self.any_rule(key, rules, seen)));
            }
        }
        let denying = applicable.iter().filter(|(_, rules, matches)| rules.denies && *matches);
        let denying: Vec<String> = denying.map(|(key, ..)| (*key).clone()).collect();
        if !denying.is_empty() {
            return ("policy", denying);
        }
        let mut rejected = Vec::new();
        for (key, scope) in &self.heard.rejected {
            let selected = *scope == proto::Scope::WorkloadSelector && self.listed.contains(key);
            if self.applies(key, *scope, selected) {
                rejected.push(key.clone());
            }
        }
        if !rejected.is_empty() {
            return ("rejected", rejected);
        }
        let known = |key: &&String| self.heard.usable.contains_key(*key);
        let unknown: Vec<_> = self.listed.iter().filter(|key| !known(key)).cloned().collect();
        if !unknown.is_empty() && self.unknown == UnknownPolicy::Deny {
            return ("unknown", unknown);
        }
        let mut allowing = applicable.iter().filter(|(_, rules, _)| !rules.denies).peekable();
        if allowing.peek().is_none() {
            return ("default", Vec::new());
        }
        let allowed = allowing.any(|(_, _, matches)| *matches);
        (if allowed { "allow" } else { "not allowed" }, Vec::new())
    }

    fn applies(&self, key: &str, scope: proto::Scope, listed: bool) -> bool {
        let own = key.split('/').next() == Some(self.namespace);
        scope == proto::Scope::Global || scope == proto::Scope::Namespace && own || listed
    }

    /// Everything is evaluated, so that everything is counted.
    fn any_rule(&self, key: &str, rules: &Rules, seen: &mut Seen) -> bool {
        let mut any = false;
        for rule in &rules.rules {
            let mut all = true;
            for clause in rule {
                let mut one_holds = clause.is_empty();
                for one in clause {
                    one_holds |= self.one(key, one, rules.denies, seen);
                }
                all &= one_holds;
            }
            any |= all;
        }
        any
    }

    fn one(&self, key: &str, one: &Match, denies: bool, seen: &mut Seen) -> bool {
        if one.extended && !denies {
            return false;
        }
        let identity = self.connection.identity.as_ref().map(ToString::to_string);
        let principal = identity.as_deref().map(|it| it.strip_prefix("spiffe://").unwrap());
        let parts: Vec<&str> = principal.map_or(vec![], |it| it.split('/').collect());
        let namespace = parts.get(2).copied().unwrap_or("");
        let account = parts.get(4).map(|name| format!("{namespace}/{name}"));
        let own = key.split('/').next().unwrap();
        let full = |it: &String| if it.contains('/') { it.clone() } else { format!("{own}/{it}") };
        let (source, destination) = (self.connection.source.ip(), self.connection.destination);
        let fields = [
            field("namespaces", &one.namespaces, |it| like(it, namespace), seen),
            field("principals", &one.principals, |it| principal.is_some_and(|p| like(it, p)), seen),
            field("accounts", &one.accounts, |it| account.as_ref() == Some(&full(it)), seen),
            field("sources", &one.sources, |it| within(it, source), seen),
            field("destinations", &one.destinations, |it| within(it, destination.ip()), seen),
            field("ports", &one.ports, |it| *it == destination.port(), seen),
        ];
        let given: Vec<bool> = fields.into_iter().flatten().collect();
        !given.is_empty() && !given.contains(&false)
    }
}

/// `None` where nothing is asked for.
fn field<T>(
    name: &'static str,
    [any_of, none_of]: &Lists<T>,
    is: impl Fn(&T) -> bool,
    seen: &mut Seen,
) -> Option<bool> {
    let negated = |name| match name {
        "namespaces" => "not namespaces",
        "principals" => "not principals",
        "accounts" => "not accounts",
        "sources" => "not sources",
        "destinations" => "not destinations",
        _ => "not ports",
    };
    let hits = |list: &[T]| list.iter().filter(|it| is(it)).count();
    let mut answer = None;
    if !any_of.is_empty() {
        answer = Some(seen.note(name, hits(any_of) > 0));
    }
    if !none_of.is_empty() {
        let holds = seen.note(negated(name), hits(none_of) == 0);
        answer = Some(answer.unwrap_or(true) && holds);
    }
    answer
}

/// P12, of what people write.
fn like(pattern: &str, value: &str) -> bool {
    let (pattern, value): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), value.chars().collect());
    match (&pattern[..], pattern.len()) {
        (['*'], _) => !value.is_empty(),
        (['*', end @ ..], n) => value.len() + 1 >= n && value[value.len() + 1 - n..] == *end,
        ([start @ .., '*'], n) => value.len() + 1 >= n && value[..n - 1] == *start,
        (all, _) => value == all,
    }
}

/// As many digits of the address as the length says are those of the range.
fn within(range: &str, ip: IpAddr) -> bool {
    let (net, length) = range.split_once('/').unwrap();
    let (net, mut length) = (net.parse::<IpAddr>().unwrap(), length.parse::<usize>().unwrap());
    let (of_net, of_ip) = (digits(net), digits(ip));
    if net.is_ipv6() && of_net.len() == 32 {
        length -= 96;
    }
    of_net.len() == of_ip.len() && of_net[..length] == of_ip[..length]
}

fn digits(ip: IpAddr) -> String {
    let text: String = match ip {
        IpAddr::V4(v4) => v4.octets().iter().map(|it| format!("{it:08b}")).collect(),
        IpAddr::V6(v6) => v6.octets().iter().map(|it| format!("{it:08b}")).collect(),
    };
    let mapped = format!("{}{}", "0".repeat(80), "1".repeat(16));
    text.strip_prefix(&mapped).filter(|rest| rest.len() == 32).map_or(text.clone(), str::to_owned)
}

fn message(key: &str, rules: &Rules) -> proto::Authorization {
    let (namespace, name) = key.split_once('/').unwrap();
    let clause = |matches: &Vec<Match>| proto::Clause {
        matches: matches.iter().map(match_message).collect(),
    };
    let rule =
        |clauses: &Vec<Vec<Match>>| proto::Rule { clauses: clauses.iter().map(clause).collect() };
    proto::Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: rules.scope as i32,
        action: i32::from(rules.denies),
        dry_run: rules.dry_run,
        rules: rules.rules.iter().map(rule).collect(),
        ..Default::default()
    }
}

fn match_message(one: &Match) -> proto::Match {
    let texts = |list: &Vec<&str>| list.iter().map(|it| text_message(it)).collect();
    let ranges = |list: &Vec<&str>| list.iter().map(|it| range_message(it)).collect();
    let ports = |list: &Vec<u16>| list.iter().map(|it| u32::from(*it)).collect();
    let accounts = |list: &Vec<String>| list.iter().map(|it| account_message(it)).collect();
    let unknown = proto::Extension { name: "unknown".into(), config: None };
    proto::Match {
        namespaces: texts(&one.namespaces[0]),
        not_namespaces: texts(&one.namespaces[1]),
        principals: texts(&one.principals[0]),
        not_principals: texts(&one.principals[1]),
        service_accounts: accounts(&one.accounts[0]),
        not_service_accounts: accounts(&one.accounts[1]),
        source_ips: ranges(&one.sources[0]),
        not_source_ips: ranges(&one.sources[1]),
        destination_ips: ranges(&one.destinations[0]),
        not_destination_ips: ranges(&one.destinations[1]),
        destination_ports: ports(&one.ports[0]),
        not_destination_ports: ports(&one.ports[1]),
        extensions: one.extended.then_some(unknown).into_iter().collect(),
    }
}

/// As a control plane translates it.
fn text_message(pattern: &str) -> proto::StringMatch {
    let kind = if pattern == "*" {
        MatchType::Presence(proto::Empty {})
    } else if let Some(rest) = pattern.strip_prefix('*') {
        MatchType::Suffix(rest.into())
    } else if let Some(rest) = pattern.strip_suffix('*') {
        MatchType::Prefix(rest.into())
    } else {
        MatchType::Exact(pattern.into())
    };
    proto::StringMatch { match_type: Some(kind) }
}

fn range_message(range: &str) -> proto::Address {
    let (ip, length) = range.split_once('/').unwrap();
    let address = match ip.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    proto::Address { address, length: length.parse().unwrap() }
}

fn account_message(account: &str) -> proto::ServiceAccountMatch {
    let (namespace, name) = account.split_once('/').unwrap_or(("", account));
    proto::ServiceAccountMatch { namespace: namespace.into(), service_account: name.into() }
}

/// Where random values come from.
struct Dice(Rng);

impl Dice {
    fn pick<T: Clone>(&mut self, pool: &[T]) -> T {
        self.0.choice(pool).unwrap().clone()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.0.usize(..n) == 0
    }

    fn some<T>(&mut self, counts: &[usize], mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.pick(counts);
        (0..count).map(|_| make(self)).collect()
    }

    fn lists<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Lists<T> {
        if !self.one_in(4) {
            return [vec![], vec![]];
        }
        [self.some(&[0, 1, 2, 3], &mut make), self.some(&[0, 0, 1, 2], &mut make)]
    }

    fn key(&mut self) -> String {
        format!("{}/{}", self.pick(&POLICY_NAMESPACES), self.pick(&POLICY_NAMES))
    }

    fn account(&mut self) -> String {
        let name = self.pick(&ACCOUNTS);
        if self.one_in(3) { name.into() } else { format!("{}/{name}", self.pick(&NAMESPACES)) }
    }

    fn one_match(&mut self) -> Match {
        Match {
            namespaces: self.lists(|dice| dice.pick(&NAMESPACE_TEXTS)),
            principals: self.lists(|dice| dice.pick(&PRINCIPALS)),
            accounts: self.lists(Self::account),
            sources: self.lists(|dice| dice.pick(&RANGES)),
            destinations: self.lists(|dice| dice.pick(&RANGES)),
            ports: self.lists(|dice| dice.pick(&PORTS)),
            extended: self.one_in(16),
        }
    }

    fn rules(&mut self) -> Rules {
        use proto::Scope::{Global, Namespace, WorkloadSelector};
        Rules {
            scope: self.pick(&[Global, Namespace, WorkloadSelector]),
            denies: self.one_in(3),
            dry_run: self.one_in(8),
            rules: self.some(&[0, 1, 1, 2], |dice| {
                dice.some(&[0, 1, 1, 1, 2], |dice| dice.some(&[0, 1, 1, 2], Self::one_match))
            }),
        }
    }

    /// Policies come, change, go, and come in forms that cannot be used.
    fn policies(&mut self) -> (Heard, PolicySet) {
        let (mut heard, mut set) = (Heard::default(), PolicySet::default());
        for _ in 0..self.0.usize(0..6) {
            let (key, rules) = (self.key(), self.rules());
            let name = PolicyKey::parse(&key).unwrap();
            match self.0.usize(..12) {
                0 => {
                    set.remove(&name);
                    heard.usable.remove(&key);
                    heard.rejected.remove(&key);
                }
                1 => {
                    set.reject(name, Scope::parse(rules.scope as i32).unwrap());
                    if !heard.usable.contains_key(&key) {
                        heard.rejected.insert(key, rules.scope);
                    }
                }
                _ => {
                    set.insert(Policy::try_from(message(&key, &rules)).unwrap());
                    heard.rejected.remove(&key);
                    heard.usable.insert(key, rules);
                }
            }
        }
        (heard, set)
    }

    fn connection(&mut self) -> Connection {
        let identity = (!self.one_in(4)).then(|| {
            let (domain, namespace) = (self.pick(&DOMAINS), self.pick(&NAMESPACES));
            Identity::new(domain, namespace, self.pick(&ACCOUNTS)).unwrap()
        });
        let source = self.pick(&PEERS).parse().unwrap();
        let mut destination: SocketAddr = self.pick(&PEERS).parse().unwrap();
        destination.set_port(self.pick(&PORTS));
        Connection { source, identity, destination }
    }
}

fn kind(decision: &Decision) -> (&'static str, Option<String>) {
    match decision {
        Decision::Allow => ("allow", None),
        Decision::Deny(Denial::Policy(key)) => ("policy", Some(key.to_string())),
        Decision::Deny(Denial::Rejected(key)) => ("rejected", Some(key.to_string())),
        Decision::Deny(Denial::Unknown(key)) => ("unknown", Some(key.to_string())),
        Decision::Deny(Denial::NotAllowed) => ("not allowed", None),
    }
}

/// Runs the cases of a seed; gives how often each verdict and each field came out.
fn agree(seed: u64, sets: usize) -> Seen {
    let (mut dice, mut seen) = (Dice(Rng::with_seed(seed)), Seen::default());
    for _ in 0..sets {
        let (heard, set) = dice.policies();
        let (namespace, listed) =
            (dice.pick(&NAMESPACES), dice.some(&[0, 0, 0, 0, 1, 2], Dice::key));
        let identity = Identity::new("", namespace, "web").unwrap();
        let workload = Workload::new("u", namespace, "w", identity).with(|it| {
            it.policies = listed.iter().map(|key| PolicyKey::parse(key).unwrap()).collect();
        });
        for _ in 0..CONNECTIONS {
            let (heard, listed) = (heard.clone(), listed.clone());
            let unknown = dice.pick(&[UnknownPolicy::Deny, UnknownPolicy::Skip]);
            let case = Case { heard, namespace, listed, unknown, connection: dice.connection() };
            let (expected, names) = case.verdict(&mut seen);
            seen.note(expected, true);
            let (found, name) = kind(&set.decide(&workload, &case.connection, unknown));
            let same = found == expected || (found, expected) == ("allow", "default");
            let named = name.is_none_or(|name| names.contains(&name));
            assert!(same && named, "seed {seed}: {found}, not {expected} by {names:?}: {case:#?}");
        }
    }
    seen
}

#[test]
fn p01_to_p25_the_matcher_agrees_with_the_rows_read_slowly() {
    let Seen(seen) = agree(1, SETS);
    for verdict in ["allow", "default", "not allowed", "policy", "rejected", "unknown"] {
        assert!(seen[verdict][1] > SETS / 20, "{verdict} is rare: {seen:?}");
    }
    let fields: Vec<_> = seen.iter().filter(|(_, [failed, _])| *failed > 0).collect();
    assert_eq!(fields.len(), 12, "six fields and their negations: {seen:?}");
    for (field, counts) in fields {
        assert!(counts.iter().all(|it| *it > SETS / 40), "{field} is rare: {seen:?}");
    }
}

#[test]
fn p01_to_p25_they_agree_whatever_the_seed() {
    agree(fastrand::u64(..), SETS / 10);
}
